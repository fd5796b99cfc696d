"""Policies of the S3 keys: each key reaches its own prefix only."""

import json
from pathlib import Path

import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult

POLICIES = Path(__file__).parents[2] / "infra" / "s3"
READ, WRITE, DELETE = "s3:GetObject", "s3:PutObject", "s3:DeleteObject"
ALLOWED = {
    "data": {("dvc", READ)},
    "pipelines": {("pipelines", READ), ("pipelines", WRITE)},
    "mlflow": {("mlflow", READ), ("mlflow", WRITE), ("mlflow", DELETE)},
    "people": {("dvc", READ), ("dvc", WRITE), ("dvc", DELETE)},
}


@pytest.mark.parametrize("key", ALLOWED)
def test_a_key_reaches_its_prefix_only(key):
    policy = IAMPolicy((POLICIES / f"{key}.json").read_text("utf-8"))
    found = {
        (prefix, action)
        for prefix in ("dvc", "pipelines", "mlflow", "dvcx", "")
        for action in (READ, WRITE, DELETE, "s3:PutBucketPolicy")
        if policy.is_action_permitted(action, resource=f"arn:aws:s3:::myxtts/{prefix}/files/a")
        == PermissionResult.PERMITTED
    }
    assert found == ALLOWED[key]


@pytest.mark.parametrize("key", ALLOWED)
def test_a_key_lists_its_prefix_only(key):
    listing, *_ = json.loads((POLICIES / f"{key}.json").read_text("utf-8"))["Statement"]
    assert listing["Action"] == ["s3:ListBucket"]
    prefixes = listing["Condition"]["StringLike"]["s3:prefix"]
    assert prefixes == [f"{prefix}/*" for prefix in sorted({prefix for prefix, _ in ALLOWED[key]})]


def test_every_policy_is_tested():
    assert {path.stem for path in POLICIES.iterdir()} == ALLOWED.keys()
