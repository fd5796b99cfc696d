"""Official checkpoint files.

HiFi-GAN has `g_*` with `do_*` and `config.json`, UnivNet a single file, Vocos `pytorch_model.bin` with `config.yaml`.

They are pickles and are read with `weights_only`, which refuses everything but tensors and plain containers.
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

from model.audio.mel import MelExtractor, mel_filterbank
from model.config.data import AudioConfig
from model.errors import CheckpointFormatError
from model.files import atomic_write, write_text
from model.vocoder.architectures import ARCHITECTURES, identify_variant
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
VOCOS_AUDIO = {
    "sample_rate": "sample_rate",
    "n_fft": "n_fft",
    "hop_length": "hop_length",
    "win_length": "win_length",
    "n_mels": "n_mels",
    "f_min": "fmin",
    "f_max": "fmax",
}
CONFIG, VOCOS_CONFIG = "config.json", "config.yaml"
VOCOS_FILTERBANK = "feature_extractor.mel_spec.mel_scale.fb"
VOCOS_FEATURES = "feature_extractor."
"""Prefix of the buffers of the official mel extractor, which official files contain."""
VOCOS_WINDOW = "head.istft.window"
SAME_FILTERBANK = 1e-6
"""Largest difference between two filterbanks that count as equal."""


@dataclass(kw_only=True)
class VocoderWeights:
    """Weights of a vocoder under official names.

    Attributes:
        kind, variant: Architecture and variant in `ARCHITECTURES`.
        audio: Mel settings of the training.
        steps: Training steps; 0 where unknown.
        generator: Weights of the generator.
        discriminators: Weights of each discriminator; empty where there are none.
        origin: Where the weights come from; informational.
    """

    kind: str
    variant: str
    audio: AudioConfig
    steps: int
    generator: State
    discriminators: dict[str, State]
    origin: str

    def content_hash(self) -> str:
        """Returns a hash (16 hex digits) of all weights; it does not depend on their origin."""
        states = {"generator": self.generator, **self.discriminators}
        tensors = {f"{owner}/{name}": tensor for owner, state in states.items() for name, tensor in state.items()}
        return hashlib.sha256(save({name: tensor.contiguous() for name, tensor in tensors.items()})).hexdigest()[:16]


def read_official(path: Path) -> VocoderWeights:
    """Reads an official file, whose type is detected from its contents.

    Args:
        path: `g_00000000` with `config.json` and optionally `do_00000000` in the same folder, a UnivNet file, or
            `pytorch_model.bin` of Vocos with `config.yaml` in the same folder.

    Raises:
        CheckpointFormatError: the file is damaged, of an unknown kind, or without the mel settings of its training.
    """
    content = _load(path)
    if "generator" in content:
        return _hifigan(path, content)
    if "model_g" in content:
        return _univnet(path, content)
    if "backbone.embed.weight" in content:
        return _vocos(path, content)
    raise CheckpointFormatError(
        f"{path}: neither a HiFi-GAN file (`generator`) nor a UnivNet file (`model_g`) nor a Vocos file "
        f"(`backbone.embed.weight`); it holds {sorted(content)[:6]}"
    )


def write_official(folder: Path, weights: VocoderWeights) -> list[Path]:
    """Writes files that the official programs load, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    if weights.kind == "univnet":
        settings = {"audio": _official_audio(weights.audio, UNIVNET_AUDIO), **_univnet_layout(weights)}
        content = {
            "model_g": weights.generator,
            "model_d": _join(weights.discriminators),
            "step": weights.steps,
            "epoch": 0,
            "hp_str": yaml.safe_dump(settings),
            "githash": "",
        }
        return [_save(content, folder / f"univnet_{weights.variant}_{weights.steps:08d}.pt")]
    if weights.kind == "vocos":
        config = folder / VOCOS_CONFIG
        write_text(config, yaml.safe_dump(_vocos_layout(weights), sort_keys=False))
        extractor = MelExtractor(weights.audio)
        buffers = {
            f"{VOCOS_FEATURES}mel_spec.spectrogram.window": extractor.window,
            VOCOS_FILTERBANK: extractor.filterbank.T.contiguous(),
            VOCOS_WINDOW: torch.hann_window(ARCHITECTURES["vocos"].variants[weights.variant].n_fft),
        }
        return [config, _save({**buffers, **weights.generator}, folder / "pytorch_model.bin")]
    config = folder / CONFIG
    settings = {**_hifigan_layout(weights), **_official_audio(weights.audio, HIFIGAN_AUDIO)}
    write_text(config, json.dumps(settings, indent=4) + "\n")
    files = [config, _save({"generator": weights.generator}, folder / f"g_{weights.steps:08d}")]
    if set(weights.discriminators) == {"mpd", "msd"}:
        content = {**weights.discriminators, "steps": weights.steps, "epoch": 0}
        files.append(_save(content, folder / f"do_{weights.steps:08d}"))
    return files


