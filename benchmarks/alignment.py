"""Benchmarks the convergence of the aligner: boundary error over training steps for each variant of attention.

Only the aligner and its token embeddings are trained, so that the variants differ in nothing else. `synthetic` is an
artificial language with one mel frame per symbol and known durations. `generated` is English and Persian speech of
espeak-ng, evaluated on held-out sentences against its phone times.

    python -m benchmarks.alignment synthetic --steps 200 --interval 20 --seeds 3 --plot docs/alignment.png
    python -m benchmarks.alignment generated --folder /tmp/alignment
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from benchmarks.generated_corpus import prepare
from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel, ModelDimensions
from model.config.resolution import resolve
from model.config.schema import Config
from model.corpus.timings import read_alignments
from model.corpus.token_times import token_times
from model.evaluation.metrics import boundary_error
from model.features.batching import TrainingBatches
from model.text.encode import encode
from model.training.adaptation import model_dimensions
from model.training.losses import _alignment_terms, loss_weights, weighted_sum

SYNTHETIC = {"model_size": "xtiny", "training.batch_size": 8, "model.aligner_dropout": 0.1}
GENERATED = {
    "model_size": "tiny",
    "training.batch_size": 16,
    "corpus.engine": "espeak",
    "corpus.generated_voices": {"en": 1, "fa": 1},
}
CLIPS = 200
"""Training clips of the synthetic language."""
PLAIN = {"loss.use_guided_attention": False}
EXACT = {"loss.forward_sum_blank_logprob": -1e4}
"""Exact likelihood of the hidden Markov model; by default, frames can belong to a blank instead of a token."""
LOCATION = {"model.use_location_attention": True}
FORWARD = {"model.use_forward_attention": True}
VARIANTS: dict[str, dict[str, bool | float]] = {
    "plain": PLAIN,
    "+ guided": {},
    "+ location": PLAIN | LOCATION,
    "+ forward": PLAIN | FORWARD,
    "all three": LOCATION | FORWARD,
    "exact": PLAIN | EXACT,
    "exact + guided": EXACT,
}


@dataclass
class Task:
    """Alignment task.

    Attributes:
        dimensions: Dimensions of the model.
        batches: Returns the next training batch.
        error: Returns the mean boundary error of a model on held-out sentences, in frames.
    """

    dimensions: ModelDimensions
    batches: Callable[[], Batch]
    error: Callable[[AcousticModel], float]


def synthetic(config: Config, seed: int) -> Task:
    """Returns the task of the synthetic language: 24 symbols with a fixed mel frame each, under noise.

    Clips have 30 to 49 symbols of 3 to 12 frames, three to four seconds in all. In much shorter clips each frame has
    too few candidate tokens to learn from.
    """
    generator = np.random.default_rng(seed)
    symbol_mels = generator.normal(-5, 2, (24, 80))

    def clip() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        symbols = generator.integers(0, 24, generator.integers(30, 50))
        durations = generator.integers(3, 13, len(symbols))
        mel = np.repeat(symbol_mels[symbols], durations, axis=0) + generator.normal(0, 2, (durations.sum(), 80))
        return np.stack((symbols + 1, np.zeros_like(symbols)), axis=1), durations, mel.astype(np.float32)

    def batch_of(clips: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Batch:
        empty = {field.name: None for field in fields(Batch)}
        padded = torch.nn.utils.rnn.pad_sequence
        return Batch(
            **empty
            | {
                "ids": padded([torch.from_numpy(ids) for ids, _, _ in clips], batch_first=True),
                "token_lengths": torch.tensor([len(ids) for ids, _, _ in clips]),
                "mel": padded([torch.from_numpy(mel) for _, _, mel in clips], batch_first=True),
                "mel_lengths": torch.tensor([len(mel) for _, _, mel in clips]),
            }
        )

    training, held_out = [clip() for _ in range(CLIPS)], [clip() for _ in range(16)]

    def error(model: AcousticModel) -> float:
        batch = batch_of(held_out)
        durations = model.align(batch.ids, batch.token_lengths, batch.mel, batch.mel_lengths).durations
        errors = [
            np.abs(row[: len(true)].numpy().cumsum() - true.cumsum())
            for row, (_, true, _) in zip(durations, held_out, strict=True)
        ]
        return float(np.concatenate(errors).mean())

    def batches() -> Batch:
        return batch_of([training[i] for i in generator.choice(CLIPS, config.training.batch_size, replace=False)])

    dimensions = ModelDimensions(
        num_symbols=25,
        num_stresses=1,
        num_languages=1,
        speaker_vector_dim=256,
        n_mels=80,
        mel_mean=-5.0,
        mel_std=2.8,
    )
    return Task(dimensions, batches, error)


def generated(config: Config, folder: Path) -> Task:
    """Returns the task of espeak-ng's English and Persian voices, whose phone times are known."""
    corpus, store = prepare(config, folder)
    timings, frame = read_alignments(corpus), store.audio.hop_length / store.audio.sample_rate
    batches = TrainingBatches(store, config.training.batch_size, config.seed)
    clips = []
    for position in store.split("validation") + store.split("test"):
        clip, features = store.clips[position], store.clip(position)
        times = token_times(encode(clip.text, clip.language), timings[clip.id]) - clip.trimmed
        clips.append((torch.from_numpy(features.ids), torch.tensor(features.mel), times))

    def error(model: AcousticModel) -> float:
        errors = []
        for ids, mel, times in clips:
            lengths = torch.tensor([len(ids)]), torch.tensor([len(mel)])
            durations = model.align(ids[None], lengths[0], mel[None], lengths[1]).durations[0].numpy()
            errors.append(boundary_error(durations, times, frame).value)
        return float(np.mean([value for value in errors if value is not None]))

    return Task(model_dimensions(store), lambda: next(batches), error)


