"""Sets up KFP's client (address, credentials) and turns its errors into one line with a fix."""

import contextlib
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from model.config.targets import ClusterConfig
from model.errors import MyXTTSError

TOKEN = "MYXTTS_KFP_TOKEN"
SERVICE = "http://ml-pipeline.{namespace}.svc.cluster.local:8888"
"""Address of the API from inside the cluster; the namespace is the one of Kubeflow Pipelines, not of the runs."""
PROJECTED_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
"""Path of the service account's token for the API in a pod (a projected volume), as in KFP's client."""
TRANSIENT = (429, 502, 503, 504)
"""HTTP status codes after which a request is worth a retry."""
Created = TypeVar("Created")

logger = logging.getLogger(__name__)


class ClusterError(MyXTTSError):
    """The cluster refuses a request or does not fit the settings; the message says how to fix it."""


class Unreachable(ClusterError):
    """The API does not answer or is temporarily unavailable; the request can be retried."""


@dataclass(frozen=True)
class Server:
    """Mode and release of an installation of Kubeflow Pipelines.

    Attributes:
        multi_user: Whether each run executes in its own namespace; else all execute in the server's namespace.
        release: (major, minor); `None` if the server does not report it.
    """

    multi_user: bool
    release: tuple[int, int] | None


def make_client(settings: ClusterConfig) -> Any:
    """Returns a `kfp.Client` of this cluster.

    Raises:
        ClusterError: a file of the settings is missing, or there is a token but no address.
    """
    import kfp

    for name in (settings.token_file, settings.ca_certificate):
        if name and not Path(name).is_file():
            raise ClusterError(f"{name} is not a file; check cluster.token_file and cluster.ca_certificate")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it would log every retry

    class Client(kfp.Client):
        """Client with separate namespaces for the runs and for the service of the API."""

        def _load_context_setting_or_default(self) -> None:
            super()._load_context_setting_or_default()
            # Without it the constructor asks the server, for half a minute if no server answers.
            self._context_setting["namespace"] = settings.namespace

    host = settings.host or os.environ.get("KF_PIPELINES_ENDPOINT") or in_cluster_address(settings)
    token, token_file = os.environ.get(TOKEN), settings.token_file
    if not token and not token_file and "KUBERNETES_SERVICE_HOST" in os.environ:
        projected = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", PROJECTED_TOKEN)
        token_file = projected if Path(projected).is_file() else ""
    if not host and (token or token_file):
        raise ClusterError(f"cluster.host is not set, but there is a token ({TOKEN} or cluster.token_file); set it")
    return Client(
        host=host or None,
        namespace=settings.kfp_namespace,
        existing_token=None if token_file else token,
        credentials=_token_file(token_file) if token_file else None,
        ssl_ca_cert=settings.ca_certificate or None,
        ui_host=settings.ui_host or None,
    )


def in_cluster_address(settings: ClusterConfig) -> str:
    """Returns the address of the API's service for a pod; '' outside of a cluster."""
    inside = "KUBERNETES_SERVICE_HOST" in os.environ
    return SERVICE.format(namespace=settings.kfp_namespace) if inside else ""


