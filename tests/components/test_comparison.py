"""Comparison of a candidate with the best champions: pairs, margins, references, power."""

import numpy as np
import pytest
from gate_evaluation import SPREAD, gate_evaluation, sentence_values

from components.gate.comparison import BEST_IN, COMPARED, best_in, best_versions, compare, paired
from components.journal import Entry, Operation
from components.registry import ROLLED_BACK, Version
from model.config.evaluation import RegistryConfig

CONFIG = RegistryConfig()
GOOD = {"mel_cepstral_distortion": 6.0, "character_error_increase": 0.1, "alignment_monotonicity": 0.98}


def evaluation(rows, part="unseen"):
    """Returns an evaluation with these values of each metric on sentences in a language of the recognizer."""
    gate = {name: {"value": 0.1, "reason": ""} for name in ("character_error_increase", "phone_error_increase")}
    return {"gate": gate, "clips": sentence_values(rows, part), "texts": []}


def one(metric, ours, theirs, champion=None, **settings):
    """Returns the comparison of one metric, given its values per sentence."""
    reference = evaluation({metric: theirs})
    best = evaluation({metric: champion}) if champion is not None else reference
    [row] = compare(evaluation({metric: ours}), {metric: ("1", reference)}, best, RegistryConfig(**settings))
    return row


def test_every_metric_has_a_margin():
    assert set(COMPARED) == set(SPREAD)
    assert all(getattr(CONFIG, f"{metric}_margin") > 0 for metric in COMPARED)


@pytest.mark.parametrize("metric", COMPARED)
def test_a_metric_passes_within_its_margin_and_fails_beyond_it(metric):
    noise = np.random.default_rng(3).standard_normal((2, 30)) * SPREAD[metric]
    margin = getattr(CONFIG, f"{metric}_margin")
    worse = -margin if metric in ("speaker_similarity", "dnsmos") else margin
    for share, result in ((-1.0, "pass"), (0.0, "pass"), (1.1, "fail"), (3.0, "fail")):
        row = one(metric, 5.0 + share * worse + noise[0], 5.0 + noise[1])
        assert row.result == result, share
        assert row.low < row.difference < row.high
        assert np.sign(row.regression) == np.sign(share) or share == 0.0
    wider = one(metric, 5.0 + 3.0 * worse + noise[0], 5.0 + noise[1], **{f"{metric}_margin": 5 * margin})
    assert wider.result == "pass"


def test_pairing_removes_what_sentences_have_in_common():
    sentences = np.random.default_rng(0).standard_normal(20) * 5.0
    assert one("mel_cepstral_distortion", 20.1 + sentences, 20.0 + sentences).result == "pass"
    shuffled = np.roll(sentences, 1)
    assert one("mel_cepstral_distortion", 20.1 + shuffled, 20.0 + sentences).result == "fail"


def test_only_sentences_with_a_value_of_both_voices_count():
    row = one("pitch_error", [100.0] * 9 + [np.nan], [np.nan] + [100.0] * 9)
    assert (row.sentences, row.candidate_value, row.reference_value) == (8, 100.0, 100.0)


def test_sentences_of_the_training_part_do_not_count():
    seen = evaluation({"pitch_error": [1.0] * 10}, part="training")
    [row] = compare(seen, {"pitch_error": ("1", seen)}, seen, CONFIG)
    assert row.result == "not applicable"
    assert "neither has seen" in row.reason


def test_speakers_of_the_same_sentence_are_one_sentence():
    ours, theirs = evaluation({"pitch_error": [1.0, 3.0, 10.0]}), evaluation({"pitch_error": [0.0, 0.0, 0.0]})
    for item in (ours, theirs):
        item["clips"][1]["sentence"] = item["clips"][0]["sentence"]
    assert sorted(paired("pitch_error", ours, theirs).values()) == [(2.0, 0.0), (10.0, 0.0)]


