import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from kfp.dsl import base_component

from components.configure.parameters import step_settings
from components.data_versions import LATEST
from model.config.resolution import ConfigError, flatten, known_keys, resolve
from model.config.targets import ClusterConfig
from pipelines.compiling import LintError, YamlLoader, check, compile_study, compile_training, manifests
from pipelines.profiles import STEPS, STUDY_STEPS, TRAINING_STEPS, Profile, cluster_profile, local_profile
from pipelines.training_pipeline import STEP_SETTINGS, arguments

GOLDENS = Path(__file__).with_name("goldens")
DATA, TRAIN = (f"registry.example/myxtts-python-{kind}@sha256:" + "0" * 64 for kind in ("data", "train"))


def documents(text: str) -> list[dict]:
    return list(yaml.load_all(text, YamlLoader))


def cluster_config(**changes):
    images = {"cluster.data_image": DATA, "cluster.train_image": TRAIN}
    return resolve(overrides={**images, **{key.replace("__", "."): value for key, value in changes.items()}}).config


@pytest.fixture(scope="module")
def golden_texts() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("write_goldens", Path(__file__).with_name("write_goldens.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.golden_texts()


@pytest.fixture(scope="module")
def cluster() -> str:
    return compile_training(cluster_profile(cluster_config()))


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDENS.iterdir()))
def test_compiled_pipelines_are_the_golden_files(golden_texts, name):
    assert golden_texts[name] == (GOLDENS / name).read_text("utf-8"), "intended? then run `make goldens`"


def test_compiling_twice_gives_the_same_bytes(cluster):
    assert compile_training(cluster_profile(cluster_config())) == cluster


@pytest.mark.parametrize("step", [*STEPS, *STUDY_STEPS])
def test_every_component_compiles_to_a_component(step):
    module = importlib.import_module(f"components.{step}.component")
    assert isinstance(getattr(module, step), base_component.BaseComponent)


def test_nothing_is_installed_at_run_time(cluster):
    assert "pip install" not in cluster


def test_no_forbidden_feature_of_kfp_is_used(cluster):
    """Features that the local runner lacks, or that break caching (see kfp's own issues)."""
    pipeline = documents(cluster)[0]
    text = json.dumps(pipeline)
    for forbidden in ("cacheKey", "workspacePath", "importer", "CreatePVC", "pipeline_job"):
        assert forbidden not in text
    outputs = pipeline["root"]["dag"]["outputs"]["artifacts"].values()
    assert all(len(item["artifactSelectors"]) == 1 for item in outputs)  # a choice between artifacts fails locally
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        assert "kfp.dsl.executor_main" in json.dumps(executor["container"]), name
        assert executor["container"]["image"] == (DATA if name == "exec-resolve-data" else TRAIN)
    for name, parameter in pipeline["root"]["inputDefinitions"]["parameters"].items():
        assert parameter["parameterType"] == "STRING", name


def test_a_run_can_be_started_on_the_page(cluster):
    """Every parameter has a short description, and the default is the setting of the project."""
    config = cluster_config(training__max_steps=77, loss__mel_loss_weight=3.0)
    suggested = arguments(config, LATEST, "s3://bucket/dvc")
    parameters = documents(compile_training(cluster_profile(config), suggested))[0]["root"]["inputDefinitions"][
        "parameters"
    ]
    assert all(parameter["description"] for parameter in parameters.values())
    defaults = {name: parameter["defaultValue"] for name, parameter in parameters.items()}
    assert defaults == suggested
    chosen = {key: defaults[key] for key in ("data", "remote", "corpus", "model_size", "start_from", "max_steps")}
    assert chosen == {
        "data": "latest",
        "remote": "s3://bucket/dvc",
        "corpus": "generated",
        "model_size": "tiny",
        "start_from": "none",
        "max_steps": "77",
    }
    assert json.loads(defaults["settings"]) == {"loss.mel_loss_weight": 3.0}
    assert max(len(value) for name, value in defaults.items() if name != "settings") < 40


