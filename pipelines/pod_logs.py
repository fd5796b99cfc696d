"""What the pods of a cluster's run wrote, read over the Kubernetes API: Kubeflow Pipelines has no call for it."""

from collections.abc import Iterator

from components.kube import KubeError, api_client, reason


def pod_logs(namespace: str, run_id: str, step: str = "") -> Iterator[tuple[str, str]]:
    """(step's pod, line) of a run, pod by pod in the order they started.

    Args:
        namespace: Where the run is.
        run_id: The run.
        step: Only pods whose name holds this step's.

    Raises:
        KubeError: the pods cannot be listed or read, or there are none (any more).
    """
    from kubernetes import client

    core = client.CoreV1Api(api_client())
    try:
        pods = core.list_namespaced_pod(namespace, label_selector=f"pipeline/runid={run_id}").items
    except client.ApiException as error:
        raise KubeError(f"cannot list the pods of {run_id} in {namespace}: {reason(error)}") from error
    wanted = step.replace("_", "-")
    chosen = [pod for pod in pods if "-driver" not in pod.metadata.name and wanted in pod.metadata.name]
    if not chosen:
        raise KubeError(
            f"{namespace} has no pods of run {run_id}{f' of step {step}' if step else ''}: a finished run's are "
            "removed after a while, its steps' logs are then among the run's artifacts"
        )
    for pod in sorted(chosen, key=lambda item: str(item.status.start_time)):
        try:
            text = core.read_namespaced_pod_log(pod.metadata.name, namespace, container="main")
        except client.ApiException as error:
            text = f"(cannot be read: {reason(error)})"
        for line in text.splitlines():
            yield pod.metadata.name, line
