"""The one schema of every setting: what `params.yaml`, `--config` files, presets and flags may say.

Each section is a frozen dataclass-like model; a key that stands here is read by the section's package and changes
something a test can see. `resolve` (see `model.config.resolution`) merges the layers into one `Config`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ModelSize = Literal["xtiny", "tiny", "small", "normal", "big"]
OptimizationLevel = Literal["basic", "enhanced", "experimental", "plateau_breaker"]

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of every section: immutable, unknown keys refused, values checked once."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class CorpusConfig(Section):
    """Where speech comes from: the `ingest` stage."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "generated"
    """Names the corpus in reports, experiments and the registry."""
    format: Literal["generated", "ljspeech"] = "generated"
    """`generated` speaks sentences with a synthesiser; `ljspeech` reads `metadata.csv` + `wavs/`."""
    path: str = ""
    """Folder of a recorded corpus; for `generated`, of the lists `sentences_<language>.txt` (empty: those shipped)."""
    language: str = "en"
    """Language of a recorded corpus (espeak-ng voice name)."""
    speaker: str = "speaker"
    """Speaker name of a single-speaker corpus."""
    engine: Literal["auto", "espeak", "flite"] = "auto"
    """Speaks the generated English: `auto` takes flite where installed, else espeak-ng. Persian is espeak-ng's."""
    english_voices: Positive = 2
    """Generated English voices (flite: slt, rms, awb, kal16 in that order)."""
    persian_voices: Annotated[int, Field(ge=0)] = 1
    """Generated Persian voices."""
    sentences_per_voice: Positive = 90
    """Generated sentences of each voice."""


class ValidationConfig(Section):
    """What a clip must satisfy: the `validate` stage. Times in seconds."""

    min_seconds: Annotated[float, Field(gt=0)] = 0.5
    max_seconds: Annotated[float, Field(gt=0)] = 15.0
    """Longer clips are set aside, never cut: a cut clip would keep its whole text."""
    min_sample_rate: Positive = 16000
    """A source below this rate has no content where the mel bands are."""
    min_characters_per_second: float = 4.0
    max_characters_per_second: float = 30.0
    max_clipped_share: Share = 0.001
    """Share of samples at full scale."""
    min_level_db: float = -45.0
    """Quieter clips (root mean square, dB full scale) count as silent."""
    tolerated_bad_share: Share = 0.05
    """A larger share of bad clips stops the run."""


class SplitConfig(Section):
    """Which clips are held out: the `split` stage. Assignment is by hash, so added data keeps old clips in place."""

    validation_share: Share = 0.06
    test_share: Share = 0.06
    min_held_out: Positive = 4
    """Least number of clips in each held-out split."""


class AudioConfig(Section):
    """The one mel extractor (HiFi-GAN convention). Its hash travels with features, checkpoints and vocoders."""

    sample_rate: Positive = 22050
    n_fft: Positive = 1024
    hop_length: Positive = 256
    win_length: Positive = 1024
    n_mels: Positive = 80
    fmin: Annotated[float, Field(ge=0)] = 0.0
    fmax: Annotated[float, Field(gt=0)] = 8000.0

    @model_validator(mode="after")
    def _consistent(self) -> AudioConfig:
        if self.win_length > self.n_fft:
            raise ValueError(
                f"audio.win_length ({self.win_length}) is longer than audio.n_fft ({self.n_fft}); lower it"
            )
        if self.fmax > self.sample_rate / 2:
            raise ValueError(
                f"audio.fmax ({self.fmax}) is above half of audio.sample_rate ({self.sample_rate}); lower it"
            )
        if self.fmin >= self.fmax:
            raise ValueError(f"audio.fmin ({self.fmin}) is not below audio.fmax ({self.fmax})")
        return self


class FeaturesConfig(Section):
    """Corpus to shards: pitch search range, speaker vectors, shard size."""

    pitch_fmin: Annotated[float, Field(gt=0)] = 60.0
    pitch_fmax: Annotated[float, Field(gt=0)] = 500.0
    """Search range of the fundamental frequency in Hz."""
    trim_silence_db: Annotated[float, Field(ge=0)] = 40.0
    """Leading and trailing silence more than this below the peak is trimmed to `trim_margin`; 0 keeps it."""
    trim_margin: Annotated[float, Field(ge=0)] = 0.08
    """Seconds of silence kept at each end."""
    speaker_encoder_model: Literal["resemblyzer"] = "resemblyzer"
    """Pretrained speaker encoder whose vectors condition the model."""
    shard_megabytes: Positive = 256
    """A shard is closed once it holds this much."""


class ModelConfig(Section):
    """Widths of the acoustic model; the presets of `sizes.yaml` fill them per `model_size`."""

    hidden_dim: Positive = 128
    num_heads: Positive = 2
    ffn_dim: Positive = 512
    encoder_layers: Positive = 3
    decoder_layers: Positive = 3
    frames_per_step: Annotated[int, Field(ge=1, le=4)] = 1
    """Mel frames that one decoder position makes; 2 halves the decoder's work (the reduction factor of Tacotron)."""
    kernel_size: Positive = 3
    """Kernel of the first convolution of each feed-forward block (odd)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    predictor_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout in the duration, pitch and energy predictors, which know minutes of speech by heart first of all."""
    aligner_dim: Positive = 80
    """Width of the space where text meets mel in the aligner."""
    aligner_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout on what the aligner sees of mel and text."""
    use_duration_predictor: Literal[True] = True
    """A parallel model speaks through its duration predictor: it cannot be switched off."""
    duration_predictor_layers: Positive = 3
    duration_predictor_hidden_dim: Positive = 256
    prosody_predictor_hidden_dim: Positive = 128
    enable_prosody_prediction: bool = True
    """Pitch and energy predictors and their embeddings."""
    speaker_embedding_dim: Literal[256] = 256
    """Width of the speaker vector the model is conditioned on."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                f"model.hidden_dim ({self.hidden_dim}) must be a multiple of 2 x model.num_heads ({self.num_heads}): "
                "rotary position embeddings turn pairs of channels in every head"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"model.kernel_size ({self.kernel_size}) must be odd to keep the length")
        return self