def test_secrets_stand_by_name_only(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    text = compile_training(cluster_profile(cluster_config()))
    assert "AWS_SECRET_ACCESS_KEY" in text
    assert "hunter2" not in text


def test_the_page_shows_metrics_the_listening_report_and_the_decision(cluster):
    components = documents(cluster)[0]["components"]
    found = {
        (name.removeprefix("comp-"), output): item["artifactType"]["schemaTitle"]
        for name, component in components.items()
        for output, item in component["outputDefinitions"]["artifacts"].items()
    }
    rendered = ("system.Metrics", "system.HTML", "system.Markdown")
    shown = {key: kind for key, kind in found.items() if kind in rendered or key[0] == "register"}
    assert shown == {
        ("configure", "markdown"): "system.Markdown",
        ("resolve-data", "html"): "system.HTML",
        ("register", "registration"): "system.Artifact",
        ("register", "model"): "system.Model",
        ("train", "metrics"): "system.Metrics",
        ("evaluate", "metrics"): "system.Metrics",
        ("evaluate", "html"): "system.HTML",
        ("gate", "metrics"): "system.Metrics",
        ("gate", "markdown"): "system.Markdown",
        ("gate", "html"): "system.HTML",
    }


def cached_steps(text: str) -> set[str]:
    tasks = documents(text)[0]["root"]["dag"]["tasks"]
    return {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}


def test_steps_that_depend_on_data_aliases_or_the_registry_are_never_answered_from_the_cache(cluster):
    assert cached_steps(cluster) == {step.replace("_", "-") for step in STEPS} - {"configure", "register", "gate"}
    assert not cached_steps(compile_training(replace(cluster_profile(cluster_config()), cached=False)))


WITH_CREDENTIALS = {
    "cluster.tracking_uri": ("https://user:hunter2@mlflow:5000", "cluster.tracking_secret"),
    "cluster.s3_endpoint": ("http://hunter2@s3:8333", "cluster.s3_secret"),
    "cluster.host": ("https://user:hunter2@kubeflow.example/pipeline", "cluster.token_file"),
    "vocoder.checkpoint": ("https://s3.example/g?X-Amz-Credential=a&X-Amz-Signature=hunter2", "cluster.s3_secret"),
}
"""Setting -> (address with credentials, the secret to use instead)."""


@pytest.mark.parametrize("key", sorted(WITH_CREDENTIALS))
def test_credentials_in_a_setting_are_refused_with_the_secret_to_use_and_not_shown(key):
    address, secret = WITH_CREDENTIALS[key]
    with pytest.raises(ConfigError, match=f"`{re.escape(key)}`.*{re.escape(secret)}") as caught:
        resolve(overrides={key: address})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "remote"),
    [({}, "s3://id:hunter2@bucket/dvc"), ({"features.remote": "s3://id:hunter2@bucket/features"}, "s3://bucket/dvc")],
)
def test_no_argument_of_a_run_contains_credentials(changes, remote):
    with pytest.raises(ConfigError, match=r"contains an address with credentials.*cluster\.s3_secret") as caught:
        arguments(resolve(overrides=changes).config, "h", remote, "n")
    assert "hunter2" not in str(caught.value)


def test_no_path_of_this_machine_is_compiled_in(cluster):
    assert not re.search(r"(?<![\w.])/(work|home|root|Users|tmp)/", cluster)


def test_local_images_are_named_after_the_code():
    images = local_profile().images
    assert set(images) == set(STEPS)
    assert all(re.fullmatch(r"local-python:[0-9a-f]{16}", image) for image in images.values())
    assert len(set(images.values())) == len(STEPS)


def test_an_image_per_step_reaches_the_pipeline():
    images = {step: f"local-python:{index}" for index, step in enumerate(STEPS)}
    pipeline = documents(compile_training(Profile(name="local", images=images)))[0]
    executors = pipeline["deploymentSpec"]["executors"]
    found = {
        name.removeprefix("exec-").replace("-", "_"): item["container"]["image"] for name, item in executors.items()
    }
    assert found == images


