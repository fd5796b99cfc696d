"""Official checkpoint files, in and out: HiFi-GAN's `g_*` with `do_*` and `config.json`, UnivNet's single file.

They are pickles; they are read with `weights_only`, which refuses everything but tensors and plain containers.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import save

from model.config.data import AudioConfig
from model.errors import CheckpointFormatError
from model.vocoder.architectures import ARCHITECTURES, recognise
from model.vocoder.univnet import NOISE_CHANNELS, SLOPE
from model.vocoder.weights import State, plain_names

HIFIGAN_AUDIO = {
    "sampling_rate": "sample_rate",
    "n_fft": "n_fft",
    "hop_size": "hop_length",
    "win_size": "win_length",
    "num_mels": "n_mels",
    "fmin": "fmin",
    "fmax": "fmax",
}
UNIVNET_AUDIO = {
    "sampling_rate": "sample_rate",
    "filter_length": "n_fft",
    "hop_length": "hop_length",
    "win_length": "win_length",
    "n_mel_channels": "n_mels",
    "mel_fmin": "fmin",
    "mel_fmax": "fmax",
}
CONFIG = "config.json"


@dataclass
class VocoderWeights:
    """Weights of a vocoder under official names, and what they fit.

    Attributes:
        kind, variant: Of the registry.
        audio: Mel settings that they were trained on.
        steps: Training steps, 0 where unknown.
        generator: Layer names -> tensors.
        discriminators: Discriminator -> its state; empty where they did not come along.
        origin: Where they are from, for the record.
    """

    kind: str
    variant: str
    audio: AudioConfig
    steps: int
    generator: State
    discriminators: dict[str, State]
    origin: str

    def content_hash(self) -> str:
        """Hash (16 hex digits) of the weights, those of the discriminators included, wherever they come from."""
        states = {"generator": self.generator, **self.discriminators}
        tensors = {f"{owner}/{name}": tensor for owner, state in states.items() for name, tensor in state.items()}
        return hashlib.sha256(save({name: tensor.contiguous() for name, tensor in tensors.items()})).hexdigest()[:16]


def read_official(path: Path) -> VocoderWeights:
    """Read an official file, HiFi-GAN or UnivNet by its contents.

    Args:
        path: `g_00000000` with its `config.json` beside it (and `do_00000000`, taken along where it is there), or a
            UnivNet file.

    Raises:
        CheckpointFormatError: damaged, unknown, or without the mel settings it was trained on.
    """
    content = _load(path)
    if "generator" in content:
        return _hifigan(path, content)
    if "model_g" in content:
        return _univnet(path, content)
    raise CheckpointFormatError(
        f"{path}: neither a HiFi-GAN file (`generator`) nor a UnivNet file (`model_g`); it holds {sorted(content)[:6]}"
    )


def write_official(folder: Path, weights: VocoderWeights) -> list[Path]:
    """Write files that the official programs load; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    if weights.kind == "univnet":
        settings = {"audio": _renamed(weights.audio, UNIVNET_AUDIO), **_univnet_layout(weights)}
        content = {
            "model_g": weights.generator,
            "model_d": _joined(weights.discriminators),
            "step": weights.steps,
            "epoch": 0,
            "hp_str": yaml.safe_dump(settings),
            "githash": "",
        }
        return [_save(content, folder / f"univnet_{weights.variant}_{weights.steps:08d}.pt")]
    config = folder / CONFIG
    settings = {**_hifigan_layout(weights), **_renamed(weights.audio, HIFIGAN_AUDIO)}
    config.write_text(json.dumps(settings, indent=4) + "\n", "utf-8")
    files = [config, _save({"generator": weights.generator}, folder / f"g_{weights.steps:08d}")]
    if set(weights.discriminators) == {"mpd", "msd"}:
        content = {**weights.discriminators, "steps": weights.steps, "epoch": 0}
        files.append(_save(content, folder / f"do_{weights.steps:08d}"))
    return files


