"""Tables and folders of users: layouts and columns are inferred, and ambiguous ones are refused."""

import json
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from corpus_layouts import write_sound, write_text

from model.config.data import CorpusConfig
from model.config.schema import Config
from model.corpus.ingest import ingest
from model.corpus.manifest import read_manifest
from model.corpus.readers import read_corpus, survey
from model.corpus.recordings import clip_id
from model.errors import CorpusError
from pipelines.cli.corpus import corpus as command

TEXTS = ("The train was late.", "Bring two cups of tea, please.", "We walk along the river.")
NAMES = ("c01", "c02", "c03")
WHO = ("anna", "bert", "anna")


def recordings(root: Path, folder: str = "wavs", suffix: str = ".wav", names=NAMES) -> None:
    for name in names:
        write_sound(root / folder / f"{name}{suffix}", seconds=0.5)


def rows(*columns, join="|"):
    return [join.join(cells) for cells in zip(*columns, strict=True)]


def read(root: Path):
    return read_corpus(CorpusConfig(**{**survey(root), "name": "test"}))


def clips(root: Path) -> dict[str, tuple[str, str, str]]:
    source = read(root)
    assert not [problem for problem in source.problems if problem.severity == "bad"], source.problems
    return {u.id: (u.text, u.language, u.speaker) for u in source.utterances}


def texts_and_speakers(root: Path) -> list[tuple[str, str]]:
    return [(text, speaker) for text, _, speaker in clips(root).values()]


ALONE, BOTH = [(text, "speaker") for text in TEXTS], list(zip(TEXTS, WHO, strict=True))

TABLES = {
    "id|text": (rows(NAMES, TEXTS), ALONE),
    "id|text|normalised": (rows(NAMES, TEXTS, TEXTS), ALONE),
    "id|text|": (rows(NAMES, TEXTS, [""] * 3), ALONE),
    "id|speaker|text": (rows(NAMES, WHO, TEXTS), BOTH),
    "id|text|speaker": (rows(NAMES, TEXTS, WHO), BOTH),
    "id|text|normalised|speaker": (rows(NAMES, TEXTS, TEXTS, WHO), BOTH),
    "wavs/id.wav|text": (rows([f"wavs/{name}.wav" for name in NAMES], TEXTS), ALONE),
    "id.wav|text": (rows([f"{name}.wav" for name in NAMES], TEXTS), ALONE),
    "id.mp3|text of converted files": (rows([f"{name}.mp3" for name in NAMES], TEXTS), ALONE),
    "back-slashes": (rows([rf"wavs\{name}.wav" for name in NAMES], TEXTS), ALONE),
    "a path of Windows": (rows([rf"C:\Users\me\wavs\{name}.wav" for name in NAMES], TEXTS), ALONE),
    "a path of another machine": (rows([f"/home/me/corpus/wavs/{name}.wav" for name in NAMES], TEXTS), ALONE),
    "./wavs": (rows([f"./wavs/{name}.wav" for name in NAMES], TEXTS), ALONE),
    "path|speaker|language|text": (rows([f"{n}.wav" for n in NAMES], WHO, ["EN"] * 3, TEXTS), BOTH),
    "path|text|seconds|gender": (rows([f"{n}.wav" for n in NAMES], TEXTS, ["0.5"] * 3, ["female"] * 3), ALONE),
    "id|speaker number|text": (rows(NAMES, ["0", "1", "0"], TEXTS), list(zip(TEXTS, "010", strict=True))),
    "tabs": (rows(NAMES, TEXTS, join="\t"), ALONE),
    "text first": (rows(TEXTS, NAMES), ALONE),
    "a speaker of two words": (
        rows(NAMES, ["Anna Lund"] * 3, TEXTS), [(text, "Anna Lund") for text in TEXTS]
    ),
    "header with spaces and capitals": (["File Name;Transcript;Speaker ID", *rows(NAMES, TEXTS, WHO, join=";")], BOTH),
    "header of ids and texts": (["id|text", *rows(NAMES, TEXTS)], ALONE),
    "one row": (rows(NAMES[:1], TEXTS[:1]), ALONE[:1]),
    "one row with a speaker": (rows(NAMES[:1], WHO[:1], TEXTS[:1]), BOTH[:1]),
}  # fmt: skip