def changed_steps(key: str, value) -> set[str]:
    before, after = (step_settings(resolve(overrides=overrides).config) for overrides in ({}, {key: value}))
    return {name.removesuffix("_settings") for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("key", "value", "steps"),
    [
        ("training.max_steps", 7, {"train"}),
        ("loss.mel_loss_weight", 3.0, {"train"}),
        ("features.pitch_fmax", 400.0, {"preprocess", "train"}),
        ("audio.n_mels", 40, {"preprocess", "train", "finetune_vocoder", "evaluate"}),
        ("vocoder.type", "hifigan", {"finetune_vocoder"}),
        ("evaluation.max_clips", 3, {"evaluate"}),
        ("evaluation.corpus", "0" * 32 + ".dir", {"evaluate"}),
        ("registry.pitch_error_margin", 0.5, {"gate"}),
        ("study.trials", 3, set()),
        ("split.min_held_out", 9, set()),
        ("cluster.train_memory", "64Gi", set()),
    ],
)
def test_a_setting_reaches_the_steps_that_it_concerns_and_no_other(key, value, steps):
    assert changed_steps(key, value) == steps


def test_every_setting_reaches_a_step_or_acts_elsewhere():
    elsewhere = {"corpus", "validation", "split", "study", "launch", "docker", "cluster"}
    read_by_steps = {section for settings in STEP_SETTINGS.values() for section in settings.model_fields}
    assert {key.partition(".")[0] for key in known_keys()} == read_by_steps | elsewhere


def test_whole_numbers_stay_whole_on_the_way():
    train_settings = json.loads(step_settings(resolve().config)["train_settings"])
    assert isinstance(flatten(train_settings)["training.max_steps"], int)


ENDS = ("Completion", "Success", "Failure")
"""The stock manifests set times to live for success and failure, which Argo prefers to the one for completion."""


@pytest.mark.parametrize("release", ["2.16", "2.17"])
def test_a_deadline_is_compiled_only_for_clusters_that_know_it(release):
    text = compile_training(cluster_profile(cluster_config(cluster__backend_version=release)))
    for line in ("activeDeadlineSeconds: 604800", *(f"resourceTtlOn{end}: 86400" for end in ENDS)):
        assert (line in text) == (release == "2.17")


def executors(text: str) -> tuple[dict, dict]:
    """Returns the containers and the pod settings of a compiled pipeline, each by step."""
    pipeline, platform = documents(text)
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    containers = pipeline["deploymentSpec"]["executors"]
    return tuple(
        {name.removeprefix("exec-").replace("-", "_"): value for name, value in found.items()}
        for found in ({name: item["container"] for name, item in containers.items()}, pods)
    )


OF_TRAINING = {
    "node_selector": (["pool=gpu"], '"labels": {"pool": "gpu"}'),
    "tolerations": (["pool=gpu:NoSchedule"], '"value": "gpu"'),
    "queue": ("training", '"kueue.x-k8s.io/queue-name": "training"'),
    "shared_memory": ("3Gi", '"sizeLimit": "3Gi"'),
    "accelerators": (3, '"resourceCount": "3"'),
    "accelerator": ("amd.com/gpu", '"resourceType": "amd.com/gpu"'),
    "train_cpu": ("7", '"resourceCpuRequest": "7"'),
    "train_memory": ("77Gi", '"resourceMemoryLimit": "77Gi"'),
}
OF_OTHER_STEPS = {
    "step_cpu": ("3", '"resourceCpuRequest": "3"'),
    "step_memory": ("9Gi", '"resourceMemoryLimit": "9Gi"'),
}
OF_EVERY_STEP = {
    "image_pull_secret": ("registry", '"secretName": "registry"'),
    "image_pull_policy": ("Always", '"imagePullPolicy": "Always"'),
    "state_volume": ("claim", '"constant": "claim"'),
    "tracking_uri": ("http://tracking:5000", '"http://tracking:5000"'),
    "tracking_secret": ("tracking-login", '"secretName": "tracking-login"'),
    "s3_secret": ("bucket", '"secretName": "bucket"'),
    "s3_endpoint": ("http://s3:8333", '"http://s3:8333"'),
    "step_timeout_seconds": (77, '"activeDeadlineSeconds": "77"'),
}
"""Setting -> (a value, its text in the compiled pipeline)."""


OF_REGISTRY_STEPS = {"registry_secret": ("registry-login", '"secretName": "registry-login"')}


