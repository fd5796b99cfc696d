"""The state folder, which holds everything that runs write: its location, layout and locks."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from model.errors import MyXTTSError
from model.files import read_record, write_json

__all__ = ["State", "StateError", "read_json", "write_json"]

VARIABLE = "MYXTTS_STATE"
FOLDER = ".myxtts"
MARKER = "this-is-myxtts-state"
PROJECT_FILE = "dvc.yaml"

logger = logging.getLogger(__name__)
Content = TypeVar("Content")


class StateError(MyXTTSError):
    """The state folder, or a file in it, cannot be found or used; the message says what to do."""


@dataclass(frozen=True)
class State:
    """Paths inside one state folder (all absolute).

    Attributes:
        root: The state folder.
    """

    root: Path

    @classmethod
    def locate(cls, start: Path | None = None) -> "State":
        """Returns the state of the project that `start` (default: the current folder) lies in.

        That is, in this order: `MYXTTS_STATE`; a state folder that contains `start`; `.myxtts` of the nearest project
        folder (one with a `dvc.yaml`).

        Raises:
            StateError: `start` is not in a project and the variable is not set, or it names a file.
        """
        if moved := os.environ.get(VARIABLE):
            root = Path(moved).expanduser().resolve()
            if root.exists() and not root.is_dir():
                raise StateError(f"{VARIABLE} names {root}, which is not a folder; set it to a folder, or unset it")
            return cls(root)
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / MARKER).is_file():
                return cls(folder)
        for folder in (here, *here.parents):
            if (folder / PROJECT_FILE).is_file():
                return cls(folder / FOLDER)
        raise StateError(
            f"{here} is not in a project (no {PROJECT_FILE} in it or above it); "
            f"change into the project's folder or set {VARIABLE} to a state folder"
        )

    def prepare(self) -> "State":
        """Creates the folder, readable by its owner only since it holds recordings and databases.

        Raises:
            StateError: this user cannot write to it. In a pod, the step `resolve_data` finds this out first.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.root / MARKER).touch()
        except PermissionError as error:
            raise StateError(
                f"user {os.geteuid()} cannot write to the state folder {self.root}; set {VARIABLE} to another folder, "
                "or change the owner (on a cluster with infra/kubernetes/state-owner.example.yaml)"
            ) from error
        return self

    def folder(self, *parts: str) -> Path:
        """Creates a folder below the root, if needed, and returns it."""
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

    def data_report(self, data_hash: str) -> Path:
        """Returns the path of the validation report of the corpus with this DVC hash."""
        return self.root / "data-reports" / f"{data_hash.removesuffix('.dir')}.html"

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
        """Holds the lock `name` of the state while the block runs; the kernel releases it when the process dies."""
        with file_lock(self.folder("locks") / name, name):
            yield


@contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Holds a lock file while the block runs; the kernel releases it when the process dies.

    Args:
        path: The file, made if needed.
        what: What the lock protects, for the log.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for another process that works on %s", what)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_json(path: Path, kind: Any = dict[str, Any]) -> Any:
    """Returns the content of a JSON file of the state.

    Args:
        path: The file.
        kind: Type of its content.

    Raises:
        StateError: the file is missing, damaged, or holds something else.
    """
    fix = "delete it and run the pipeline again" if path.is_file() else "run the pipeline again to make it"
    return read_record(path, kind, StateError, fix)


def read_or_set_aside(path: Path, kind: type[Content], otherwise: Content) -> Content:
    """Returns the content of a JSON file that the program can do without; `otherwise` if there is none.

    A damaged file is renamed to `<name>.damaged`, with a warning, so that it does not stop other commands.
    """
    if not path.is_file():
        return otherwise
    try:
        return read_record(path, kind, StateError, "damaged")
    except StateError as error:
        set_aside(path, str(error))
        return otherwise


def set_aside(path: Path, reason: str) -> None:
    """Renames a damaged file or folder to `<name>.damaged`, with a warning."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, aside)
        logger.warning("%s; set aside as %s", reason, aside.name)
    except OSError as error:  # another process did it, or this one may only read
        logger.warning("%s; it cannot be set aside (%s)", reason, error.strerror)