def train_aligner(task: Task, config: Config, steps: int, interval: int) -> tuple[dict[int, float], float]:
    """Trains the aligner of a new model; returns step -> boundary error, and seconds per step."""
    torch.manual_seed(config.seed)
    model = AcousticModel(config.model, task.dimensions)
    modules = (model.aligner, model.symbol_embedding, model.stress_embedding)
    learning_rate = config.training.learning_rate * config.training.aligner_learning_rate_scale
    optimizer = torch.optim.AdamW(
        [p for module in modules for p in module.parameters()], lr=learning_rate, betas=(0.9, 0.98)
    )
    curve, seconds = {}, 0.0
    for step in range(steps + 1):
        if step % interval == 0:
            model.eval()
            with torch.no_grad():
                curve[step] = task.error(model)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / config.training.warmup_steps)
        model.train()
        batch = task.batches()
        start = time.perf_counter()
        alignment = model.align(batch.ids, batch.token_lengths, batch.mel, batch.mel_lengths)
        terms = _alignment_terms(alignment, batch, config.loss)
        optimizer.zero_grad()
        weighted_sum(terms, loss_weights(config.loss, step / steps)).backward()
        optimizer.step()
        seconds += time.perf_counter() - start
    return curve, seconds / (steps + 1)


def plot_curves(curves: dict[str, dict[int, float]], path: Path) -> None:
    """Plots boundary error over steps, with one line per variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for variant, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), label=variant, linestyle="--" if "guided" in variant else "-")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(xlabel="step", ylabel="mean boundary error (frames)", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("synthetic", "generated"))
    parser.add_argument(
        "--folder", type=Path, help="Folder of the generated corpus, which is made where it is missing."
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--interval", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1, help="Number of seeds to average over.")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--plot", type=Path, help="Image file of the curves.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.task == "generated" and arguments.folder is None:
        parser.error("generated needs --folder")
    torch.set_num_threads(1)
    settings = SYNTHETIC if arguments.task == "synthetic" else GENERATED
    results = {}
    for variant in arguments.variants:
        curves, seconds = [], []
        for seed in range(arguments.seeds):
            config = resolve(None, None, {**settings, **VARIANTS[variant], "seed": seed}).config
            task = synthetic(config, seed) if arguments.task == "synthetic" else generated(config, arguments.folder)
            curve, each = train_aligner(task, config, arguments.steps, arguments.interval)
            curves.append(curve)
            seconds.append(each)
        mean = {step: float(np.mean([curve[step] for curve in curves])) for step in curves[0]}
        results[variant] = {"boundary_error_frames": mean, "milliseconds_per_step": 1000 * float(np.mean(seconds))}
        if not arguments.json:
            shown = "  ".join(f"{step}: {error:.2f}" for step, error in mean.items())
            print(
                f"{variant:12} {results[variant]['milliseconds_per_step']:6.1f} ms per step   frames at step {shown}",
                flush=True,
            )
    if arguments.plot:
        plot_curves({variant: result["boundary_error_frames"] for variant, result in results.items()}, arguments.plot)
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
