"""Blind listening test: anonymity of the page, its use in a browser, and the analysis of answers."""

import json
import math
from urllib.parse import unquote

import numpy as np
import pytest
from accessible import problems
from browser import PROGRAM, appearance_problems, open_browser

from model.audio.io import write_audio
from model.evaluation.listening import (
    PREFERENCE,
    QUALITY,
    ListeningError,
    bradley_terry,
    check_results,
    key_of,
    low_pass,
    read_results,
    summarize,
    write_test,
)
from model.files import write_json

RATE = 22050


def evaluation(folder, clips, frequency):
    """Writes the evaluation of a voice that hums."""
    found = []
    for number in range(clips):
        audio = {kind: f"audio/{number}-{kind}.flac" for kind in ("recording", "synthesised")}
        for kind, name in audio.items():
            tone = np.sin(np.arange(RATE // 20) * (frequency if kind == "synthesised" else 0.1))
            write_audio(folder / name, (0.1 * tone).astype(np.float32), RATE)
        text = {"text": f"Sentence {number} & <b>.", "sentence": str(9 - number), "language": "en"}
        found.append({"id": f"clip{number}", "part": "unseen", "audio": audio, **text})
    found.append({"id": "seen", "part": "training", "audio": {}, "text": "", "sentence": "", "language": "en"})
    write_json(folder / "metrics.json", {"clips": found})
    return folder


@pytest.fixture
def test(tmp_path):
    """A test of two voices on two sentences: its page and key."""
    systems = {name: evaluation(tmp_path / name, 3, pitch) for name, pitch in (("candidate", 0.2), ("champion", 0.3))}
    page = tmp_path / "test.html"
    key = write_test(page, "Listening test", systems, most=2)
    assert key == key_of(page)
    return page, json.loads(key.read_text("utf-8"))


def content(page):
    text = page.read_text("utf-8")
    start = text.index('id="content">') + len('id="content">')
    return json.loads(text[start : text.index("</script>", start)])


def answers(key, trials, better="candidate", reference=100):
    """Returns the answers to all trials of a listener who prefers one voice."""
    names = key["key"]
    quality = {"recording": reference, "anchor": 20, "candidate": 60, "champion": 60, better: 80}
    given = []
    for trial in trials:
        tokens = list(trial["sounds"])
        if trial["kind"] == PREFERENCE:
            choice = next((token for token in tokens if names[token] == better), "same")
            given.append({"kind": PREFERENCE, "sounds": tokens, "choice": choice})
        else:
            given.append({"kind": QUALITY, "sounds": tokens, "scores": {t: quality[names[t]] for t in tokens}})
    return given


def results(key, page, listener="ann", **changes):
    given = answers(key, content(page)["trials"], **changes)
    return {"format": 1, "test": key["test"], "listener": listener, "answers": given}


def test_the_page_does_not_tell_which_voice_is_which(test):
    page, key = test
    text = page.read_text("utf-8")
    assert problems(text) == []
    assert "candidate" not in text
    assert "champion" not in text
    assert sorted(key["key"].values()) == sorted(["anchor", "candidate", "champion", "recording"] * 2)
    trials = content(page)["trials"]
    assert [trial["kind"] for trial in trials] == [PREFERENCE] * 2 + [QUALITY] * 2
    assert [trial["text"] for trial in trials[:2]] == ["Sentence 2 & <b>.", "Sentence 1 & <b>."]
    assert {len(trial["sounds"]) for trial in trials} == {2, 4}


def test_a_test_of_other_sounds_is_another_test(test, tmp_path):
    page = tmp_path / "other.html"
    systems = {name: evaluation(tmp_path / f"other-{name}", 3, 0.25) for name in ("candidate", "champion")}
    assert json.loads(write_test(page, "Listening test", systems, most=2).read_text())["test"] != test[1]["test"]


def test_a_single_voice_has_no_preference_trials(tmp_path):
    page = tmp_path / "single.html"
    write_test(page, "Listening test", {"voice": evaluation(tmp_path / "voice", 2, 0.2)})
    assert {trial["kind"] for trial in content(page)["trials"]} == {QUALITY}


def test_voices_without_a_common_recorded_sentence_cannot_be_compared(tmp_path):
    with pytest.raises(ListeningError, match="no recorded unseen sentence in common"):
        write_test(tmp_path / "test.html", "t", {"a": evaluation(tmp_path / "a", 0, 0.2)})


def test_the_anchor_lacks_what_lies_above_its_frequency():
    times = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * hertz * times) for hertz in (1000.0, 6000.0))
    assert low_pass(low, RATE).std() == pytest.approx(low.std(), rel=0.01)
    assert low_pass(high, RATE).std() < 0.01


def test_results_say_which_voice_is_better_and_how_sure_that_is(test):
    page, key = test
    found = summarize([results(key, page, name) for name in ("ann", "bob", "eve")], key)
    assert (found.listeners, found.preferences, found.left_out) == (3, 6, ())
    assert found.preferred["candidate", "champion"].mean == 1.0
    assert found.preferred["champion", "candidate"].mean == 0.0
    assert found.strengths["candidate"] > 1.0
    assert found.strengths["candidate"] == -found.strengths["champion"]
    assert {name: score.mean for name, score in found.scores.items()} == {
        "anchor": 20,
        "candidate": 80,
        "champion": 60,
        "recording": 100,
    }
    split = summarize([results(key, page, "ann"), results(key, page, "bob", better="champion")], key)
    even = split.preferred["candidate", "champion"]
    assert even.mean == 0.5
    assert even.low < 0.5 < even.high


