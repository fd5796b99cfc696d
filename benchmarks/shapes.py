"""Measures the training step with batches padded to recurring shapes, and to the longest clip of each batch.

For every shape that it has not met, oneDNN compiles kernels. Each variant trains the size tiny on generated speech in a
process of its own, on one core. Prints milliseconds per step over all steps, and the ratio to the default.

    python -m benchmarks.shapes --folder /tmp/shapes
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import torch

from benchmarks.generated_corpus import prepare
from benchmarks.transfer import print_table
from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.features import batching
from model.features.store import FeatureStore
from model.loop.reporting import NullLogger
from model.threads import KERNELS
from model.training.trainer import train

CORPUS = {"corpus.engine": "espeak", "corpus.generated_voices": {"en": 4}, "corpus.sentences_per_voice": 150}
VARIANTS = (
    ("default", batching.FRAME_MULTIPLE, batching.TOKEN_MULTIPLE, KERNELS),
    ("1024 kernels", batching.FRAME_MULTIPLE, batching.TOKEN_MULTIPLE, 1024),
    ("padded to the longest clip", 1, 1, KERNELS),
    ("padded to the longest clip, 1024 kernels", 1, 1, 1024),
)
"""Name, multiples of frames and tokens, and limit of oneDNN's kernels (its own is 1024)."""


class Intervals(NullLogger):
    """Records the time of each interval of steps."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        if "time/step_ms" in values:
            self.milliseconds.append(values["time/step_ms"])


def measure(features: Path, output: Path, steps: int, frames: int, tokens: int, kernels: int) -> float:
    """Returns the milliseconds of a step, without those of the first interval, which loads libraries."""
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(kernels)
    torch.set_num_threads(1)
    batching.FRAME_MULTIPLE, batching.TOKEN_MULTIPLE = frames, tokens
    training = {"max_steps": steps, "enable_evaluation": False, "num_threads": 1, "log_interval": 20}
    settings = {f"training.{key}": value for key, value in training.items()}
    config = TrainSettings.of(resolve(None, None, {"model_size": "tiny", **settings}).config)
    intervals = Intervals()
    train(config, FeatureStore(features), output, intervals)
    return sum(intervals.milliseconds[1:]) / len(intervals.milliseconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the corpus, which is reused")
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    prepare(resolve(None, None, CORPUS).config, arguments.folder)
    rows: list[list[str]] = []
    first = 0.0
    for name, *limits in VARIANTS:
        output = arguments.folder / f"run-{time.time():.0f}"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            took = pool.apply(measure, (arguments.folder / "features", output, arguments.steps, *limits))
        first = first or took
        rows.append([name, f"{took:.0f}", f"x {took / first:.2f}"])
    print_table(("batches", "ms per step", "to default"), rows)


if __name__ == "__main__":
    main()
