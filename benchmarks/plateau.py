"""Trains with and without the plateau breaker in two scenarios, and plots the losses to docs/plateau.png.

    python -m benchmarks.plateau

The scenarios are a constant learning rate fifteen times too high and one twenty times too low for the model size.
Without the plateau breaker, training stalls or hardly progresses. `enable_plateau_breaker` detects this, finds out in
which direction the learning rate is wrong, and the loss falls again.
"""

import argparse
import logging
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.generated_corpus import SETTINGS, small_features
from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.loop.reporting import read_history
from model.training.trainer import train

RUN = {
    "model_size": "xtiny",
    "training.max_steps": 900,
    "training.learning_rate_schedule": "constant",
    "training.warmup_steps": 20,
    "training.enable_evaluation": False,
    "training.checkpoint_interval": 300,
    "training.log_interval": 10,
    "training.plateau_patience": 160,
    "training.plateau_threshold": 0.03,
}
SCENARIOS: dict[str, dict[str, Any]] = {
    "learning rate 15 times too high": {"training.learning_rate": 3e-2},
    "learning rate 20 times too low": {
        "training.learning_rate": 1e-4,
        "training.plateau_rate_boost": 20.0,
        "training.plateau_boost_steps": 300,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, default=Path(__file__).parents[1] / "docs" / "plateau.png")
    plot = parser.parse_args().plot
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    figure = Figure(figsize=(11, 4), layout="constrained")
    with tempfile.TemporaryDirectory() as place:
        features = small_features(Path(place))
        for axes, (scenario, settings) in zip(figure.subplots(1, 2), SCENARIOS.items(), strict=True):
            axes.set(xlabel="step", ylabel="loss (terms without a schedule)", title=scenario)
            for name, breaks in (("plain", False), ("with the plateau breaker", True)):
                overrides = {**SETTINGS, **RUN, **settings, "training.enable_plateau_breaker": breaks}
                folder = Path(place) / scenario / name
                train(TrainSettings.of(resolve(None, None, overrides).config), features, folder)
                records = read_history(folder / "history.jsonl")
                curve = [(line["step"], line["train/objective"]) for line in records if "train/objective" in line]
                axes.plot(*zip(*curve, strict=True), label=name)
                answers = {line["step"]: line["plateau"] for line in records if "plateau" in line}
                for step in answers:
                    axes.axvline(step, color="grey", linestyle=":")
                thirds = [
                    fmean(loss for step, loss in curve if start < step <= start + 100) for start in (200, 500, 800)
                ]
                means = ", ".join(f"{loss:.2f}" for loss in thirds)
                print(f"{scenario}, {name}: mean loss of steps 201-300, 501-600, 801-900: {means}", flush=True)
                print("".join(f"  step {step}: {answer}\n" for step, answer in answers.items()), end="", flush=True)
            axes.legend()
    figure.savefig(plot, dpi=90)


if __name__ == "__main__":
    main()
