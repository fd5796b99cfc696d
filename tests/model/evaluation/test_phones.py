"""Phone recognizer and phone error rate, in a language whose phones are tones."""

from types import SimpleNamespace

import numpy as np
import pytest

from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.evaluation.phone_error import MIN_SECONDS, PhoneErrors
from model.evaluation.phones import PhoneRecognizer, phones_of
from model.text.symbols import BOS, EOS, SYMBOL_IDS, TONES, WORD_BOUNDARY

AUDIO = AudioConfig()
RATE = AUDIO.sample_rate
PHONES = [SYMBOL_IDS[symbol] for symbol in "abdefkls"]
FREQUENCIES = dict(zip(PHONES, np.geomspace(250.0, 4000.0, len(PHONES)), strict=True))
EXTRACTOR = MelExtractor(AUDIO)


def speak(phones, random):
    """Returns the log-mel (S, M) of a sequence of tones of different lengths, between short silences."""
    parts = [np.zeros(2000)]
    for phone in phones:
        time = np.arange(random.integers(1400, 2600)) / RATE
        parts.append(0.3 * np.sin(2.0 * np.pi * FREQUENCIES[phone] * time + random.uniform(0.0, 6.0)))
    samples = np.concatenate([*parts, np.zeros(2000)])
    return EXTRACTOR.numpy((samples + 1e-3 * random.standard_normal(len(samples))).astype(np.float32))


def written(phones):
    """Returns the symbols of a text: between its ends, with a space after every third phone."""
    body = [s for i, p in enumerate(phones) for s in ((p, SYMBOL_IDS[WORD_BOUNDARY]) if i % 3 == 2 else (p,))]
    return np.array([SYMBOL_IDS[BOS], *body, SYMBOL_IDS[EOS]])


