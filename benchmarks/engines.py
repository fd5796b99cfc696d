"""Pitch, distinctness, speed and character error rate of each voice of the engines of the generated corpus.

Every voice speaks evenly spaced sentences of the shipped list. Its nearest voice is the one of the same engine with the
most similar mean Resemblyzer embedding. The recognizer transcribes English only. Engines that are not installed, or do
not speak the language, are skipped.

    python -m benchmarks.engines --sentences 30
    python -m benchmarks.engines --sentences 10 --language de
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from model.audio.io import resample
from model.audio.pitch import track_pitch
from model.config.data import AudioConfig, FeaturesConfig
from model.corpus.engines import ENGINES
from model.corpus.sentences import shipped_list
from model.corpus.sources import Sound
from model.evaluation import recognizer
from model.speaker_encoder import Resemblyzer
from model.speaker_encoder.base import centroid
from model.text.normalize import normalize

VOICES = 8
"""Number of voices of each engine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--language", default="en", help="language of a shipped list")
    parser.add_argument("--engine", choices=[engine.name for engine in ENGINES], help="only this one")
    arguments = parser.parse_args()
    language = arguments.language
    listed = shipped_list(language)
    chosen = listed[:: max(1, len(listed) // arguments.sentences)][: arguments.sentences]
    encoder = Resemblyzer.load()
    print(
        "| voice | version | F0 in Hz | nearest voice | CER | times real time |\n| --- | --- | --- | --- | --- | --- |"
    )
    for engine in ENGINES:
        version, voices = engine.version(), engine.voices(language)[:VOICES]
        if version is None or not voices or arguments.engine not in (None, engine.name):
            continue
        rows, vectors = [], []
        for voice in voices:
            started = time.perf_counter()
            sounds = [engine.speak(sentence, voice, language) for sentence in chosen]
            elapsed = time.perf_counter() - started
            seconds = sum(len(sound.samples) / sound.sample_rate for sound in sounds)
            rows.append((median_pitch(sounds), error_rate(chosen, sounds, language), seconds / elapsed))
            vectors.append(centroid(np.stack([encoder.embed(sound.samples, sound.sample_rate) for sound in sounds])))
        similarity = np.stack(vectors) @ np.stack(vectors).T - 2 * np.eye(len(voices))
        for voice, near, (pitch, error, speed) in zip(voices, similarity.max(1), rows, strict=True):
            print(
                f"| {engine.name} {voice} | {version} | {pitch:.0f} | {near:.2f} | {error} | {speed:.0f} |", flush=True
            )


def median_pitch(sounds: list[Sound]) -> float:
    """Returns the median F0 of the voiced frames in Hz."""
    audio = AudioConfig()
    samples = [resample(sound.samples, sound.sample_rate, audio.sample_rate) for sound in sounds]
    pitch = np.concatenate([track_pitch(one, audio, FeaturesConfig()) for one in samples])
    return float(np.median(pitch[pitch > 0]))


def error_rate(sentences: list[str], sounds: list[Sound], language: str) -> str:
    """Returns the mean character error rate of the recognizer, or a dash if it does not know the language."""
    if not recognizer.supports(language):
        return "-"
    errors = [
        recognizer.character_error(
            normalize(sentence, language).text,
            recognizer.transcribe(resample(sound.samples, sound.sample_rate, recognizer.SAMPLE_RATE)),
        )
        for sentence, sound in zip(sentences, sounds, strict=True)
    ]
    return f"{np.mean(errors):.3f}"


if __name__ == "__main__":
    main()
