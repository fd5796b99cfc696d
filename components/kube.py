"""The Kubernetes API, as seen from a pod or from a machine with a kubeconfig."""

from typing import Any


class KubeError(RuntimeError):
    """The Kubernetes API cannot be used; the message says what to do."""


def api_client() -> Any:
    """A client with the pod's service account, or with the kubeconfig (`KUBECONFIG`) of this machine.

    Raises:
        KubeError: there is neither.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise KubeError(f"no Kubernetes API to talk to ({error}); set KUBECONFIG") from error
    return client.ApiClient(configuration)


def reason(error: Any) -> str:
    """An API error in one line."""
    return " ".join(f"{error.status} {error.reason}: {error.body or ''}".split())[:300]
