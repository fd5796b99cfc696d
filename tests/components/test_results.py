"""Results of a step as the page of Kubeflow Pipelines shows them, within its limits of size."""

import base64
import json
from types import SimpleNamespace

import pytest

from components.contracts import RegisterOutput
from components.register import run as register
from components.results import MAX_MARKDOWN_CHARACTERS, Results, fit_html

AUDIO = f'<audio src="data:audio/flac;base64,{base64.b64encode(bytes(3000)).decode()}"></audio>'
PAGE = f"<html><body class=x><h1>Käthe</h1>{AUDIO}<p>one</p>{AUDIO}<p>two</p>{AUDIO}</body></html>"


def artifact(folder, name: str):
    return SimpleNamespace(path=str(folder / name), uri=f"minio://bucket/{name}", metadata={})


def test_a_page_that_is_small_enough_is_shown_as_it_is(tmp_path):
    (tmp_path / "report.html").write_text(PAGE)
    assert fit_html(tmp_path / "report.html") == PAGE


@pytest.mark.parametrize(("limit", "kept"), [(9500, 2), (5000, 1), (1000, 0)])
def test_a_page_that_is_too_large_loses_its_last_recordings_and_says_so(tmp_path, limit, kept):
    path = tmp_path / "report.html"
    path.write_text(PAGE)
    page = fit_html(path, limit)
    assert len(page.encode()) <= limit
    assert page.count("base64") == kept
    assert PAGE.startswith(page.split("<p><b>")[0])
    assert f"{3 - kept} recordings and images were left out" in page
    assert str(path) in page
    assert page.endswith("</body></html>")
    assert page.index("left out") < page.index("Käthe")


def test_markdown_is_not_longer_than_the_page_shows(tmp_path):
    shown = artifact(tmp_path, "markdown")
    Results(markdown="x" * (MAX_MARKDOWN_CHARACTERS + 1)).write({"markdown": shown})
    assert len((tmp_path / "markdown").read_text()) == MAX_MARKDOWN_CHARACTERS


@pytest.mark.parametrize(
    ("server", "uri"),
    [
        ("", "models:/Käthe/3"),
        ("sqlite:////data/mlflow.db", "models:/Käthe/3"),
        ("https://mlflow.example/", "https://mlflow.example/#/models/K%C3%A4the/versions/3"),
    ],
)
def test_the_registered_model_leads_to_the_registry(tmp_path, monkeypatch, server, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    shown = artifact(tmp_path, "model")
    register.results(RegisterOutput(summary="", name="Käthe", version="3")).write({"model": shown})
    assert shown.uri == uri
    assert json.loads((tmp_path / "model").read_text()) == {"uri": uri}
