"""Recorded corpora of several layouts, rates and languages go through all data stages as one, without a manual step."""

import csv
import json
from collections import Counter, defaultdict

import pytest
from click.testing import CliRunner

from model.config.schema import Config
from model.corpus.manifest import read_manifest
from model.corpus.split import held_out_speakers
from pipelines.cli.corpus import corpus as command

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def mixed(real_data, tmp_path_factory):
    """All recorded corpora, ingested, validated and split."""
    folder = tmp_path_factory.mktemp("mixed")
    done = CliRunner().invoke(command, ["import", str(real_data), "--output", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    return folder


def test_every_clip_is_kept_in_every_language(mixed):
    clips = read_manifest(mixed / "validated", beside=True)
    assert len(clips) == 491
    languages = Counter(clip.language for clip in clips)
    assert set(languages) == {"de", "en", "es", "fa", "fr", "it", "nl", "ru", "zh"}
    assert {clip.source_sample_rate for clip in clips} == {16000, 22050, 24000}
    assert {clip.sample_rate for clip in clips} == {22050}


def test_no_text_has_an_unknown_character(mixed):
    report = json.loads((mixed / "validated" / "report.json").read_text())
    assert "unknown_characters" not in report["findings"]["note"]
    stats = json.loads(CliRunner().invoke(command, ["stats", str(mixed / "corpus"), "--json"]).output)
    assert stats["unknown_characters"] == {}
    assert stats["written_out"]["fa"]


def test_few_clips_are_flagged_and_all_have_metrics(mixed):
    with (mixed / "validated" / "clips.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    report = json.loads((mixed / "validated" / "report.json").read_text())
    suspects = [problem for problem in report["problems"] if problem["severity"] == "suspect"]
    assert 1 <= len(suspects) <= 10
    offset = next(problem["id"] for problem in suspects if problem["reason"] == "offset")
    assert abs(float(rows[offset]["offset"])) > 0.02


def test_splits_leak_no_text_and_hold_speakers_out(mixed):
    clips = read_manifest(mixed / "corpus")
    splits = defaultdict(set)
    for clip in clips:
        splits[clip.text].add(clip.split)
    assert all(len(found) == 1 for found in splits.values())
    unheard = held_out_speakers(read_manifest(mixed / "validated", beside=True), Config().split.held_out_speakers)
    assert len(unheard) >= 2
    assert {clip.split for clip in clips if clip.speaker in unheard} <= {"test", "validation"}
    many = {name for name, count in Counter(clip.speaker for clip in clips).items() if count >= 8} - unheard
    for name in many:
        assert {clip.split for clip in clips if clip.speaker == name} == {"train", "validation", "test"}
