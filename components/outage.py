"""Retries operations while a server, such as S3 or MLflow, does not answer."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_fixed

from model.addresses import hide_credentials

Result = TypeVar("Result")

OUTAGE_SECONDS = 120.0
"""Longest outage in seconds that a step tolerates; after a longer one it fails, and a cluster retries it."""
PAUSE_SECONDS = 5.0

logger = logging.getLogger(__name__)


def retry_during_outage(
    action: Callable[[], Result],
    is_outage: Callable[[BaseException], bool],
    what: str,
    seconds: float = OUTAGE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Returns the result of `action`, which is called again while it fails because of an outage.

    Args:
        action: May be called several times. Its other errors are raised at once.
        is_outage: Returns whether an error may be temporary.
        what: Description of the action, for the log.
        seconds: Time after which the last error is raised.
        sleep: Waits a number of seconds between two calls.
        clock: Returns the time in seconds.
    """
    deadline = clock() + seconds

    def log_retry(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        reason = hide_credentials(f"{what}: {_last_line(error)}")
        logger.warning("%s; retrying until %.0f s have passed", reason, seconds)

    retrying = Retrying(
        retry=retry_if_exception(is_outage),
        wait=wait_fixed(PAUSE_SECONDS),
        stop=lambda _: clock() + PAUSE_SECONDS > deadline,
        sleep=sleep,
        before_sleep=log_retry,
        reraise=True,
    )
    return retrying(action)


def storage_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions of an S3 server that does not answer; MLflow's client does not convert them."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return Boto3Error, BotoCoreError, ClientError


def _last_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
