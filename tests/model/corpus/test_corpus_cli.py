"""`myxtts corpus` and the DVC stages: changes rerun the affected stages only."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from click.testing import CliRunner
from clips import make_clip

from model.corpus.manifest import write_manifest
from pipelines.cli.corpus import corpus as command

REPOSITORY = Path(__file__).parents[3]
VOICES = "corpus.generated_voices={en: 1, fa: 1}"
SMALL = ["--engine", "espeak", "--set", VOICES, "--sentences-per-voice", "12"]


def run(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)


def test_make_goes_from_nothing_to_a_split_corpus_and_stats_describe_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = run("make", "--output", "data", *SMALL, "--min-held-out", 2, "--json")
    assert made.exit_code == 0, made.output
    numbers = json.loads(run("stats", "data/corpus", "--json").output)
    assert numbers["clips"] == 24
    assert set(numbers["splits"]) == {"train", "validation", "test"}
    assert sum(part["clips"] for part in numbers["splits"].values()) == 24
    assert set(numbers["languages"]) == {"en", "fa"}
    assert 5 < numbers["characters_per_second"] < 25
    assert numbers["unknown_characters"] == {}
    assert "fa_1" in run("stats", "data/corpus").output


def test_stats_show_examples_of_normalization(tmp_path):
    write_manifest(tmp_path, [make_clip(text="Dr. No has 25 ☃.")])
    output = run("stats", tmp_path).output
    assert "written out in en" in output
    assert "'25' -> 'twenty five' (1x)" in output
    assert "'Dr.' -> 'Doctor'" in output
    assert "'☃' x1" in output


def test_import_keeps_the_name_of_the_folder(tmp_path, monkeypatch):
    folder = tmp_path / "Käthe & Jürgen"
    (folder / "wavs").mkdir(parents=True)
    (folder / "metadata.csv").write_text("a|One.|One.\n")
    made = []
    monkeypatch.setattr("pipelines.cli.corpus._all_stages", lambda settings, *_: made.append(settings.config.corpus))
    assert run("import", folder).exit_code == 0
    assert [(corpus.name, corpus.path) for corpus in made] == [("Käthe-Jürgen", str(folder))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A recorded corpus, and a project with the shipped dvc.yaml whose stages have run on it."""
    if shutil.which("dvc", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("dvc is not installed beside this Python")
    parent = tmp_path_factory.mktemp("stages")
    recordings = parent / "recordings"
    (recordings / "wavs").mkdir(parents=True)
    time = np.arange(22050 * 2) / 22050
    rows = []
    for number in range(14):
        tone = 0.3 * np.sin(2 * np.pi * (120 + number) * time)
        soundfile.write(recordings / "wavs" / f"clip{number}.wav", tone, 22050, subtype="PCM_16")
        rows.append(f"clip{number}|This is sentence number {number}.|This is sentence number {number}.")
    (recordings / "metadata.csv").write_text("\n".join(rows) + "\n")
    folder = parent / "project"
    folder.mkdir()
    shutil.copy(REPOSITORY / "dvc.yaml", folder)
    parameters = {
        "seed": 1,
        "corpus": {"name": "test", "format": "ljspeech", "path": "../recordings"},
        "validation": {"max_seconds": 15.0},
        "split": {"min_held_out": 2},
        "audio": {"sample_rate": 22050},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))
    dvc(folder, "init", "--no-scm", "-q")
    assert stages_run(folder) == ["ingest", "validate", "split"]
    return parent


@pytest.fixture
def project(made, tmp_path):
    """A copy of the project and of its recordings."""
    shutil.copytree(made, tmp_path / "stages", symlinks=True)
    return tmp_path / "stages" / "project"


def link_code(folder, code):
    (folder / "model").unlink(missing_ok=True)
    (folder / "model").symlink_to(code / "model")
    (folder / ".dvcignore").write_text("__pycache__\n")


def dvc(folder, *arguments, code=REPOSITORY):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site-cache"),
        "PYTHONPATH": str(code),
    }
    return subprocess.run(["dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def stages_run(folder, *options, code=REPOSITORY):
    link_code(folder, code)
    result = dvc(folder, "repro", *options, code=code)
    assert result.returncode == 0, result.stdout + result.stderr
    return [stage for stage in ("ingest", "validate", "split") if f"Running stage '{stage}'" in result.stdout]


def test_dvc_runs_again_what_a_change_touches_and_nothing_else(project):
    recordings = project.parent / "recordings"
    quiet = dvc(project, "status", "-q")
    assert (quiet.returncode, quiet.stdout) == (0, "")
    metrics = json.loads(dvc(project, "metrics", "show", "--json").stdout)[""]["data"]
    assert metrics["data/validated/metrics.json"]["data"]["kept"] == 14
    assert sum(metrics["data/splits.json"]["data"]["splits"].values()) == 14
    parameters = yaml.safe_load((project / "params.yaml").read_text())
    parameters["validation"]["max_seconds"] = 14.0
    (project / "params.yaml").write_text(yaml.safe_dump(parameters))
    assert stages_run(project) == ["validate"]  # it finds the same clips good: nothing to split anew
    (recordings / "wavs" / "clip2.wav").write_bytes(b"")
    failed = dvc(project, "repro")
    assert failed.returncode != 0
    assert "Running stage 'ingest'" in failed.stdout
    assert "1 of 14 clips are bad" in failed.stderr + failed.stdout
    assert (project / "data" / "validated" / "report.html").is_file()


def test_a_lock_is_compared_with_settings_and_code_without_data(project):
    fresh = project.parent / "clone"
    shutil.copytree(project, fresh, symlinks=True, ignore=shutil.ignore_patterns("data", "cache", "tmp"))
    assert stages_run(fresh, "--dry", "--allow-missing") == []
    parameters = yaml.safe_load((fresh / "params.yaml").read_text())
    parameters["split"]["min_held_out"] = 3
    (fresh / "params.yaml").write_text(yaml.safe_dump(parameters))
    stale = dvc(fresh, "repro", "--dry", "--allow-missing")
    assert stale.returncode != 0 or "Running stage 'split'" in stale.stdout


def test_changed_code_makes_its_stage_run_again(project, tmp_path):
    code = tmp_path / "code"
    for package in ("model", "components", "pipelines"):
        shutil.copytree(REPOSITORY / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = code / "model" / "corpus" / "split.py"
    path.write_text(path.read_text() + "\n# a comment changes nothing\n")
    assert stages_run(project, code=code) == []
    path.write_text(path.read_text() + "\nOTHER = 1\n")
    assert stages_run(project, code=code) == ["split"]
