"""Profiles: the settings of pipeline tasks that depend on the target (processes, containers or a cluster)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.author import NAMESPACE, SERVICE_ACCOUNT
from components.launch import VARIABLE as LAUNCH
from components.trainjob import IMAGE_USER, S3_VARIABLES, STATE_MOUNT, TRACKING_VARIABLES, parse_toleration
from model.config.resolution import ConfigError
from model.config.schema import Config
from model.config.targets import ClusterConfig, LaunchConfig

STEPS = ("configure", "resolve_data", "preprocess", "train", "finetune_vocoder", "evaluate", "register", "gate")
STUDY_STEPS = ("prepare_study", "study_worker", "conclude_study")
"""Steps of a study, between `preprocess` and the training that may follow."""
DATA_STEPS = ("resolve_data",)
"""Steps that run in the image `data`; the others run in the image `train`."""
TRAINING_STEPS = ("train", "finetune_vocoder", "study_worker")
"""Steps that get the accelerators."""
LAUNCHED_STEPS = ("train",)
"""Steps that a launcher can distribute; with `trainjob` its workers get the accelerators instead of the step."""
NOT_RETRIED = ("gate",)
"""Steps whose failure is a result: a voice that failed the gate fails it again."""
REGISTRY_STEPS = ("register", "gate")
"""Steps that make versions and move aliases."""
NOT_CACHED = ("configure", "register", "gate", *STUDY_STEPS)
"""Steps that depend on external state: the newest data, models, aliases or trials may have changed since an equal
run."""
STORAGE_VARIABLE, STORAGE_KEY = "MYXTTS_STUDY_STORAGE", "optuna-uri"
"""Environment variable with the address of the studies' database, and its key in the secret."""
DATABASE_CLIENT = ("app.kubernetes.io/name", "study")
"""Label of the pods that the network policy lets connect to the databases."""
BACKOFF_SECONDS = 30
"""Pause before the first retry of a step in a pod."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Settings of the pipeline for one target.

    Attributes:
        name: `local`, `docker` or `cluster`.
        images: Step -> image. For subprocesses no image is pulled; its name contains the hash of the step's code, so
            that a changed statement makes the cached result stale.
        retries: Number of retries of a failed step.
        cluster: Settings of the pods; `None` on this machine.
        launch: Settings of the launcher of training.
        preprocess_parts: Number of pods that preprocess in parallel; 1 on this machine, where one step uses processes.
        cached: Whether results of earlier runs are used.
    """

    name: str
    images: Mapping[str, str]
    retries: int = 0
    cluster: ClusterConfig | None = None
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    preprocess_parts: int = 1
    cached: bool = True


def study_steps(then_train: bool) -> tuple[str, ...]:
    """Returns the steps of a study and, if `then_train`, of the training with its best settings."""
    after = STEPS[STEPS.index("train") :] if then_train else ()
    return ("resolve_data", "preprocess", *STUDY_STEPS, *after)


def local_profile(launch: LaunchConfig | None = None, steps: Sequence[str] = STEPS) -> Profile:
    """Returns the profile of subprocesses on this machine, with images named after the code of each step.

    Args:
        launch: Settings of the launcher.
        steps: Steps of the pipeline.

    Raises:
        ConfigError: the launcher needs a cluster.
    """
    from model.code_hash import code_hash

    launch = launch or LaunchConfig()
    if launch.launcher == "trainjob":
        raise ConfigError("launch.launcher = trainjob needs a cluster; use inline or torchrun with --target local")
    images = {step: f"local-python:{code_hash(f'components.{step}.run')}" for step in steps}
    return Profile(name="local", images=images, launch=launch)


def cluster_profile(config: Config) -> Profile:
    """Returns the profile of a cluster: pods with the state on a shared volume and credentials from secrets.

    Raises:
        ConfigError: an image is not set.
    """
    settings = config.cluster
    images = {kind: getattr(settings, f"{kind}_image") for kind in ("data", "train")}
    for kind, image in images.items():
        if not image:
            raise ConfigError(
                f"cluster.{kind}_image is not set; push the image myxtts-python-{kind} that `make images` built and "
                f"set its digest (registry/myxtts-python-{kind}@sha256:...)"
            )
    by_step = {step: images[image_kind(step)] for step in (*STEPS, *STUDY_STEPS)}
    return Profile(
        name="cluster",
        images=by_step,
        retries=settings.retries,
        cluster=settings,
        launch=config.launch,
        preprocess_parts=settings.preprocess_parts,
    )


def image_kind(step: str) -> str:
    """Returns the image of a step: `data` or `train`."""
    return "data" if step in DATA_STEPS else "train"