class LossConfig(Section):
    """Weights of the loss terms, and the schedules of the alignment terms (shares of `training.max_steps`)."""

    mel_loss_weight: Annotated[float, Field(gt=0)] = 2.5
    duration_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    pitch_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    energy_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    forward_sum_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    binarization_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    binarization_start: Share = 0.3
    """Share of training before the soft alignment is pulled towards the hard one. At 0.1, sentences of seven seconds
    froze in a wrong alignment (held-out forward-sum 0.89 after 400 steps, 0.71 without the pull)."""
    binarization_end: Share = 0.5
    """Share of training at which the binarisation weight is full."""
    forward_sum_blank_logprob: float = -1.0
    """Log-score of the blank column; -1 is the published, softer form, -1e4 the exact HMM likelihood."""
    allow_dangerous: bool = False
    """Accept loss weights from the ranges that the checklist calls dangerous."""


class TrainingConfig(Section):
    """The loop: budget, optimiser, schedule, clipping, averaging, checkpoints."""

    max_steps: Positive = 1200
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    aligner_learning_rate_scale: Annotated[float, Field(gt=0)] = 2.0
    """Factor on the rate of the aligner: everything else waits for its durations."""
    learning_rate_schedule: Literal["constant", "cosine", "cosine_restarts"] = "cosine"
    """After the linear warm-up: flat, one cosine to `final_learning_rate_ratio`, or four cosines."""
    final_learning_rate_ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    gradient_clip_norm: Annotated[float, Field(gt=0)] = 0.5
    gradient_clip_value: Annotated[float, Field(gt=0)] = 1.0
    """Each gradient element is clipped first, then the norm of the whole."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the averaged weights that are validated and exported; 0 uses the raw weights."""
    use_mixed_precision: bool = False
    """bfloat16 autocast with float32 islands (aligner, durations, losses), where the processor computes in it."""
    evaluation_interval: Positive = 200
    """Steps between validations; a scored checkpoint is written at each."""
    checkpoint_interval: Positive = 100
    """Steps between the unscored checkpoints that bound what a crash can lose."""
    keep_top_k: Positive = 2
    """Best checkpoints kept besides the last one."""
    exported_checkpoint: Literal["last", "best"] = "last"
    """Which weights become the voice. On minutes of speech the held-out mel error is lowest at two thirds of the way,
    while the speech goes on getting clearer: on 5.5 minutes the character error of training sentences fell from 0.20 at
    the best checkpoint to 0.15 at the last, that of unseen ones stayed at 0.30."""
    log_interval: Positive = 20
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads; 0 means one per physical core, less one that is left to everything else."""
    max_skipped_steps: Positive = 20
    """Training stops with a report after this many non-finite steps in a row."""


class VocoderConfig(Section):
    """Mel to waveform."""

    type: Literal["griffin_lim"] = "griffin_lim"
    griffin_lim_iterations: Positive = 60
    griffin_lim_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99


class EvaluationConfig(Section):
    """What is measured after training."""

    max_clips: Positive = 12
    """Held-out and training clips measured of each split."""
    recognizer: Literal["pocketsphinx", "none"] = "pocketsphinx"
    """Offline recogniser of the character error rate (English only)."""


class RegistryConfig(Section):
    """The registered model and the gate before promotion. Every threshold compares like with like (see docs)."""

    name: str = "myxtts-{corpus}-{size}"
    max_mel_cepstral_distortion: Annotated[float, Field(gt=0)] = 12.0
    """Gate: MCD (dB, DTW-aligned) on held-out sentences."""
    max_character_error_increase: Annotated[float, Field(gt=0)] = 0.35
    """Gate: CER of synthesised held-out sentences minus CER of their recordings."""
    min_alignment_monotonicity: Share = 0.8
    """Gate: share of frames whose likeliest token is that of the frame before or the one or two after it."""
    max_regression: Annotated[float, Field(ge=0)] = 0.02
    """Gate: relative loss against the champion on its primary measure that is still accepted."""


class StudyConfig(Section):
    """Hyperparameter studies: budget of one trial and the pruner."""

    trials: Positive = 12
    max_steps: Positive = 300
    """Optimiser steps of one trial at the largest batch of the size; smaller batches get more (equal samples)."""
    pruner_startup_trials: Annotated[int, Field(ge=0)] = 3
    pruner_warmup_evaluations: Annotated[int, Field(ge=0)] = 1


class Config(Section):
    """Every setting of the system."""

    model_size: ModelSize = "tiny"
    optimization_level: OptimizationLevel = "enhanced"
    seed: Annotated[int, Field(ge=0)] = 1234
    corpus: CorpusConfig = CorpusConfig()
    validation: ValidationConfig = ValidationConfig()
    split: SplitConfig = SplitConfig()
    audio: AudioConfig = AudioConfig()
    features: FeaturesConfig = FeaturesConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    vocoder: VocoderConfig = VocoderConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    registry: RegistryConfig = RegistryConfig()
    study: StudyConfig = StudyConfig()
