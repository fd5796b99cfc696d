"""`myxtts corpus` and the DVC stages: the right stage runs again, numbers are told."""

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

from pipelines.cli.corpus import corpus as command

REPOSITORY = Path(__file__).parents[3]
SMALL = ["--engine", "espeak", "--english-voices", "1", "--persian-voices", "1", "--sentences-per-voice", "12"]


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
    assert "espeak_fa_1" in run("stats", "data/corpus").output


def test_stats_tell_what_was_written_out(tmp_path):
    from model.corpus.manifest import Clip, write_manifest

    write_manifest(tmp_path, [Clip("a", "audio/a.flac", "Dr. No has 25 ☃.", "en", "s", 2.0, 22050, 22050)])
    output = run("stats", tmp_path).output
    assert "'25' -> 'twenty five' (1x)" in output
    assert "'Dr.' -> 'Doctor'" in output
    assert "'☃' x1" in output


@pytest.fixture
def project(tmp_path):
    """A folder with the shipped dvc.yaml, its own settings, and one recorded corpus beside it."""
    if shutil.which("dvc", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("dvc is not installed beside this Python")
    recordings = tmp_path / "recordings"
    (recordings / "wavs").mkdir(parents=True)
    time = np.arange(22050 * 2) / 22050
    rows = []
    for number in range(14):
        tone = 0.3 * np.sin(2 * np.pi * (120 + number) * time)
        soundfile.write(recordings / "wavs" / f"clip{number}.wav", tone, 22050, subtype="PCM_16")
        rows.append(f"clip{number}|This is sentence number {number}.|This is sentence number {number}.")
    (recordings / "metadata.csv").write_text("\n".join(rows) + "\n")
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(REPOSITORY / "dvc.yaml", folder)
    parameters = {
        "seed": 1,
        "corpus": {"name": "test", "format": "ljspeech", "path": str(recordings)},
        "validation": {"max_seconds": 15.0},
        "split": {"min_held_out": 2},
        "audio": {"sample_rate": 22050},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))
    dvc(folder, "init", "--no-scm", "-q")
    return folder


def dvc(folder, *arguments):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site-cache"),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(["dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def stages_run(folder):
    result = dvc(folder, "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    return [stage for stage in ("ingest", "validate", "split") if f"Running stage '{stage}'" in result.stdout]


def test_dvc_runs_again_what_a_change_touches_and_nothing_else(project):
    recordings = project.parent / "recordings"
    assert stages_run(project) == ["ingest", "validate", "split"]
    assert stages_run(project) == []
    parameters = yaml.safe_load((project / "params.yaml").read_text())
    parameters["validation"]["max_seconds"] = 14.0
    (project / "params.yaml").write_text(yaml.safe_dump(parameters))
    assert stages_run(project) == ["validate"]  # it finds the same clips good: nothing to split anew
    (recordings / "wavs" / "clip0.wav").write_bytes((recordings / "wavs" / "clip1.wav").read_bytes())
    assert stages_run(project)[0] == "ingest"
    (recordings / "wavs" / "clip2.wav").write_bytes(b"")
    failed = dvc(project, "repro")
    assert failed.returncode != 0
    assert "1 of 14 clips are bad" in failed.stderr + failed.stdout
    assert (project / "data" / "validated" / "report.html").is_file()
