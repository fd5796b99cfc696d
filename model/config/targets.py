"""Settings of the place where a pipeline runs: containers on this machine, or a cluster. None changes a result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from model.addresses import without_credentials
from model.config import Positive, Section

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
"""Amount in the notation of Kubernetes: `500m`, `4`, `16Gi`."""
Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")]
"""Name of a Kubernetes object."""
Label = Annotated[str, Field(pattern=r"^[\w./-]+=[\w.-]*$")]
Toleration = Annotated[str, Field(pattern=r"^[\w./-]+(=[\w.-]*)?:(NoSchedule|NoExecute|PreferNoSchedule)$")]
Image = Annotated[str, Field(pattern=r"^(|[\w./:-]+@sha256:[0-9a-f]{64})$")]
"""Image by digest: the image behind a tag may change between two runs of a pipeline."""
ApiAddress = Annotated[
    str, AfterValidator(without_credentials("put a token into MYXTTS_KFP_TOKEN or the file of cluster.token_file"))
]
TrackingUri = Annotated[
    str,
    AfterValidator(without_credentials("put them into a secret and set cluster.tracking_secret to its name")),
]
S3Endpoint = Annotated[
    str, AfterValidator(without_credentials("put them into the Kubernetes secret that cluster.s3_secret names"))
]


class DockerConfig(Section):
    """`--target docker`: every step runs in its own container on this machine."""

    image: str = "myxtts-python"
    """Steps run in `<image>-data:<tag>` and `<image>-train:<tag>`, which `make images` builds."""
    tag: str = "latest"
    network: str = "none"
    """Network of the containers; `none` is enough unless data or MLflow are on a server."""
    memory: Quantity = "8G"
    """Memory limit of a container."""
    shared_memory: Quantity = "1G"
    """Size of /dev/shm, through which data workers pass batches."""
    user: str = ""
    """`uid:gid` of the containers [default: those of the current user; for root, those of the images, which then own
    the state]."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of the steps that compute."""
    pass_environment: tuple[str, ...] = ()
    """Names of environment variables to pass to the containers, such as AWS_SECRET_ACCESS_KEY."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Retries of a failed step; training resumes from its last checkpoint."""


class ClusterConfig(Section):
    """`--target cluster`: Kubeflow Pipelines and the resources of its pods. Secrets are referenced by name."""

    host: ApiAddress = ""
    """Address of the Kubeflow Pipelines API [default: the one inside the cluster, or that of your kubeconfig]."""
    ui_host: ApiAddress = ""
    """Address for printed links [default: host]."""
    namespace: Name = "myxtts"
    """Namespace of the runs: that of your profile, or `kfp_namespace` in a single-user installation."""
    kfp_namespace: Name = "kubeflow"
    """Namespace of Kubeflow Pipelines itself, used to find its service when `host` is empty."""
    ca_certificate: str = ""
    """File of the certificate authority of the API."""
    token_file: str = ""
    """File of the bearer token, read before every request [default: the variable MYXTTS_KFP_TOKEN, then, in a pod, the
    service account's token for `pipelines.kubeflow.org`]."""
    poll_seconds: Annotated[float, Field(gt=0)] = 10.0
    outage_seconds: Annotated[float, Field(ge=0)] = 300.0
    """Longest outage of the API server that watching a run tolerates."""
    backend_version: Annotated[str, Field(pattern=r"^\d+\.\d+$")] = "2.16"
    """Oldest release of Kubeflow Pipelines to compile for; older servers are refused. From 2.17 on, runs have a
    deadline and finished pods a time to live."""
    service_account: Name = "myxtts-runner"
    data_image: Image = ""
    """Image of the data steps, by digest."""
    train_image: Image = ""
    """Image of the compute steps, by digest."""
    image_pull_secret: Name = ""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    preprocess_parts: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that extract features in parallel, each from a part of the corpus; useful for tens of hours of
    speech or more."""
    state_volume: Name = "myxtts-state"
    """Persistent volume claim (ReadWriteMany) with the state folder, mounted into every pod."""
    tracking_uri: TrackingUri = "http://mlflow:5000"
    tracking_secret: Name = "mlflow-steps"
    """Secret of an MLflow server with authentication: `username` and `password`, or `token`. Not used if it is
    missing."""
    registry_secret: Name = "mlflow-registry"
    """Secret of the same form for the steps that write to the registry, `register` and `gate`; its user may change
    models. Empty: `tracking_secret`. With both, the user of the other steps needs to write runs only."""
    s3_secret: Name = "myxtts-s3"
    """Secret with `access-key` and `secret-key`; empty where pods have their own identity."""
    s3_endpoint: S3Endpoint = ""
    """Address of an S3-compatible service other than Amazon's."""
    study_secret: Name = "myxtts-studies"
    """Secret with `optuna-uri`, the address of the database of the studies (PostgreSQL)."""
    step_cpu: Quantity = "1"
    step_memory: Quantity = "4Gi"
    train_cpu: Quantity = "2"
    train_memory: Quantity = "8Gi"
    accelerator: str = "nvidia.com/gpu"
    accelerators: Annotated[int, Field(ge=0)] = 0
    """Accelerators of each training pod."""
    shared_memory: Quantity = "1Gi"
    """Size of /dev/shm in training pods, part of their memory."""
    node_selector: tuple[Label, ...] = ()
    """`label=value` of the nodes for training pods."""
    tolerations: tuple[Toleration, ...] = ()
    """`key=value:effect` or `key:effect` of the taints that training pods tolerate."""
    queue: Name = ""
    """Kueue queue of training pods."""
    step_timeout_seconds: Positive = 259200
    """Time limit of a step."""
    run_timeout_seconds: Positive = 604800
    """Time limit of a run (backend 2.17)."""
    keep_seconds: Positive = 86400
    """Time to live of the pods of a finished run (backend 2.17)."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Retries of a failed step; training resumes from its last checkpoint."""


class LaunchConfig(Section):
    """How training processes are launched, on any target."""

    launcher: Literal["inline", "torchrun", "trainjob"] = "inline"
    """Where training runs: in the process of the step, in several processes on its node, or on several nodes by
    Kubeflow Trainer (cluster)."""
    processes: Annotated[int, Field(ge=0)] = 1
    """Training processes per node, one per accelerator. 0 (`torchrun`): one per GPU; without a GPU two, given two
    cores: two processes of one thread are faster than one process of two threads, also beside a busy process."""
    nodes: Positive = 1
    """Nodes of a distributed training (`trainjob`)."""
    runtime: Name = "torch-distributed"
    """Training runtime of Kubeflow Trainer."""

    @model_validator(mode="after")
    def _consistent(self) -> LaunchConfig:
        if self.launcher == "trainjob" and not self.processes:
            raise ValueError("launch.launcher = trainjob requires launch.processes: the accelerators of a node")
        if self.launcher == "inline" and (self.processes > 1 or self.nodes > 1):
            raise ValueError(
                f"launch.launcher = inline trains in one process, but processes = {self.processes} and nodes = "
                f"{self.nodes}; use torchrun or trainjob"
            )
        if self.launcher == "torchrun" and self.nodes > 1:
            raise ValueError(f"launch.launcher = torchrun stays on one node, but nodes = {self.nodes}; use trainjob")
        return self
