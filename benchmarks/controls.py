"""Whether a trained voice obeys: pitch, energy and speed on sentences that it was not trained on.

Each control is asked for alone, and its effect is measured on the waveform against the plain sentence: median F0, level
of the louder frames, and length.

    python benchmarks/controls.py --voice <training>/voice --features <features> --sentences 8
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
    """Texts of held-out clips in a language that no training clip says; the first of them."""
    trained = {store.clips[position].text for position in store.split("train")}
    held_out = (store.clips[position] for position in store.split("validation") + store.split("test"))
    texts = (clip.text for clip in held_out if clip.language == language)
    return list(dict.fromkeys(text for text in texts if text not in trained))[:count]


def controls(voice: Synthesizer, requests: list[tuple[str, str]], factor: float) -> dict[str, list[float]]:
    """What each control changed, sentence by sentence, when asked for `factor`.

    Args:
        voice: A trained voice.
        requests: (speaker, text) in the speaker's own language.
        factor: Asked of `pitch_scale`, `energy_scale` and `speed` in turn.

    Returns:
        `pitch`, `energy`: factors on median F0 and on the level; `speed`: length before over length after.
    """
    audio, features = voice.config.audio, voice.config.features

    def pitch(speech: Speech) -> float:
        f0 = track_pitch(speech.samples, audio, features)
        return float(np.median(f0[f0 > 0]))

    def level(speech: Speech) -> float:
        frames = speech.samples[: len(speech.samples) // audio.hop_length * audio.hop_length]
        loudness = np.sqrt(np.square(frames.reshape(-1, audio.hop_length)).mean(1))
        return float(np.exp(np.log(loudness[loudness > np.quantile(loudness, 0.4)]).mean()))

    asked: dict[str, tuple[str, Callable[[Speech], float]]] = {
        "pitch": ("pitch_scale", pitch),
        "energy": ("energy_scale", level),
        "speed": ("speed", lambda speech: 1 / len(speech.samples)),
    }
    measured: dict[str, list[float]] = {name: [] for name in asked}
    for speaker, text in requests:
        plain = voice.synthesize(text, speaker=speaker)
        for name, (control, measure) in asked.items():
            changed = voice.synthesize(text, speaker=speaker, prosody=ProsodyControls(**{control: factor}))
            measured[name].append(measure(changed) / measure(plain))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voice", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="Store that it was trained on.")
    parser.add_argument("--sentences", type=int, default=8, help="Of each language.")
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
    found = {}
    for factor in arguments.factors:
        measured = controls(voice, requests, factor)
        found[f"{factor:.3f}"] = {
            name: {"mean": float(np.mean(each)), "least": min(each), "most": max(each)}
            for name, each in measured.items()
        }
    if arguments.json:
        print(json.dumps({"sentences": len(requests), "asked": found}, indent=1))
        return
    print(f"{len(requests)} sentences")
    for factor, each in found.items():
        for name, values in each.items():
            print(f"asked {factor}  {name:6} " + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