def test_no_difference_counts_for_both(test):
    page, key = test
    found = summarize([results(key, page, better="recording")], key)
    assert found.preferred["candidate", "champion"].mean == 0.5


def test_a_listener_who_does_not_find_the_recording_has_no_say_in_quality(test):
    page, key = test
    found = summarize([results(key, page, "ann"), results(key, page, "deaf", reference=50)], key)
    assert found.left_out == ("deaf",)
    assert found.scores["recording"].mean == 100


def test_the_last_results_of_a_listener_count(test):
    page, key = test
    found = summarize([results(key, page), results(key, page, better="champion")], key)
    assert found.listeners == 1
    assert found.preferred["candidate", "champion"].mean == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": "another"}, "results of the test another"),
        ({"format": 2}, "not the results of a listening test"),
        ({"listener": " "}, "lack the name of the listener"),
        ({"answers": [{"kind": PREFERENCE, "sounds": ["x", "y"], "choice": "z"}]}, "is not an answer"),
        ({"answers": [{"kind": QUALITY, "sounds": ["x"], "scores": {"x": 200}}]}, "is not an answer"),
        ({"answers": [{"kind": QUALITY, "sounds": ["x"], "scores": {"x": 20}}]}, "is not an answer"),
    ],
)
def test_results_that_the_page_cannot_have_given_are_refused(test, change, message):
    page, key = test
    with pytest.raises(ListeningError, match=message):
        check_results({**results(key, page), **change}, key)


def test_a_file_of_results_is_read_back(test, tmp_path):
    page, key = test
    path = write_json(tmp_path / "results.json", results(key, page))
    assert read_results(path, key) == results(key, page)
    path.write_text("{")
    with pytest.raises(ListeningError, match=r"results\.json: not the results"):
        read_results(path, key)


def test_bradley_terry_recovers_the_strengths_that_the_wins_come_from():
    true = {"a": 0.8, "b": 0.0, "c": -0.8}
    wins = {}
    for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
        share = 1 / (1 + math.exp(true[other] - true[one]))
        wins[one, other] = (10000 * share, 10000)
    assert bradley_terry(wins) == pytest.approx(true, abs=0.01)
    assert bradley_terry({}) == {}


def reopen(browser, page, trial):
    """Loads a page again until it resumes at a trial: a new page may not yet see what the one before it has stored."""
    for _ in range(50):
        browser.show(page, width=400)
        if browser.run("document.getElementById('position').textContent") == f"Trial {trial} of 4":
            return
    raise AssertionError(f"the page does not resume at trial {trial}")


@pytest.mark.skipif(not PROGRAM, reason="Chromium is not installed")
def test_a_listener_gets_through_the_test_by_keyboard_and_can_resume_it(test, tmp_path):
    page, key = test
    with open_browser(tmp_path / "profile") as browser:
        browser.show(page, width=400)
        browser.run("document.getElementById('listener').focus()")
        for letter in "ann":
            browser.press(letter)
        browser.press("Enter")
        browser.wait_for("!document.getElementById('trial').hidden")
        for trial in range(2):
            assert browser.run("document.getElementById('position').textContent") == f"Trial {trial + 1} of 4"
            assert browser.run("document.querySelector('#choices button').disabled")
            browser.press("a")  # not before both were heard
            assert browser.run("document.getElementById('next').disabled")
            browser.press("1")
            browser.press("2")
            browser.press("a")
            browser.press("Enter")
        reopen(browser, page, 3)
        assert browser.run("document.documentElement.scrollWidth") <= 400
        for _ in range(2):
            for sound in "r1234":
                browser.press(sound)
            for slider in range(4):
                browser.run(f"document.querySelectorAll('#sounds input')[{slider}].focus()")
                browser.press("ArrowRight")
            browser.press("Enter")
        browser.wait_for("!document.getElementById('end').hidden")
        saved = browser.run("document.getElementById('download').href")
        assert browser.errors == []
    answered = check_results(json.loads(unquote(saved.partition(",")[2])), key)
    assert answered["listener"] == "ann"
    assert [answer["kind"] for answer in answered["answers"]] == [PREFERENCE] * 2 + [QUALITY] * 2
    for answer in answered["answers"][:2]:
        assert answer["choice"] == answer["sounds"][0]
    assert all(set(answer["scores"].values()) == {51} for answer in answered["answers"][2:])
    assert summarize([answered], key).preferences == 2


@pytest.mark.skipif(not PROGRAM, reason="Chromium is not installed")
def test_every_step_can_be_read_in_narrow_and_wide_windows_in_light_and_dark(test, tmp_path):
    page, _ = test
    with open_browser(tmp_path / "profile") as browser:
        assert appearance_problems(browser, page) == []
        browser.press("a")
        browser.press("Enter")
        browser.wait_for("!document.getElementById('trial').hidden")
        assert browser.run("document.getElementById('hint').checkVisibility()")
        reopen(browser, page, 1)
        assert appearance_problems(browser, page) == []
        reopen(browser, page, 1)  # the check of the appearance has loaded the page several times
        browser.run("state.position = 2, save(), show()")  # the first trial with sliders
        reopen(browser, page, 3)
        assert browser.run("document.querySelectorAll('#sounds input').length") == 4
        assert appearance_problems(browser, page) == []
        reopen(browser, page, 3)
        browser.run("state.position = 4, save(), show()")
        assert not browser.run("document.getElementById('end').hidden")
        assert appearance_problems(browser, page) == []
