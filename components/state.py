"""The one folder that runs leave their results in, and where each kind of result lies inside it."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import MyXTTSError

VARIABLE = "MYXTTS_STATE"
FOLDER = ".myxtts"
MARKER = "this-is-myxtts-state"
PROJECT_FILE = "dvc.yaml"

logger = logging.getLogger(__name__)


class StateError(MyXTTSError):
    """The state folder cannot be found or used; the message says what to do."""


@dataclass(frozen=True)
class State:
    """Paths inside one state folder (all absolute).

    Attributes:
        root: The folder; everything that a run leaves behind is below it.
    """

    root: Path

    @classmethod
    def locate(cls, start: Path | None = None) -> "State":
        """The state of the project that `start` (default: the current folder) lies in.

        `MYXTTS_STATE` wins; then a state folder that `start` is inside of; then `.myxtts` of the nearest project
        folder (one with a `dvc.yaml`).

        Raises:
            StateError: `start` is in no project and the variable is not set, or it names a file.
        """
        if moved := os.environ.get(VARIABLE):
            root = Path(moved).expanduser().resolve()
            if root.exists() and not root.is_dir():
                raise StateError(f"{VARIABLE} names {root}, which is no folder; give it a folder, or unset it")
            return cls(root)
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / MARKER).is_file():
                return cls(folder)
        for folder in (here, *here.parents):
            if (folder / PROJECT_FILE).is_file():
                return cls(folder / FOLDER)
        raise StateError(
            f"{here} lies in no project (no {PROJECT_FILE} here or above); "
            f"change into the project's folder or set {VARIABLE} to a state folder"
        )

    def prepare(self) -> "State":
        """Create the folder (readable by its owner only: it holds recordings and databases)."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / MARKER).touch()
        return self

    def folder(self, *parts: str) -> Path:
        """A folder below the root, created."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def tracking_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def study_journal(self) -> Path:
        return self.root / "optuna.journal"

    @property
    def dvc_cache(self) -> Path:
        return self.root / "dvc-cache"

    @property
    def dvc_remote(self) -> Path:
        return self.root / "dvc-remote"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def kfp_cache(self) -> Path:
        return self.root / "kfp-cache"

    def data(self, md5: str) -> Path:
        return self.root / "data" / md5.removesuffix(".dir")

    def features(self, key: str) -> Path:
        return self.root / "features" / key

    def training(self, key: str) -> Path:
        return self.root / "training" / key

    def vocoder(self, key: str) -> Path:
        return self.root / "vocoders" / key

    def evaluation(self, key: str) -> Path:
        return self.root / "evaluations" / key

    def gate(self, key: str) -> Path:
        return self.root / "gates" / key

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the state's lock `name`: one process at a time, released by the kernel when its holder dies."""
        with (self.folder("locks") / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("waiting for another process that is at work on %s", name)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_json(path: Path, value: Any) -> Path:
    """Write `value` in one move, so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, path)
    return path


def read_json(path: Path) -> Any:
    """The value stored in `path`.

    Raises:
        StateError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise StateError(f"{path} is missing; run the pipeline again to make it") from error
    except json.JSONDecodeError as error:
        raise StateError(f"{path} is not JSON ({error}); delete it and run the pipeline again") from error
