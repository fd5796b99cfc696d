"""Compares vocoders on the mels of recordings: intelligibility, quality and speed, with 95 % bootstrap intervals.

Every eighth recording of a folder in the layout of LJ Speech is held out and vocoded from its own mel, or, with
`--voice`, from the mel that a voice predicts for its text, or for each line of `--texts`. Printed are the character
error rate of the recognizer, PESQ (for recordings), the overall score of DNSMOS (where `speechmos` is installed), the
log-mel distance and times real time (processor time of one thread). Vocoders are `griffin_lim:<iterations>`,
`continued:<iterations>` (Griffin-Lim from continued phases), the folder of a vocoder, or
`<folder>:<refinement iterations>` of a Vocos.

    pip install 'myxtts[evaluate,quality]'
    python -m benchmarks.copy_synthesis kathleen griffin_lim:60 continued:8 base/vocoder
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from model.audio.io import read_audio, resample
from model.audio.mel import MelExtractor
from model.audio.trimming import trim_and_gain, trim_and_normalize
from model.config.data import AudioConfig, FeaturesConfig
from model.config.vocoder import VocoderConfig
from model.evaluation import recognizer
from model.synthesis import Synthesizer
from model.vocoder import NeuralVocoder, Vocoder, build_vocoder
from model.vocoder.folder import read_vocoder
from model.vocoder_training.perceptual import wide_band_pesq

AUDIO = AudioConfig()
COLUMNS = ("CER", "PESQ", "DNSMOS", "mel distance")
HELD_OUT = 8
"""Number of recordings of which one is held out."""
RESAMPLES = 2000
"""Bootstrap resamples of an interval."""


@dataclass(frozen=True)
class Clip:
    """Text and log-mel (S, M) of a clip, and the samples (S * hop,) of its recording, None for a predicted mel."""

    text: str
    mel: np.ndarray
    samples: np.ndarray | None


@dataclass
class Scores:
    """Scores of a vocoder.

    Attributes:
        values: Score -> its value on each clip.
        seconds: Processor time of the synthesis.
    """

    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    seconds: float = 0.0


def held_out_clips(folder: Path) -> list[Clip]:
    """Returns every eighth recording of a folder with `metadata.csv` and `wavs`."""
    extractor, settings, clips = MelExtractor(AUDIO), FeaturesConfig(), []
    for row in sorted((folder / "metadata.csv").read_text("utf-8").splitlines())[::HELD_OUT]:
        name, text = row.split("|")[:2]
        samples = read_audio(folder / "wavs" / f"{name}.wav", AUDIO.sample_rate)
        samples = trim_and_normalize(samples, *trim_and_gain(samples, AUDIO.sample_rate, settings))
        mel = extractor.numpy(samples)
        clips.append(Clip(text, mel, samples[: len(mel) * AUDIO.hop_length]))
    return clips


def predicted_clips(voice: Path, texts: list[str]) -> list[Clip]:
    """Returns the mels that a voice predicts for texts."""
    synthesizer = Synthesizer(voice)
    synthesizer.vocoder = vocoder_of("continued:1")  # not heard
    return [Clip(text, synthesizer.synthesize(text, "en").mel, None) for text in texts]


def vocoder_of(name: str) -> Vocoder:
    """Returns the vocoder that an argument names."""
    kind, _, iterations = name.rpartition(":")
    if kind in ("griffin_lim", "continued"):
        start = "random" if kind == "griffin_lim" else "continued"
        settings = VocoderConfig.model_validate({"griffin_lim_start": start, "griffin_lim_iterations": iterations})
        return build_vocoder(settings, AUDIO)
    weights = read_vocoder(Path(kind or name), AUDIO)
    refinement = int(iterations) if kind else None
    return NeuralVocoder.from_weights(
        weights, VocoderConfig.model_validate({"type": weights.kind, "refinement_iterations": refinement})
    )


def evaluate(name: str, clips: list[Clip]) -> Scores:
    """Returns the scores of a vocoder, or of the recordings themselves where the name is `recordings`."""
    scores, extractor = Scores(), MelExtractor(AUDIO)
    vocoder = None if name == "recordings" else vocoder_of(name)
    if vocoder:
        vocoder(clips[0].mel)  # warm-up
    for clip in clips:
        start = time.process_time()
        samples = vocoder(clip.mel) if vocoder else clip.samples
        scores.seconds += time.process_time() - start
        assert samples is not None
        heard = resample(samples, AUDIO.sample_rate, recognizer.SAMPLE_RATE)
        scores.values["CER"].append(recognizer.character_error(clip.text, recognizer.transcribe(heard)))
        if clip.samples is not None:
            scores.values["PESQ"].append(wide_band_pesq(samples, clip.samples, AUDIO.sample_rate))
        if importlib.util.find_spec("speechmos"):
            scores.values["DNSMOS"].append(overall_dnsmos(heard))
        scores.values["mel distance"].append(float(np.abs(extractor.numpy(samples) - clip.mel).mean()))
    return scores


def overall_dnsmos(samples: np.ndarray) -> float:
    """Returns the overall score of DNSMOS P.835 (arXiv:2110.01763), 1 to 5, of samples (N,) at 16 kHz."""
    from speechmos import dnsmos

    return float(dnsmos.run(np.clip(samples, -1.0, 1.0), sr=recognizer.SAMPLE_RATE)["ovrl_mos"])


def interval(values: list[float]) -> str:
    """Returns the mean and its 95 % bootstrap interval, or a dash where there are no values."""
    if not values:
        return "-"
    generator = np.random.default_rng(0)
    means = generator.choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Prints a row for the recordings and for each vocoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("vocoders", nargs="+")
    parser.add_argument("--voice", type=Path, help="Folder of a voice that predicts the mels.")
    parser.add_argument("--texts", type=Path, help="With --voice: a text in each line, instead of the recordings'.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = held_out_clips(arguments.recordings)
    names = ["recordings", *arguments.vocoders]
    if arguments.voice:
        texts = arguments.texts.read_text("utf-8").splitlines() if arguments.texts else [clip.text for clip in clips]
        clips, names = predicted_clips(arguments.voice, texts), arguments.vocoders
    speech = sum(len(clip.mel) for clip in clips) * AUDIO.hop_length / AUDIO.sample_rate
    print(f"{len(clips)} clips, {speech:.1f} s of speech")
    print(f"{'vocoder':<32}" + "".join(f"{name:>24}" for name in COLUMNS) + f"{'x real time':>14}")
    for name in names:
        scores = evaluate(name, clips)
        speed = speech / scores.seconds if scores.seconds > 1e-3 else float("nan")
        columns = (interval(scores.values[column]) for column in COLUMNS)
        print(f"{name[-31:]:<32}" + "".join(f"{column:>24}" for column in columns) + f"{speed:>14.0f}", flush=True)


if __name__ == "__main__":
    main()
