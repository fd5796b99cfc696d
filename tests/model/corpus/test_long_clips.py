"""Long recordings are divided at pauses between clauses, or left whole."""

import random

import numpy as np
import pytest
import soundfile

from model.config.schema import Config
from model.corpus.ingest import ingest
from model.corpus.long_clips import divide
from model.corpus.sentences import read_sentences
from model.text.espeak import speak

RATE = 22050
VOICES = {"en": "en-us", "fa": "fa"}


def reading(language, seed, count=6):
    """Returns sentences read one after another: (samples, sentences, (start, end) of the pause after each)."""
    choice, noise = random.Random(seed), np.random.default_rng(seed)
    sentences = choice.sample(read_sentences("", language), count)
    parts, pauses, position = [], [], 0
    for sentence in sentences:
        samples = speak(sentence, VOICES[language])[0]
        loud = np.flatnonzero(np.abs(samples) > 0.01)
        pause = np.zeros(int(choice.uniform(0.3, 0.8) * RATE))
        parts += [samples[loud[0] : loud[-1]], pause]
        position += len(parts[-2])
        pauses.append((position, position + len(pause)))
        position += len(pause)
    samples = np.concatenate(parts)
    return (samples + 1e-4 * noise.standard_normal(len(samples))).astype(np.float32), sentences, pauses


@pytest.mark.parametrize("language", VOICES)
def test_pieces_end_in_the_pause_behind_their_last_sentence(language):
    divided = 0
    for seed in range(8):
        samples, sentences, pauses = reading(language, seed)
        pieces = divide(samples, RATE, " ".join(sentences), 8.0)
        divided += bool(pieces)
        said = ""
        for piece in pieces:
            said = f"{said} {piece.text}".strip()
            assert (piece.end - piece.start) / RATE <= 8.0
            assert any(said == " ".join(sentences[: n + 1]) for n in range(len(sentences)))
            number = next(n for n in range(len(sentences)) if said == " ".join(sentences[: n + 1]))
            start, end = pauses[number]
            assert start - 0.02 * RATE <= piece.end <= end + 0.02 * RATE
        assert not pieces or (pieces[0].start == 0 and pieces[-1].end == len(samples))
    assert divided >= 6


def test_a_text_that_does_not_fit_is_not_divided():
    samples, sentences, _ = reading("en", 1)
    assert not divide(samples, RATE, "A. B. C. " + "word " * 60 + ".", 8.0)
    assert not divide(samples, RATE, " ".join(sentences).replace(".", "").replace(",", ""), 8.0)


def test_speech_without_pauses_is_not_divided():
    samples, sentences, pauses = reading("en", 2)
    starts = [0, *(end for _, end in pauses[:-1])]
    whole = np.concatenate([samples[a:b] for a, (b, _) in zip(starts, pauses, strict=True)])
    assert not divide(whole, RATE, " ".join(sentences), 5.0)


@pytest.mark.parametrize(("longest", "clips"), [(0.0, 1), (8.0, None)])
def test_ingest_divides_only_when_asked(tmp_path, longest, clips):
    samples, sentences, _ = reading("en", 3)
    (tmp_path / "in" / "wavs").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "wavs" / "long.wav", samples, RATE)
    (tmp_path / "in" / "metadata.csv").write_text(f"long|{' '.join(sentences)}\n")
    corpus = {"format": "ljspeech", "path": str(tmp_path / "in"), "split_longer_than": longest}
    found = ingest(Config(corpus=corpus), tmp_path / "out")
    assert len(found) == clips or (clips is None and len(found) > 1)
    assert " ".join(clip.text for clip in found) == " ".join(sentences)
    assert sum(clip.seconds for clip in found) == pytest.approx(len(samples) / RATE, abs=0.001)
    assert all((tmp_path / "out" / clip.audio).is_file() for clip in found)


def spoken_at(*seconds):
    """Returns bursts of noise of these lengths, with half a second of silence between them."""
    noise = np.random.default_rng(0)
    bursts = (0.3 * noise.standard_normal(int(length * RATE)) for length in seconds)
    parts = [np.concatenate([burst, np.zeros(RATE // 2)]) for burst in bursts]
    return np.concatenate(parts)[: -RATE // 2].astype(np.float32)


CLAUSES = "a" * 14 + ". " + "b" * 41 + ". " + "c" * 42 + "."
"""Clauses of 15, 42 and 43 letters and marks: 1.5, 4.2 and 4.3 of ten seconds, if spoken evenly."""


@pytest.mark.parametrize(
    ("seconds", "divided"),
    [
        ((1.5, 4.2, 4.3), True),
        ((1.7, 4.1, 4.2), True),
        ((1.3, 4.4, 4.3), True),
        ((2.1, 3.6, 4.3), False),  # the first clause at 71 % of the usual speed
        ((1.1, 4.6, 4.3), False),  # at 136 %
        ((1.95, 3.3, 4.75), False),  # the second at 127 %
    ],
)
def test_a_division_is_accepted_only_if_all_pieces_are_about_as_fast_as_the_whole(seconds, divided):
    samples = spoken_at(*seconds)
    pieces = divide(samples, RATE, CLAUSES, 5.3)
    assert bool(pieces) == divided
    if divided:
        assert [piece.text for piece in pieces] == [clause.strip() for clause in CLAUSES.split(" ")]
        ends = np.cumsum(np.array(seconds) + 0.5)[:-1] - 0.25
        assert [piece.end / RATE for piece in pieces[:-1]] == pytest.approx(ends, abs=0.05)
