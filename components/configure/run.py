"""Resolves the parameters of a run when it starts: the version of the data, the base voice, each step's settings.

The results are parameters of the later steps, so that their cached results are found by the values themselves: a run of
`latest` that finds the same data and settings as an earlier run uses its results.
"""

import json
from typing import Any

import yaml

from components.base_voice import AUTO, NONE, BaseVoice, base_languages, find_base, find_made_base
from components.configure.parameters import (
    SECTIONS,
    from_parameters,
    pin_checkpoints,
    refuse_credentials,
    step_settings,
)
from components.contracts import ConfigureOutput
from components.data_versions import LATEST, DataRecords, DataVersion
from components.registry import model_name
from components.results import Results
from components.state import State
from model.config.resolution import Resolved, flatten, resolve
from model.config.schema import Config
from model.diagnosis.checklist import checklist, refuse

ORIGIN = "parameters of the run"


def run(data: str, remote: str, corpus: str, name: str, **parameters: str) -> ConfigureOutput:
    """Resolves the parameters of a run.

    Args:
        data: DVC hash of the corpus, or `latest`.
        remote: DVC remote that holds it.
        corpus: Name of the corpus.
        name: Registered model; '' for the name that `registry.name` makes of corpus and model size.
        parameters: See `components.configure.parameters`.

    Raises:
        StepError: the remote does not record the data.
        ConfigError: a setting is unknown or out of range.
        ChecklistError: the settings are known to waste a run.
        BaseVoiceError, RegistryError: there is no such base voice, or the name of the model is not valid.
    """
    refuse_credentials({"remote": remote, **parameters})
    resolved = resolve(overrides=from_parameters(parameters), source=ORIGIN)
    version = None
    if data == LATEST or resolved.config.training.start_from != NONE:
        version = DataRecords(remote).find(data, corpus)
    if version is not None and resolved.config.training.start_from != NONE:
        resolved = _with_base(parameters, resolved, version)
    config = pin_checkpoints(resolved.config)
    refuse(checklist(config))
    data_hash = version.data_hash if version is not None else data
    chosen = name or model_name(config.registry.name, corpus, config.model_size)
    return ConfigureOutput(
        summary=f"data {data_hash[:8]}, {config.model_size}, {config.optimization_level}",
        data_hash=data_hash,
        evaluation_data=config.evaluation.corpus or data_hash,
        model_name=chosen,
        configuration=json.dumps(_shown(config, resolved)),
        **step_settings(config),
    )


def _with_base(parameters: dict[str, str], resolved: Resolved, version: DataVersion) -> Resolved:
    """Returns the settings with those that follow from the base voice, pinned to its version and weights."""
    base = _base(resolved.config, version, State.locate())
    pinned = {"training.start_from": base.uri if base else NONE}
    if base:
        pinned["training.start_from_sha256"] = base.weights_sha256
    derived = base.layers(version.languages, version.seconds) if base else {}
    return resolve(overrides={**from_parameters(parameters), **pinned}, derived=derived, source=ORIGIN)


def _base(config: Config, version: DataVersion, state: State) -> BaseVoice | None:
    if config.training.start_from == AUTO:
        return find_made_base(state, base_languages(set(version.languages)), config.model_size)
    return find_base(config.training.start_from, state)


def _shown(config: Config, resolved: Resolved) -> dict[str, dict[str, Any]]:
    """Returns value and origin of every setting that a step reads."""
    values = flatten(config.model_dump(mode="json", include=set(SECTIONS)))
    return {key: {"value": value, "origin": resolved.origins[key]} for key, value in sorted(values.items())}


def results(output: ConfigureOutput) -> Results:
    """Returns the data, the model, the settings that are not the default, and the whole configuration."""
    configuration = json.loads(output.configuration)
    chosen = {key: entry for key, entry in configuration.items() if entry["origin"] != "default"}
    values = {key: entry["value"] for key, entry in configuration.items()}
    lines = [
        f"## {output.model_name}",
        "",
        f"Data: `{output.data_hash}`.",
        "",
        "| setting | value | from |",
        "| --- | --- | --- |",
        *(f"| `{key}` | `{entry['value']}` | {entry['origin']} |" for key, entry in chosen.items()),
        "",
        "All settings:",
        "",
        "```yaml",
        yaml.safe_dump(values, allow_unicode=True, sort_keys=True).rstrip(),
        "```",
        "",
    ]
    return Results(markdown="\n".join(lines))