def _token_file(path: str) -> Any:
    """Returns credentials that read the file before each request, since it is replaced when the token is renewed."""
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class TokenFile(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = Path(path).read_text("utf-8").strip()

    return TokenFile()


def ask_server(client: Any) -> Server:
    """Returns the server's mode and release from its health endpoint (the call of the SDK omits the release).

    At the address of the web interface, its server answers in place of the API server, with other field names.

    Raises:
        Unreachable: the web interface answers, but the API server behind it does not.
        ClusterError: another program answers.
    """
    health = client._healthz_api.api_client.call_api(
        "/apis/v2beta1/healthz",
        "GET",
        header_params={"Accept": "application/json"},
        response_type="object",
        auth_settings=["Bearer"],
        _return_http_data_only=True,
    )
    if isinstance(health, dict) and health.get("apiServerReady") is False:
        raise Unreachable("the web interface of Kubeflow Pipelines answers, but its API server does not")
    if not isinstance(health, dict) or "multi_user" not in health:
        raise ClusterError(
            "the answer is not from Kubeflow Pipelines, perhaps from a login page; check cluster.host, which ends in "
            f"/pipeline behind Kubeflow's gateway, and the token ({TOKEN} or cluster.token_file)"
        )
    found = re.match(r"v?(\d+)\.(\d+)", health.get("tag_name") or health.get("apiServerTagName") or "")
    return Server(bool(health["multi_user"]), (int(found[1]), int(found[2])) if found else None)


def check_server(settings: ClusterConfig, server: Server) -> None:
    """Refuses an installation that would not run the compiled pipeline as intended.

    Raises:
        ClusterError: the server is older than `cluster.backend_version`, or executes runs in another namespace.
    """
    wanted = tuple(int(part) for part in settings.backend_version.split("."))
    if server.release is None:
        logger.warning(
            "the server does not report its release; make sure that it is Kubeflow Pipelines %s or later, as in "
            "cluster.backend_version: an older one silently drops volumes and secrets",
            settings.backend_version,
        )
    elif server.release < wanted:
        found = "{}.{}".format(*server.release)
        raise ClusterError(
            f"the server is Kubeflow Pipelines {found}, but cluster.backend_version is {settings.backend_version}: it "
            f"would silently drop every volume and secret of the pipeline; set cluster.backend_version to '{found}'"
        )
    if not server.multi_user and settings.namespace != settings.kfp_namespace:
        raise ClusterError(
            f"this Kubeflow Pipelines is a single-user installation: runs execute in its own namespace "
            f"{settings.kfp_namespace}, not in {settings.namespace}, where volume, secrets and service account are; "
            f"apply the manifests with `namespace: {settings.kfp_namespace}` and set cluster.namespace to it"
        )


@contextlib.contextmanager
def asking(settings: ClusterConfig, what: str, changing: bool = False) -> Iterator[None]:
    """Converts the exceptions of the client and suppresses its output.

    Args:
        settings: Settings of the cluster.
        what: Description of the request, for the error message.
        changing: Whether the request creates something. Then an internal error of the server is not worth a retry,
            since its usual cause is the request.

    Raises:
        Unreachable: the API does not answer.
        ClusterError: the API refuses the request.
    """
    import kfp_server_api
    import urllib3

    where = settings.host or in_cluster_address(settings) or "the cluster (cluster.host is not set)"
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except kfp_server_api.ApiException as error:
        raise _explained(error.status, error_message(error), what, where, settings.namespace, changing) from error
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(
            f"cannot {what}: {where} does not answer ({_short(getattr(error, 'reason', error))})"
        ) from error


@contextlib.contextmanager
def uploading(settings: ClusterConfig) -> Iterator[None]:
    """Explains errors of an upload: its handlers answer 400 without a reason if the permission is missing.

    Raises:
        ClusterError: the upload is refused.
    """
    import kfp_server_api

    try:
        yield
    except kfp_server_api.ApiException as error:
        if error.status in (409, *TRANSIENT):
            raise
        text = error_message(error)
        hint = ""
        if error.status == 400 and text.startswith("Failed to create a pipeline"):
            hint = (
                f"; this is the answer to a token that is not valid (check {TOKEN}) or lacks the permission to create "
                f"pipelines in namespace {settings.namespace} (infra/kubernetes/base/runner.yaml)"
            )
        raise ClusterError(f"cannot upload the pipeline: {error.status}: {text}{hint}") from error


def create_once(make: Callable[[], Created], find: Callable[[], Created]) -> Created:
    """Returns the object that `make` creates, or the one that `find` finds if another process has created it.

    Raises:
        ClusterError: the server reports that the object exists, but does not list it.
    """
    import kfp_server_api

    try:
        return make()
    except kfp_server_api.ApiException as error:
        if error.status != 409:
            raise
        if not (found := find()):
            raise ClusterError(
                f"{error_message(error)}: the server reports that it exists, but does not list it in this namespace; "
                "look for an archived or a shared object of this name"
            ) from error
        return found


def _explained(status: int | None, message: str, what: str, where: str, namespace: str, changing: bool) -> ClusterError:
    """Returns the exception for an error status of the API."""
    if status == 401:
        fix = f"{where} does not accept the token (401); renew {TOKEN} or the file of cluster.token_file"
        return ClusterError(f"cannot {what}: {fix}")
    if status == 403:
        fix = f"no access to namespace {namespace} at {where} (403): it does not exist, or the token has no role there"
        return ClusterError(f"cannot {what}: {fix}")
    if status in TRANSIENT or (status is not None and status >= 500 and not changing):
        return Unreachable(f"cannot {what}: {where} answers {status} ({message})")
    return ClusterError(f"cannot {what}: {where} answers {status}: {message}")


def error_message(error: Any) -> str:
    """Returns the reason in an API error: a field of its JSON, whose name depends on the handler, or its text."""
    try:
        answer = json.loads(error.body or "{}")
    except ValueError:
        return _short(error.body)
    fields = ("error_message", "message", "error", "error_details")
    found = [answer[name] for name in fields if answer.get(name)] if isinstance(answer, dict) else [answer]
    return _short(found[0] if found else error.reason or "no reason given")


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]
