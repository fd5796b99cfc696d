"""Splitting: no sentence in two splits, added data leaves clips where they are, small corpora are refused."""

from dataclasses import replace

import numpy as np
import pytest
from clips import make_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from model.audio.io import write_audio
from model.config.data import SplitConfig
from model.config.schema import Config
from model.corpus.manifest import read_license, read_manifest, write_manifest
from model.corpus.problems import Problem, read_problems, write_problems
from model.corpus.split import assign_splits, held_out_speakers, split
from model.corpus.timings import read_alignments, write_alignments
from model.errors import CorpusError

SHARES = SplitConfig(validation_share=0.1, test_share=0.1, min_held_out=4)


def clips(count, speakers=("a",), first=0):
    """Returns clips of `count` sentences, each said by every speaker."""
    return [
        make_clip(f"{speaker}{n}", f"Sentence number {n}.", speaker=speaker)
        for speaker in speakers
        for n in range(first, first + count)
    ]


def sizes(assigned):
    names = list(assigned.values())
    return {name: names.count(name) for name in ("train", "validation", "test")}


def varied(corpus, number):
    """Returns the corpus with other texts and speakers, and therefore other hashes."""
    return [replace(clip, text=f"{number}: {clip.text}", speaker=f"{number}{clip.speaker}") for clip in corpus]


@settings(max_examples=30, deadline=None)
@given(st.integers(40, 200), st.integers(0, 1000), st.integers(1, 3))
def test_every_clip_has_a_split_and_no_sentence_has_two(count, seed, voices):
    corpus = varied(clips(count, speakers="abc"[:voices]), seed)
    assigned = assign_splits(corpus, SHARES)
    assert assigned.keys() == {clip.id for clip in corpus}
    by_text = {}
    for clip in corpus:
        by_text.setdefault(clip.text, set()).add(assigned[clip.id])
    assert all(len(found) == 1 for found in by_text.values())
    assert min(sizes(assigned).values()) >= SHARES.min_held_out


def test_a_text_may_hold_every_end_of_line_that_is_no_line_feed(tmp_path):
    clips = [make_clip("one", "before\u2028after\x85end")]
    write_manifest(tmp_path, clips)
    assert read_manifest(tmp_path) == clips
    found = [Problem(id="one", file="a.flac:1", reason="unknown_characters", detail="\u2028 x1")]
    write_problems(tmp_path, found)
    assert read_problems(tmp_path) == found


def test_spelling_variants_of_a_sentence_stay_together():
    one, two = clips(40), clips(40, speakers=("b",))
    two = [replace(clip, text=clip.text.upper().replace(".", "!")) for clip in two]
    assigned = assign_splits(one + two, SHARES)
    assert all(assigned[f"a{n}"] == assigned[f"b{n}"] for n in range(40))


def test_order_of_the_clips_does_not_matter():
    corpus = clips(100, speakers="ab")
    assert assign_splits(corpus, SHARES) == assign_splits(corpus[::-1], SHARES)


def test_the_texts_alone_choose_the_clips_that_are_held_out(tmp_path):
    """Neither the seed nor the ids of the clips matter, so that all trainings are evaluated on the same sentences."""
    corpus = clips(60)
    for clip in corpus:
        write_audio(tmp_path / "source" / clip.audio, np.zeros(200, np.float32), 22050)
    write_manifest(tmp_path / "source", corpus)
    splits = [
        [clip.split for clip in split(tmp_path / "source", tmp_path / str(seed), Config(seed=seed))]
        for seed in (1, 2, 3)
    ]
    assert splits[0] == splits[1] == splits[2]
    renamed = [replace(clip, id=f"x{number}") for number, clip in enumerate(corpus)]
    assert list(assign_splits(renamed, Config().split).values()) == splits[0]
    other = [replace(clip, text=f"Other {clip.text}") for clip in corpus]
    assert list(assign_splits(other, Config().split).values()) != splits[0]


