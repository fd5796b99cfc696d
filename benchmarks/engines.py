"""Character error rate and speed of the synthesizers that speak the generated corpus, for each voice.

The recognizer transcribes evenly spaced English sentences of the shipped list. Engines that are not installed are
skipped.

    python -m benchmarks.engines --sentences 30
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from model.audio.io import resample
from model.corpus.engines import ENGINES
from model.corpus.sentences import read_sentences
from model.evaluation import recognizer
from model.text.normalize import normalize

VOICES = 8
"""Number of voices of each engine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--engine", choices=[engine.name for engine in ENGINES], help="only this one")
    arguments = parser.parse_args()
    listed = read_sentences("", "en")
    chosen = listed[:: max(1, len(listed) // arguments.sentences)][: arguments.sentences]
    spoken = [normalize(sentence, "en").text for sentence in chosen]
    print("| voice | version | CER | times real time |\n| --- | --- | --- | --- |")
    for engine in ENGINES:
        version = engine.version()
        if version is None or arguments.engine not in (None, engine.name):
            continue
        for voice in engine.voices("en")[:VOICES]:
            started = time.perf_counter()
            sounds = [engine.speak(sentence, voice, "en") for sentence in chosen]
            elapsed = time.perf_counter() - started
            seconds = sum(len(sound.samples) / sound.sample_rate for sound in sounds)
            errors = [
                recognizer.character_error(
                    text, recognizer.transcribe(resample(sound.samples, sound.sample_rate, recognizer.SAMPLE_RATE))
                )
                for text, sound in zip(spoken, sounds, strict=True)
            ]
            print(
                f"| {engine.name} {voice} | {version} | {np.mean(errors):.3f} | {seconds / elapsed:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
