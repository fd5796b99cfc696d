"""Access to the Kubernetes API from a pod, or from a machine with a kubeconfig."""

import contextlib
from collections.abc import Iterator
from typing import Any

from model.errors import MyXTTSError

TIMEOUT = (5.0, 60.0)
"""Timeouts in seconds to connect and to answer; by default the client waits forever."""


class KubeError(MyXTTSError):
    """The Kubernetes API cannot be used; the message says what to do."""


def api_client() -> Any:
    """Returns a client with the pod's service account, or with the kubeconfig (`KUBECONFIG`) of this machine.

    Raises:
        KubeError: neither exists.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise KubeError(f"no Kubernetes API is configured ({error}); set KUBECONFIG") from error
    return client.ApiClient(configuration)


def reason(error: Any) -> str:
    """Returns an API error in one line."""
    return " ".join(f"{error.status} {error.reason}: {error.body or ''}".split())[:300]


@contextlib.contextmanager
def asking_kubernetes(what: str) -> Iterator[None]:
    """Turns the client's errors inside the block into a `KubeError` of one line.

    Args:
        what: The operation in the infinitive, for the message.

    Raises:
        KubeError: the API refused, or did not answer.
    """
    from kubernetes import client
    from urllib3.exceptions import HTTPError

    try:
        yield
    except client.ApiException as error:
        raise KubeError(f"cannot {what}: {reason(error)}") from error
    except HTTPError as error:
        cause = " ".join(str(getattr(error, "reason", None) or error).split())[:200]
        raise KubeError(f"cannot {what}: the Kubernetes API does not answer ({cause})") from error
