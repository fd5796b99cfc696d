"""The generated corpus is reproducible, has many sentences, and has phone times that match the tokens."""

import importlib.metadata
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from model.audio.io import read_source
from model.config.schema import Config
from model.corpus.ingest import ingest
from model.corpus.manifest import read_manifest
from model.corpus.readers import generated
from model.corpus.sentences import SHIPPED, read_sentences, shipped_languages
from model.corpus.timings import read_alignments
from model.corpus.token_times import token_times
from model.errors import CorpusError
from model.text.encode import encode
from model.text.symbols import MARKS

SMALL = {"engine": "espeak", "generated_voices": {"en": 2, "fa": 1}, "sentences_per_voice": 6}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "ingested"
    ingest(Config(corpus=SMALL), folder)
    return folder


@pytest.mark.parametrize(
    ("language", "least", "words"),
    [
        ("de", 150, (5, 16)),
        ("en", 600, (4, 18)),
        ("es", 150, (5, 16)),
        ("fa", 100, (4, 14)),
        ("fr", 150, (5, 16)),
        ("it", 150, (5, 16)),
    ],
)
def test_a_shipped_list_has_enough_distinct_sentences_that_are_spoken_without_loss(language, least, words):
    lines = (SHIPPED / f"sentences_{language}.txt").read_text("utf-8").splitlines()
    assert len(set(lines)) == len(lines) >= least
    assert all(words[0] <= len(line.split()) <= words[1] for line in lines)
    assert not re.findall(r"\d", "".join(lines))
    assert 0.08 < sum(line.rstrip('"')[-1] in "?!؟" for line in lines) / len(lines) < 0.3
    assert not [line for line in lines if encode(line, language).unknown]


@pytest.mark.parametrize("language", ["de", "en", "es", "fr", "it"])
def test_every_sound_of_a_shipped_list_occurs_several_times(language):
    counts = Counter(phone for line in read_sentences("", language) for phone in encode(line, language).phones)
    assert min(counts.values()) >= 5


def test_all_lists_are_shipped_languages():
    assert shipped_languages() == ("de", "en", "es", "fa", "fr", "it")


