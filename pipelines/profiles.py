"""Where a pipeline runs: what differs between processes, containers and a cluster, and how it gets onto a task."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.launch import VARIABLE as LAUNCH
from components.trainjob import STATE_MOUNT, parse_toleration
from model.config.resolution import ConfigError
from model.config.schema import Config
from model.config.targets import ClusterConfig, LaunchConfig

STEPS = ("resolve_data", "preprocess", "train", "finetune_vocoder", "evaluate", "register", "gate")
DATA_STEPS = ("resolve_data",)
"""Steps that run in the image `data`; the others compute, in the image `train`."""
TRAINING_STEPS = ("train", "finetune_vocoder")
"""Steps that get the accelerators."""
LAUNCHED_STEPS = ("train",)
"""Steps whose work a launcher can spread; under `trainjob` the workers get the accelerators, not the step itself."""
NOT_RETRIED = ("gate",)
"""A voice that did not pass will not pass the second time."""
BACKOFF_SECONDS = 30
"""Pause before the second attempt of a step in a pod."""


@dataclass(frozen=True)
class Profile:
    """A target of the pipeline.

    Attributes:
        name: `local`, `docker` or `cluster`.
        images: Step -> image. Locally the name only carries the hash of the step's code, so that a changed line
            makes the cached result stale; nothing is pulled.
        retries: Times that a failed step is tried again.
        cluster: What pods get; `None` where there are none.
        launch: How training starts in a pod.
        preprocess_parts: Pods that preprocess side by side; on one machine the processes of one step do.
    """

    name: str
    images: Mapping[str, str]
    retries: int = 0
    cluster: ClusterConfig | None = None
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    preprocess_parts: int = 1


def local_profile(launch: LaunchConfig | None = None) -> Profile:
    """Subprocesses on this machine; every step's image is named after the code that it runs.

    Raises:
        ConfigError: the launcher needs a cluster.
    """
    from model.code_hash import code_hash

    launch = launch or LaunchConfig()
    if launch.launcher == "trainjob":
        raise ConfigError("launch.launcher = trainjob needs a cluster; use inline or torchrun with --target local")
    images = {step: f"local-python:{code_hash(f'components.{step}.run')}" for step in STEPS}
    return Profile("local", images, launch=launch)


def cluster_profile(config: Config) -> Profile:
    """Pods of Kubeflow Pipelines, the state on a shared volume, credentials from secrets of the namespace.

    Raises:
        ConfigError: an image is not set.
    """
    settings = config.cluster
    images = {kind: getattr(settings, f"{kind}_image") for kind in ("data", "train")}
    for kind, image in images.items():
        if not image:
            raise ConfigError(
                f"cluster.{kind}_image is not set; push the image myxtts-python-{kind} that `make images` built and "
                f"give its digest (registry/myxtts-python-{kind}@sha256:...)"
            )
    by_step = {step: images[image_kind(step)] for step in STEPS}
    return Profile("cluster", by_step, settings.retries, settings, config.launch, settings.preprocess_parts)


def image_kind(step: str) -> str:
    """The image that a step runs in: `data` or `train`."""
    return "data" if step in DATA_STEPS else "train"


def place(task: Any, step: str, profile: Profile) -> None:
    """Give a task of the pipeline its image, its retries and, on a cluster, all that its pod needs."""
    task.set_container_image(profile.images[step])
    if profile.retries and step not in NOT_RETRIED:
        task.set_retry(num_retries=profile.retries, **_backoff(profile))
    if profile.cluster is not None:
        _place_in_pod(task, step, profile, profile.cluster)


def _backoff(profile: Profile) -> dict[str, Any]:
    """How long to wait before a step is tried again, and how long to go on trying.

    Argo stops retrying, and kills the attempt that runs, once the first attempt started longer ago than the maximum:
    it must cover every attempt at its full timeout and the pauses between them, which double.
    """
    if profile.cluster is None:
        return {"backoff_duration": "0s"}
    pauses = BACKOFF_SECONDS * (2**profile.retries - 1)
    longest = (profile.retries + 1) * profile.cluster.step_timeout_seconds + pauses
    return {"backoff_duration": f"{BACKOFF_SECONDS}s", "backoff_factor": 2.0, "backoff_max_duration": f"{longest}s"}


def _place_in_pod(task: Any, step: str, profile: Profile, settings: ClusterConfig) -> None:
    from kfp import kubernetes

    for key, value in _environment(step, profile, settings).items():
        task.set_env_variable(key, value)
    # The run's name must not be an input, or no step would ever be served from the cache.
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    if settings.s3_secret:
        kubernetes.use_secret_as_env(task, secret_name=settings.s3_secret, secret_key_to_env=S3_KEYS)
    kubernetes.mount_pvc(task, pvc_name=settings.state_volume, mount_path=STATE_MOUNT)
    kubernetes.set_timeout(task, settings.step_timeout_seconds)
    kubernetes.set_image_pull_policy(task, settings.image_pull_policy)
    if settings.image_pull_secret:
        kubernetes.set_image_pull_secrets(task, [settings.image_pull_secret])
    spread = step in LAUNCHED_STEPS and profile.launch.launcher == "trainjob"
    if step in TRAINING_STEPS and not spread:
        _give_accelerators(task, settings)
    else:
        task.set_cpu_request(settings.step_cpu).set_memory_request(settings.step_memory)
        task.set_memory_limit(settings.step_memory)


def _give_accelerators(task: Any, settings: ClusterConfig) -> None:
    from kfp import kubernetes

    task.set_cpu_request(settings.train_cpu).set_memory_request(settings.train_memory)
    task.set_memory_limit(settings.train_memory)
    if settings.accelerators:
        task.set_accelerator_type(settings.accelerator).set_accelerator_limit(settings.accelerators)
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=settings.shared_memory
    )
    for label in settings.node_selector:
        kubernetes.add_node_selector(task, *label.split("="))
    for toleration in settings.tolerations:
        kubernetes.add_toleration(task, **parse_toleration(toleration))
    if settings.queue:
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", settings.queue)


WORKER_KEYS = (
    "namespace",
    "service_account",
    "image_pull_secret",
    "state_volume",
    "s3_secret",
    "train_cpu",
    "train_memory",
    "accelerator",
    "accelerators",
    "shared_memory",
    "node_selector",
    "tolerations",
    "queue",
    "step_timeout_seconds",
)
"""What the training step must know to ask for workers of its own."""

S3_KEYS = {"access-key": "AWS_ACCESS_KEY_ID", "secret-key": "AWS_SECRET_ACCESS_KEY"}
"""Key in the secret -> variable: only these names ever stand in a compiled pipeline."""


def _environment(step: str, profile: Profile, settings: ClusterConfig) -> dict[str, str]:
    """Variables of a step's pod. None is part of the cache key: where a step runs shapes no result."""
    values = {
        "MYXTTS_STATE": STATE_MOUNT,
        "MYXTTS_IMAGE": profile.images[step],
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
    }
    if settings.s3_endpoint:
        values["AWS_ENDPOINT_URL"] = settings.s3_endpoint
    if step in LAUNCHED_STEPS and profile.launch.launcher != "inline":
        told = {"launch": profile.launch.model_dump(), "cluster": settings.model_dump(include=set(WORKER_KEYS))}
        values[LAUNCH] = json.dumps(told, sort_keys=True)
    return values


def pipeline_config(profile: Profile) -> Any:
    """What holds for a run as a whole: deadline and time to live, where the cluster's release knows them."""
    from kfp import dsl

    settings = profile.cluster
    if settings is None or _release(settings.backend_version) < (2, 17):
        return None
    # The manifests of 2.17 set times to live for success and for failure, and Argo prefers those to a common one.
    return dsl.PipelineConfig(
        ttl_seconds_after_finished=settings.keep_seconds,
        ttl_seconds_after_success=settings.keep_seconds,
        ttl_seconds_after_failure=settings.keep_seconds,
        active_deadline_seconds=settings.run_timeout_seconds,
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
