"""The workflow controller's retry policy, read from the settings that Kubeflow Pipelines ships."""

import pytest
import yaml
from kfp_settings import settings

from pipelines.retry_policy import CONFIG_MAP, retry_policy, retry_warning

STOCK = """
spec:
  ttlStrategy:
    secondsAfterCompletion: 3600
  templateDefaults:
    retryStrategy:
      limit: '2'
      retryPolicy: OnError
"""
"""Of release 2.17: manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml."""


@pytest.fixture
def configured(kube):
    """Returns a function that sets the controller's ConfigMap in the namespace of Kubeflow Pipelines."""

    def configure(**data: str) -> None:
        kube.config_maps["kubeflow", CONFIG_MAP] = data

    return configure


@pytest.mark.parametrize(
    ("data", "policy"),
    [
        ({"executor": "imagePullPolicy: IfNotPresent\n", "workflowDefaults": STOCK}, "OnError"),
        ({"workflowDefaults": STOCK.replace("OnError", "Always")}, "Always"),
        ({"config": yaml.safe_dump({"workflowDefaults": yaml.safe_load(STOCK)})}, "OnError"),
        ({"artifactRepository": "archiveLogs: true\n"}, "OnFailure"),  # release 2.16
        ({"workflowDefaults": "spec:\n  templateDefaults:\n"}, "OnFailure"),
    ],
)
def test_the_policy_is_read_where_argo_reads_it(configured, data, policy):
    configured(**data)
    assert retry_policy("kubeflow") == policy


@pytest.mark.parametrize(
    ("policy", "said"), [("OnError", "exits with an error is not retried"), ("OnFailure", "pod is deleted")]
)
def test_retries_that_the_controller_would_not_make_are_named_with_the_fix(configured, policy, said):
    configured(workflowDefaults=STOCK.replace("OnError", policy))
    warning = retry_warning(settings("", retries=3))
    assert f"cluster.retries = 3, but the workflow controller's retry policy is {policy}: " in warning
    assert said in warning
    assert "`retryPolicy: Always`" in warning


def test_there_is_no_warning_if_every_failed_step_is_retried_or_retries_are_off(configured):
    configured(workflowDefaults=STOCK.replace("OnError", "Always"))
    assert retry_warning(settings("")) == ""
    configured(workflowDefaults=STOCK)
    assert retry_warning(settings("", retries=0)) == ""


def test_a_policy_that_cannot_be_read_is_a_warning(kube):
    assert "could not be checked: cannot read the ConfigMap" in retry_warning(settings(""))