def _hifigan(path: Path, content: Mapping[str, Any]) -> VocoderWeights:
    config = path.with_name(CONFIG)
    if not config.is_file():
        raise CheckpointFormatError(
            f"{path}: no {CONFIG} beside it, so the mel settings it was trained on are unknown; put its own there"
        )
    try:
        audio = _audio(json.loads(config.read_text("utf-8")), HIFIGAN_AUDIO, config)
    except json.JSONDecodeError as error:
        raise CheckpointFormatError(f"{config}: not JSON ({error}); fetch it again") from error
    state = _tensors(content["generator"], path)
    variant = _known("hifigan", state, path)
    number = path.name.partition("_")[2]
    discriminators, steps = {}, int(number) if number.isdigit() else 0
    companion = path.with_name(f"do_{number}")
    if path.name.startswith("g_") and companion.is_file():
        judges = _load(companion)
        discriminators = {name: plain_names(_tensors(judges.get(name), companion)) for name in ("mpd", "msd")}
        steps = int(judges.get("steps", steps))
    return VocoderWeights("hifigan", variant, audio, steps, plain_names(state), discriminators, path.name)


def _univnet(path: Path, content: Mapping[str, Any]) -> VocoderWeights:
    try:
        settings = yaml.safe_load(content.get("hp_str") or "")
    except yaml.YAMLError as error:
        raise CheckpointFormatError(f"{path}: its settings (`hp_str`) are no YAML: {error}") from error
    if not isinstance(settings, dict) or "audio" not in settings:
        raise CheckpointFormatError(f"{path}: no mel settings in it (`hp_str`); it cannot be told what mels it reads")
    audio = _audio(settings["audio"], UNIVNET_AUDIO, path)
    state = _tensors(content["model_g"], path)
    judges = plain_names(_tensors(content.get("model_d") or {}, path))
    discriminators = {
        name: {key.removeprefix(f"{name}."): tensor for key, tensor in judges.items() if key.startswith(f"{name}.")}
        for name in ("MRD", "MPD")
    }
    variant = _known("univnet", state, path)
    steps = int(content.get("step") or 0)
    found = discriminators if judges else {}
    return VocoderWeights("univnet", variant, audio, steps, plain_names(state), found, path.name)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointFormatError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
        raise CheckpointFormatError(
            f"{path}: truncated, damaged or no plain checkpoint ({reason}); fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointFormatError(f"{path}: holds a {type(content).__name__}, not a checkpoint's dictionary")
    return content


def _save(content: Mapping[str, Any], path: Path) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    torch.save(dict(content), partial)
    partial.replace(path)
    return path


def _tensors(state: Any, path: Path) -> State:
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointFormatError(f"{path}: holds something else where weights should be")
    return {name: tensor.float() for name, tensor in state.items()}


def _known(kind: str, state: State, path: Path) -> str:
    variant, _ = recognise(kind, state)
    if not variant:
        raise CheckpointFormatError(f"{path}: a {kind} generator of no known variant")
    return variant


def _audio(given: Mapping[str, Any], names: Mapping[str, str], path: Path) -> AudioConfig:
    missing = [name for name in names if name not in given]
    if missing:
        raise CheckpointFormatError(f"{path}: lacks the mel settings {', '.join(missing)}")
    values = {ours: given[theirs] for theirs, ours in names.items()}
    if values["fmax"] is None:
        values["fmax"] = values["sample_rate"] / 2
    try:
        return AudioConfig.model_validate(values)
    except ValidationError as error:
        reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CheckpointFormatError(
            f"{path}: no mel settings that we know ({reason}); put the file's own there"
        ) from error


def _renamed(audio: AudioConfig, names: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: getattr(audio, ours) for theirs, ours in names.items()}


def _hifigan_layout(weights: VocoderWeights) -> dict[str, Any]:
    """What the official program builds the generator from."""
    size = ARCHITECTURES["hifigan"].variants[weights.variant]
    return {
        "resblock": "1" if size.double else "2",
        "upsample_rates": size.rates,
        "upsample_kernel_sizes": size.kernels,
        "upsample_initial_channel": size.channels,
        "resblock_kernel_sizes": size.resblock_kernels,
        "resblock_dilation_sizes": size.resblock_dilations,
    }


def _univnet_layout(weights: VocoderWeights) -> dict[str, Any]:
    size = ARCHITECTURES["univnet"].variants[weights.variant]
    generator = {
        "noise_dim": NOISE_CHANNELS,
        "channel_size": size.channels,
        "dilations": list(size.dilations),
        "strides": list(size.strides),
        "lReLU_slope": SLOPE,
    }
    return {"gen": generator}


def _joined(discriminators: Mapping[str, State]) -> State:
    return {f"{name}.{key}": tensor for name, state in discriminators.items() for key, tensor in state.items()}
