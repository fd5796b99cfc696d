"""The double of Kubeflow Pipelines is as strict as the server."""

import pytest
from kfp_double import Double, Refused, Request, UploadRefused, check_cron, page
from kfp_settings import COMMIT, connect

pytestmark = pytest.mark.usefixtures("logged_out")


def asked(double: Double, method: str, path: str, query: dict | None = None, body: dict | None = None, token=""):
    return double.answer(method, path, Request(query or {}, body or {}), token)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("experiments", {"display_name": "e", "namespace": "team", "colour": "red"}),
        ("runs", {"display_name": "r", "runtime_config": {"parameter": {}}}),
    ],
)
def test_a_field_that_the_api_lacks_is_refused(double, path, body):
    with pytest.raises(Refused, match="unknown field"):
        asked(double, "POST", path, body=body)


def test_an_experiments_name_is_unique_in_its_namespace(double):
    double.namespaces = {"team", "other"}
    for namespace in ("team", "other"):
        asked(double, "POST", "experiments", body={"display_name": "e", "namespace": namespace})
    with pytest.raises(Refused) as refused:
        asked(double, "POST", "experiments", body={"display_name": "e", "namespace": "team"})
    assert refused.value.status == 409


def test_pipelines_are_listed_by_namespace_and_without_one_only_the_shared(double, host, pipeline, run_arguments):
    connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    assert asked(double, "GET", "pipelines") == {}
    assert asked(double, "GET", "pipelines", {"namespace": "team"})["total_size"] == 1


def test_single_user_mode_forgets_namespaces_and_asks_for_no_identity():
    double = Double(multi_user=False)
    double.tokens = {"right": {"team"}}
    asked(double, "POST", "experiments", body={"display_name": "e", "namespace": "team"}, token="wrong")
    assert "namespace" not in asked(double, "GET", "experiments", {"namespace": "elsewhere"})["experiments"][0]


@pytest.mark.parametrize(("token", "status"), [("", 401), ("stranger", 403)])
def test_access_is_checked_by_namespace_and_an_upload_does_not_say_why(double, token, status):
    double.tokens = {"right": {"team"}, "stranger": {"elsewhere"}}
    with pytest.raises(Refused) as refused:
        asked(double, "GET", "experiments", {"namespace": "team"}, token=token)
    assert refused.value.status == status
    upload = Request({"namespace": "team", "name": "p"}, upload="pipelineInfo: {name: p}", filename="p.yaml")
    with pytest.raises(UploadRefused, match="Failed to create a pipeline") as refused:
        double.answer("POST", "pipelines/upload", upload, token)
    assert refused.value.status == 400
    assert '"error_message"' in refused.value.body()[1]


def test_a_page_token_holds_only_for_its_list():
    items = [{"run_id": str(index), "created_at": f"{index:03}", "display_name": "r"} for index in range(5)]
    first = page("runs", items, {"page_size": "2", "sort_by": "created_at desc"})
    token = first["next_page_token"]
    second = page("runs", items, {"page_size": "2", "page_token": token})
    assert [item["run_id"] for item in first["runs"] + second["runs"]] == ["4", "3", "2", "1"]
    for query in ({"sort_by": "created_at"}, {"page_token": "7"}):
        with pytest.raises(Refused, match="page token") as refused:
            page("runs", items, {"page_size": "2", "page_token": token, **query})
        assert refused.value.status == 400


@pytest.mark.parametrize("cron", ["0 3 * * *", "0 0 3 * * *", "@daily", "@every 1h30m", "0 */5 9-17 ? jan MON-FRI"])
def test_a_schedule_of_five_fields_is_accepted_like_one_of_six(cron):
    check_cron(cron)


@pytest.mark.parametrize(
    "cron", ["0 3 * *", "0 0 3 * * * *", "60 0 3 * * *", "0 0 3 * * 7", "@nightly", "0 0 5-3 * * *"]
)
def test_a_schedule_that_does_not_parse_is_refused(cron):
    with pytest.raises(Refused, match="cron"):
        check_cron(cron)


def test_a_run_of_a_deleted_version_is_an_internal_error(double, host, pipeline, run_arguments):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    body = {key: double.runs[run.id][key] for key in ("experiment_id", "pipeline_version_reference", "runtime_config")}
    double.specs.clear()
    with pytest.raises(Refused, match="manifest") as refused:
        asked(double, "POST", "runs", body={**body, "display_name": "r"})
    assert refused.value.status == 500


def test_only_a_running_run_is_terminated(double, host, pipeline, run_arguments):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    asked(double, "POST", f"runs/{run.id}:terminate")
    for state in ("CANCELING", "FAILED"):
        with pytest.raises(Refused, match="Row not found") as refused:
            asked(double, "POST", f"runs/{run.id}:terminate")
        assert refused.value.status == 400
        double.runs[run.id]["state"] = state


def test_a_terminated_run_ends_as_failed_without_an_error(double, host, pipeline, run_arguments):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    asked(double, "POST", f"runs/{run.id}:terminate")
    shown = [asked(double, "GET", f"runs/{run.id}") for _ in range(3)]
    assert [item["state"] for item in shown] == ["CANCELING", "FAILED", "FAILED"]
    assert "error" not in shown[-1]


def test_tasks_are_argos_nodes(double, host, pipeline, run_arguments):
    run, _ = connect(host).trigger(pipeline, run_arguments, "generated", COMMIT)
    double.script = ["SUCCEEDED"]
    tasks = asked(double, "GET", f"runs/{run.id}")["run_details"]["task_details"]
    names = [task.get("display_name", "") for task in tasks]
    assert {double.runs[run.id]["_"]["workflow"], "root", "root(0)", "train-driver(0)", "executor(0)", ""} <= set(names)
    assert names.count("executor") == 8


@pytest.mark.parametrize(("tag", "kept"), [("2.16.1", False), ("2.17.0", True)])
def test_a_platform_document_with_a_field_that_the_release_lacks_is_dropped(double, tag, kept):
    double.tag_name = tag
    settings = "pipelineConfig: {activeDeadlineSeconds: 5}"
    text = f"pipelineInfo: {{name: p}}\n---\nplatforms: {{kubernetes: {{{settings}}}}}\n"
    assert bool(double._platform(text)) == kept
    assert not double._platform(text.replace("activeDeadlineSeconds", "deadline"))
