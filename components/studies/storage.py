"""Storage of the studies: a PostgreSQL database, or a journal file in the state."""

import os
import warnings
from typing import TYPE_CHECKING

from components.database_urls import require_server
from components.state import State
from model.errors import MyXTTSError
from model.files import trim_incomplete_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

STORAGE_VARIABLE = "MYXTTS_STUDY_STORAGE"
"""Environment variable with the URL of the database of the studies."""


class StudyError(MyXTTSError):
    """A study cannot be opened or run; the message says how to fix it."""


def storage(state: State) -> "BaseStorage":
    """Returns the storage of studies: the database in `MYXTTS_STUDY_STORAGE`, else a journal file in the state.

    Raises:
        StudyError: the database cannot be used, or the variable is not set in a pod.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the caller reports trials, without tracebacks
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if url := os.environ.get(STORAGE_VARIABLE):
        return _database(url)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise StudyError(
            f"{STORAGE_VARIABLE} is not set in this pod; set cluster.study_secret to the secret with the address of "
            "the studies' database, under the key `optuna-uri`"
        )
    path = state.prepare().study_journal
    lock = JournalFileSymlinkLock(str(path))
    if path.is_file() and not path.read_bytes().endswith(b"\n"):  # a worker was killed, or is just writing
        lock.acquire()
        try:
            trim_incomplete_line(path)  # the next record would be appended to it
        finally:
            lock.release()
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock))


def _database(url: str) -> "RDBStorage":
    import optuna
    import sqlalchemy.exc

    require_server(url, STORAGE_VARIABLE)
    try:
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, "pool_size": 2} if url.startswith("postgresql") else None,
        )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:  # the URL may name a driver that is not installed
        reason = str(error).partition("\n")[0]
        raise StudyError(
            f"the database of the studies cannot be used ({reason}); check that {STORAGE_VARIABLE} is a URL of the "
            "scheme postgresql+pg8000 with user, password, host and database, and that the server answers"
        ) from error
