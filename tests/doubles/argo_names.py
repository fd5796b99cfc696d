"""Names of nodes, pods and annotations of a compiled pipeline, as the controller of Argo Workflows 4.0 makes them."""

NODE_NAME = "workflows.argoproj.io/node-name"
"""Annotation of every pod (workflow/common/common.go)."""
EXECUTOR, RETRIED_EXECUTOR = "system-container-impl", "retry-system-container-impl"
"""Templates of a step's pod (kubeflow/pipelines backend/src/v2/compiler/argocompiler/container.go)."""
DRIVER = "system-container-driver"


def fnv32a(text: str) -> int:
    """Returns the 32-bit FNV-1a hash of a text, as Go's hash/fnv."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def node_id(workflow: str, name: str) -> str:
    """Returns the id of a node (Workflow.NodeID in pkg/apis/workflow/v1alpha1/workflow_types.go)."""
    return workflow if name == workflow else f"{workflow}-{fnv32a(name)}"


def pod_name(workflow: str, template: str, name: str) -> str:
    """Returns the name of a pod: workflow, template and a hash (GeneratePodName v2 in workflow/util/pod_name.go)."""
    return f"{f'{workflow}-{template}'[:242]}-{fnv32a(name)}"


def executor_node(workflow: str, step: str, attempt: int = 0, retried: bool = True) -> str:
    """Returns the name of the node of a step's pod: DAG tasks joined by dots, the attempt in brackets."""
    return f"{workflow}.root.{step}.executor" + (f"({attempt})" if retried else "")


def driver_node(workflow: str, step: str) -> str:
    """Returns the name of the node of a step's driver, which decides on caching before the step runs."""
    return f"{workflow}.root.{step}-driver"


def step_pod(run_id: str, workflow: str, step: str, attempt: int = 0, phase: str = "Succeeded", log: str = "") -> dict:
    """Returns a step's pod as the Kubernetes API lists it, with its log for the double."""
    name = executor_node(workflow, step, attempt)
    return _pod(run_id, workflow, pod_name(workflow, RETRIED_EXECUTOR, name), name, phase, log)


def driver_pod(run_id: str, workflow: str, step: str) -> dict:
    """Returns a driver's pod."""
    name = driver_node(workflow, step)
    return _pod(run_id, workflow, pod_name(workflow, DRIVER, name), name, "Succeeded", "driver execution: 1\n")


def _pod(run_id: str, workflow: str, name: str, node: str, phase: str, log: str) -> dict:
    return {
        "metadata": {
            "name": name,
            "annotations": {NODE_NAME: node, "workflows.argoproj.io/node-id": node_id(workflow, node)},
            "labels": {"pipeline/runid": run_id, "workflows.argoproj.io/workflow": workflow},
        },
        "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z"},
        "log": log,
    }
