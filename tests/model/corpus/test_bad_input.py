"""`validate` reports every kind of bad input with file and reason."""

import itertools
import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from model.config.schema import Config
from model.corpus import report
from model.corpus.ingest import ingest
from model.corpus.manifest import read_manifest
from model.corpus.validate import _write_table, validate
from model.errors import CorpusError
from pipelines.cli.corpus import corpus as command

GOOD = 20
TEXT = "This sentence is spoken for three seconds or so."
VOICES = itertools.count(1)


def text(number):
    """Returns a different text for each number."""
    return f"{TEXT[:-1]}, {chr(ord('a') + number)}."


def sound(seconds=3.0, rate=22050, level=0.3):
    """Returns a voiced buzz with pauses, neither silent nor clipped, and different at every call."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 0.7 * next(VOICES)
    return level * np.sin(2 * np.pi * pitch * time) * np.maximum(0.02, np.sin(2 * np.pi * 3 * time))


@pytest.fixture
def folder(tmp_path):
    """A good corpus of 20 clips."""
    wavs = tmp_path / "recordings" / "wavs"
    wavs.mkdir(parents=True)
    rows = []
    for number in range(GOOD):
        soundfile.write(wavs / f"good{number:02d}.wav", sound(), 22050, subtype="PCM_16")
        rows.append(f"good{number:02d}|{text(number)}|{text(number)}")
    (wavs.parent / "metadata.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return wavs.parent


@pytest.fixture
def without_plots(monkeypatch):
    """Leaves out the plots of the report, which take most of its time."""
    monkeypatch.setattr(report, "_plots", lambda rows, limits: {})


def add(folder, row):
    with (folder / "metadata.csv").open("a", encoding="utf-8") as file:
        file.write(row + "\n")


def checked(folder, **validation):
    config = Config(
        corpus={"format": "ljspeech", "path": str(folder), "name": "test"},
        validation={"tolerated_bad_share": 0.05, **validation},
    )
    ingest(config, folder.parent / "ingested")
    return validate(folder.parent / "ingested", folder.parent / "validated", config)


def missing_recording(folder):
    add(folder, f"gone|{TEXT}|{TEXT}")
    return "missing_recording", "wavs/gone.wav"


def empty_transcript(folder):
    soundfile.write(folder / "wavs" / "mute.wav", sound(), 22050)
    add(folder, "mute||  ")
    return "empty_transcript", "metadata.csv:21"


def truncated_wav(folder):
    path = folder / "wavs" / "good03.wav"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "truncated", "wavs/good03.wav"


def truncated_flac(folder):
    (folder / "wavs" / "good03.wav").unlink()
    path = folder / "wavs" / "good03.flac"
    soundfile.write(path, sound() + 0.01 * np.random.default_rng(0).standard_normal(len(sound())), 22050)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return None, "wavs/good03.flac"  # libsndfile may call it truncated or unreadable


def zero_length_file(folder):
    (folder / "wavs" / "good04.wav").write_bytes(b"")
    return "zero_length", "wavs/good04.wav"


def zero_samples(folder):
    soundfile.write(folder / "wavs" / "good05.wav", np.zeros(0), 22050)
    return "zero_length", "wavs/good05.wav"


def not_audio(folder):
    (folder / "wavs" / "good06.wav").write_text("this is a text file, whatever its name says")
    return "unreadable", "wavs/good06.wav"


def too_few_columns(folder):
    add(folder, "good07 and a text without separators")
    return "wrong_columns", "metadata.csv:21"


def too_many_columns(folder):
    add(folder, f"extra|{TEXT}|{TEXT}|surplus")
    return "wrong_columns", "metadata.csv:21"


def low_sample_rate(folder):
    soundfile.write(folder / "wavs" / "good08.wav", sound(rate=8000), 8000)
    return "low_sample_rate", "wavs/good08.wav"


def forty_seconds(folder):
    soundfile.write(folder / "wavs" / "good09.wav", sound(seconds=40), 22050)
    return "too_long", "wavs/good09.wav"


def too_short(folder):
    soundfile.write(folder / "wavs" / "good09.wav", sound(seconds=0.2), 22050)
    return "too_short", "wavs/good09.wav"


def silent(folder):
    soundfile.write(folder / "wavs" / "good10.wav", sound(level=1e-4), 22050)
    return "silent", "wavs/good10.wav"


def clipped(folder):
    soundfile.write(folder / "wavs" / "good11.wav", np.clip(sound(level=4.0), -1, 1), 22050)
    return "clipped", "wavs/good11.wav"


def same_id_same_text(folder):
    add(folder, f"good12|{text(12)}|{text(12)}")
    return "duplicate_id", "metadata.csv:21"


def text_too_long_for_the_sound(folder):
    soundfile.write(folder / "wavs" / "long.wav", sound(), 22050)
    add(folder, f"long|{TEXT * 5}|{TEXT * 5}")
    return "text_duration_mismatch", "wavs/long.wav"


def text_too_short_for_the_sound(folder):
    soundfile.write(folder / "wavs" / "brief.wav", sound(seconds=12), 22050)
    add(folder, "brief|Yes.|Yes.")
    return "text_duration_mismatch", "wavs/brief.wav"


def unspeakable(folder):
    soundfile.write(folder / "wavs" / "signs.wav", sound(), 22050)
    add(folder, "signs|漢字漢字漢字漢字漢字漢字|漢字漢字漢字漢字漢字漢字")
    return "unspeakable_text", "wavs/signs.wav"


def id_that_leaves_the_folder(folder):
    add(folder, f"../../etc/passwd|{TEXT}|{TEXT}")
    return "missing_recording", "../../etc/passwd"


DEFECTS = [
    missing_recording, empty_transcript, truncated_wav, truncated_flac, zero_length_file, zero_samples, not_audio,
    too_few_columns, too_many_columns, low_sample_rate, forty_seconds, too_short, silent, clipped, same_id_same_text,
    text_too_long_for_the_sound, text_too_short_for_the_sound, unspeakable, id_that_leaves_the_folder,
]  # fmt: skip


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_defect_is_found_with_file_and_reason_and_counted(folder, defect):
    reason, file = defect(folder)
    report = checked(folder, tolerated_bad_share=0.5)
    bad = [problem for problem in report.problems if problem.severity == "bad"]
    assert {problem.file for problem in bad} == {file}
    reasons = {problem.reason for problem in bad}
    assert reason in reasons or (reason is None and reasons <= {"truncated", "unreadable"})
    assert report.bad == 1
    assert report.kept + report.bad == report.clips
    assert report.passed
    stored = json.loads((folder.parent / "validated" / "report.json").read_text())
    assert stored["problems"][0]["file"] == file
    assert file in (folder.parent / "validated" / "report.html").read_text()
    assert len(read_manifest(folder.parent / "validated", beside=True)) == report.kept


def test_a_good_corpus_has_no_findings(folder):
    report = checked(folder, tolerated_bad_share=0.0)
    assert report.passed
    assert not report.problems
    assert report.kept == GOOD


def test_rows_of_one_id_with_different_texts_are_all_left_out(folder):
    add(folder, "good12|Something else altogether is said.|Something else altogether is said.")
    report = checked(folder, tolerated_bad_share=0.5)
    assert "good12" not in {clip.id for clip in read_manifest(folder.parent / "validated", beside=True)}
    assert {problem.file for problem in report.problems} == {"metadata.csv:13", "metadata.csv:21"}


def test_another_sample_rate_is_resampled_and_noted(folder):
    soundfile.write(folder / "wavs" / "good01.wav", sound(rate=48000), 48000)
    report = checked(folder, tolerated_bad_share=0.0)
    assert report.passed
    assert [(p.id, p.reason, p.severity) for p in report.problems] == [("good01", "other_sample_rate", "note")]
    clip = next(clip for clip in read_manifest(folder.parent / "validated", beside=True) if clip.id == "good01")
    assert (clip.sample_rate, clip.source_sample_rate) == (22050, 48000)
    assert clip.seconds == pytest.approx(3.0, abs=0.01)


def test_a_recording_without_a_row_is_noted(folder):
    soundfile.write(folder / "wavs" / "stray.wav", sound(), 22050)
    report = checked(folder)
    assert [(p.file, p.reason) for p in report.problems] == [("wavs/stray.wav", "unused_recording")]
    assert report.passed


def test_unknown_characters_are_noted(folder):
    soundfile.write(folder / "wavs" / "snow.wav", sound(), 22050)
    add(folder, f"snow|{TEXT} ☃|{TEXT} ☃")
    (problem,) = checked(folder).problems
    assert problem.reason == "unknown_characters"
    assert "☃" in problem.detail


@pytest.mark.parametrize(("bad", "passes"), [(1, True), (2, False)])
def test_more_bad_clips_than_tolerated_stop_the_run(folder, bad, passes):
    for number in range(bad):
        (folder / "wavs" / f"good{number:02d}.wav").write_bytes(b"")
    report = checked(folder, tolerated_bad_share=0.05)  # of 20 clips: one
    assert report.passed is passes
    assert f"{bad} of 20" in report.summary or passes


def test_nothing_left_is_a_failure_however_tolerant(folder):
    for path in (folder / "wavs").iterdir():
        path.write_bytes(b"")
    assert not checked(folder, tolerated_bad_share=1.0).passed


def test_the_command_exits_1_and_names_files_and_report(folder, tmp_path):
    for number in range(3):
        (folder / "wavs" / f"good{number:02d}.wav").unlink()
    result = CliRunner().invoke(command, ["import", str(folder), "--output", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "wavs/good01.wav: missing_recording" in result.output
    assert (tmp_path / "out" / "validated" / "report.html").is_file()
    assert not (tmp_path / "out" / "corpus").exists()


def not_utf8(folder):
    lines = (folder / "metadata.csv").read_bytes().splitlines()
    lines[6] = b"good06|caf\xe9 au lait|caf\xe9 au lait"
    (folder / "metadata.csv").write_bytes(b"\n".join(lines))
    return r"metadata\.csv:7: not UTF-8 \(byte 0xe9"


def no_metadata(folder):
    (folder / "metadata.csv").unlink()
    return "metadata.csv: cannot be read"


def empty_metadata(folder):
    (folder / "metadata.csv").write_text("\n\n")
    return "metadata.csv: the file is empty"


def no_recordings(folder):
    (folder / "wavs").rename(folder / "sounds")
    return "wavs: no such folder"


@pytest.mark.parametrize("defect", [not_utf8, no_metadata, empty_metadata, no_recordings], ids=lambda d: d.__name__)
def test_an_unreadable_corpus_is_one_clear_error(folder, defect):
    message = defect(folder)
    with pytest.raises(CorpusError, match=message):
        checked(folder)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder):
    text = (folder / "metadata.csv").read_text("utf-8")
    (folder / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert checked(folder, tolerated_bad_share=0.0).kept == GOOD


def test_report_escapes_what_texts_contain(folder):
    add(folder, f"gone<script>|{TEXT}|{TEXT}")
    checked(folder, tolerated_bad_share=0.5)
    assert "<script>" not in (folder.parent / "validated" / "report.html").read_text()


@pytest.mark.parametrize("speaker", ["=cmd|'/c calc'!A0", "+1+1", "-1", "@SUM(1)"])
def test_the_table_of_clips_has_no_cell_that_a_spreadsheet_executes(speaker, tmp_path):
    path = tmp_path / "clips.csv"
    _write_table(path, [{"speaker": speaker, "level": -3.5}])
    assert path.read_text("utf-8").splitlines()[1].strip('"').startswith("'" + speaker[0])
    assert path.read_text("utf-8").splitlines()[1].endswith(",-3.5")
