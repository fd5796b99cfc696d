"""KFP's own client as it is wanted here: where the API is, who we are to it, and errors of one line with their fix."""

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
"""Where a pod finds its service account's token for the API (a projected volume), as in KFP's own client."""
TRANSIENT = (429, 502, 503, 504)
Made = TypeVar("Made")

logger = logging.getLogger(__name__)


class ClusterError(MyXTTSError):
    """The cluster cannot be used as asked; the message says what to do."""


class Unreachable(ClusterError):
    """The API does not answer, or answers that it cannot just now: worth another try."""


@dataclass(frozen=True)
class Server:
    """What an installation of Kubeflow Pipelines says about itself.

    Attributes:
        multi_user: Whether namespaces are kept apart; else all runs execute in the server's own namespace.
        release: (major, minor), or `None` where the server does not know its release.
    """

    multi_user: bool
    release: tuple[int, int] | None


def make_client(settings: ClusterConfig) -> Any:
    """A `kfp.Client` of this cluster.

    Raises:
        ClusterError: a file that the settings name is missing, or a token has no address to go with.
    """
    import kfp

    for name in (settings.token_file, settings.ca_certificate):
        if name and not Path(name).is_file():
            raise ClusterError(f"{name} is no file; see cluster.token_file and cluster.ca_certificate")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # else it announces every retry

    class Client(kfp.Client):
        """Keeps the runs' namespace apart from the one in which the SDK looks for the service."""

        def _load_context_setting_or_default(self) -> None:
            super()._load_context_setting_or_default()
            # Set here, or the constructor would ask the server for it, for half a minute if there is none.
            self._context_setting["namespace"] = settings.namespace

    host = settings.host or os.environ.get("KF_PIPELINES_ENDPOINT") or in_cluster_address(settings)
    token, token_file = os.environ.get(TOKEN), settings.token_file
    if not token and not token_file and "KUBERNETES_SERVICE_HOST" in os.environ:
        projected = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", PROJECTED_TOKEN)
        token_file = projected if Path(projected).is_file() else ""
    if not host and (token or token_file):
        raise ClusterError(f"cluster.host is not set, so {TOKEN} and cluster.token_file have no server; set it")
    return Client(
        host=host or None,
        namespace=settings.kfp_namespace,
        existing_token=None if token_file else token,
        credentials=_token_file(token_file) if token_file else None,
        ssl_ca_cert=settings.ca_certificate or None,
        ui_host=settings.ui_host or None,
    )


def in_cluster_address(settings: ClusterConfig) -> str:
    """Address of the API's service for a pod; empty outside a cluster."""
    inside = "KUBERNETES_SERVICE_HOST" in os.environ
    return SERVICE.format(namespace=settings.kfp_namespace) if inside else ""


def _token_file(path: str) -> Any:
    """Credentials that read the file before every request: tokens of service accounts are renewed in place."""
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class TokenFile(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = Path(path).read_text("utf-8").strip()

    return TokenFile()


def ask_server(client: Any) -> Server:
    """The server's mode and release, from its health endpoint (the SDK's own call leaves the release out).

    Behind the web interface's address, its own server answers in place of the API server, with other names.

    Raises:
        Unreachable: the web interface answers, but the API server behind it does not.
        ClusterError: something else answers.
    """
    told = client._healthz_api.api_client.call_api(
        "/apis/v2beta1/healthz",
        "GET",
        header_params={"Accept": "application/json"},
        response_type="object",
        auth_settings=["Bearer"],
        _return_http_data_only=True,
    )
    if isinstance(told, dict) and told.get("apiServerReady") is False:
        raise Unreachable("the web interface of Kubeflow Pipelines answers, but its API server does not")
    if not isinstance(told, dict) or "multi_user" not in told:
        raise ClusterError(
            "what answers is not Kubeflow Pipelines, perhaps a login page; see cluster.host, which ends in /pipeline "
            f"behind Kubeflow's gateway, and the token ({TOKEN} or cluster.token_file)"
        )
    found = re.match(r"v?(\d+)\.(\d+)", told.get("tag_name") or told.get("apiServerTagName") or "")
    return Server(bool(told["multi_user"]), (int(found[1]), int(found[2])) if found else None)


def check_server(settings: ClusterConfig, server: Server) -> None:
    """Refuse an installation that would run the compiled pipeline in another way than it was compiled for.

    Raises:
        ClusterError: it is older than `cluster.backend_version`, or executes runs in another namespace.
    """
    wanted = tuple(int(part) for part in settings.backend_version.split("."))
    if server.release is None:
        logger.warning(
            "the server does not tell its release; see that it is Kubeflow Pipelines %s or later, as "
            "cluster.backend_version says: an older one drops volumes and secrets silently",
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
    """Turn the client's errors into ours, and keep it from printing.

    Args:
        settings: The cluster's.
        what: What is being asked, for the error.
        changing: Whether it creates something: an internal error of the server is then final, since its cause is as a
            rule what was sent.

    Raises:
        Unreachable: the API does not answer.
        ClusterError: it refuses.
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
    """Explain the errors of the upload handlers, which answer 400 without a reason to whoever may not upload.

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
                f"; the server answers so when the token is not valid (see {TOKEN}) or lacks the right to create "
                f"pipelines in namespace {settings.namespace} (infra/kubernetes/base/runner.yaml)"
            )
        raise ClusterError(f"cannot upload the pipeline: {error.status}: {text}{hint}") from error


def made_once(make: Callable[[], Made], find: Callable[[], Made]) -> Made:
    """What `make` creates; where another process has created it a moment before, what `find` finds.

    Raises:
        ClusterError: the server says that it is there already, but does not list it.
    """
    import kfp_server_api

    try:
        return make()
    except kfp_server_api.ApiException as error:
        if error.status != 409:
            raise
        if not (found := find()):
            raise ClusterError(
                f"{error_message(error)}: the server says that it exists, but does not list it in this namespace; "
                "look for an archived or a shared one of this name"
            ) from error
        return found


def _explained(status: int | None, message: str, what: str, where: str, namespace: str, changing: bool) -> ClusterError:
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
    """The reason in an API error: a field of its JSON, by the names that the server's handlers use, or plain text."""
    try:
        told = json.loads(error.body or "{}")
    except ValueError:
        return _short(error.body)
    fields = ("error_message", "message", "error", "error_details")
    found = [told[name] for name in fields if told.get(name)] if isinstance(told, dict) else [told]
    return _short(found[0] if found else error.reason or "no reason given")


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]