@pytest.mark.parametrize("folder", ["wavs", "wav", "", "sounds/day 1"])
@pytest.mark.parametrize("layout", TABLES)
def test_columns_of_a_table_without_a_header_are_inferred(tmp_path, layout, folder):
    lines, expected = TABLES[layout]
    recordings(tmp_path, folder)
    if "/" in "".join(lines[-1].replace("\\", "/")) and folder not in ("wavs", "wav", ""):
        pytest.skip("the paths name another folder")
    write_text(tmp_path / "metadata.csv", *lines)
    assert texts_and_speakers(tmp_path) == expected


@pytest.mark.parametrize("name", ["transcripts.txt", "list.tsv", "train.list", "My Texts.csv"])
def test_a_table_may_have_any_name(tmp_path, name):
    recordings(tmp_path)
    write_text(tmp_path / name, *rows(NAMES, TEXTS))
    write_text(tmp_path / "README.txt", "Recordings of three sentences.")
    assert texts_and_speakers(tmp_path) == ALONE


def test_tables_of_the_parts_of_a_corpus_are_one_and_repeated_rows_are_not(tmp_path):
    recordings(tmp_path)
    write_text(tmp_path / "all.txt", *rows(NAMES, TEXTS))
    write_text(tmp_path / "train.txt", *rows(NAMES[:2], TEXTS[:2]))
    write_text(tmp_path / "val.txt", *rows(NAMES[2:], TEXTS[2:]))
    assert texts_and_speakers(tmp_path) == ALONE
    (tmp_path / "all.txt").unlink()
    assert texts_and_speakers(tmp_path) == ALONE


def test_a_table_in_each_part_is_one_corpus_of_one_speaker(tmp_path):
    for part, slice_ in (("train", slice(0, 2)), ("test", slice(2, 3))):
        recordings(tmp_path / part, "", names=NAMES[slice_])
        lines = rows([f"{name}.wav" for name in NAMES[slice_]], [f'"{text}"' for text in TEXTS[slice_]], join=",")
        write_text(tmp_path / part / "metadata.csv", "file_name,transcription", *lines)
    assert sorted(texts_and_speakers(tmp_path)) == sorted(ALONE)


@pytest.mark.parametrize("suffix", [".WAV", ".Flac", ".MP3"])
def test_suffixes_in_capitals_and_spaces_in_names_are_usual(tmp_path, suffix):
    names = ("My clip 1", "My clip 2", "My clip 3")
    for name in names:
        write_sound(tmp_path / "wavs" / f"{name}{suffix.lower()}", seconds=0.5).rename(
            tmp_path / "wavs" / f"{name}{suffix}"
        )
    write_text(tmp_path / "metadata.csv", *rows(names, TEXTS))
    assert list(clips(tmp_path)) == ["My_clip_1", "My_clip_2", "My_clip_3"]


def test_json_lines_with_absolute_paths_null_cells_and_nested_audio(tmp_path):
    recordings(tmp_path, "audio")
    path = str(tmp_path / "audio" / "c01.wav")
    records = [
        {"audio_filepath": path, "text": TEXTS[0], "speaker": None, "lang": None, "duration": 0.5},
        {"audio_filepath": "/elsewhere/audio/c02.wav", "text": TEXTS[1], "speaker": "bert", "lang": "de"},
        {"audio_filepath": r"audio\c03.wav", "text": TEXTS[2]},
    ]
    write_text(tmp_path / "train_manifest.json", *map(json.dumps, records))
    assert list(clips(tmp_path).values()) == [
        (TEXTS[0], "en", "speaker"), (TEXTS[1], "de", "bert"), (TEXTS[2], "en", "speaker")
    ]  # fmt: skip
    (tmp_path / "train_manifest.json").unlink()
    nested = [
        {"audio": {"path": f"{name}.wav", "bytes": None}, "sentence": text}
        for name, text in zip(NAMES, TEXTS, strict=False)
    ]
    (tmp_path / "data.json").write_text(json.dumps(nested, indent=2))
    assert texts_and_speakers(tmp_path) == ALONE


def test_a_json_object_of_ids_is_a_table(tmp_path):
    recordings(tmp_path)
    (tmp_path / "metadata.json").write_text(json.dumps(dict(zip(NAMES, TEXTS, strict=True)), indent=1))
    assert texts_and_speakers(tmp_path) == ALONE


def test_a_null_text_is_an_empty_transcript(tmp_path):
    recordings(tmp_path)
    lines = [
        json.dumps({"audio": f"wavs/{name}.wav", "text": text})
        for name, text in zip(NAMES, (*TEXTS[:2], None), strict=False)
    ]
    write_text(tmp_path / "metadata.jsonl", *lines)
    assert [problem.reason for problem in read(tmp_path).problems] == ["empty_transcript"]