def test_shares_are_met_on_average():
    counts = sizes(assign_splits(clips(4000), SHARES))
    assert counts["test"] == pytest.approx(400, rel=0.2)
    assert counts["validation"] == pytest.approx(400, rel=0.2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_added_data_leaves_every_clip_in_its_split(seed):
    before = varied(clips(300), seed)
    after = before + varied(clips(200, first=1000), seed)
    old = assign_splits(before, SHARES)
    new = assign_splits(after, SHARES)
    assert all(new[name] == old[name] for name in old)


def test_in_a_small_corpus_added_data_moves_few_clips():
    """Six of 30 clips are held out. Independent splits of the two corpora would differ in ten clips on average."""
    counts = []
    for number in range(30):
        old, new = (assign_splits(varied(clips(count), number), SHARES) for count in (30, 300))
        moved = [name for name in old if old[name] != new[name]]
        assert all(new[name] == "train" or old[name] == "train" for name in moved)
        counts.append(len(moved))
    assert 1 <= np.mean(counts) <= 4


def test_every_speaker_of_many_clips_is_held_out_somewhere():
    corpus = clips(200, speakers=("a",)) + clips(12, speakers=("rare",), first=5000)
    for number in range(20):
        assigned = assign_splits(varied(corpus, number), SplitConfig(validation_share=0.02, test_share=0.02))
        assert {assigned[clip.id] for clip in corpus if clip.speaker == "rare"} == {"train", "validation", "test"}


def crowd(count, per_speaker=3, shared=2):
    """Returns clips of many speakers: sentences of their own, and sentences that all of them say."""
    own = [
        make_clip(f"s{n}-{k}", f"Own sentence {n} {k}.", speaker=f"s{n}")
        for n in range(count)
        for k in range(per_speaker)
    ]
    everyones = [
        make_clip(f"s{n}-all{k}", f"Everyone says {k}.", speaker=f"s{n}") for n in range(count) for k in range(shared)
    ]
    return own + everyones


@pytest.mark.parametrize("seed", range(5))
def test_some_speakers_are_excluded_from_training(seed):
    corpus = varied(crowd(100), seed)
    config = SplitConfig(held_out_speakers=0.1)
    unheard = held_out_speakers(corpus, 0.1)
    assert 2 <= len(unheard) <= 22
    assigned = assign_splits(corpus, config)
    for clip in corpus:
        if clip.speaker in unheard:
            assert assigned.get(clip.id, "test") != "train"
    assert {clip.speaker for clip in corpus if assigned.get(clip.id) == "test"} >= unheard
    texts = {}
    for clip in corpus:
        if clip.id in assigned:
            texts.setdefault(clip.text, set()).add(assigned[clip.id])
    assert all(len(found) == 1 for found in texts.values())


def test_without_a_share_no_speaker_is_held_out():
    corpus = crowd(50)
    assert len(assign_splits(corpus, SplitConfig(held_out_speakers=0.0))) == len(corpus)


def test_speakers_of_a_language_with_few_are_all_trained_on():
    corpus = crowd(9, per_speaker=10) + [
        make_clip(f"de{n}", f"Satz {n}.", language="de", speaker=f"german{n}") for n in range(9)
    ]
    assert not held_out_speakers(corpus, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_added_speakers_move_no_clip_between_training_and_tests(seed):
    before, after = varied(crowd(60), seed), varied(crowd(90), seed)
    old, new = (assign_splits(corpus, SplitConfig(held_out_speakers=0.1)) for corpus in (before, after))
    assert all(new[name] == split for name, split in old.items())


@pytest.mark.parametrize("count", [0, 1])
def test_a_corpus_too_small_to_split_is_refused_with_the_fix(count):
    with pytest.raises(CorpusError, match=r"too small to split.*split\.min_held_out.*add recordings"):
        assign_splits(clips(count), SHARES)


@pytest.mark.parametrize(
    ("count", "train", "validation", "test"), [(2, 1, 1, 0), (3, 2, 1, 0), (5, 4, 1, 0), (8, 6, 1, 1), (16, 12, 2, 2)]
)
@pytest.mark.parametrize("seed", range(5))
def test_a_few_clips_leave_most_for_training(count, train, validation, test, seed):
    found = sizes(assign_splits(varied(clips(count), seed), SHARES))
    assert found == {"train": train, "validation": validation, "test": test}


def test_two_speakers_of_few_clips_who_read_the_same_sentences_are_split_by_sentence():
    assert sizes(assign_splits(clips(3, speakers="ab"), SHARES)) == {"train": 4, "validation": 2, "test": 0}


def test_thirty_two_clips_are_enough_for_four_and_four():
    assert sizes(assign_splits(clips(32), SplitConfig(validation_share=0, test_share=0))) == {
        "train": 24,
        "validation": 4,
        "test": 4,
    }


def test_one_sentence_said_often_cannot_be_split():
    corpus = [replace(clip, text="Always the same.") for clip in clips(50)]
    with pytest.raises(CorpusError, match="1 sentence"):
        assign_splits(corpus, SHARES)


def test_the_split_corpus_is_self_contained(tmp_path):
    corpus = clips(20)
    ingested, validated, final = (tmp_path / name for name in ("ingested", "validated", "corpus"))
    validated.mkdir()
    for clip in corpus:
        write_audio(ingested / clip.audio, 0.1 * np.ones(2205, np.float32), 22050)
    write_manifest(validated, [replace(clip, audio=f"../ingested/{clip.audio}") for clip in corpus])
    write_alignments(validated, {clip.id: [("a", 0.0, 0.1)] for clip in corpus} | {"left out": [("b", 0.0, 0.1)]})
    split(validated, final, Config(split={"min_held_out": 2}))
    for path in (ingested / "audio").iterdir():
        path.unlink()
    written = read_manifest(final)
    assert [clip.id for clip in written] == [clip.id for clip in corpus]
    assert {clip.split for clip in written} == {"train", "validation", "test"}
    assert all((final / clip.audio).is_file() for clip in written)
    assert read_alignments(final).keys() == {clip.id for clip in corpus}


@pytest.mark.parametrize("name", ["CC0-1.0", ""])
def test_the_license_of_the_recordings_stays_beside_their_manifest(tmp_path, name):
    validated = tmp_path / "validated"
    for clip in clips(4):
        write_audio(validated / clip.audio, 0.1 * np.ones(2205, np.float32), 22050)
    write_manifest(validated, clips(4))
    split(validated, tmp_path / "corpus", Config(corpus={"license": name}))
    assert read_license(tmp_path / "corpus") == name
    assert (tmp_path / "corpus" / "license.json").is_file() is bool(name)  # data without a license keep their hash


def test_two_recordings_of_one_name_do_not_overwrite_a_source(tmp_path):
    """The second would be written through the hard link of the first."""
    validated = tmp_path / "validated"
    corpus = [replace(clip, audio=f"take{number}/a.flac") for number, clip in enumerate(clips(20))]
    for number, clip in enumerate(corpus):
        path = validated / clip.audio
        path.parent.mkdir(parents=True)
        path.write_bytes(b"recording %d" % number)
    write_manifest(validated, corpus)
    with pytest.raises(CorpusError, match="another clip has a recording of the same name"):
        split(validated, tmp_path / "corpus", Config(split={"min_held_out": 2}))
    for number in range(20):
        assert (validated / f"take{number}" / "a.flac").read_bytes() == b"recording %d" % number