def place(task: Any, step: str, profile: Profile) -> None:
    """Sets image and retries of a pipeline task and, on a cluster, the settings of its pod."""
    task.set_container_image(profile.images[step])
    if step in NOT_CACHED or not profile.cached:
        task.set_caching_options(False)
    if profile.retries and step not in NOT_RETRIED:
        task.set_retry(num_retries=profile.retries, **_backoff(profile))
    if profile.cluster is not None:
        _place_in_pod(task, step, profile, profile.cluster)


def _backoff(profile: Profile) -> dict[str, Any]:
    """Returns the pauses between attempts and the time limit for all of them.

    Argo stops retrying and kills the running attempt when the time since the first attempt exceeds the limit, so it
    must cover all attempts with their full timeout and the pauses between them, which double.
    """
    if profile.cluster is None:
        return {"backoff_duration": "0s"}
    pauses = BACKOFF_SECONDS * (2**profile.retries - 1)
    longest = (profile.retries + 1) * profile.cluster.step_timeout_seconds + pauses
    return {"backoff_duration": f"{BACKOFF_SECONDS}s", "backoff_factor": 2.0, "backoff_max_duration": f"{longest}s"}


def _place_in_pod(task: Any, step: str, profile: Profile, settings: ClusterConfig) -> None:
    """Sets variables, secrets, volume, timeout and resources of a task's pod."""
    from kfp import kubernetes

    for key, value in _environment(step, profile, settings).items():
        task.set_env_variable(key, value)
    # Not an input of the step: the run id would make every cache key unique.
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    kubernetes.use_field_path_as_env(task, SERVICE_ACCOUNT, "spec.serviceAccountName")
    kubernetes.use_field_path_as_env(task, NAMESPACE, "metadata.namespace")
    if settings.s3_secret:
        kubernetes.use_secret_as_env(task, secret_name=settings.s3_secret, secret_key_to_env=S3_KEYS)
    login = (settings.registry_secret if step in REGISTRY_STEPS else "") or settings.tracking_secret
    if login:
        kubernetes.use_secret_as_env(task, secret_name=login, secret_key_to_env=TRACKING_KEYS, optional=True)
    if login and step == "gate":
        kubernetes.use_secret_as_env(task, secret_name=login, secret_key_to_env=WEBHOOK_KEYS, optional=True)
    if step in STUDY_STEPS:
        kubernetes.use_secret_as_env(
            task, secret_name=settings.study_secret, secret_key_to_env={STORAGE_KEY: STORAGE_VARIABLE}
        )
        kubernetes.add_pod_label(task, *DATABASE_CLIENT)
    kubernetes.mount_pvc(task, pvc_name=settings.state_volume, mount_path=STATE_MOUNT)
    # The server adds the rest: no privilege escalation, no capabilities, the seccomp profile of the container runtime.
    kubernetes.set_security_context(task, run_as_user=IMAGE_USER, run_as_group=IMAGE_USER, run_as_non_root=True)
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
    """Sets resources, accelerators, shared memory and placement of a training step's pod."""
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
    "tracking_secret",
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
"""Settings of the cluster that the training step needs to create the TrainJob of its workers."""

S3_KEYS = {entry: variable for variable, entry in S3_VARIABLES.items()}
"""Key of the secret -> environment variable. A compiled pipeline contains only these names, no values."""
TRACKING_KEYS = {entry: variable for variable, entry in TRACKING_VARIABLES.items()}
"""The same for MLflow. All keys are optional: a secret has a user name and a password, or a token."""
WEBHOOK_KEYS = {"on-promote-token": "MYXTTS_ON_PROMOTE_TOKEN"}
"""The same for the webhook `registry.on_promote`."""


def _environment(step: str, profile: Profile, settings: ClusterConfig) -> dict[str, str]:
    """Returns the environment variables of a step's pod. They are not part of the cache key: they change no result."""
    values = {
        "MYXTTS_STATE": STATE_MOUNT,
        "MYXTTS_IMAGE": profile.images[step],
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
    }
    if settings.s3_endpoint:
        values["AWS_ENDPOINT_URL"] = settings.s3_endpoint
    if step in LAUNCHED_STEPS and profile.launch.launcher != "inline":
        launch = {"launch": profile.launch.model_dump(), "cluster": settings.model_dump(include=set(WORKER_KEYS))}
        values[LAUNCH] = json.dumps(launch, sort_keys=True)
    return values


def pipeline_config(profile: Profile) -> Any:
    """Returns deadline and time to live of a run; `None` on this machine or if the cluster's release has neither."""
    from kfp import dsl

    settings = profile.cluster
    if settings is None or _release(settings.backend_version) < (2, 17):
        return None
    # The manifests of 2.17 set times to live for success and failure, which Argo prefers to the common one.
    return dsl.PipelineConfig(
        ttl_seconds_after_finished=settings.keep_seconds,
        ttl_seconds_after_success=settings.keep_seconds,
        ttl_seconds_after_failure=settings.keep_seconds,
        active_deadline_seconds=settings.run_timeout_seconds,
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
