"""KFP's own client as it is wanted here: who we are to the API, silence, and errors of one line with their cure."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from model.config.schema import ClusterConfig

TOKEN = "MYXTTS_KFP_TOKEN"
Made = TypeVar("Made")


class ClusterError(RuntimeError):
    """The cluster cannot be used as asked; the message says what to do."""


class Unreachable(ClusterError):
    """The API does not answer, or answers that it cannot just now: worth another try."""


def make_client(settings: ClusterConfig) -> Any:
    """A `kfp.Client` of this cluster.

    Raises:
        ClusterError: a file that the settings name is missing.
    """
    import kfp

    credentials, token = None, os.environ.get(TOKEN)
    if settings.token_file:
        credentials, token = _token_file(settings.token_file), None
    for name in (settings.token_file, settings.ca_certificate):
        if name and not Path(name).is_file():
            raise ClusterError(f"{name} is no file; see cluster.token_file and cluster.ca_certificate")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # else it announces every retry
    return kfp.Client(
        host=settings.host or None,
        namespace=settings.namespace,
        existing_token=token,
        credentials=credentials,
        ssl_ca_cert=settings.ca_certificate or None,
        ui_host=settings.ui_host or None,
    )


def _token_file(path: str) -> Any:
    """Credentials that read the file before every request: tokens of service accounts are renewed in place."""
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class TokenFile(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = Path(path).read_text("utf-8").strip()

    return TokenFile()


@contextlib.contextmanager
def asking(settings: ClusterConfig, what: str) -> Iterator[None]:
    """Turn the client's errors into ours, and keep it from printing.

    Args:
        settings: The cluster's.
        what: What is being asked, for the error.

    Raises:
        Unreachable: the API does not answer.
        ClusterError: it refuses.
    """
    import kfp_server_api
    import urllib3

    where = settings.host or "the cluster (cluster.host is not set)"
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except kfp_server_api.ApiException as error:
        raise _explained(error.status, _message(error), what, where, settings.namespace) from error
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(
            f"cannot {what}: {where} does not answer ({_short(getattr(error, 'reason', error))})"
        ) from error


def made_once(make: Callable[[], Made], find: Callable[[], Made]) -> Made:
    """What `make` creates; where another process has created it a moment before, what `find` finds."""
    import kfp_server_api

    try:
        return make()
    except kfp_server_api.ApiException as error:
        if error.status != 409:
            raise
        return find()


def _explained(status: int | None, message: str, what: str, where: str, namespace: str) -> ClusterError:
    if status == 401:
        cure = f"{where} does not accept the token (401); renew {TOKEN} or the file of cluster.token_file"
        return ClusterError(f"cannot {what}: {cure}")
    if status == 403:
        cure = f"no access to namespace {namespace} at {where} (403): it does not exist, or the token has no role there"
        return ClusterError(f"cannot {what}: {cure}")
    if status is not None and status >= 500:
        return Unreachable(f"cannot {what}: {where} answers {status} ({message})")
    return ClusterError(f"cannot {what}: {where} answers {status}: {message}")


def _message(error: Any) -> str:
    try:
        told = json.loads(error.body or "{}")
    except ValueError:
        told = {}
    return _short(told.get("error") or told.get("message") or error.reason or "no reason given")


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]
