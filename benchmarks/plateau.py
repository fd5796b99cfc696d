"""A plateau, and how it is left: `python -m benchmarks.plateau` trains both runs and draws docs/plateau.png.

The scenario: a learning rate twenty times too low, held flat. Plain training crawls; `enable_plateau_breaker` notices,
raises the rate once, and the loss falls again.
"""

import argparse
import logging
import tempfile
from pathlib import Path
from statistics import fmean

import torch
from matplotlib.figure import Figure

from benchmarks.small_corpus import SETTINGS, small_features
from model.config import resolve
from model.training.history import read_history
from model.training.trainer import train

SCENARIO = {
    "model_size": "xtiny",
    "training.max_steps": 900,
    "training.learning_rate": 1e-4,
    "training.learning_rate_schedule": "constant",
    "training.warmup_steps": 20,
    "training.enable_evaluation": False,
    "training.checkpoint_interval": 300,
    "training.log_interval": 10,
    "training.plateau_patience": 160,
    "training.plateau_threshold": 0.03,
    "training.plateau_rate_boost": 20.0,
    "training.plateau_boost_steps": 300,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, default=Path(__file__).parents[1] / "docs" / "plateau.png")
    plot = parser.parse_args().plot
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    with tempfile.TemporaryDirectory() as place:
        features = small_features(Path(place))
        for name, breaks in (("plain", False), ("with the plateau breaker", True)):
            config = resolve(None, None, {**SETTINGS, **SCENARIO, "training.enable_plateau_breaker": breaks}).config
            folder = Path(place) / name
            train(config, features, folder)
            records = read_history(folder / "history.jsonl")
            curve = [(line["step"], line["train/objective"]) for line in records if "train/objective" in line]
            axes.plot(*zip(*curve, strict=True), label=name)
            found = [line["step"] for line in records if "plateau" in line]
            for step in found:
                axes.axvline(step, color="grey", linestyle=":", label=f"plateau noticed at step {step}")
            print(f"{name}: loss {fmean(loss for _, loss in curve[-10:]):.3f} over the last 100 steps, plateau {found}")
    axes.set(xlabel="step", ylabel="loss (terms without a schedule)", title="learning rate 20 times too low")
    axes.legend()
    figure.savefig(plot, dpi=90)


if __name__ == "__main__":
    main()
