"""How soon and how well the aligner finds the text: boundary error against known times, for each kind of attention.

The aligner learns alone (with its token embeddings), so that the kinds differ in nothing else. `synthetic` is a made-up
language whose symbols each have a sound and every duration is known; `generated` is speech of espeak-ng, English and
Persian, against its own phone times on sentences that were not trained on.

    python benchmarks/alignment.py synthetic --steps 200 --interval 20 --seeds 3 --plot docs/alignment.png
    python benchmarks/alignment.py generated --folder /tmp/alignment
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
from generated_data import prepare

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
GENERATED = {"model_size": "tiny", "training.batch_size": 16, "corpus.engine": "espeak", "corpus.english_voices": 1}
CLIPS = 200
"""Of the synthetic language, to learn from."""
PLAIN = {"loss.use_guided_attention": False}
EXACT = {"loss.forward_sum_blank_logprob": -1e4}
"""The likelihood of the hidden Markov model itself; by default a blank lets frames belong to no token."""
LOCATION = {"model.use_location_attention": True}
FORWARD = {"model.use_forward_attention": True}
KINDS: dict[str, dict[str, bool | float]] = {
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
    """Endless batches to learn from, and the mean boundary error (frames) of a model on sentences held out."""

    dimensions: ModelDimensions
    batches: Callable[[], Batch]
    error: Callable[[AcousticModel], float]


def synthetic(config: Config, seed: int) -> Task:
    """24 symbols with a fixed mel frame each, 30 to 49 of them a clip, 3 to 12 frames long, under noise: sentences of
    three to four seconds. Of much shorter ones, each frame has too few tokens to choose from to learn any."""
    generator = np.random.default_rng(seed)
    sounds = generator.normal(-5, 2, (24, 80))

    def clip() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        symbols = generator.integers(0, 24, generator.integers(30, 50))
        durations = generator.integers(3, 13, len(symbols))
        mel = np.repeat(sounds[symbols], durations, axis=0) + generator.normal(0, 2, (durations.sum(), 80))
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
        found = model.align(batch.ids, batch.token_lengths, batch.mel, batch.mel_lengths).durations
        errors = [
            np.abs(row[: len(true)].numpy().cumsum() - true.cumsum())
            for row, (_, true, _) in zip(found, held_out, strict=True)
        ]
        return float(np.concatenate(errors).mean())

    def batches() -> Batch:
        return batch_of([training[i] for i in generator.choice(CLIPS, config.training.batch_size, replace=False)])

    return Task(ModelDimensions(25, 1, 1, 256, 80, -5.0, 2.8), batches, error)


def generated(config: Config, folder: Path) -> Task:
    """espeak-ng's English and Persian voice, told when it says what."""
    corpus, store = prepare(config, folder)
    timings, frame = read_alignments(corpus), store.audio.hop_length / store.audio.sample_rate
    batches = TrainingBatches(store, config.training.batch_size, config.seed)
    known = []
    for position in store.split("validation") + store.split("test"):
        clip, features = store.clips[position], store.clip(position)
        times = token_times(encode(clip.text, clip.language), timings[clip.id]) - clip.trimmed
        known.append((torch.from_numpy(features.ids), torch.tensor(features.mel), times))

    def error(model: AcousticModel) -> float:
        measures = []
        for ids, mel, times in known:
            lengths = torch.tensor([len(ids)]), torch.tensor([len(mel)])
            durations = model.align(ids[None], lengths[0], mel[None], lengths[1]).durations[0].numpy()
            measures.append(boundary_error(durations, times, frame).value)
        return float(np.mean([value for value in measures if value is not None]))

    return Task(model_dimensions(store), lambda: next(batches), error)


def learn(task: Task, config: Config, steps: int, interval: int) -> tuple[dict[int, float], float]:
    """Train the aligner of a fresh model -> {step: boundary error}, seconds a step."""
    torch.manual_seed(config.seed)
    model = AcousticModel(config.model, task.dimensions)
    parts = (model.aligner, model.symbol_embedding, model.stress_embedding)
    rate = config.training.learning_rate * config.training.aligner_learning_rate_scale
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=rate, betas=(0.9, 0.98))
    curve, seconds = {}, 0.0
    for step in range(steps + 1):
        if step % interval == 0:
            model.eval()
            with torch.no_grad():
                curve[step] = task.error(model)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / config.training.warmup_steps)
        model.train()
        batch = task.batches()
        began = time.perf_counter()
        alignment = model.align(batch.ids, batch.token_lengths, batch.mel, batch.mel_lengths)
        terms = _alignment_terms(alignment, batch, config.loss)
        optimizer.zero_grad()
        weighted_sum(terms, loss_weights(config.loss, step / steps)).backward()
        optimizer.step()
        seconds += time.perf_counter() - began
    return curve, seconds / (steps + 1)


def plot(curves: dict[str, dict[int, float]], path: Path) -> None:
    """Boundary error over steps, a line for each kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), label=kind, linestyle="--" if "guided" in kind else "-")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(xlabel="step", ylabel="mean boundary error (frames)", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("synthetic", "generated"))
    parser.add_argument("--folder", type=Path, help="Where the generated corpus is, or is made.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--interval", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1, help="Mean over so many.")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--plot", type=Path, help="Picture of the curves.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.task == "generated" and arguments.folder is None:
        parser.error("generated needs --folder")
    torch.set_num_threads(1)
    settings = SYNTHETIC if arguments.task == "synthetic" else GENERATED
    results = {}
    for kind in arguments.kinds:
        curves, seconds = [], []
        for seed in range(arguments.seeds):
            config = resolve(None, None, {**settings, **KINDS[kind], "seed": seed}).config
            task = synthetic(config, seed) if arguments.task == "synthetic" else generated(config, arguments.folder)
            curve, each = learn(task, config, arguments.steps, arguments.interval)
            curves.append(curve)
            seconds.append(each)
        mean = {step: float(np.mean([curve[step] for curve in curves])) for step in curves[0]}
        results[kind] = {"boundary_error_frames": mean, "milliseconds_a_step": 1000 * float(np.mean(seconds))}
        if not arguments.json:
            shown = "  ".join(f"{step}: {error:.2f}" for step, error in mean.items())
            print(
                f"{kind:12} {results[kind]['milliseconds_a_step']:6.1f} ms a step   frames at step {shown}", flush=True
            )
    if arguments.plot:
        plot({kind: result["boundary_error_frames"] for kind, result in results.items()}, arguments.plot)
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