def _hifigan(path: Path, content: Mapping[str, Any]) -> VocoderWeights:
    config = path.with_name(CONFIG)
    if not config.is_file():
        raise CheckpointFormatError(
            f"{path}: no {CONFIG} in its folder, so the mel settings of its training are unknown; copy its own there"
        )
    try:
        audio = _audio(json.loads(config.read_text("utf-8")), HIFIGAN_AUDIO, config)
    except json.JSONDecodeError as error:
        raise CheckpointFormatError(f"{config}: not JSON ({error}); fetch it again") from error
    state = _tensors(content["generator"], path)
    variant = _variant("hifigan", state, path)
    number = path.name.partition("_")[2]
    steps = int(number) if number.isdigit() else 0
    discriminators: dict[str, State] = {}
    companion = path.with_name(f"do_{number}")
    if path.name.startswith("g_") and companion.is_file():
        others = _load(companion)
        discriminators = {name: plain_names(_tensors(others.get(name), companion)) for name in ("mpd", "msd")}
        steps = int(others.get("steps", steps))
    return VocoderWeights(
        kind="hifigan",
        variant=variant,
        audio=audio,
        steps=steps,
        generator=plain_names(state),
        discriminators=discriminators,
        origin=path.name,
    )


def _univnet(path: Path, content: Mapping[str, Any]) -> VocoderWeights:
    try:
        settings = yaml.safe_load(content.get("hp_str") or "")
    except yaml.YAMLError as error:
        raise CheckpointFormatError(
            f"{path}: its settings (`hp_str`) are not YAML ({error}); fetch it again"
        ) from error
    if not isinstance(settings, dict) or "audio" not in settings:
        raise CheckpointFormatError(
            f"{path}: it has no mel settings (`hp_str`), so its input is unknown; fetch the original file"
        )
    audio = _audio(settings["audio"], UNIVNET_AUDIO, path)
    state = _tensors(content["model_g"], path)
    joined = plain_names(_tensors(content.get("model_d") or {}, path))
    discriminators = {
        name: {key.removeprefix(f"{name}."): tensor for key, tensor in joined.items() if key.startswith(f"{name}.")}
        for name in ("MRD", "MPD")
    }
    variant = _variant("univnet", state, path)
    return VocoderWeights(
        kind="univnet",
        variant=variant,
        audio=audio,
        steps=int(content.get("step") or 0),
        generator=plain_names(state),
        discriminators=discriminators if joined else {},
        origin=path.name,
    )


