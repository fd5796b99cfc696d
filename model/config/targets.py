"""Settings of where a pipeline runs: containers of this machine's engine, or a cluster. None shapes a result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from model.config import Positive, Section

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
"""An amount as Kubernetes writes it: `500m`, `4`, `16Gi`."""


Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")]
"""A name of a Kubernetes object."""


Label = Annotated[str, Field(pattern=r"^[\w./-]+=[\w.-]*$")]


Toleration = Annotated[str, Field(pattern=r"^[\w./-]+(=[\w.-]*)?:(NoSchedule|NoExecute|PreferNoSchedule)$")]


Image = Annotated[str, Field(pattern=r"^(|[\w./:-]+@sha256:[0-9a-f]{64})$")]
"""An image by digest: with a tag, the same pipeline would run other code from one day to the next."""


class DockerConfig(Section):
    """`--target docker`: every step in a container of its own, on this machine."""

    image: str = "myxtts-python"
    """Steps run in `<image>-data:<tag>` and `<image>-train:<tag>`, which `make images` builds."""
    tag: str = "latest"
    network: str = "none"
    """Network of the containers; `none` does unless data or MLflow lie on a server."""
    memory: Quantity = "8G"
    """A container that uses more is killed."""
    shared_memory: Quantity = "1G"
    """Size of /dev/shm, through which data workers hand over batches."""
    user: str = ""
    """`uid:gid` of the containers [default: yours; if you are root, the images' own user, who is given the state]."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs handed to the steps that compute."""
    pass_environment: tuple[str, ...] = ()
    """Names of variables that the containers get from your environment, such as AWS_SECRET_ACCESS_KEY."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times that a failed step is tried again: training goes on from its last checkpoint."""


class ClusterConfig(Section):
    """`--target cluster`: Kubeflow Pipelines, and what each pod gets. Objects are named, secrets never written."""

    host: str = ""
    """Address of the Kubeflow Pipelines API [default: the one inside the cluster, or that of your kubeconfig]."""
    ui_host: str = ""
    """Address that the printed links lead to [default: host]."""
    namespace: Name = "myxtts"
    """Namespace in which runs execute: your profile's, or `kfp_namespace` in a single-user installation."""
    kfp_namespace: Name = "kubeflow"
    """Namespace of Kubeflow Pipelines itself: where its service is looked for when `host` is empty."""
    ca_certificate: str = ""
    """File of the authority that signed the API's certificate."""
    token_file: str = ""
    """File of the bearer token, read before every request [default: the variable MYXTTS_KFP_TOKEN, then in a pod the
    token of its service account for `pipelines.kubeflow.org`]."""
    poll_seconds: Annotated[float, Field(gt=0)] = 10.0
    outage_seconds: Annotated[float, Field(ge=0)] = 300.0
    """Watching a run outlives an API server that does not answer for this long."""
    backend_version: Annotated[str, Field(pattern=r"^\d+\.\d+$")] = "2.16"
    """Oldest release of Kubeflow Pipelines that the pipeline is compiled for; an older server is refused. From 2.17 on,
    runs get a deadline and their leftovers a time to live."""
    service_account: Name = "myxtts-runner"
    data_image: Image = ""
    """Image of the steps that move data, by digest."""
    train_image: Image = ""
    """Image of the steps that compute, by digest."""
    image_pull_secret: Name = ""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    preprocess_parts: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that extract features side by side, each a part of the corpus; worth it from tens of hours on."""
    state_volume: Name = "myxtts-state"
    """Claim (ReadWriteMany) that holds data by content hash, features, trainings; mounted into every pod."""
    tracking_uri: str = "http://mlflow:5000"
    s3_secret: Name = "myxtts-s3"
    """Secret with `access-key` and `secret-key`; empty where pods have an identity of their own."""
    s3_endpoint: str = ""
    """Address of an S3 that is not Amazon's."""
    step_cpu: Quantity = "1"
    step_memory: Quantity = "4Gi"
    train_cpu: Quantity = "2"
    train_memory: Quantity = "8Gi"
    accelerator: str = "nvidia.com/gpu"
    accelerators: Annotated[int, Field(ge=0)] = 0
    """Accelerators of each training pod."""
    shared_memory: Quantity = "1Gi"
    """/dev/shm of training pods; it counts as their memory."""
    node_selector: tuple[Label, ...] = ()
    """`label=value` of the nodes that train."""
    tolerations: tuple[Toleration, ...] = ()
    """`key=value:effect` or `key:effect` of the taints that training pods bear."""
    queue: Name = ""
    """Kueue queue that training pods wait in."""
    step_timeout_seconds: Positive = 259200
    """A step that takes longer is ended."""
    run_timeout_seconds: Positive = 604800
    """A run that takes longer is ended (backend 2.17)."""
    keep_seconds: Positive = 86400
    """Pods of a finished run are kept this long (backend 2.17)."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times that a failed step is tried again: training goes on from its last checkpoint."""


class LaunchConfig(Section):
    """How training starts, on any target."""

    launcher: Literal["inline", "torchrun", "trainjob"] = "inline"
    """In the step's own process, in several processes beside it, or on several nodes by Kubeflow Trainer (cluster)."""
    processes: Annotated[int, Field(ge=0)] = 1
    """Training processes of each node, one per accelerator. 0 (`torchrun`): as many as there are GPUs, and where there
    is none two, if there are two cores: two processes of one thread do nearly twice what one of two threads does, and
    bear a busy neighbour."""
    nodes: Positive = 1
    """Nodes that train together (`trainjob`)."""
    runtime: Name = "torch-distributed"
    """Runtime of Kubeflow Trainer that the TrainJob refers to."""

    @model_validator(mode="after")
    def _consistent(self) -> LaunchConfig:
        if self.launcher == "trainjob" and not self.processes:
            raise ValueError("launch.launcher = trainjob must know launch.processes: the accelerators of a node")
        if self.launcher == "inline" and (self.processes > 1 or self.nodes > 1):
            raise ValueError(
                f"launch.launcher = inline trains in one process, but processes = {self.processes} and nodes = "
                f"{self.nodes} were asked for; use torchrun or trainjob"
            )
        if self.launcher == "torchrun" and self.nodes > 1:
            raise ValueError(f"launch.launcher = torchrun stays on one node, but nodes = {self.nodes}; use trainjob")
        return self