def test_texts_without_recordings_count_where_no_recording_is_needed():
    metrics = {"character_error": [0.1] * 4, "dnsmos": [3.0] * 4, "pitch_error": [100.0] * 4}
    voices = [evaluation(metrics) for _ in range(2)]
    for voice, errors in zip(voices, ((0.3, 0.3, 0.3, None), (0.1, 0.1, None, 0.1)), strict=True):
        voice["texts"] = [
            {"sentence": f"t{n}", "language": "en", "character_error": {"value": e}, "dnsmos": {"value": 2.0}}
            for n, e in enumerate(errors)
        ]
    references = dict.fromkeys(metrics, ("1", voices[1]))
    rows = {row.metric: row for row in compare(voices[0], references, voices[1], CONFIG)}
    assert [rows[metric].sentences for metric in metrics] == [6, 8, 4]
    assert rows["character_error"].difference == pytest.approx(0.4 / 6)


def test_too_few_sentences_are_refused():
    row = one("pitch_error", [100.0] * 7, [100.0] * 7)
    assert row.result == "fail"
    assert "7 sentences" in row.reason
    assert "registry.min_sentences asks for 8" in row.reason
    assert one("pitch_error", [100.0] * 7, [100.0] * 7, min_sentences=7).result == "pass"


def test_a_comparison_without_power_says_how_many_sentences_it_needs():
    noise = np.random.default_rng(5).standard_normal(10)
    row = one("pitch_error", 100.0 + 150 * (noise - noise.mean()), [100.0] * 10)
    assert row.result == "fail"
    assert row.power < 0.5
    assert row.needed > 30
    assert f"with {row.needed} sentences of 95%" in row.reason


def test_the_character_error_does_not_count_where_recordings_are_not_understood():
    ours, theirs = gate_evaluation(GOOD), gate_evaluation({**GOOD, "character_error_increase": None}, "not understood")
    [row] = compare(ours, {"character_error": ("1", theirs)}, theirs, CONFIG)
    assert (row.result, row.reason) == ("not applicable", "not understood")


def in_two_languages(english, persian):
    """Returns an evaluation with these phone error rates; the English sentences have character error rates too."""
    made = evaluation({"phone_error": [*english, *persian], "character_error": [0.1] * (len(english) + len(persian))})
    for clip in made["clips"][len(english) :]:
        clip["language"] = "fa"
        clip["metrics"]["character_error"]["synthesised"]["value"] = None
    return made


def phone_row(ours, theirs):
    [row] = compare(ours, {"phone_error": ("1", theirs)}, theirs, CONFIG)
    return row


def test_the_phone_error_decides_in_languages_without_character_error_only():
    ours, theirs = in_two_languages([0.9] * 9, [0.5] * 8), in_two_languages([0.1] * 9, [0.5] * 8)
    row = phone_row(ours, theirs)
    assert (row.result, row.sentences, row.difference) == ("pass", 8, 0.0)
    assert phone_row(in_two_languages([0.1] * 9, [0.8] * 8), theirs).result == "fail"
    english = phone_row(in_two_languages([0.9] * 9, []), in_two_languages([0.1] * 9, []))
    assert english.result == "not applicable"
    assert "languages with a character error rate" in english.reason


def test_a_character_error_that_does_not_count_leaves_the_decision_to_the_phone_error():
    ours, theirs = in_two_languages([0.9] * 9, []), in_two_languages([0.1] * 9, [])
    for item in (ours, theirs):
        item["gate"]["character_error_increase"] = {"value": None, "reason": "recordings are not understood"}
    assert phone_row(ours, theirs).result == "fail"


def test_few_sentences_of_one_language_do_not_stop_a_promotion():
    row = phone_row(in_two_languages([0.5] * 9, [0.9] * 7), in_two_languages([0.5] * 9, [0.1] * 7))
    assert row.result == "not applicable"
    assert "7 sentences" in row.reason
    assert "asks for 8" in row.reason


