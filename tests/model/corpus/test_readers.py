"""Readers recognize and read every published layout, also in mixed corpora."""

import importlib.util
import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest
from corpus_layouts import (
    LAYOUTS,
    aishell3,
    coqui,
    libritts,
    ljspeech,
    table_csv,
    text_files,
    vctk,
    write_sound,
    write_text,
)

from model.config.data import CorpusConfig
from model.config.schema import Config
from model.corpus import readers
from model.corpus.ingest import ingest
from model.corpus.manifest import Clip, ManifestError, read_manifest
from model.corpus.readers import MIXED, RECORDED, read_corpus, reader, survey
from model.errors import CorpusError


def config_of(folder: Path, **changes) -> CorpusConfig:
    return CorpusConfig(**{**survey(folder), "name": "test", **changes})


def reasons(config: CorpusConfig) -> list[tuple[str, str]]:
    return [(problem.file, problem.reason) for problem in read_corpus(config).problems]


def test_a_published_layout_is_recognized_and_read_completely(published):
    name, folder, expected = published
    config = config_of(folder)
    assert config.format == name
    source = read_corpus(config)
    assert {u.id: (u.text, u.language, u.speaker) for u in source.utterances} == expected
    assert not [problem for problem in source.problems if problem.severity == "bad"]


def test_a_published_layout_goes_through_ingest(published, tmp_path):
    _, folder, expected = published
    ingest(Config(corpus=config_of(folder).model_dump()), tmp_path / "ingested")
    clips = read_manifest(tmp_path / "ingested")
    assert {clip.id: (clip.text, clip.language, clip.speaker) for clip in clips} == expected
    assert all(clip.sample_rate == 22050 and clip.seconds == pytest.approx(1.5, abs=0.08) for clip in clips)
    assert not (tmp_path / "ingested" / "problems.jsonl").read_text()


def test_every_format_has_its_reader():
    folder = Path(readers.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "rows"}
    assert modules == {*RECORDED, "generated"}
    assert {name for name, _ in LAYOUTS} == set(RECORDED)
    assert importlib.util.find_spec("model.corpus.readers.mixed") is None


def test_the_first_microphone_is_read_and_a_recording_without_text_is_noted(tmp_path):
    vctk(tmp_path)
    write_sound(tmp_path / "wav48_silence_trimmed" / "p315" / "p315_001_mic1.flac")
    source = read_corpus(config_of(tmp_path))
    assert {Path(u.origin).stem for u in source.utterances} == {"p225_001_mic1", "s5_002_mic1"}
    assert [(p.id, p.reason, p.severity) for p in source.problems] == [("p315_001_mic1", "unused_recording", "note")]


@pytest.mark.parametrize("layout", [vctk, aishell3, coqui, table_csv], ids=lambda layout: layout.__name__)
def test_a_missing_recording_is_named_in_every_layout(layout, tmp_path):
    expected = layout(tmp_path)
    config = config_of(tmp_path)
    for path in [*tmp_path.rglob("*.wav"), *tmp_path.rglob("*.flac"), *tmp_path.rglob("*.o*")]:
        path.unlink()
    source = read_corpus(config)
    assert not source.utterances
    assert {problem.id for problem in source.problems} == set(expected)
    assert {problem.reason for problem in source.problems} == {"missing_recording"}


def test_a_row_that_does_not_fit_its_header_is_named(tmp_path):
    table_csv(tmp_path)
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("b.opus,only two\n")
    assert reasons(config_of(tmp_path)) == [("metadata.csv:4", "wrong_columns")]


def test_a_table_may_be_named_itself(tmp_path):
    table_csv(tmp_path)
    (tmp_path / "metadata.csv").rename(tmp_path / "mine.csv")
    assert len(read_corpus(CorpusConfig(format="table", path=str(tmp_path / "mine.csv"))).utterances) == 2


def test_a_table_without_texts_is_one_clear_error(tmp_path):
    write_text(tmp_path / "metadata.csv", "audio,words", "a.wav,Yes")
    with pytest.raises(CorpusError, match=r"metadata\.csv:1.*no column for text \(one of text, sentence"):
        read_corpus(CorpusConfig(format="table", path=str(tmp_path)))


@pytest.mark.parametrize("name", RECORDED)
def test_an_empty_folder_is_one_clear_error(name, tmp_path):
    with pytest.raises(CorpusError):
        reader(name).read(CorpusConfig(format=name, path=str(tmp_path)))


def test_several_corpora_are_read_as_one(tmp_path):
    for layout in (ljspeech, vctk, table_csv):
        layout(tmp_path / layout.__name__)
    config = config_of(tmp_path)
    assert config.format == MIXED
    clips = {u.id: (u.speaker, u.language, u.source) for u in read_corpus(config).utterances}
    assert clips["ljspeech-LJ001-0001"] == ("ljspeech", "en", "ljspeech")
    assert clips["vctk-p225_001"] == ("vctk-p225", "en", "vctk")
    assert clips["table_csv-b"] == ("table_csv", "de", "table_csv")
    assert len(clips) == 6


