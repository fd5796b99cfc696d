"""Announces a new champion, after a promotion or a rollback, with the command or webhook of `registry.on_promote`."""

import json
import logging
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import Any

import requests
from pydantic import TypeAdapter

from components.author import Author
from components.journal import APPLIED, Entry
from components.outage import retry_during_outage
from components.registry import REGISTER, SCHEME, Registry
from model.addresses import hide_credentials
from model.errors import MyXTTSError

TOKEN = "MYXTTS_ON_PROMOTE_TOKEN"
"""Environment variable with a token that the webhook asks for, sent as `Authorization: Bearer`."""
RETRY_SECONDS = 30.0
"""Time limit of all attempts to deliver an announcement."""
TIMEOUT_SECONDS = 10.0
"""Time limit of the webhook's response."""
COMMAND_SECONDS = 300.0
"""Time limit of the command."""
MAX_CHARACTERS = 300
"""Maximum length of the recorded reason of a failure."""
DELIVERED, FAILED = "delivered", "failed"

logger = logging.getLogger(__name__)


class AnnouncementError(MyXTTSError):
    """The command or webhook failed; the message names it and says why."""


class _Unavailable(AnnouncementError):
    """The command or webhook failed in a way that a repetition may correct."""


def announce(registry: Registry, name: str, hook: str, sleep: Callable[[float], None] = time.sleep) -> str:
    """Announces the champion of a model unless it was announced before, and records the result in the history.

    The process that announces a change first writes its name to the journal, where it can be written only once, so that
    no two processes announce the same change. Failures are logged and recorded, and do not undo the promotion.

    Args:
        registry: Registry of the model.
        name: Registered model.
        hook: Value of `registry.on_promote`; '' announces nothing.
        sleep: Waits so many seconds between two attempts.

    Returns:
        `delivered`, `failed: <reason>`, or '' where nothing was to be announced.
    """
    from mlflow.exceptions import MlflowException

    if not hook:
        return ""
    changes = [entry for entry in registry.history(name) if entry.counts and entry.operation.action != REGISTER]
    if not changes or changes[-1].outcome != APPLIED:
        return ""
    newest = changes[-1]
    try:
        if not registry.journal(name).claim_announcement(newest.number, uuid.uuid4().hex):
            return ""
        result = _deliver(payload(name, newest), hook, sleep)
        registry.journal(name).close_announcement(newest.number, result)
    except MlflowException as error:
        result = f"{FAILED}: its record in MLflow was refused: {error.message}"
    if result != DELIVERED:
        logger.warning("%s version %s stays champion; registry.on_promote %s", name, newest.operation.version, result)
    return result


def payload(name: str, entry: Entry) -> dict[str, Any]:
    """Returns the announcement of a change as JSON data; `id` is the same whenever the change is announced."""
    done = entry.operation
    author = TypeAdapter(Author | None).dump_python(done.author, mode="json")
    return {
        "id": done.id,
        "event": done.action,
        "model": name,
        "version": done.version,
        "uri": f"{SCHEME}{name}/{done.version}",
        "replaced": done.replaced,
        "time": done.time,
        "author": author,
        "reason": done.reason,
        "forced": done.forced,
        "evidence": done.evidence,
    }


def _deliver(content: dict[str, Any], hook: str, sleep: Callable[[float], None]) -> str:
    """Returns `delivered` or `failed: <reason>`."""
    send = _post if "://" in hook else _run
    try:
        retry_during_outage(
            lambda: send(hook, content),
            lambda error: isinstance(error, _Unavailable),
            "registry.on_promote",
            RETRY_SECONDS,
            sleep,
        )
    except AnnouncementError as error:
        return f"{FAILED}: {hide_credentials(str(error))[:MAX_CHARACTERS]}"
    return DELIVERED


def _post(url: str, content: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": content["id"]}
    if token := os.environ.get(TOKEN):
        headers["Authorization"] = f"Bearer {token}"
    try:
        answer = requests.post(url, json=content, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Unavailable(f"{url} does not answer ({type(error).__name__})") from error
    except requests.RequestException as error:
        raise AnnouncementError(f"{url}: {error}") from error
    if answer.status_code >= 500 or answer.status_code in (408, 429):
        raise _Unavailable(f"{url} answered {answer.status_code} {answer.reason}")
    if not 200 <= answer.status_code < 300:
        raise AnnouncementError(f"{url} answered {answer.status_code} {answer.reason}: {answer.text.strip()}")


def _run(command: str, content: dict[str, Any]) -> None:
    """Runs a command, without a shell, with the announcement on its standard input."""
    try:
        done = subprocess.run(
            shlex.split(command),
            input=json.dumps(content),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise AnnouncementError(f"{command} did not end within {COMMAND_SECONDS:.0f} s") from error
    except OSError as error:
        raise AnnouncementError(f"{command} cannot be run: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise _Unavailable(f"{command} exited with {done.returncode}: {last}")
