"""Outlasting a server that is away for a while: S3 during a fetch, MLflow or its artifact store during an upload."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

OUTAGE_SECONDS = 120.0
"""A server that stays away longer fails the step; a cluster then tries the step again."""
PAUSE_SECONDS = 5.0

logger = logging.getLogger(__name__)


def outlast(
    action: Callable[[], Answer],
    is_outage: Callable[[Exception], bool],
    what: str,
    seconds: float = OUTAGE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """The answer of `action`, called again while it fails for an outage; other errors pass at once.

    Args:
        action: May be called several times.
        is_outage: Whether an error may be gone in a moment.
        what: Named in the log.
        seconds: How long it is tried; the last error passes then.
        sleep: Waits between two calls.
        clock: Seconds.
    """
    deadline = clock() + seconds
    while True:
        try:
            return action()
        except Exception as error:
            if not is_outage(error) or clock() + PAUSE_SECONDS > deadline:
                raise
            logger.warning("%s: %s; trying again until %.0f s have passed", what, _last_line(error), seconds)
        sleep(PAUSE_SECONDS)


def storage_errors() -> tuple[type[Exception], ...]:
    """What S3 that is not there raises through MLflow's client, which passes it on as it is."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return Boto3Error, BotoCoreError, ClientError


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
