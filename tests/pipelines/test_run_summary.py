"""The summary of `myxtts run` after a gate that failed: the samples, and suggestions."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.cli.run import proposals, summary
from pipelines.full_run import Outcome


def outcome(tmp_path, *failed, version="4", champion="3", previous=""):
    error = "m version 4 was not promoted" if failed else ""
    record = SimpleNamespace(folder=tmp_path, steps={})
    return Outcome(
        record=record,
        name="m",
        size="tiny",
        error=error,
        version=version,
        champion=champion,
        previous=previous,
        samples={tmp_path / "1-de.wav": "Das ist's."},
        decision=tmp_path / "decision.html",
        failed=failed,
    )


@pytest.mark.parametrize(
    ("failed", "proposed", "not_proposed"),
    [
        ("pitch error against version 3", ("decision.html", "training.max_steps"), ("registry listen", "troubles")),
        ("character error increase", ("docs/troubles.md",), ("registry listen", "training.max_steps")),
        ("listening test", ("myxtts registry listen m 4",), ("training.max_steps", "troubles")),
    ],
)
def test_what_can_be_done_depends_on_what_failed(tmp_path, failed, proposed, not_proposed):
    text = "\n".join(proposals(outcome(tmp_path, failed), " --data mine"))
    assert all(part in text for part in (*proposed, "myxtts registry promote m 4 --force --reason"))
    assert not any(part in text for part in not_proposed)
    assert ("--data mine" in text) == ("training.max_steps" in text)


def test_a_run_without_a_version_proposes_nothing(tmp_path):
    assert proposals(outcome(tmp_path, "listening test", version=""), "") == []


def test_the_summary_plays_the_candidate_and_says_that_it_was_not_promoted(tmp_path):
    lines = summary(outcome(tmp_path, "pitch error against version 3"), "sqlite:///db", "").splitlines()
    assert any(line.startswith("NOT PROMOTED: m version 4") for line in lines)
    assert f"candidate  {tmp_path / '1-de.wav'}" in lines
    assert f"decision   {Path(tmp_path / 'decision.html')}" in lines
    passed = summary(outcome(tmp_path, champion="4"), "sqlite:///db", "")
    assert "speech " in passed
    assert "--force" not in passed
    assert """ synthesize --model models:/m@champion 'Das ist'"'"'s.' """ in passed


def test_only_commands_that_would_succeed_come_next(tmp_path):
    def following(*failed, champion, previous=""):
        changed = outcome(tmp_path, *failed, champion=champion, previous=previous)
        return summary(changed, "sqlite:///db", "").partition("Next")[2]

    failed, first = following("character error increase", champion=""), following(champion="4")
    for text in (failed, first):
        assert "registry promote" not in text
        assert "registry rollback" not in text
    assert "myxtts registry rollback m" in following(champion="4", previous="3")
    assert "myxtts registry promote m 4" in following(champion="3")  # rolled back meanwhile
