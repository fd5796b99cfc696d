"""The smallest whole run: settings of a pipeline that makes its corpus, trains a few steps and registers a voice."""

from components.gate.comparison import COMPARED

SETTINGS = {
    "model_size": "xtiny",
    "corpus.name": "toy",
    "corpus.engine": "espeak",
    "corpus.english_voices": 1,
    "corpus.sentences_per_voice": 5,
    "split.min_held_out": 1,
    "training.max_steps": 8,
    "training.evaluation_interval": 8,
    "evaluation.max_clips": 2,
    "evaluation.recognizer": "none",
    "vocoder.griffin_lim_iterations": 2,
    "registry.max_mel_cepstral_distortion": 99,
    "registry.min_alignment_monotonicity": 0,
    "registry.min_sentences": 2,
    **{f"registry.{metric}_margin": 9999 for metric in COMPARED},
}
