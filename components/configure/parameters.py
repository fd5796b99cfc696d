"""Parameters of the pipeline, which users change on the page of Kubeflow Pipelines, and the settings behind them."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from components.base_voice import NONE
from components.fetching import local_sha256
from model.addresses import hide_credentials
from model.config import StepSettings
from model.config.data import PreprocessSettings
from model.config.evaluation import EvaluateSettings, GateSettings
from model.config.resolution import ConfigError, flatten, resolve
from model.config.schema import Config
from model.config.training import TrainSettings
from model.config.vocoder import FinetuneVocoderSettings

STEP_SETTINGS: dict[str, type[StepSettings]] = {
    "preprocess": PreprocessSettings,
    "train": TrainSettings,
    "finetune_vocoder": FinetuneVocoderSettings,
    "evaluate": EvaluateSettings,
    "gate": GateSettings,
}
"""Step -> type of its settings. A change of any other setting leaves the step's cached result valid."""

PARAMETERS = {
    "model_size": "model_size",
    "optimization_level": "optimization_level",
    "start_from": "training.start_from",
    "max_steps": "training.max_steps",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "vocoder": "vocoder.type",
    "seed": "seed",
}
"""Parameter of the pipeline -> the setting that it stands for. An empty one leaves the setting to model size and level.
Other settings are in the parameter `settings`."""

ALWAYS_SHOWN = ("optimization_level", "training.start_from", "vocoder.type", "seed")
"""Settings whose parameter is never empty, since they depend on no other parameter."""

PINNED = ("training.start_from_sha256",)
"""Settings that `configure` sets when a run starts."""

SECTIONS = frozenset(section for settings in STEP_SETTINGS.values() for section in settings.model_fields)
"""Sections and top-level settings that a step reads."""


def to_parameters(config: Config, derived: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Returns the parameters that stand for these settings; `from_parameters` reads them.

    Equal settings give equal parameters, whichever file they come from. Parameters are text because KFP would turn
    whole numbers in dictionaries into floats.

    Args:
        config: Resolved settings.
        derived: Layers that follow from the base voice, which `configure` derives again (see `resolve`).
    """
    chosen = {"model_size": config.model_size, "optimization_level": config.optimization_level}
    usual = flatten(resolve(overrides=chosen, derived=derived).config.model_dump(mode="json"))
    values = flatten(config.model_dump(mode="json", include=set(SECTIONS)))
    differing = {key: value for key, value in values.items() if value != usual[key] and key not in PINNED}
    if config.training.start_from == NONE or usual["model_size"] != config.model_size:
        differing["model_size"] = config.model_size
    differing |= {key: values[key] for key in ALWAYS_SHOWN}
    parameters = {name: str(differing.pop(key, "")) for name, key in PARAMETERS.items()}
    return {**parameters, "settings": json.dumps(differing, sort_keys=True, ensure_ascii=False)}


def from_parameters(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Returns the settings, by dotted key, that parameters of the pipeline stand for.

    Raises:
        ConfigError: `settings` is no mapping, or sets what a parameter stands for to another value.
    """
    text = parameters["settings"]
    try:
        tree = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f'parameter `settings`: neither JSON nor YAML: {error}; write {{"section.key": value}}'
        ) from error
    if not isinstance(tree or {}, dict):
        raise ConfigError(f'parameter `settings`: is a {type(tree).__name__}; write {{"section.key": value}}')
    settings = flatten(tree or {})
    for name, key in PARAMETERS.items():
        if not (value := parameters[name].strip()):
            continue
        if str(settings.get(key, value)) != value:
            raise ConfigError(f"parameter `{name}` is {value}, but `settings` has {key} = {settings[key]}; remove one")
        settings[key] = value
    return settings


def step_settings(config: Config) -> dict[str, str]:
    """Returns `<step>_settings` -> the settings of the step as JSON."""
    pinned = pin_checkpoints(config)
    return {f"{step}_settings": kind.of(pinned).to_json() for step, kind in STEP_SETTINGS.items()}


def pin_checkpoints(config: Config) -> Config:
    """Returns the settings with the SHA-256 of local checkpoints, so that a changed file makes cached results stale."""
    features, vocoder = config.features, config.vocoder
    encoder = features.speaker_encoder_sha256 or local_sha256(features.speaker_encoder_weights)
    checkpoint = vocoder.checkpoint_sha256 or local_sha256(vocoder.checkpoint)
    return config.model_copy(
        update={
            "features": features.model_copy(update={"speaker_encoder_sha256": encoder}),
            "vocoder": vocoder.model_copy(update={"checkpoint_sha256": checkpoint}),
        }
    )


def refuse_credentials(values: Mapping[str, str]) -> None:
    """Refuses addresses with credentials in the arguments of a run, which every user of the page can read.

    Raises:
        ConfigError: an argument contains one.
    """
    for argument, value in values.items():
        if (shown := hide_credentials(value)) != value:
            raise ConfigError(
                f"the argument `{argument}` of the pipeline contains an address with credentials; remove them and "
                f"use a secret (cluster.s3_secret, cluster.tracking_secret): {shown}"
            )
