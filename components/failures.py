"""Which errors a user can mend: told in one line that says what is wrong, where, and what to do. Others are defects."""

import errno
import os
import re

PROJECT_PACKAGES = ("model", "components", "pipelines")

_ROOM = "free some space, or move the state to another disk with MYXTTS_STATE"
_RIGHT = "choose another place, or ask for the right to use this one"
CURES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: _RIGHT,
    errno.ENOENT: "give a path that is there, in a folder that can hold it",
    errno.ENOTDIR: "one of the folders in this path is a file; give another path",
    errno.EISDIR: "give a file, not a folder",
    errno.EEXIST: "it is in the way; give another path, or remove it",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EIO: "the disk does not answer; see the system's log",
}
"""Errors of the file system that lie with what was asked for or with the machine, not with this program."""


MOST_CHARACTERS = 300


def explained(error: BaseException) -> str:
    """What a user is told of `error`; '' for a defect, whose traceback is wanted."""
    if type(error).__module__.partition(".")[0] in PROJECT_PACKAGES:
        return str(error) or type(error).__name__
    number = _system_error(error)
    if number in CURES:
        name = getattr(error, "filename", None)
        where = f"{os.fsdecode(name)}: " if name else ""
        return f"{where}{os.strerror(number)}; {CURES[number]}"
    # Told by their names: most commands never import MLflow, Optuna or SQLAlchemy.
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if names & {"sqlalchemy.exc.SQLAlchemyError", "optuna.exceptions.StorageInternalError"}:
        reason = str(error).partition("\n")[0]
        return f"a database cannot be used: {reason}; see MLFLOW_TRACKING_URI and MYXTTS_STUDY_STORAGE, or mlflow.db"
    if "mlflow.exceptions.MlflowException" in names:
        server = os.environ.get("MLFLOW_TRACKING_URI", "in the state")
        said = " ".join(str(error).split())
        if len(said) > MOST_CHARACTERS:  # what was asked stands at the beginning, the reason at the end
            said = f"{said[: MOST_CHARACTERS // 2]} ... {said[-MOST_CHARACTERS // 2 :]}"
        return f"MLflow {server}: {said}; see that MLFLOW_TRACKING_URI names one that answers"
    return ""


def _system_error(error: BaseException) -> int | None:
    """The system's number of an error; libraries in Rust, such as safetensors, only write it into their text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
