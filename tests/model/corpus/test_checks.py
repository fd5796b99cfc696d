"""Checks find outliers, duplicates, foreign texts and mixed-up speakers."""

import csv
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from browser import PROGRAM, appearance_problems, open_browser
from clips import make_clip

from model.audio.io import write_audio
from model.config.data import ValidationConfig
from model.config.schema import Config
from model.corpus.checks import check_audio, check_text, compare_audio, compare_speakers, compare_texts
from model.corpus.manifest import write_manifest
from model.corpus.metrics import clip_metrics
from model.corpus.split import assign_splits
from model.corpus.validate import TABLE, check_metadata, validate
from model.text.identify import spoken_length

RATE = 22050
LIMITS = ValidationConfig()


def speech(seconds=2.0, level=0.2, noise=1e-4, seed=0):
    """Returns noise in syllables over a quiet floor, (N,) float32."""
    generator = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    syllables = np.maximum(0, np.sin(2 * np.pi * 3 * t)) * level * generator.standard_normal(len(t)) / 3
    return (syllables + noise * generator.standard_normal(len(t))).astype(np.float32)


def origins(clips):
    return {item.id: f"wavs/{item.id}.wav" for item in clips}


def found(problems):
    return {(problem.id, problem.reason, problem.severity) for problem in problems}


def test_metrics_are_those_of_a_known_sound():
    t = np.arange(2 * RATE) / RATE
    tone = np.where((t > 0.5) & (t < 1.7), 0.5 * np.sin(2 * np.pi * 200 * t), 0.0).astype(np.float32) + 0.01
    sound = clip_metrics(tone, RATE)
    assert sound.level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2) * np.sqrt(1.2 / 2)), abs=0.1)
    assert sound.peak == pytest.approx(0.51, abs=0.001)
    assert sound.offset == pytest.approx(0.01, abs=1e-4)
    assert (sound.lead, sound.trail) == pytest.approx((0.5, 0.3), abs=0.021)
    assert sound.noise < -90
    assert sound.clipped == 0.0
    noisy = tone + 1e-3 * np.random.default_rng(0).standard_normal(len(tone)).astype(np.float32)
    assert clip_metrics(noisy, RATE).noise == pytest.approx(-60, abs=1)
    assert clip_metrics(noisy, RATE).contrast == pytest.approx(60 - 9, abs=1)
    assert clip_metrics(np.clip(4 * tone, -1, 1), RATE).clipped > 0.3


@pytest.mark.parametrize(
    ("sound", "reason", "severity"),
    [
        (speech(), None, None),
        (speech() + 0.05, "offset", "suspect"),
        (speech(noise=0.05), "noisy", "suspect"),
        (np.concatenate([np.zeros(int(1.5 * RATE), np.float32), speech()]), "edge_silence", "note"),
        (np.clip(60 * speech(), -1, 1), "clipped", "bad"),
        (1e-3 * speech(), "silent", "bad"),
    ],
    ids=["good", "offset", "noisy", "edge_silence", "clipped", "silent"],
)
def test_a_recording_is_checked_by_its_metrics(sound, reason, severity):
    problems = found(check_audio(make_clip(), "", clip_metrics(sound, RATE), LIMITS))
    assert problems == ({("a", reason, severity)} if reason else set())


