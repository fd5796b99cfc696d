"""Times speech that streams: time to the first chunk, times real time, and memory over a long text.

A warm voice speaks a sentence repeatedly, on each number of threads, and then a long text once. Printed are the median
time from text to the first chunk and to the last one, and, for the long text, seconds of speech, times real time, and
the growth of the resident memory from the tenth sentence to the last (Linux).

    python -m benchmarks.streaming models:/myxtts-generated-tiny@champion --threads 1 2
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from components.registry import find_voice
from model.config.vocoder import VocoderConfig
from model.synthesis import Synthesizer
from model.text.sentences import split_sentences
from model.vocoder import build_vocoder

SENTENCE = "The boats came back before the rain, and everybody went home."
REPEATS = 15


def time_sentence(voice: Synthesizer) -> tuple[float, float, float]:
    """Returns the median seconds to the first chunk and to the last one of a sentence, and its seconds of speech."""
    first, last, samples = [], [], 0
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        arrivals = [(time.perf_counter() - start, len(chunk)) for chunk in voice.stream(SENTENCE)]
        first.append(arrivals[0][0])
        last.append(arrivals[-1][0])
        samples = sum(length for _, length in arrivals)
    return float(np.median(first[1:])), float(np.median(last[1:])), samples / voice.sample_rate


def time_text(voice: Synthesizer, text: str) -> tuple[float, float, float]:
    """Returns seconds of speech, times real time and megabytes of growth for a long text."""
    memory: list[float] = []
    start, samples = time.perf_counter(), 0
    for sentence in split_sentences(text):
        samples += sum(len(chunk) for chunk in voice.stream(sentence))
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6)
    seconds = samples / voice.sample_rate
    return seconds, seconds / (time.perf_counter() - start), memory[-1] - memory[min(10, len(memory) - 1)]


def main() -> None:
    """Prints the figures of a voice for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voice", help="Folder of a voice, or models:/...")
    parser.add_argument("--text-file", type=Path, help="Long text [default: the sentence, with numbers, 180 times].")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--start", choices=["random", "continued"], help="vocoder.griffin_lim_start")
    parser.add_argument("--iterations", type=int, help="vocoder.griffin_lim_iterations")
    parser.add_argument("--refinement", type=int, help="vocoder.refinement_iterations")
    arguments = parser.parse_args()
    voice = Synthesizer(find_voice(arguments.voice))
    changed = {
        "griffin_lim_start": arguments.start,
        "griffin_lim_iterations": arguments.iterations,
        "refinement_iterations": arguments.refinement,
    }
    given = {name: value for name, value in changed.items() if value is not None}
    if given:
        settings = VocoderConfig(**{**voice.config.vocoder, **given})
        voice.vocoder = build_vocoder(settings, voice.config.audio, voice.voice.vocoder)
    text = " ".join(f"{number}: {SENTENCE}" for number in range(180))
    if arguments.text_file:
        text = arguments.text_file.read_text("utf-8")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        first, last, speech = time_sentence(voice)
        print(
            f"{threads} threads: {speech:.2f} s of speech, first chunk after {1e3 * first:.1f} ms, "
            f"last after {1e3 * last:.1f} ms",
            flush=True,
        )
    seconds, speed, growth = time_text(voice, text)
    print(f"long text: {seconds:.0f} s of speech at {speed:.0f} times real time, memory grew by {growth:.1f} MB")


if __name__ == "__main__":
    main()