@pytest.fixture(scope="module")
def dressed() -> str:
    """The compiled pipeline with all of these settings."""
    changes = {
        f"cluster__{key}": value for key, (value, _) in {**OF_TRAINING, **OF_OTHER_STEPS, **OF_EVERY_STEP}.items()
    }
    changes["cluster__registry_secret"] = ""  # then `tracking_secret` is that of all steps
    return compile_training(cluster_profile(cluster_config(cluster__retries=5, **changes)))


def holders(text: str, found: str) -> set[str]:
    containers, pods = executors(text)
    return {step for step in STEPS if found in json.dumps([containers[step], pods[step]])}


@pytest.mark.parametrize("key", OF_TRAINING)
def test_what_training_pods_are_given_reaches_them_alone(cluster, dressed, key):
    assert holders(dressed, OF_TRAINING[key][1]) == {step for step in STEPS if step in TRAINING_STEPS}
    assert not holders(cluster, OF_TRAINING[key][1])


@pytest.mark.parametrize("key", OF_OTHER_STEPS)
def test_what_the_other_pods_are_given_reaches_them_alone(cluster, dressed, key):
    assert holders(dressed, OF_OTHER_STEPS[key][1]) == {step for step in STEPS if step not in TRAINING_STEPS}
    assert not holders(cluster, OF_OTHER_STEPS[key][1])


def test_every_setting_of_the_cluster_is_held_to_its_effect_somewhere():
    """Settings of pods are tested here; those of client, launcher, run or whole pipeline in other tests."""
    of_the_client = {
        "host",
        "ui_host",
        "namespace",
        "kfp_namespace",
        "ca_certificate",
        "token_file",
        "poll_seconds",
        "outage_seconds",
    }
    of_the_run = {"service_account", "backend_version", "run_timeout_seconds", "keep_seconds", "retries"}
    of_the_pipeline = {"data_image", "train_image", "preprocess_parts"}
    of_a_study = {"study_secret"}
    held = {
        *OF_TRAINING,
        *OF_OTHER_STEPS,
        *OF_EVERY_STEP,
        *OF_REGISTRY_STEPS,
        *of_a_study,
        *of_the_client,
        *of_the_run,
        *of_the_pipeline,
    }
    assert held == set(ClusterConfig.model_fields)


def test_only_steps_that_write_to_the_registry_get_its_login():
    changes = {"cluster__tracking_secret": "tracking-login", "cluster__registry_secret": "registry-login"}
    text = compile_training(cluster_profile(cluster_config(**changes)))
    registry_steps = {"register", "gate"}
    assert holders(text, '"secretName": "registry-login"') == registry_steps
    assert holders(text, '"secretName": "tracking-login"') == set(STEPS) - registry_steps


@pytest.mark.parametrize("key", OF_EVERY_STEP)
def test_what_every_pod_is_given_reaches_them_all(cluster, dressed, key):
    assert holders(dressed, OF_EVERY_STEP[key][1]) == set(STEPS)
    assert not holders(cluster, OF_EVERY_STEP[key][1])


def test_no_step_runs_as_root():
    """The server denies privilege escalation, capabilities and other system calls to every step by itself."""
    _, pods = executors(compile_training(cluster_profile(cluster_config(cluster__preprocess_parts=2))))
    assert set(pods) >= {"preprocess_part", "preprocess_joined", *STEPS} - {"preprocess"}
    user = {"runAsNonRoot": True, "runAsUser": "10001", "runAsGroup": "10001"}
    assert {step: pod.get("securityContext") for step, pod in pods.items()} == dict.fromkeys(pods, user)


def test_all_steps_are_tried_again_but_the_gate(dressed):
    tasks = documents(dressed)[0]["root"]["dag"]["tasks"]
    tried = {
        name.replace("-", "_") for name, task in tasks.items() if task.get("retryPolicy", {}).get("maxRetryCount") == 5
    }
    assert tried == set(STEPS) - {"gate"}