@pytest.mark.parametrize(
    ("key", "value", "sound"),
    [
        ("max_offset", 0.1, speech() + 0.05),
        ("min_contrast_db", 3.0, speech(noise=0.05)),
        ("max_edge_silence", 2.0, np.concatenate([np.zeros(int(1.5 * RATE), np.float32), speech()])),
        ("max_clipped_share", 1.0, np.clip(60 * speech(), -1, 1)),
        ("min_level_db", -99.0, 1e-3 * speech()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_threshold_of_a_recording_acts(key, value, sound):
    metrics = clip_metrics(sound, RATE)
    assert list(check_audio(make_clip(), "", metrics, LIMITS))
    assert not list(check_audio(make_clip(), "", metrics, LIMITS.model_copy(update={key: value})))


@pytest.mark.parametrize(
    ("key", "value", "said", "reason"),
    [
        ("min_seconds", 0.2, make_clip(text="Words.", seconds=0.4), "too_short"),
        ("max_seconds", 30.0, make_clip(text="Words of a long clip. " * 12, seconds=20.0), "too_long"),
        ("min_sample_rate", 8000, replace(make_clip(), source_sample_rate=8000), "low_sample_rate"),
        ("min_characters_per_second", 1.0, make_clip(text="Words.", seconds=3.0), "text_duration_mismatch"),
        (
            "max_characters_per_second",
            60.0,
            make_clip(text="Words said fast. " * 4, seconds=1.5),
            "text_duration_mismatch",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_threshold_of_the_manifest_acts(key, value, said, reason):
    assert {problem.reason for problem in check_text(said, "", LIMITS)} == {reason}
    assert not list(check_text(said, "", LIMITS.model_copy(update={key: value})))


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("en", "Это предложение на русском языке.", "wrong_script"),
        ("fa", "This is no Persian sentence at all.", "wrong_script"),
        ("zh", "This is no Chinese sentence at all.", "wrong_script"),
        ("de", "The house that he had on the hill was not his but it is for the boy.", "other_language"),
        ("en", "Das ist nicht der Mann und die Frau ist auch nicht für mich.", "other_language"),
        ("fr", "Het is niet de man die ik zag maar een van de anderen bij ons.", "other_language"),
        ("en", "The house that he had was not for him.", None),
        ("fa", "من با PyTorch کار می‌کنم.", None),
        ("zh", "我用 PyTorch 写程序。", None),
        ("nl", "De kinderen spelen buiten in de tuin.", None),
    ],
)
def test_a_text_of_another_language_is_suspect(language, text, reason):
    said = make_clip(text=text, language=language, seconds=spoken_length(text) / 14)
    problems = check_metadata([said], {"a": ""}, LIMITS)
    assert [(problem.reason, problem.severity) for problem in problems] == ([(reason, "suspect")] if reason else [])


def test_a_chinese_character_counts_for_three_letters():
    assert spoken_length("你好") == 6
    assert spoken_length("hello") == 5


def test_a_speed_far_from_its_languages_is_suspect():
    generator = np.random.default_rng(1)
    clips = [make_clip(f"en{n}", seconds=2.0 + 0.1 * generator.standard_normal()) for n in range(30)]
    clips += [make_clip(f"fa{n}", language="fa", seconds=4.0 + 0.2 * generator.standard_normal()) for n in range(30)]
    clips.append(make_clip("slow", seconds=4.0))
    limits = LIMITS.model_copy(update={"max_foreign_share": 1.0})
    reasons = found(p for p in compare_texts(clips, origins(clips), limits) if p.reason != "repeated_text")
    assert reasons == {("slow", "unusual_speed", "suspect")}
    tolerant = limits.model_copy(update={"max_speed_deviation": 50.0})
    assert not [p for p in compare_texts(clips, origins(clips), tolerant) if p.reason == "unusual_speed"]


def test_a_text_that_a_speaker_repeats_is_noted():
    clips = [make_clip("a"), make_clip("b"), make_clip("c", speaker="other")]
    assert found(compare_texts(clips, origins(clips), LIMITS)) == {("b", "repeated_text", "note")}


def test_copies_of_a_recording_are_found_and_bad_where_texts_differ():
    clips = [make_clip("a"), make_clip("b"), make_clip("c", text="Other words."), make_clip("d", text="More words.")]
    one, two = clip_metrics(speech(seed=1), RATE), clip_metrics(speech(seed=2), RATE)
    same = compare_audio(clips[:2], origins(clips), {"a": one, "b": one}, LIMITS)
    assert found(same) == {("b", "duplicate_audio", "suspect")}
    different = compare_audio(clips, origins(clips), {"a": one, "b": two, "c": two, "d": two}, LIMITS)
    assert found(different) == {(name, "duplicate_audio", "bad") for name in "bcd"}


def test_a_level_far_from_its_speakers_is_suspect():
    clips = [make_clip(f"c{n}") for n in range(25)]
    sounds = {item.id: replace(clip_metrics(speech(seed=1), RATE), level=-20.0, fingerprint=item.id) for item in clips}
    sounds["c7"] = replace(sounds["c7"], level=-34.0)
    assert found(compare_audio(clips, origins(clips), sounds, LIMITS)) == {("c7", "unusual_level", "suspect")}
    tolerant = LIMITS.model_copy(update={"max_level_deviation_db": 15.0})
    assert not list(compare_audio(clips, origins(clips), sounds, tolerant))


def test_a_clip_nearer_to_another_speaker_is_suspect():
    generator = np.random.default_rng(3)
    centers = {"anna": generator.standard_normal(64), "bob": generator.standard_normal(64)}
    clips = [make_clip(f"{speaker}{n}", speaker=speaker) for speaker in centers for n in range(6)]
    clips.append(make_clip("wrong", speaker="bob"))
    said_by = [item.speaker for item in clips[:-1]] + ["anna"]
    vectors = np.stack([centers[speaker] + 0.2 * generator.standard_normal(64) for speaker in said_by])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    problems, similarities = compare_speakers(clips, origins(clips), vectors, LIMITS)
    assert found(problems) == {("wrong", "other_speaker", "suspect")}
    assert similarities["wrong"] < 0.3 < 0.8 < similarities["anna0"]
    tolerant = LIMITS.model_copy(update={"min_speaker_similarity": -1.0})
    assert not list(compare_speakers(clips, origins(clips), vectors, tolerant)[0])


@pytest.fixture
def ingested(tmp_path):
    """Ten clips of two speakers, one of them recorded with an offset."""
    folder = tmp_path / "ingested"
    clips = [make_clip(f"c{n}", text=f"Words of sentence {n} are here.", speaker="ab"[n % 2]) for n in range(10)]
    for number, item in enumerate(clips):
        write_audio(folder / item.audio, speech(seed=number) + 0.05 * (number == 4), RATE)
    write_manifest(folder, clips)
    (folder / "origins.json").write_text(json.dumps(origins(clips)))
    return folder


def test_the_report_has_a_table_plots_and_players(ingested, tmp_path):
    report = validate(ingested, tmp_path / "validated", Config())
    assert report.kept == 10
    with (tmp_path / "validated" / TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows if row["findings"]] == ["c4"]
    assert float(rows[4]["offset"]) == pytest.approx(0.05, abs=0.002)
    page = (tmp_path / "validated" / "report.html").read_text()
    assert page.count("<audio") == 1
    assert page.count("<svg") == 4
    assert "stroke: var(--line)" in page  # the page's colors, which dark mode changes
    assert "#dfe3ea" not in page
    assert "c4" in page
    assert "http" not in page
    totals = json.loads((tmp_path / "validated" / "metrics.json").read_text())
    assert totals["findings"]["suspect"] == {"offset": 1}
    assert totals["kept"] == 10


@pytest.mark.skipif(not PROGRAM, reason="Chromium is not installed")
def test_the_report_can_be_read_in_narrow_and_wide_windows_in_light_and_dark(ingested, tmp_path):
    validate(ingested, tmp_path / "validated", Config())
    with open_browser(tmp_path / "profile") as browser:
        assert appearance_problems(browser, tmp_path / "validated" / "report.html") == []


def test_speakers_are_compared_only_when_asked(ingested, tmp_path):
    for wanted in (False, True):
        validate(ingested, tmp_path / "validated", Config(validation={"check_speakers": wanted}))
        with (tmp_path / "validated" / TABLE).open() as file:
            assert all(bool(row["speaker_similarity"]) is wanted for row in csv.DictReader(file))


@pytest.mark.slow
def test_a_hundred_thousand_clips_are_checked_and_split_in_a_minute():
    generator = np.random.default_rng(0)
    words = np.array(["boat", "river", "the", "and", "morning", "late", "to", "garden", "blue", "seven"])
    clips = [
        make_clip(
            f"c{n}", text=f"{' '.join(words[generator.integers(0, 10, 9)])} {n}.", speaker=f"s{n % 500}", seconds=3.0
        )
        for n in range(100_000)
    ]
    start = time.process_time()
    problems = check_metadata(clips, origins(clips), LIMITS)
    assigned = assign_splits(clips, Config().split)
    seconds = time.process_time() - start
    assert not problems
    assert set(assigned.values()) == {"train", "validation", "test"}
    assert seconds < 60, f"{seconds:.1f} s"