@pytest.mark.parametrize("join", [",", ";", "\t", "|"])
def test_quoted_cells_may_span_lines_and_hold_separators_and_quotes(tmp_path, join):
    recordings(tmp_path)
    write_text(
        tmp_path / "metadata.csv",
        join.join(("audio", "text")),
        f'wavs/c01.wav{join}"The first line\nand the second."',
        f"wavs/c02.wav{join}Plain.",
        f'wavs/c03.wav{join}"He said ""no"" and left."',
    )
    assert [text for text, _ in texts_and_speakers(tmp_path)] == [
        "The first line and the second.", "Plain.", 'He said "no" and left.'

    ]  # fmt: skip


def test_a_quote_that_is_never_closed_costs_its_own_row_at_most(tmp_path):
    recordings(tmp_path)
    write_text(
        tmp_path / "metadata.csv", "audio,text", 'c01.wav,"The first', "c02.wav,The second.", "c03.wav,The third."
    )
    assert [text for text, _ in texts_and_speakers(tmp_path)][1:] == ["The second.", "The third."]


def test_a_separator_inside_one_text_is_found(tmp_path):
    recordings(tmp_path)
    write_text(tmp_path / "metadata.csv", "c01|The train | was late.", *rows(NAMES[1:], TEXTS[1:]))
    source = read(tmp_path)
    assert [(p.file, p.reason) for p in source.problems if p.severity == "bad"] == [("metadata.csv:1", "wrong_columns")]
    assert "separator in the text" in source.problems[0].detail
    assert len(source.utterances) == 2


def test_a_separator_inside_a_text_of_ljspeech_is_found(tmp_path):
    recordings(tmp_path)
    write_text(tmp_path / "metadata.csv", "c01|The train|was late.", *rows(NAMES[1:], TEXTS[1:], TEXTS[1:]))
    (problem,) = [problem for problem in read(tmp_path).problems if problem.severity == "bad"]
    assert (problem.file, problem.reason) == ("metadata.csv:1", "wrong_columns")


@pytest.mark.parametrize(
    "lines",
    [
        rows(NAMES, [f"{text[:8]} | {text[8:]}" for text in TEXTS]),
        rows(NAMES, TEXTS, ("Der Zug war spät.", "Zwei Tassen Tee, bitte.", "Wir gehen am Fluss.")),
        rows(NAMES, WHO, ("one", "two", "three")),
        rows(NAMES, WHO, ("happy", "sad", "sad"), TEXTS),
    ],
    ids=["separators in all texts", "a translation", "words or names", "two columns like speakers"],
)
def test_ambiguous_columns_are_refused_with_the_inferred_roles_of_the_first_rows(tmp_path, lines):
    recordings(tmp_path)
    write_text(tmp_path / "metadata.csv", *lines)
    with pytest.raises(CorpusError, match=r"metadata\.csv: ") as caught:
        survey(tmp_path)
    assert "line 1: recording 'c01'" in str(caught.value)
    assert "audio|speaker|text" in str(caught.value)
    result = CliRunner().invoke(command, ["import", str(tmp_path), "--output", str(tmp_path / "out")])
    assert isinstance(result.exception, CorpusError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_wide_encoding_is_named(tmp_path, encoding, name):
    recordings(tmp_path)
    (tmp_path / name).write_bytes("\n".join(rows(NAMES, TEXTS)).encode(encoding))
    with pytest.raises(CorpusError, match=rf"{name}: the text is UTF-(16|32), not UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["کلیپ ۱", "हिन्दी", "naïve", "päron", "a b/c d", "日本語", "v1.2 (final)", "x" * 300, "...", "É" * 120]
)
def test_any_name_gives_a_safe_id(name):
    made = clip_id(name)
    assert made == unicodedata.normalize("NFC", made)
    assert 0 < len(made.encode()) <= 160
    assert not set(made) & set('/\\:*?"<>| \n')
    assert not made.startswith(".")
    assert clip_id(unicodedata.normalize("NFD", name)) == made
    kept = [c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c)[0] in "LMN"]
    assert len(name) > 100 or [c for c in made if unicodedata.category(c)[0] in "LMN"] == kept or name == "..."


def test_names_in_two_normal_forms_are_one_name_and_the_id_is_recorded(tmp_path):
    recordings(tmp_path, names=[unicodedata.normalize("NFD", "café"), "हिन्दी", "a b"])
    write_text(tmp_path / "metadata.csv", *rows([unicodedata.normalize("NFC", "café"), "हिन्दी", "a b"], TEXTS))
    ingest(Config(corpus=survey(tmp_path)), tmp_path / "out")
    assert [clip.id for clip in read_manifest(tmp_path / "out")] == ["café", "हिन्दी", "a_b"]
    assert json.loads((tmp_path / "out" / "names.json").read_text("utf-8")) == {"a_b": "a b"}