def _vocos(path: Path, content: Mapping[str, Any]) -> VocoderWeights:
    config = path.with_name(VOCOS_CONFIG)
    try:
        settings = yaml.safe_load(config.read_text("utf-8"))
        features, head = (settings[part]["init_args"] for part in ("feature_extractor", "head"))
    except FileNotFoundError as error:
        raise CheckpointFormatError(
            f"{path}: no {VOCOS_CONFIG} in its folder, so the mel settings of its training are unknown; copy its own "
            "there"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise CheckpointFormatError(f"{config}: not the settings of a Vocos model ({error}); fetch it again") from error
    state = _tensors(content, path)
    own = {"win_length": features.get("n_fft"), "f_min": 0.0, "f_max": None}
    audio = _audio({**own, **features, **settings.get("mel", {})}, VOCOS_AUDIO, config)
    _check_vocos_extractor(path, features, head, state.get(VOCOS_FILTERBANK), audio)
    generator = {
        name: tensor
        for name, tensor in plain_names(state).items()
        if not name.startswith(VOCOS_FEATURES) and name != VOCOS_WINDOW
    }
    return VocoderWeights(
        kind="vocos",
        variant=_variant("vocos", generator, path),
        audio=audio,
        steps=int(settings.get("steps", 0)),
        generator=generator,
        discriminators={},
        origin=path.name,
    )


def _check_vocos_extractor(
    path: Path,
    features: Mapping[str, Any],
    head: Mapping[str, Any],
    filterbank: torch.Tensor | None,
    audio: AudioConfig,
) -> None:
    """Checks that a Vocos model was trained on mels like ours.

    Raises:
        CheckpointFormatError: its frames are centered, or its mel scale is another one.
    """
    theirs = []
    if features.get("padding", "center") != "same" or head.get("padding", "same") != "same":
        theirs.append("its frames are centered on multiples of the hop (padding: center there, same here)")
    ours = torch.from_numpy(mel_filterbank(audio.sample_rate, audio.n_fft, audio.n_mels, audio.fmin, audio.fmax)).T
    if filterbank is None or filterbank.shape != ours.shape or (filterbank - ours).abs().max() > SAME_FILTERBANK:
        theirs.append("its mel filters are others (by default HTK's scale without normalization; here Slaney's)")
    if theirs:
        raise CheckpointFormatError(
            f"{path}: trained on other mel spectrograms: {', and '.join(theirs)}, at {audio.sample_rate} Hz with "
            f"{audio.n_mels} mel bands, so it would generate noise. Use weights that were trained on mels of this "
            "extractor"
        )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointFormatError(f"{path}: no such file; give an official file or a vocoder folder")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
        raise CheckpointFormatError(
            f"{path}: truncated, damaged or not a plain checkpoint ({reason}); fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointFormatError(f"{path}: holds a {type(content).__name__}, not the dictionary of a checkpoint")
    return content


def _save(content: Mapping[str, Any], path: Path) -> Path:
    with atomic_write(path) as partial:
        torch.save(dict(content), partial)
    return path


def _tensors(state: Any, path: Path) -> State:
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointFormatError(f"{path}: holds something other than weights; fetch it again")
    return {name: tensor.float() for name, tensor in state.items()}


def _variant(kind: str, state: State, path: Path) -> str:
    variant, _ = identify_variant(kind, state)
    if not variant:
        raise CheckpointFormatError(f"{path}: a {kind} generator of an unknown variant")
    return variant


def _audio(settings: Mapping[str, Any], names: Mapping[str, str], path: Path) -> AudioConfig:
    missing = [name for name in names if name not in settings]
    if missing:
        raise CheckpointFormatError(f"{path}: lacks the mel settings {', '.join(missing)}")
    values = {ours: settings[theirs] for theirs, ours in names.items()}
    if values["fmax"] is None:
        values["fmax"] = values["sample_rate"] / 2
    try:
        return AudioConfig.model_validate(values)
    except ValidationError as error:
        reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CheckpointFormatError(f"{path}: unknown mel settings ({reason}); copy the file's own there") from error


def _official_audio(audio: AudioConfig, names: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: getattr(audio, ours) for theirs, ours in names.items()}


def _hifigan_layout(weights: VocoderWeights) -> dict[str, Any]:
    """Returns the dimensions of the generator as in the official `config.json`."""
    size = ARCHITECTURES["hifigan"].variants[weights.variant]
    return {
        "resblock": "1" if size.paired else "2",
        "upsample_rates": size.strides,
        "upsample_kernel_sizes": size.kernels,
        "upsample_initial_channel": size.channels,
        "resblock_kernel_sizes": size.resblock_kernels,
        "resblock_dilation_sizes": size.resblock_dilations,
    }


def _univnet_layout(weights: VocoderWeights) -> dict[str, Any]:
    """Returns the dimensions of the generator as in the official settings (`hp_str`)."""
    size = ARCHITECTURES["univnet"].variants[weights.variant]
    generator = {
        "noise_dim": NOISE_CHANNELS,
        "channel_size": size.channels,
        "dilations": list(size.dilations),
        "strides": list(size.strides),
        "lReLU_slope": SLOPE,
    }
    return {"gen": generator}


def _vocos_layout(weights: VocoderWeights) -> dict[str, Any]:
    """Returns the settings as in the official `config.yaml`, with two more keys for the import here: `mel`, `steps`."""
    size, audio = ARCHITECTURES["vocos"].variants[weights.variant], weights.audio
    parts = {
        "feature_extractor": (
            "vocos.feature_extractors.MelSpectrogramFeatures",
            {
                "sample_rate": audio.sample_rate,
                "n_fft": audio.n_fft,
                "hop_length": audio.hop_length,
                "n_mels": audio.n_mels,
                "padding": "same",
            },
        ),
        "backbone": (
            "vocos.models.VocosBackbone",
            {
                "input_channels": audio.n_mels,
                "dim": size.width,
                "intermediate_dim": size.inner_width,
                "num_layers": size.blocks,
            },
        ),
        "head": (
            "vocos.heads.ISTFTHead",
            {"dim": size.width, "n_fft": size.n_fft, "hop_length": size.hop, "padding": "same"},
        ),
    }
    layout: dict[str, Any] = {name: {"class_path": path, "init_args": args} for name, (path, args) in parts.items()}
    return {**layout, "mel": _official_audio(audio, VOCOS_AUDIO), "steps": weights.steps}


def _join(discriminators: Mapping[str, State]) -> State:
    return {f"{name}.{key}": tensor for name, state in discriminators.items() for key, tensor in state.items()}
