"""Measures the effect of pitch, energy and speed controls of a trained voice on unseen sentences.

Each control is changed alone, and its effect is measured on the waveform against the unchanged sentence: median F0,
level of the louder frames, and length.

    python -m benchmarks.controls --voice <training>/voice --features <features> --sentences 8
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from model.audio.pitch import track_pitch
from model.features.store import FeatureStore
from model.synthesis import ProsodyControls, Speech, Synthesizer

FACTOR = 1.2


def unseen_sentences(store: FeatureStore, language: str, count: int) -> list[str]:
    """Returns the first texts of held-out clips in a language that occur in no training clip."""
    trained = {store.clips[position].text for position in store.split("train")}
    held_out = (store.clips[position] for position in store.split("validation") + store.split("test"))
    texts = (clip.text for clip in held_out if clip.language == language)
    return list(dict.fromkeys(text for text in texts if text not in trained))[:count]


def measure_controls(voice: Synthesizer, requests: list[tuple[str, str]], factor: float) -> dict[str, list[float]]:
    """Returns the measured change of each control, sentence by sentence.

    Args:
        voice: A trained voice.
        requests: (speaker, text) in the speaker's own language.
        factor: Value of `pitch_scale`, `energy_scale` and `speed` in turn.

    Returns:
        `pitch` and `energy`: factors of median F0 and of the level; `speed`: original length over new length.
    """
    audio, features = voice.config.audio, voice.config.features

    def pitch(speech: Speech) -> float:
        f0 = track_pitch(speech.samples, audio, features)
        return float(np.median(f0[f0 > 0]))

    def level(speech: Speech) -> float:
        frames = speech.samples[: len(speech.samples) // audio.hop_length * audio.hop_length]
        loudness = np.sqrt(np.square(frames.reshape(-1, audio.hop_length)).mean(1))
        return float(np.exp(np.log(loudness[loudness > np.quantile(loudness, 0.4)]).mean()))

    measurements: dict[str, tuple[str, Callable[[Speech], float]]] = {
        "pitch": ("pitch_scale", pitch),
        "energy": ("energy_scale", level),
        "speed": ("speed", lambda speech: 1 / len(speech.samples)),
    }
    changes: dict[str, list[float]] = {name: [] for name in measurements}
    for speaker, text in requests:
        plain = voice.synthesize(text, speaker=speaker)
        for name, (control, measure) in measurements.items():
            changed = voice.synthesize(text, speaker=speaker, prosody=ProsodyControls(**{control: factor}))
            changes[name].append(measure(changed) / measure(plain))
    return changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voice", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="Feature store of its training.")
    parser.add_argument("--sentences", type=int, default=8, help="Sentences per language.")
    parser.add_argument("--factors", type=float, nargs="*", default=[FACTOR, 1 / FACTOR])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    voice, store = Synthesizer(arguments.voice), FeatureStore(arguments.features)
    requests = []
    for language in voice.languages:
        speakers = [name for name, own in voice.voice.speaker_languages.items() if own == language]
        texts = unseen_sentences(store, language, arguments.sentences)
        requests += [(speakers[i % len(speakers)], text) for i, text in enumerate(texts)]
    results = {}
    for factor in arguments.factors:
        changes = measure_controls(voice, requests, factor)
        results[f"{factor:.3f}"] = {
            name: {"mean": float(np.mean(each)), "min": min(each), "max": max(each)} for name, each in changes.items()
        }
    if arguments.json:
        print(json.dumps({"sentences": len(requests), "requested": results}, indent=1))
        return
    print(f"{len(requests)} sentences")
    for factor, each in results.items():
        for name, values in each.items():
            print(f"requested {factor}  {name:6} " + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
