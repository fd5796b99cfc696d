"""The retry policy of a cluster's workflow controller: which failures of a step are retried at all.

Kubeflow Pipelines passes on how often a step is retried, but not after which failures. Its own manifests decide that,
and those of release 2.17 do not retry a step that exits with an error.
"""

from typing import Any

import yaml

from components.kube import TIMEOUT, KubeError, api_client, asking_kubernetes
from model.config.targets import ClusterConfig

CONFIG_MAP = "workflow-controller-configmap"
ALWAYS = "Always"
DEFAULT = "OnFailure"
"""Policy of Argo Workflows if nothing else is set."""
NOT_RETRIED = {
    "OnError": "a step that exits with an error is not retried",
    "OnFailure": "a step whose pod is deleted or whose node fails is not retried",
    "OnTransientError": "only a step with an error that the controller knows as transient is retried",
}
_FIX = f"set `retryPolicy: {ALWAYS}` in {CONFIG_MAP} (docs/cluster.md, Retries)"


def retry_policy(namespace: str) -> str:
    """Returns the policy for steps without their own, which are those of Kubeflow Pipelines.

    Args:
        namespace: Namespace of Kubeflow Pipelines.

    Raises:
        KubeError: the controller's settings cannot be read.
    """
    from kubernetes import client

    with asking_kubernetes(f"read the ConfigMap {CONFIG_MAP} in {namespace}"):
        core = client.CoreV1Api(api_client())
        data = core.read_namespaced_config_map(CONFIG_MAP, namespace, _request_timeout=TIMEOUT).data or {}
    # Argo accepts its settings as one document under `config`, too.
    whole = yaml.safe_load(data.get("config", "")) or {}
    node: Any = yaml.safe_load(data.get("workflowDefaults", "")) or whole.get("workflowDefaults")
    for key in ("spec", "templateDefaults", "retryStrategy", "retryPolicy"):
        node = node.get(key) if isinstance(node, dict) else None
    return str(node or DEFAULT)


def retry_warning(settings: ClusterConfig) -> str:
    """Returns a warning about failures that this installation does not retry; '' if every failed step is retried."""
    if not settings.retries:
        return ""
    try:
        policy = retry_policy(settings.kfp_namespace)
    except KubeError as error:
        return (
            f"cluster.retries = {settings.retries} has its full effect only if the workflow controller's retry policy "
            f"is {ALWAYS}, which could not be checked: {error}; if it is not, {_FIX}"
        )
    if policy == ALWAYS:
        return ""
    lost = NOT_RETRIED.get(policy, "not every failed step is retried")
    return (
        f"cluster.retries = {settings.retries}, but the workflow controller's retry policy is {policy}: {lost}; {_FIX}"
    )
