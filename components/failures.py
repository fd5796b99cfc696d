"""Which errors a user can mend: told in one line that says what is wrong, where, and what to do. Others are defects."""

import errno
import os

PROJECT_PACKAGES = ("model", "components", "pipelines")

_ROOM = "free some space, or move the state to another disk with MYXTTS_STATE"
_RIGHT = "choose another place, or ask for the right to use this one"
CURES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
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


def explained(error: BaseException) -> str:
    """What a user is told of `error`; '' for a defect, whose traceback is wanted."""
    if type(error).__module__.partition(".")[0] in PROJECT_PACKAGES:
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in CURES:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror}; {CURES[error.errno]}"
    # Told by their names: most commands never import MLflow, Optuna or SQLAlchemy.
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if names & {"sqlalchemy.exc.SQLAlchemyError", "optuna.exceptions.StorageInternalError"}:
        reason = str(error).partition("\n")[0]
        return f"a database cannot be used: {reason}; see MLFLOW_TRACKING_URI and MYXTTS_STUDY_STORAGE, or mlflow.db"
    if "mlflow.exceptions.MlflowException" in names:
        server = os.environ.get("MLFLOW_TRACKING_URI", "in the state")
        said = " ".join(str(error).split())[:300]
        return f"MLflow {server}: {said}; see that MLFLOW_TRACKING_URI names one that answers"
    return ""