def sentences(count, seed):
    """Yields sequences of phones without repetitions, which would sound as one tone, and the generator for speaking."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        drawn = random.choice(PHONES, size=random.integers(6, 14)).tolist()
        yield [phone for phone, before in zip(drawn, [None, *drawn], strict=False) if phone != before], random


@pytest.fixture(scope="module")
def clips():
    return [(speak(phones, random), written(phones)) for phones, random in sentences(40, 0)]


@pytest.fixture(scope="module")
def recognizer(clips):
    return PhoneRecognizer.train(clips)


def test_what_is_said_is_recognized(recognizer):
    for phones, random in sentences(8, 1):
        mel = speak(phones, random)
        assert phones_of(recognizer.recognize(mel)) == phones
        assert recognizer.errors(mel, written(phones)) == 0.0


def test_each_wrong_missing_or_added_phone_is_an_error(recognizer):
    said = [PHONES[n] for n in (0, 3, 1, 5, 2, 7, 4, 6)]
    mel = speak(said, np.random.default_rng(2))
    other = {
        "two swapped": [said[1], said[0], *said[2:]],
        "one wrong": [PHONES[7], *said[1:]],
        "one missing": [PHONES[5], *said],
        "two added": said[2:],
    }
    rates = {name: recognizer.errors(mel, written(text)) for name, text in other.items()}
    assert rates == pytest.approx({"two swapped": 2 / 8, "one wrong": 1 / 8, "one missing": 1 / 9, "two added": 2 / 6})


def test_silence_is_deletions(recognizer):
    text = [PHONES[n] for n in (0, 3, 1, 5, 2, 7, 4, 6)]
    silence = EXTRACTOR.numpy((1e-3 * np.random.default_rng(3).standard_normal(RATE)).astype(np.float32))
    assert len(phones_of(recognizer.recognize(silence))) <= 1
    assert recognizer.errors(silence, written(text)) >= 7 / 8


def test_two_frames_of_sound_are_recognized_and_one_has_no_phone(recognizer):
    mel = speak(PHONES, np.random.default_rng(4))
    assert len(recognizer.recognize(mel[:2])) == len(recognizer.recognize(mel[:1])) == 1


def test_equal_recordings_give_equal_recognizers(clips, recognizer):
    again = PhoneRecognizer.train(clips)
    assert np.array_equal(again.weights, recognizer.weights)
    assert np.array_equal(again.offsets, recognizer.offsets)


def test_tones_and_spaces_are_no_phones_and_a_text_of_marks_has_no_rate(recognizer):
    tone = SYMBOL_IDS[next(iter(TONES.values()))]
    said = [PHONES[0], PHONES[3], PHONES[1]]
    mel = speak(said, np.random.default_rng(5))
    assert recognizer.errors(mel, np.insert(written(said), 2, tone)) == 0.0
    assert recognizer.errors(mel, np.array([SYMBOL_IDS[BOS], SYMBOL_IDS["?"], SYMBOL_IDS[EOS]])) is None


def test_recordings_shorter_than_their_text_are_left_out(clips, recognizer):
    short = (clips[0][0][:9], clips[0][1])
    assert np.array_equal(PhoneRecognizer.train([*clips, short]).weights, recognizer.weights)
    with pytest.raises(ValueError, match="no recording is long enough"):
        PhoneRecognizer.train([short])


class Store:
    """Features of recordings: language, speaker and split of each, and its log-mel and symbols."""

    def __init__(self, clips, rows):
        self.features, self.read = clips, []
        self.clips = [
            SimpleNamespace(
                text=str(number), language=language, speaker=speaker, split=split, seconds=len(mel) * 256 / RATE
            )
            for number, ((mel, _), (language, speaker, split)) in enumerate(zip(clips, rows, strict=True))
        ]

    def split(self, name):
        return [position for position, clip in enumerate(self.clips) if clip.split == name]

    def clip(self, position):
        self.read.append(position)
        mel, symbols = self.features[position]
        return SimpleNamespace(mel=mel, ids=np.stack([symbols, np.zeros_like(symbols)], axis=1))


@pytest.fixture
def store(clips):
    """Over a minute of training recordings of two speakers in one language, half a minute in another, one held out."""
    many = clips * 3
    rows = [("xx", ("a", "b")[n % 2], "train") for n in range(80)] + [("yy", "c", "train")] * 39 + [("xx", "d", "test")]
    return Store(many, rows)


def test_too_little_speech_has_no_rate_and_the_reason_names_both_amounts(store):
    errors = PhoneErrors(store, [])
    mel, text = store.features[0]
    assert errors.score(mel, text, "xx").value == 0.0
    seconds = sum(clip.seconds for clip in store.clips if clip.language == "yy")
    assert seconds < MIN_SECONDS
    metric = errors.score(mel, text, "yy")
    assert metric.value is None
    assert f"{seconds:.0f} s of training recordings in yy" in metric.reason
    assert f"needs {MIN_SECONDS:.0f} s" in metric.reason


def test_a_recognizer_is_trained_once_and_never_on_held_out_or_evaluated_recordings(store):
    errors = PhoneErrors(store, [2, 5, 119])
    mel, text = store.features[119]
    for _ in range(2):
        assert errors.score(mel, text, "xx").value is not None
    assert sorted(store.read) == sorted(set(range(80)) - {2, 5})


def test_speakers_take_turns_and_those_that_are_evaluated_come_first(store, monkeypatch):
    monkeypatch.setattr("model.evaluation.phone_error.MAX_SECONDS", MIN_SECONDS + 1.0)
    for position in range(60, 80):
        store.clips[position].speaker = "0"
    errors = PhoneErrors(store, [1, 119])
    errors.score(*store.features[119], "xx")
    speakers = [store.clips[position].speaker for position in store.read]
    assert speakers[:29] == ["b"] * 29
    assert speakers[29:33] == ["0", "a", "0", "a"]
    assert sum(store.clips[position].seconds for position in store.read[:-1]) < MIN_SECONDS + 1.0
