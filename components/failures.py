"""Explains errors that a user can fix in one line; all other exceptions are defects and keep their traceback."""

import errno
import os
import re

from model.addresses import hide_credentials
from model.errors import MyXTTSError

_NO_SPACE = "free some space, or move the state to another disk with MYXTTS_STATE"
_NO_PERMISSION = "choose another place, or ask for permission to use this one"
FIXES = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _NO_PERMISSION,
    errno.ENOENT: "give the path of an existing file or folder",
    errno.ENOTDIR: "one of the folders in this path is a file; give another path",
    errno.EISDIR: "give a file instead of a folder",
    errno.EEXIST: "it exists already; give another path, or remove it",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EIO: "the disk does not answer; see the system's log",
}
"""Error number of the file system -> fix, for errors whose cause is the request or the machine."""

UNREACHABLE = ("failed with exception", "max retries exceeded", "connection refused", "timed out")
"""Parts of MLflow's messages when no server answered (in lower case)."""

_NO_LOGIN = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
MLFLOW_FIXES = {
    "RESOURCE_DOES_NOT_EXIST": "it was deleted, or is in another MLflow than the one that MLFLOW_TRACKING_URI names; "
    "`myxtts run` sends the records of finished trainings again",
    "PERMISSION_DENIED": _NO_LOGIN,
    "UNAUTHENTICATED": _NO_LOGIN,
}
"""Error code of MLflow's answer -> fix."""

MAX_CHARACTERS = 300
"""Longest message of MLflow that is shown in full."""


def explain(error: BaseException) -> str:
    """Returns one line that says what is wrong, where, and how to fix it; '' for a defect of this program.

    Addresses in it have no credentials, also those in messages of libraries.
    """
    return hide_credentials(_explained(error))


def _explained(error: BaseException) -> str:
    if isinstance(error, MyXTTSError):
        return str(error) or type(error).__name__
    number = _system_error(error)
    if number in FIXES:
        name = getattr(error, "filename", None)
        where = f"{os.fsdecode(name)}: " if name else ""
        return f"{where}{os.strerror(number)}; {FIXES[number]}"
    # Compared by name: most commands never import MLflow, Optuna or SQLAlchemy.
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if names & {"sqlalchemy.exc.SQLAlchemyError", "optuna.exceptions.StorageInternalError"}:
        reason = str(error).partition("\n")[0]
        return f"a database cannot be used: {reason}; check MLFLOW_TRACKING_URI and MYXTTS_STUDY_STORAGE, or mlflow.db"
    if "mlflow.exceptions.MlflowException" in names:
        return explain_mlflow(error)
    return ""


def explain_mlflow(error: BaseException) -> str:
    """Returns one line with the address of MLflow, its answer or the lack of one, and the fix."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "in the state folder")
    message = " ".join(str(error).split())
    if len(message) > MAX_CHARACTERS:  # the request stands at the beginning, the reason at the end
        message = f"{message[: MAX_CHARACTERS // 2]} ... {message[-MAX_CHARACTERS // 2 :]}"
    if any(part in message.lower() for part in UNREACHABLE):
        return f"MLflow {server}: {message}; check that MLFLOW_TRACKING_URI names a server that answers"
    elsewhere = "see the log of the server" if server.startswith("http") else "check its database"
    fix = MLFLOW_FIXES.get(getattr(error, "error_code", ""), elsewhere)
    return f"MLflow {server} answered: {message}; {fix}"


def _system_error(error: BaseException) -> int | None:
    """Returns the system's error number; libraries in Rust, such as safetensors, give it only in their message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
