"""In-memory double of the part of MLflow's server that the registry uses, with a hook at every write.

Stricter than the real one: names of experiments are unique even when two clients rename at once, parameters are written
once, and an unknown method or argument is an error.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes


class Page(list):
    token = ""


@dataclass
class Content:
    """Objects stored on the server, which all of its clients share."""

    models: dict[str, SimpleNamespace] = field(default_factory=dict)
    versions: dict[tuple[str, str], SimpleNamespace] = field(default_factory=dict)
    experiments: dict[str, SimpleNamespace] = field(default_factory=dict)
    runs: dict[str, SimpleNamespace] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: count(1))


class MlflowDouble:
    """One client of the server; `other` makes another one of the same server.

    Attributes:
        on_write: Called before and after every write with its name and `before` or `after`.
        writes: Names of the writes so far.
    """

    def __init__(self, content: Content | None = None) -> None:
        self.content = content or Content()
        self.on_write: Callable[[str, str], None] = lambda name, when: None
        self.writes: list[str] = []

    def other(self) -> "MlflowDouble":
        return MlflowDouble(self.content)

    def _write(self, name: str, change: Callable[[], Any]) -> Any:
        self.writes.append(name)
        self.on_write(name, "before")
        result = change()
        self.on_write(name, "after")
        return result

    # registered models

    def create_registered_model(self, name: str) -> SimpleNamespace:
        def change() -> SimpleNamespace:
            if name in self.content.models:
                raise error("RESOURCE_ALREADY_EXISTS", name)
            model = SimpleNamespace(name=name, creation_timestamp=next(self.content.numbers), tags={}, aliases={})
            return self.content.models.setdefault(name, model)

        return self._write("create_registered_model", change)

    def get_registered_model(self, name: str) -> SimpleNamespace:
        found = self._model(name)
        return SimpleNamespace(**{**vars(found), "tags": dict(found.tags), "aliases": dict(found.aliases)})

    def search_registered_models(self, *, page_token: str | None = None) -> Page:
        assert page_token is None
        return Page(map(self.get_registered_model, self.content.models))

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        def change() -> None:
            self._version(name, version)
            self._model(name).aliases[alias] = version

        self._write(f"alias {alias}", change)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._write(f"no alias {alias}", lambda: self._model(name).aliases.pop(alias, None))

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self._write(f"model tag {key}", lambda: self._model(name).tags.update({key: value}))

    # versions

    def create_model_version(self, name: str, source: str, run_id: str = "", tags: Any = None) -> SimpleNamespace:
        def change() -> SimpleNamespace:
            number = str(1 + max((int(item) for model, item in self.content.versions if model == name), default=0))
            version = SimpleNamespace(
                name=self._model(name).name,
                version=number,
                tags=dict(tags or {}),
                source=source,
                run_id=run_id,
                creation_timestamp=next(self.content.numbers),
            )
            return self.content.versions.setdefault((name, number), version)

        return self._write("create_model_version", change)

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        return replace_tags(self._version(name, version))

    def search_model_versions(self, filter_string: str) -> Page:
        wanted = re.fullmatch(r"name = '([^']+)'", filter_string)
        assert wanted, filter_string
        return Page(replace_tags(item) for (name, _), item in self.content.versions.items() if name == wanted[1])

    def delete_model_version(self, name: str, version: str) -> None:
        def change() -> None:
            self._version(name, version)
            del self.content.versions[name, version]
            aliases = self._model(name).aliases
            for alias in [alias for alias, number in aliases.items() if number == version]:
                del aliases[alias]

        self._write("delete_model_version", change)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        assert isinstance(value, str)
        self._write(f"tag {key}", lambda: self._version(name, version).tags.update({key: value}))

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        self._write(f"no tag {key}", lambda: self._version(name, version).tags.pop(key, None))

    # experiments and runs

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        def change() -> str:
            self._require_unique(name)
            number = str(next(self.content.numbers))
            made = SimpleNamespace(experiment_id=number, name=name, lifecycle_stage="active")
            self.content.experiments[number] = made
            return number

        return self._write("create_experiment", change)

    def rename_experiment(self, experiment_id: str, name: str) -> None:
        def change() -> None:
            self._require_unique(name)
            experiment = self.content.experiments[experiment_id]
            if experiment.lifecycle_stage != "active":
                raise error("INVALID_STATE", "not active")
            experiment.name = name

        self._write("rename_experiment", change)

    def delete_experiment(self, experiment_id: str) -> None:
        self._write("delete_experiment", lambda: self._stage(experiment_id, "deleted"))

    def restore_experiment(self, experiment_id: str) -> None:
        self._write("restore_experiment", lambda: self._stage(experiment_id, "active"))

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return next((item for item in self.content.experiments.values() if item.name == name), None)

    def search_experiments(self, *, filter_string: str) -> Page:
        wanted = re.fullmatch(r"name LIKE '([^'%]+)%'", filter_string)
        assert wanted, filter_string
        found = self.content.experiments.values()
        return Page(item for item in found if item.name.startswith(wanted[1]) and item.lifecycle_stage == "active")

    def create_run(self, experiment_id: str, *, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        def change() -> SimpleNamespace:
            info = SimpleNamespace(run_id=f"{next(self.content.numbers):032x}", lifecycle_stage="active")
            info.experiment_id = self.content.experiments[experiment_id].experiment_id
            run = SimpleNamespace(info=info, data=SimpleNamespace(params={}, tags=dict(tags)))
            return self.content.runs.setdefault(info.run_id, run)

        return self._write("create_run", change)

    def set_terminated(self, run_id: str) -> None:
        self._write("set_terminated", lambda: self._run(run_id))

    def restore_run(self, run_id: str) -> None:
        self._write("restore_run", lambda: setattr(self._run(run_id).info, "lifecycle_stage", "active"))

    def get_run(self, run_id: str) -> SimpleNamespace:
        run = self._run(run_id)
        data = SimpleNamespace(params=dict(run.data.params), tags=dict(run.data.tags))
        return SimpleNamespace(info=SimpleNamespace(**vars(run.info)), data=data)

    def search_runs(self, experiment_ids: list[str], *, run_view_type: int, order_by: list[str]) -> Page:
        runs = self.content.runs.values()
        return Page(self.get_run(run.info.run_id) for run in runs if run.info.experiment_id in experiment_ids)

    def log_param(self, run_id: str, key: str, value: str, *, synchronous: bool) -> None:
        assert synchronous
        assert len(value) <= 6000, "MLflow would cut it"

        def change() -> None:
            run = self._run(run_id)
            if run.info.lifecycle_stage != "active" or run.data.params.setdefault(key, value) != value:
                raise error("INVALID_PARAMETER_VALUE", key)

        self._write("log_param" + ("" if key.isdigit() else " outcome"), change)

    def _model(self, name: str) -> SimpleNamespace:
        if name not in self.content.models:
            raise error("RESOURCE_DOES_NOT_EXIST", name)
        return self.content.models[name]

    def _version(self, name: str, version: str) -> SimpleNamespace:
        if (name, version) not in self.content.versions:
            raise error("RESOURCE_DOES_NOT_EXIST", f"{name} {version}")
        return self.content.versions[name, version]

    def _run(self, run_id: str) -> SimpleNamespace:
        if run_id not in self.content.runs:
            raise error("RESOURCE_DOES_NOT_EXIST", run_id)
        return self.content.runs[run_id]

    def _require_unique(self, name: str) -> None:
        if self.get_experiment_by_name(name):
            raise error("RESOURCE_ALREADY_EXISTS", name)

    def _stage(self, experiment_id: str, stage: str) -> None:
        self.content.experiments[experiment_id].lifecycle_stage = stage


def error(code: str, what: str) -> MlflowException:
    return MlflowException(f"{what}: {code}", error_code=getattr(codes, code))


def replace_tags(version: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(version), "tags": dict(version.tags)})