def test_retries_last_as_long_as_every_attempt_may_take():
    """Argo stops retrying, and kills a retried pod, once the first attempt began longer ago than the maximum."""
    changes = {"cluster__retries": 3, "cluster__step_timeout_seconds": 1000}
    text = compile_training(cluster_profile(cluster_config(**changes)))
    policy = documents(text)[0]["root"]["dag"]["tasks"]["train"]["retryPolicy"]
    pauses = [30, 60, 120]
    assert (policy["backoffDuration"], policy["backoffFactor"]) == ("30s", 2.0)
    assert int(policy["backoffMaxDuration"].removesuffix("s")) >= 4 * 1000 + sum(pauses)


def test_a_size_brings_its_resources_and_the_users_own_wins():
    assert cluster_config(model_size="big").cluster.accelerators == 1
    assert cluster_config(model_size="tiny").cluster.accelerators == 0
    assert cluster_config(model_size="big", cluster__accelerators=8).cluster.accelerators == 8


def test_workers_on_several_nodes_take_the_accelerators_instead_of_the_step():
    changes = {"model_size": "big", "launch__launcher": "trainjob", "launch__nodes": 2}
    containers, _ = executors(compile_training(cluster_profile(cluster_config(**changes))))
    assert "accelerator" not in containers["train"]["resources"]
    environment = {item["name"]: item["value"] for item in containers["train"]["env"]}
    assert json.loads(environment["MYXTTS_LAUNCH"])["launch"]["nodes"] == 2


@pytest.mark.parametrize("changes", [{"launch.processes": 2}, {"launch.launcher": "torchrun", "launch.nodes": 2}])
def test_launchers_that_cannot_do_what_is_asked_are_refused(changes):
    with pytest.raises(ConfigError, match=r"use (torchrun or )?trainjob"):
        resolve(overrides=changes)


@pytest.mark.parametrize("image", ["registry/train:latest", "train", "registry/train@sha256:12"])
def test_an_image_without_digest_is_no_setting(image):
    with pytest.raises(ConfigError, match="train_image"):
        cluster_config(cluster__train_image=image)


def test_a_missing_image_is_named_with_the_fix():
    with pytest.raises(ConfigError, match=r"cluster.data_image is not set; .*make images"):
        cluster_profile(resolve().config)


BANNED = {
    "cacheKey": lambda text: text.replace("enableCache: true", "enableCache: true\n          cacheKey: k", 1),
    "no digest": lambda text: text.replace(f"image: {TRAIN}", "image: train:latest", 1),
    "pip install": lambda text: text.replace("python3 -m kfp", "pip install x && python3 -m kfp", 1),
    "an address with credentials": lambda text: text.replace("http://mlflow", "http://user:hunter2@mlflow", 1),
    "use a secret": lambda text: text.replace("- name: MYXTTS_IMAGE", "- name: AWS_SECRET_ACCESS_KEY", 1),
    "path on this machine": lambda text: text.replace("value: /state", "value: /home/someone/state", 1),
    "only strings": lambda text: text.replace(
        "isOptional: true\n        parameterType: STRING", "isOptional: true\n        parameterType: NUMBER_DOUBLE", 1
    ),
    "without default": lambda text: text.replace("        defaultValue: latest\n", "", 1),
    "not a Python component": lambda text: text.replace("kfp.dsl.executor_main", "echo", 1),
}


@pytest.mark.parametrize("finding", sorted(BANNED))
def test_the_lint_refuses_what_one_of_the_targets_cannot_run(cluster, finding):
    broken = BANNED[finding](cluster)
    assert broken != cluster
    with pytest.raises(LintError, match=finding):
        check(broken, cluster_profile(cluster_config()))


def test_the_lint_refuses_variables_that_would_replace_the_docker_runners():
    images = dict.fromkeys(STEPS, "train:1")
    text = compile_training(Profile(name="docker", images=images))
    broken = text.replace(
        "        image: train:1", "        env:\n        - name: A\n          value: b\n        image: train:1", 1
    )
    assert broken != text
    with pytest.raises(LintError, match="Docker runner"):
        check(broken, Profile(name="docker", images=images))


def test_kubernetes_objects_hold_the_same_pipeline(cluster):
    pipeline, version = documents(manifests(cluster_profile(cluster_config()), "team", "c0ffee" * 7))
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert version["metadata"]["namespace"] == "team"
    assert re.fullmatch("myxtts-training-c0ffeec0ffee-[0-9a-f]{8}", version["metadata"]["name"])
    assert version["spec"]["pipelineSpec"] == documents(cluster)[0]