def test_names_that_make_one_id_stay_two_clips(tmp_path):
    recordings(tmp_path, names=["a b", "a?b", "A_B"])
    write_text(tmp_path / "metadata.csv", *rows(["a b", "a?b", "A_B"], TEXTS))
    assert len({name.casefold() for name in clips(tmp_path)}) == 3


def test_speakers_may_number_their_clips_alike(tmp_path):
    for speaker in ("anna", "bert"):
        recordings(tmp_path, speaker, names=["01"])
    write_text(tmp_path / "metadata.csv", "id,path,text,speaker", "01,anna/01.wav,Yes.,anna", "01,bert/01.wav,No.,bert")
    assert sorted(texts_and_speakers(tmp_path)) == [("No.", "bert"), ("Yes.", "anna")]


def test_a_name_that_two_folders_have_is_not_guessed(tmp_path):
    for speaker in ("anna", "bert"):
        recordings(tmp_path, speaker)
    write_text(tmp_path / "metadata.csv", *rows(NAMES, TEXTS))
    bad = [problem for problem in read(tmp_path).problems if problem.severity == "bad"]
    assert {problem.reason for problem in bad} == {"ambiguous_recording"}
    assert "anna/c01.wav, bert/c01.wav" in bad[0].detail


def test_a_broken_link_is_one_bad_clip(tmp_path):
    recordings(tmp_path)
    (tmp_path / "wavs" / "c02.wav").unlink()
    (tmp_path / "wavs" / "c02.wav").symlink_to("nowhere.wav")
    write_text(tmp_path / "metadata.csv", *rows(NAMES, TEXTS))
    source = read(tmp_path)
    assert [(p.file, p.reason) for p in source.problems] == [("wavs/c02.wav", "missing_recording")]
    assert "broken link to nowhere.wav" in source.problems[0].detail


@pytest.mark.parametrize("linked", ["wavs/c02.wav", "wavs", "metadata.csv"])
def test_links_may_not_lead_out_of_a_folder(tmp_path, linked):
    folder = tmp_path / "mine"
    recordings(folder)
    write_text(folder / "metadata.csv", *rows(NAMES, TEXTS))
    settings = survey(folder)
    (folder / linked).rename(tmp_path / "elsewhere")
    (folder / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match=rf"1 symbolic link leads out of the folder, the first {linked} to "):
        survey(folder)
    with pytest.raises(CorpusError, match=r"corpus\.follow_links=true"):
        read_corpus(CorpusConfig(**settings))
    assert len(read_corpus(CorpusConfig(**settings, follow_links=True)).utterances) == len(NAMES)


def test_links_within_a_folder_are_read(tmp_path):
    folder, other = tmp_path / "mine", tmp_path / "other"
    recordings(folder)
    write_text(folder / "metadata.csv", *rows(NAMES, TEXTS))
    (folder / "wavs").rename(folder / "takes")
    (folder / "wavs").symlink_to("takes")
    other.symlink_to(folder)
    assert len(read(other).utterances) == len(NAMES)


def test_what_macos_leaves_in_archives_is_no_recording(tmp_path):
    recordings(tmp_path)
    (tmp_path / "wavs" / "._c01.wav").write_bytes(b"\0\5\x16\7")
    recordings(tmp_path, "__MACOSX/wavs")
    write_text(tmp_path / "metadata.csv", *rows(NAMES, TEXTS))
    assert texts_and_speakers(tmp_path) == ALONE
    assert not read(tmp_path).problems


def test_corpora_are_found_at_any_depth_and_one_alone_is_no_mixture(tmp_path):
    deep = tmp_path / "download" / "en_US" / "book"
    recordings(deep)
    write_text(deep / "metadata.csv", *rows(NAMES, TEXTS))
    (tmp_path / "docs").mkdir()
    assert survey(tmp_path) == {"format": "ljspeech", "path": str(deep)}
    second = tmp_path / "download" / "fr_FR" / "book"
    recordings(second)
    write_text(second / "metadata.csv", *rows(NAMES, TEXTS))
    assert len(clips(tmp_path)) == 6