def test_english_sentences_use_words_that_the_recognizer_knows():
    pocketsphinx = pytest.importorskip("pocketsphinx")
    lines = (Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict").read_text().splitlines()
    known = {line.split()[0] for line in lines}
    said = {word for sentence in read_sentences("", "en") for word in re.findall("[a-z']+", sentence.lower())}
    assert said <= known


def test_manifest_describes_every_clip(corpus):
    clips = read_manifest(corpus)
    assert {clip.speaker: clip.language for clip in clips} == {
        "en_1": "en",
        "en_2": "en",
        "fa_1": "fa",
    }
    assert len({clip.id for clip in clips}) == len(clips) == 18
    for clip in clips:
        samples, rate = read_source(corpus / clip.audio)
        assert rate == clip.sample_rate == 22050
        assert clip.seconds == pytest.approx(len(samples) / rate, abs=1e-5)
        assert np.abs(samples).max() > 0.05


def test_made_twice_it_is_byte_for_byte_the_same(corpus, tmp_path):
    ingest(Config(corpus=SMALL), tmp_path / "again")
    files = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for file in files:
        assert (corpus / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_voices_of_a_language_start_with_different_sentences(corpus):
    texts = {}
    for clip in read_manifest(corpus):
        texts.setdefault(clip.speaker, set()).add(clip.text)
    assert not texts["en_1"] & texts["en_2"]


def test_voices_differ_in_sound():
    settings = SMALL | {"generated_voices": {"en": 3}}
    clips = {u.speaker: u for u in generated.read(Config(corpus=settings).corpus).utterances}
    assert len(clips) == 3
    spectra = {}
    for speaker, utterance in clips.items():
        samples = utterance.record().samples[:22050]
        spectra[speaker] = np.abs(np.fft.rfft(samples, 22050))[:3000] / np.linalg.norm(samples)
    names = list(spectra)
    assert all(np.linalg.norm(spectra[a] - spectra[b]) > 1 for i, a in enumerate(names) for b in names[i + 1 :])


def test_every_phone_of_the_tokens_has_its_time(corpus):
    timings = read_alignments(corpus)
    for clip in read_manifest(corpus):
        tokens = encode(clip.text, clip.language)
        times = token_times(tokens, timings[clip.id])
        silent = np.array([phone in (" ", "^", "$", *MARKS) for phone in tokens.phones])
        assert np.isnan(times[silent]).all()
        assert not np.isnan(times[~silent]).any(), clip.text
        spoken = times[~silent]
        assert (spoken[:, 1] >= spoken[:, 0]).all()
        assert (np.diff(spoken[:, 0]) >= 0).all()
        assert spoken[-1, 1] <= clip.seconds


def test_times_fall_on_the_tokens_whose_phone_they_are():
    tokens = encode("Hello, you.", "en")  # h ə l oʊ , j uː .
    said = [("h", 0.0, 0.1), ("ə", 0.1, 0.2), ("ˈoʊ", 0.3, 0.5), ("j", 0.7, 0.8), ("u", 0.8, 1.0)]
    times = token_times(tokens, said)
    assert tokens.phones == ["^", "h", "ə", "l", "oʊ", ",", "j", "uː", ".", "$"]
    np.testing.assert_allclose(times[[1, 2, 4, 6, 7]], [[0, 0.1], [0.1, 0.2], [0.3, 0.5], [0.7, 0.8], [0.8, 1.0]])
    assert np.isnan(times[[0, 3, 5, 8, 9]]).all()


def test_a_phone_of_two_symbols_shares_its_time():
    tokens = encode("see", "en")
    joined = token_times(tokens, [("siː", 0.0, 0.4)])
    np.testing.assert_allclose(joined[1:3], [[0.0, 0.2], [0.2, 0.4]])


def test_the_corpus_names_the_engine_of_each_language(corpus):
    version = importlib.metadata.version("espeakng-loader")
    engines = json.loads((corpus / "source.json").read_text())["engines"]
    assert engines == dict.fromkeys(("en", "fa"), f"espeak {version}")
    origins = json.loads((corpus / "origins.json").read_text())
    assert origins["en_2_301"].startswith("voice en")
    assert origins["en_2_301"].endswith("+f2 of espeak")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sentences_per_voice": 100_000}, "sentences_per_voice"),
        ({"generated_voices": {"en": 99}}, "99 voices of language 'en' .* lower it in corpus.generated_voices"),
        ({"generated_voices": {"fa": 99}}, "99 voices of language 'fa' .* lower it in corpus.generated_voices"),
        (
            {"generated_voices": {"nl": 1}},
            r"sentences_nl.txt: no such list .* leave 'nl' out of corpus.generated_voices \(shipped lists: de, en, es,",
        ),
        ({"generated_voices": {}}, "corpus.generated_voices names no voice; give .* such as"),
        ({"generated_voices": {"en": 0}}, "corpus.generated_voices names no voice; give .* such as"),
        ({"path": "/no/such/folder"}, "no such list .* set corpus.path"),
    ],
)
def test_too_many_voices_and_missing_sentences_are_an_error_that_names_the_setting(settings, message):
    with pytest.raises(CorpusError, match=message):
        generated.read(Config(corpus=SMALL | settings).corpus)


def test_sentences_of_the_user_are_spoken(tmp_path):
    (tmp_path / "sentences_en.txt").write_text("This is my own sentence.\n\nAnd here is another one.\n")
    settings = SMALL | {"path": str(tmp_path), "generated_voices": {"en": 1, "fa": 0}, "sentences_per_voice": 2}
    texts = [utterance.text for utterance in generated.read(Config(corpus=settings).corpus).utterances]
    assert texts == ["This is my own sentence.", "And here is another one."]


def test_a_language_without_a_shipped_list_is_spoken_from_the_users(tmp_path):
    (tmp_path / "sentences_nl.txt").write_text("Goedemorgen, hoe gaat het met u?\n")
    settings = SMALL | {"path": str(tmp_path), "generated_voices": {"nl": 2}, "sentences_per_voice": 1}
    source = generated.read(Config(corpus=settings).corpus)
    assert {(item.language, item.speaker) for item in source.utterances} == {("nl", "nl_1"), ("nl", "nl_2")}
    assert list(source.engines) == ["nl"]


def test_the_order_of_languages_in_the_setting_does_not_change_the_corpus():
    orders = ({"it": 1, "de": 2, "fa": 0}, {"de": 2, "it": 1})
    one, other = (generated.read(Config(corpus=SMALL | {"generated_voices": order}).corpus) for order in orders)
    ids = [utterance.id for utterance in one.utterances]
    assert ids == [utterance.id for utterance in other.utterances]
    assert {name.rsplit("_", 1)[0] for name in ids} == {"de_1", "de_2", "it_1"}
    assert list(one.engines) == list(other.engines) == ["de", "it"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "letter.txt").write_text("precious")
    with pytest.raises(CorpusError, match="other files"):
        ingest(Config(corpus=SMALL), tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "precious"
