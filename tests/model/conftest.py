"""A small corpus of speech-like sounds with known pitch, and its features."""

from pathlib import Path

import numpy as np
import pytest
from clips import make_clip
from small_speech import CONFIG, RATE, surround

from model.audio.io import write_audio
from model.corpus.manifest import write_manifest
from model.features.extract import build_features
from model.features.store import FeatureStore

TEXTS = {
    "en": ("Good morning.", "How are you?", "Boat 21.", "Rain again.", "We sat down.", "It is late now.", "Come in!",
           "A small boat.", "Room 12, please.", "Who is there?", "At 7:10.",
           "Ring twice.", "The lamp is on."),
    "de": ("Guten Tag.", "Wie geht es?", "Boot 3.", "Es regnet.", "Wir gehen jetzt.", "Schon so spät?", "Herein!",
           "Ein kleines Boot.", "Zimmer 12, bitte.", "Wer ist da?", "Um 7:10."),
}  # fmt: skip
"""Language -> texts: no speaker repeats a sentence, and no held-out sentence is in the training split."""


def make_voiced(seconds: float, f0: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Returns (N,) float32 samples: harmonics shaped by formants, with falling pitch, syllables and a little noise."""
    generator = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = f0 * (1.1 - 0.2 * t / seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = np.zeros_like(t)
    for k in range(1, int(4000 / f0)):
        envelope = sum(np.exp(-(((k * f0 - center) / 250.0) ** 2)) for center in (600.0, 1300.0, 2600.0))
        tone += (0.05 + envelope) * np.sin(k * phase)
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    sound = tone * syllables
    return (0.5 * sound / np.abs(sound).max() + 1e-3 * generator.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="session")
def voiced():
    """`make_voiced`."""
    return make_voiced


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Path:
    """25 clips: two speakers in every split, one with a single training clip, one only in the test split.

    `bob` speaks German, the others English. Every recording has silence before and after the speech and a level of its
    own (`small_speech.surround`). The splits of 17, 4 and 4 clips are no multiples of a batch size of three.
    """
    folder = tmp_path_factory.mktemp("corpus")
    clips = []

    def add(speaker: str, f0: float, split: str, language: str = "en") -> None:
        number = len(clips)
        name = f"{speaker}-{number:02d}"
        samples, _ = surround(make_voiced(1.0 + 0.1 * (number * 7 % 11), f0, number), number)
        write_audio(folder / "audio" / f"{name}.flac", samples, RATE)
        text = TEXTS[language][number % 11 if speaker != "unheard" else 11 + number % 2]
        seconds = len(samples) / RATE
        clips.append(make_clip(name, text, rate=RATE, language=language, speaker=speaker, seconds=seconds, split=split))

    for speaker, f0, language in (("anna", 210.0, "en"), ("bob", 110.0, "de")):
        for split, count in (("train", 8), ("validation", 2), ("test", 1)):
            for _ in range(count):
                add(speaker, f0, split, language)
    add("lone", 160.0, "train")
    add("unheard", 300.0, "test")
    add("unheard", 300.0, "test")
    write_manifest(folder, clips)
    return folder


@pytest.fixture(scope="session")
def small_features(small_corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "store"
    build_features(small_corpus, folder, CONFIG)
    return folder


@pytest.fixture
def store(small_features) -> FeatureStore:
    return FeatureStore(small_features)
