"""The page of a gate's decision: both voices side by side, the largest regression first."""

import re

import numpy as np
import pytest
from accessible import problems
from browser import PROGRAM, appearance_problems, open_browser
from gate_evaluation import sentence_values

from components.gate.comparison import compare
from components.gate.examination import VoiceEvaluation
from components.gate.page import write_page
from model.audio.io import write_audio
from model.config.evaluation import RegistryConfig


def examined(folder, errors, **changes):
    """Returns an evaluation with audio, whose sentences have these character errors."""
    clips = sentence_values({"character_error": errors})
    for number, clip in enumerate(clips):
        for kind in ("synthesised", "recording"):
            clip["audio"][kind] = f"{number}-{kind}.flac"
            write_audio(folder / clip["audio"][kind], np.zeros(100, np.float32), 22050)
    gate = {name: {"value": 0.1, "reason": ""} for name in ("character_error_increase", "phone_error_increase")}
    text = {"sentence": "t", "text": "Only a text.", "language": "en", "audio": {}}
    text |= {"character_error": {"value": 0.3}, "phone_error": {"value": 0.5}, "dnsmos": {"value": 3.0}}
    counts = {"hash": "5e7" * 5, "clips": len(errors), "texts": 1}
    return VoiceEvaluation(
        folder=folder, metrics={"gate": gate, "clips": clips, "texts": [text], "examination": counts}
    )


@pytest.fixture
def page(tmp_path):
    """Returns a function that writes a decision and returns its page."""

    def make(passed=True, champion=True):
        ours = examined(tmp_path / "ours", [0.1] * 7 + [0.5, 0.2])
        theirs = examined(tmp_path / "theirs", [0.1] * 9)
        rows = compare(ours.metrics, {"character_error": ("1", theirs.metrics)}, theirs.metrics, RegistryConfig())
        report = {
            "name": "m",
            "version": "2",
            "champion": "2" if passed else "1",
            "champion_before": "1" if champion else "",
            "passed": passed,
            "data": "0123.dir",
            "examination": ours.metrics["examination"],
            "time": "2026-11-29T12:00:00",
            "checks": [
                {"name": "mel", "result": "pass", "reason": "fine"},
                {"name": "dnsmos against version 1", "result": "pass", "reason": "fine"},
                {"name": "error <b>", "result": "pass" if passed else "fail", "reason": "a & b"},
            ],
            "comparisons": [vars(row) for row in rows] if champion else [],
        }
        return write_page(tmp_path / "decision.html", report, ours, theirs if champion else None).read_text("utf-8")

    return make


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("champion", [True, False])
def test_it_is_usable_by_keyboard_screen_reader_and_on_a_narrow_screen(page, passed, champion):
    assert problems(page(passed, champion)) == []


@pytest.mark.skipif(not PROGRAM, reason="Chromium is not installed")
def test_it_can_be_read_in_narrow_and_wide_windows_in_light_and_dark(page, tmp_path):
    page(passed=False)
    with open_browser(tmp_path / "profile") as browser:
        assert appearance_problems(browser, tmp_path / "decision.html") == []


def test_it_names_version_data_date_and_decision(page):
    good, bad = page(), page(passed=False)
    for text in ("m version 2", "version 1", "0123.dir", "2026-11-29T12:00:00", "5e75e75e75e75e7"):
        assert text in good
    assert "Passed the gate" in good
    assert "Not promoted" in bad
    assert "Failed: error &lt;b&gt;." in bad


def test_checks_have_the_names_of_the_metrics_in_the_tables(page):
    assert '<th scope="row">Predicted quality against version 1</th>' in page()
    assert "dnsmos" not in page()


def test_the_sentence_that_lost_most_comes_first(page):
    texts = re.findall(r"<h3[^>]*>([^<]*)</h3>", page())
    assert texts[:2] == ["Sentence 7.", "Sentence 8."]
    assert len(texts) == 10
    assert "Character error rate 0.500, champion 0.100" in re.sub(r"\s+", " ", page())


def test_both_voices_and_the_recording_can_be_played(page):
    with_champion, alone = page(), page(champion=False)
    for kind in ("Candidate", "Champion", "Recording"):
        assert with_champion.count(f'aria-label="{kind}: ') == 9
    assert 'aria-label="Champion' not in alone