def test_sources_may_name_their_language_and_speaker(tmp_path):
    ljspeech(tmp_path / "x")
    source = {"format": "ljspeech", "path": "x", "name": "lj", "language": "en-gb", "speaker": "linda"}
    read = read_corpus(CorpusConfig(format=MIXED, path=str(tmp_path), sources=[source]))
    assert {(u.id[:5], u.language, u.speaker) for u in read.utterances} == {("lj-LJ", "en-gb", "linda")}


def test_problems_of_a_mixed_corpus_name_the_source(tmp_path):
    for name in ("one", "two"):
        ljspeech(tmp_path / name)
    (tmp_path / "two" / "wavs" / "LJ001-0002.wav").unlink()
    assert reasons(config_of(tmp_path)) == [("two/wavs/LJ001-0002.wav", "missing_recording")]


def test_two_sources_of_one_name_are_refused(tmp_path):
    sources = [{"format": "ljspeech", "path": path} for path in ("a/lj", "b/lj")]
    for source in sources:
        ljspeech(tmp_path / source["path"])
    with pytest.raises(CorpusError, match=r"two of them are named 'lj'"):
        read_corpus(CorpusConfig(format=MIXED, path=str(tmp_path), sources=sources))


def test_a_mixed_corpus_without_sources_is_refused():
    with pytest.raises(CorpusError, match=r"corpus\.sources is empty"):
        read_corpus(CorpusConfig(format=MIXED))


def test_a_folder_of_no_known_layout_is_refused(tmp_path):
    write_sound(tmp_path / "somewhere" / "a.wav")
    with pytest.raises(CorpusError, match="no known layout"):
        survey(tmp_path)
    ljspeech(tmp_path / "lj")
    with pytest.raises(CorpusError, match=r"no known layout in somewhere"):
        survey(tmp_path)


@pytest.mark.real_data
def test_layouts_of_recorded_corpora_are_detected(real_data):
    source = read_corpus(config_of(real_data))
    assert not source.problems
    assert len(source.utterances) == 491
    assert len({u.language for u in source.utterances}) == 9
    assert len({u.speaker for u in source.utterances}) == 93


@pytest.mark.parametrize("layout", [vctk, libritts, text_files], ids=lambda layout: layout.__name__)
def test_one_unreadable_text_is_a_finding_and_hidden_files_of_macos_are_none(tmp_path, layout):
    layout(tmp_path)
    texts = sorted(path for path in tmp_path.rglob("*.txt") if path.parent != tmp_path)
    good = len(read_corpus(config_of(tmp_path)).utterances)
    texts[0].write_bytes("un caf\xe9".encode("latin-1"))
    texts[1].with_name(f"._{texts[1].name}").write_bytes(bytes([0, 5, 22, 7, 0, 2, 0xFF]))
    config = config_of(tmp_path)
    found = read_corpus(config)
    assert len(found.utterances) == good - 1
    (problem,) = [item for item in found.problems if item.reason == "unreadable_text"]
    assert problem.file == texts[0].relative_to(tmp_path).as_posix()
    assert "byte 0xe9" in problem.detail


@pytest.mark.parametrize("named", ["../outside.wav", "{outside}"])
def test_a_row_reads_no_recording_outside_of_the_corpus(tmp_path, named):
    folder = tmp_path / "corpus"
    ljspeech(folder)
    write_sound(tmp_path / "outside.wav")
    rows = (folder / "metadata.csv").read_text("utf-8")
    name = named.format(outside=tmp_path / "outside.wav")
    (folder / "metadata.csv").write_text(f"{rows.rstrip()}\n{name}|A text of words.|A text of words.\n", "utf-8")
    found = read_corpus(config_of(folder))
    assert [problem.reason for problem in found.problems] == ["missing_recording"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("audio", "../secret.wav"), ("audio", "/etc/secret.wav"), ("audio", "a/../../b"), ("id", "../x"), ("id", "a/b")],
)
def test_a_manifest_names_nothing_outside_of_its_corpus(tmp_path, key, value):
    """Its writer may be another than the one who reads it."""
    clip = asdict(
        Clip(
            id="a", audio="audio/a.flac", text="One.", language="en", speaker="s", seconds=1.0, sample_rate=22050,
            source_sample_rate=22050,
        )
    )  # fmt: skip
    (tmp_path / "manifest.jsonl").write_text(json.dumps(clip) + "\n")
    assert [item.id for item in read_manifest(tmp_path)] == ["a"]
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**clip, key: value}) + "\n")
    with pytest.raises(ManifestError, match=f"`{key}` '{value}' leads out of the corpus"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError) if value != "../secret.wav" else nullcontext():
        read_manifest(tmp_path, beside=True)  # of the folder beside the manifest of the stage `validate`
