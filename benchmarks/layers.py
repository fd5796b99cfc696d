"""Measures the training step of the acoustic model with its own layers, and with torch's in their place.

Prints the processor time of forward and backward pass per variant (minimum over all rounds; variants alternate) and its
ratio to that of the unchanged model.

    python -m benchmarks.layers --rounds 15
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from unittest import mock

import click
import torch
from torch import Tensor, nn

from benchmarks.acoustic import our_model, random_batch
from model.acoustic import aligner, encoders, layers, predictors
from model.acoustic import model as network
from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel
from model.config.resolution import resolve
from model.config.schema import Config
from model.training.losses import loss_terms, loss_weights, weighted_sum

MODULES = (aligner, encoders, layers, network, predictors)
TOKENS = (48, 40, 44, 36, 48, 30, 41, 47)
FRAMES_PER_TOKEN = 6


class TorchConv1d(nn.Conv1d):
    """`nn.Conv1d` over (B, T, D)."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int):
        super().__init__(inputs, outputs, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class PackedLSTM(nn.Module):
    """`nn.LSTM` in both directions over packed sequences."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.lstm = nn.LSTM(inputs, dim, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


REPLACEMENTS = {"LinearConv1d": TorchConv1d, "Dropout": nn.Dropout, "BidirectionalLSTM": PackedLSTM}
VARIANTS: dict[str, Mapping[str, type[nn.Module]]] = {
    "as it is": {},
    **{f"torch's {name.removeprefix('Linear')}": {name: layer} for name, layer in REPLACEMENTS.items()},
    "all three": REPLACEMENTS,
}


def build(config: Config, replacements: Mapping[str, type[nn.Module]]) -> AcousticModel:
    """Builds the model with layers replaced by others."""
    with ExitStack() as stack:
        for module in MODULES:
            for name, layer in replacements.items():
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, layer))
        return our_model(config).train()


def step_seconds(network: AcousticModel, batch: Batch, config: Config, mixed: bool) -> float:
    """Returns the processor time of one forward and backward pass."""
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = weighted_sum(loss_terms(network(batch), batch, config.loss), loss_weights(config.loss, 0.4))
    loss.backward()
    elapsed = time.process_time() - began
    network.zero_grad(set_to_none=True)
    return elapsed


@click.command()
@click.option("--size", default="tiny", show_default=True)
@click.option("--rounds", default=15, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(size: str, rounds: int, as_json: bool) -> None:
    """Compare custom layers with torch's."""
    torch.set_num_threads(1)
    config = resolve(None, None, {"model_size": size}).config
    batch = random_batch(len(TOKENS), max(TOKENS), max(TOKENS) * FRAMES_PER_TOKEN)
    batch.token_lengths = torch.tensor(TOKENS)
    batch.mel_lengths = batch.token_lengths * FRAMES_PER_TOKEN
    networks = {name: build(config, replacements) for name, replacements in VARIANTS.items()}
    figures = {}
    for precision in ("float32", "bfloat16"):
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(rounds):
            for name, variant in networks.items():
                seconds[name].append(step_seconds(variant, batch, config, precision == "bfloat16"))
        least = {name: min(times) for name, times in seconds.items()}
        for name, time_of_step in least.items():
            figures[f"{precision}, {name}"] = {
                "milliseconds": round(1000 * time_of_step),
                "ratio": round(time_of_step / least["as it is"], 2),
            }
    if as_json:
        click.echo(json.dumps(figures, indent=1))
        return
    for name, values in figures.items():
        click.echo(f"{name}: {values['milliseconds']} ms, x {values['ratio']}")


if __name__ == "__main__":
    main()
