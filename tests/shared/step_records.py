"""Records of the pipeline's steps as inputs of the step under test."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from components.contracts import (
    EvaluateOutput,
    FinetuneVocoderOutput,
    PreprocessOutput,
    RegisterOutput,
    ResolveDataOutput,
    StepOutput,
    TrainOutput,
)

DATA = "d" * 32 + ".dir"


def step_records(folder: Path, changes: Mapping[str, str | Path] | None = None) -> dict[str, StepOutput]:
    """Returns one record for each input name of the pipeline's steps.

    Args:
        folder: Existing folder that every path leads to.
        changes: `<input>.<field>` -> value, such as `training.run_id`. A path given as text is a new folder of that
            name beside the others.
    """
    records: dict[str, StepOutput] = {
        "data": ResolveDataOutput(summary="", corpus=folder, data_hash=DATA, examination=folder, examination_hash=DATA),
        "features": PreprocessOutput(
            summary="", features=folder, features_hash="f", examination=folder, examination_hash="f"
        ),
        "training": TrainOutput(summary="", training=folder, voice=folder, weights_sha256="w", run_id="r"),
        "finetuning": FinetuneVocoderOutput(summary="", voice=folder, voice_hash="v"),
        "evaluation": EvaluateOutput(summary="", evaluation=folder),
        "registration": RegisterOutput(summary="", name="m", version="1"),
    }
    for key, value in (changes or {}).items():
        name, _, field = key.partition(".")
        if field in records[name].path_fields() and isinstance(value, str):
            value = folder / value
            value.mkdir(exist_ok=True)
        records[name] = replace(records[name], **{field: value})
    return records


def step_inputs(folder: Path, names: Iterable[str], changes: Mapping[str, str | Path] | None = None) -> dict[str, str]:
    """Writes the records of these inputs into `folder` and returns their paths by input name."""
    records = step_records(folder, changes)
    return {name: str(records[name].write(folder / f"{name}.json")) for name in names}