def test_too_little_speech_for_a_phone_error_is_the_reason_of_the_comparison():
    nothing = in_two_languages([], [np.nan] * 9)
    nothing["gate"]["phone_error_increase"] = {"value": None, "reason": "20 s are too few"}
    assert phone_row(nothing, nothing).reason == "20 s are too few"


def test_the_largest_regression_in_margins_comes_first():
    ours = evaluation({"pitch_error": [130.0] * 9, "voicing_error": [0.19] * 9, "speaker_similarity": [0.6] * 9})
    theirs = evaluation({"pitch_error": [100.0] * 9, "voicing_error": [0.2] * 9, "speaker_similarity": [0.8] * 9})
    rows = compare(ours, dict.fromkeys(COMPARED, ("1", theirs)), theirs, CONFIG)
    assert [row.metric for row in rows][:3] == ["speaker_similarity", "pitch_error", "voicing_error"]
    assert {row.result for row in rows[3:]} == {"not applicable"}


def test_the_champions_value_is_of_the_same_sentences():
    row = one("pitch_error", [100.0] * 9, [100.0] * 8 + [np.nan], champion=[90.0] * 8 + [900.0])
    assert row.champion_value == 90.0


def version(number, **tags):
    return Version(name="m", number=number, tags=tags, aliases=(), source="", run_id="", created=0.0)


def promoted(number, best_in=(), **values):
    values = {"outcome": "applied", "action": "promote", "forced": False, **values}
    outcome = values.pop("outcome")
    operation = Operation(id="0", version=number, reason="", time="", writer="", best_in=best_in, **values)
    return Entry(number=1, operation=operation, outcome=outcome)


def test_the_reference_of_a_metric_is_the_last_champion_that_was_better_in_it():
    history = [
        promoted("1", COMPARED),
        promoted("4", ("pitch_error",)),
        promoted("3", ("pitch_error", "unknown_metric")),
        promoted("2"),
        promoted("5", COMPARED, outcome="abandoned: no longer exists"),
        promoted("1", action="rollback"),
    ]
    versions = [version(number) for number in "12345"]
    best = best_versions(history, versions, "2")
    assert best == {**dict.fromkeys(COMPARED, "1"), "pitch_error": "3"}
    versions[2] = version("3", **{ROLLED_BACK: "clicks"})
    assert best_versions(history, versions, "2")["pitch_error"] == "4"
    assert best_versions(history, versions, "2", candidate="4")["pitch_error"] == "1"


def test_a_forced_promotion_is_the_only_reference_unless_it_was_rolled_back():
    history = [promoted("1", COMPARED), promoted("2", forced=True), promoted("3", ("pitch_error",))]
    versions = [version(number) for number in "123"]
    assert best_versions(history, versions, "3") == {**dict.fromkeys(COMPARED, "2"), "pitch_error": "3"}
    assert best_versions(history, versions, "3", candidate="2")["voicing_error"] == "3"
    rolled_back = [versions[0], version("2", **{ROLLED_BACK: "clicks"}), versions[2]]
    assert best_versions(history, rolled_back, "3")["voicing_error"] == "1"


def test_without_a_better_champion_the_champion_is_the_reference():
    assert best_versions([], [version("2"), version("1")], "2") == dict.fromkeys(COMPARED, "2")


def test_the_tag_of_earlier_versions_of_the_program_counts_where_the_journal_says_nothing():
    versions = [version("1", **{BEST_IN: " ".join(COMPARED)}), version("2", **{BEST_IN: "pitch_error"})]
    history = [promoted("1", None), promoted("2", None)]
    assert best_versions(history, versions, "2") == {**dict.fromkeys(COMPARED, "1"), "pitch_error": "2"}


def test_a_new_champion_becomes_the_reference_where_it_is_surely_better():
    noise = np.random.default_rng(3).standard_normal(20)
    better = one("pitch_error", 50.0 + noise, 100.0 + noise[::-1])
    same = one("voicing_error", 0.2 + noise, 0.2 + noise[::-1])
    assert best_in([better, same]) == ("pitch_error",)
    assert best_in(None) == COMPARED