def test_another_image_makes_another_version_of_a_gitops_repository():
    """The server refuses to change a version: with a new digest under the same commit, its name must be another."""
    names = set()
    for digit in "01":
        config = cluster_config(cluster__train_image=f"registry.example/train@sha256:{digit * 64}")
        _, version = documents(manifests(cluster_profile(config), "team", "c0ffee" * 7))
        names.add(version["metadata"]["name"])
    assert len(names) == 2


def test_a_large_corpus_is_preprocessed_in_parts_side_by_side():
    whole, parts = (
        documents(compile_training(cluster_profile(cluster_config(cluster__preprocess_parts=count))))[0]
        for count in (1, 3)
    )
    assert "comp-preprocess-part" not in whole["components"]
    (loop,) = (task for task in parts["root"]["dag"]["tasks"].values() if "parameterIterator" in task)
    assert json.loads(loop["parameterIterator"]["items"]["raw"]) == ["0/3", "1/3", "2/3"]
    assert loop["iteratorPolicy"]["parallelismLimit"] == 3
    joined = parts["root"]["dag"]["tasks"]["preprocess-joined"]
    assert parts["root"]["dag"]["tasks"]["train"]["dependentTasks"] == [
        "configure",
        "preprocess-joined",
        "resolve-data",
    ]
    assert any(name.startswith("for-loop") for name in joined["dependentTasks"])


def compiled_study(workers: int = 3, then_train: bool = True, **changes) -> str:
    return compile_study(cluster_profile(cluster_config(**changes)), workers, then_train)


@pytest.fixture(scope="module")
def study() -> str:
    return compiled_study(cluster__accelerators=1, cluster__study_secret="databases")


def study_tasks(text: str) -> dict[str, dict]:
    return documents(text)[0]["root"]["dag"]["tasks"]


def test_workers_of_a_study_run_side_by_side_between_its_start_and_its_end(study):
    tasks = study_tasks(study)
    ((name, loop),) = ((name, task) for name, task in tasks.items() if "parameterIterator" in task)
    assert json.loads(loop["parameterIterator"]["items"]["raw"]) == ["1/3", "2/3", "3/3"]
    assert loop["iteratorPolicy"]["parallelismLimit"] == 3
    assert "prepare-study" in loop["dependentTasks"]
    assert name in tasks["conclude-study"]["dependentTasks"]
    assert not [task for task in ("prepare-study", "conclude-study") if tasks[task]["cachingOptions"]]


def test_the_training_after_a_study_gets_its_settings_and_its_origin(study):
    tasks = study_tasks(study)
    given = {
        (task, name): tasks[task]["inputs"]["parameters"][name]["taskOutputParameter"]
        for task, name in (("train", "settings"), ("register", "origin"))
    }
    assert {key: value["producerTask"] for key, value in given.items()} == dict.fromkeys(given, "conclude-study")
    assert {value["outputParameterKey"] for value in given.values()} == {"train_settings", "origin"}
    assert not {"train", "gate"} & set(study_tasks(compiled_study(then_train=False)))


def test_only_the_steps_of_a_study_reach_its_database(study):
    containers, pods = executors(study)
    reach = {step for step, pod in pods.items() if "optuna-uri" in json.dumps(pod)}
    assert reach == set(STUDY_STEPS)
    label = {"app.kubernetes.io/name": "study"}
    assert {step for step, pod in pods.items() if pod.get("podMetadata", {}).get("labels") == label} == reach
    assert all('"databases"' in json.dumps(pods[step]["secretAsEnv"]) for step in STUDY_STEPS)
    assert "accelerator" in containers["study_worker"]["resources"]
    assert "accelerator" not in containers["conclude_study"]["resources"]


def test_the_page_of_a_study_shows_its_metrics_and_plots(study):
    outputs = documents(study)[0]["components"]["comp-conclude-study"]["outputDefinitions"]["artifacts"]
    kinds = {name: item["artifactType"]["schemaTitle"] for name, item in outputs.items()}
    assert kinds == {"conclusion": "system.Artifact", "metrics": "system.Metrics", "html": "system.HTML"}