def test_a_text_file_each_is_a_corpus_and_a_missing_text_is_noted(tmp_path):
    recordings(tmp_path, "")
    for name, text in zip(NAMES[:2], TEXTS, strict=False):
        write_text(tmp_path / f"{name}.lab", text)
    source = read(tmp_path)
    assert [utterance.text for utterance in source.utterances] == list(TEXTS[:2])
    assert [(p.file, p.reason) for p in source.problems] == [("c03.wav", "unused_recording")]


@pytest.mark.parametrize("join", [":", ": ", " ", "\t"])
def test_the_first_word_of_a_line_may_be_the_recording(tmp_path, join):
    recordings(tmp_path)
    write_text(tmp_path / "transcript_utf8.txt", *rows(NAMES, ("At 10:30.", "Two, please.", "We: both."), join=join))
    assert [text for text, _ in texts_and_speakers(tmp_path)] == ["At 10:30.", "Two, please.", "We: both."]


def test_a_header_in_another_language_is_noted_and_no_clip(tmp_path):
    recordings(tmp_path)
    write_text(tmp_path / "Texte.csv", "Datei;Text;Sprecher", *rows(NAMES, TEXTS, WHO, join=";"))
    assert texts_and_speakers(tmp_path) == BOTH
    assert [(p.file, p.reason, p.severity) for p in read(tmp_path).problems] == [("Texte.csv:1", "header", "note")]


def test_a_first_row_whose_recording_is_missing_is_no_header(tmp_path):
    recordings(tmp_path, names=NAMES[1:])
    write_text(tmp_path / "metadata.csv", *rows(NAMES, TEXTS))
    assert [problem.reason for problem in read(tmp_path).problems] == ["missing_recording"]


def test_a_table_in_another_encoding_is_named(tmp_path):
    recordings(tmp_path)
    (tmp_path / "Texte.csv").write_bytes("\n".join(rows(NAMES, ("Grün.", "Blau.", "Weiß."))).encode("cp1252"))
    with pytest.raises(CorpusError, match=r"Texte\.csv:1: not UTF-8 \(byte 0xfc"):
        survey(tmp_path)


def test_texts_without_names_of_recordings_are_no_table(tmp_path):
    recordings(tmp_path)
    write_text(tmp_path / "sentences.txt", *TEXTS)
    with pytest.raises(CorpusError, match="no known layout"):
        survey(tmp_path)


def test_suffixes_of_text_files_may_be_capitals(tmp_path):
    recordings(tmp_path, "DR1/F0", ".wav")
    for name, text in zip(NAMES, TEXTS, strict=True):
        write_text(tmp_path / "DR1" / "F0" / f"{name}.TXT", text)
    assert [text for text, _ in texts_and_speakers(tmp_path)] == list(TEXTS)


def test_the_speaker_of_text_files_is_the_first_folder_that_tells_them_apart(tmp_path):
    for speaker, name, text in zip(WHO, NAMES, TEXTS, strict=True):
        folder = tmp_path / "corpus" / "flac" / speaker / "day 1"
        write_sound(folder / f"{name}.flac", seconds=0.5)
        write_text(folder / f"{name}.txt", text)
    assert sorted(texts_and_speakers(tmp_path)) == sorted(BOTH)


def test_the_speaker_of_a_cmu_arctic_folder_is_in_its_name(tmp_path):
    for speaker in ("bdl", "slt"):
        root = tmp_path / f"cmu_us_{speaker}_arctic"
        write_text(root / "etc" / "txt.done.data", f'( arctic_a0001 "{TEXTS[0]}" )', "( arctic_a0002 )")
        write_sound(root / "wav" / "arctic_a0001.wav", seconds=0.5)
        source = read(root)
        assert [(item.text, item.speaker) for item in source.utterances] == [(TEXTS[0], speaker)]
        assert [(problem.reason, problem.severity) for problem in source.problems] == [("wrong_columns", "bad")]
    both = read(tmp_path)
    assert len({item.speaker for item in both.utterances}) == 2


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("talk.srt", "subtitles"),
        ("subtitles/talk.VTT", "subtitles"),
        ("talk.TextGrid", "annotations"),
        ("texts.xlsx", "spreadsheets"),
        ("talk.json", "one JSON file per recording"),
        ("talk.wav.trn", r"\.trn files"),
    ],
)
def test_transcripts_that_no_reader_understands_are_refused_with_what_to_do(tmp_path, place, kind):
    write_sound(tmp_path / "talk.wav")
    write_text(tmp_path / place, '{"text": "The train was late.", "segments": [{"start": 0.5, "end": 2.0}]}')
    with pytest.raises(CorpusError, match=rf"{place}: .*{kind}.*metadata\.csv"):
        survey(tmp_path)
