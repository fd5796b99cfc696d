"""The whole evaluation of a stand-in voice: measures by part and kind, the gate, the page."""

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from model.config import Config
from model.config.schema import EvaluationConfig, FeaturesConfig
from model.corpus.manifest import read_manifest, write_manifest
from model.evaluation.evaluate import METRICS, REPORT, _Bench, choose, evaluate_voice
from model.evaluation.evaluated import KINDS, PARTS
from model.features.index import FeatureError
from model.vocoder import build_vocoder


class Parrot:
    """Says every sentence of a store by copy-synthesis, spoiled by as much noise as asked for."""

    def __init__(self, store, noise=0.0, speakers=None, languages=None):
        self.store, self.noise = store, noise
        self.speakers = store.speakers if speakers is None else speakers
        self.languages = store.languages if languages is None else languages
        self.positions = {(clip.text, clip.speaker): position for position, clip in enumerate(store.clips)}
        self.vocoder = build_vocoder(Config(vocoder={"griffin_lim_iterations": 4}).vocoder, store.audio)
        self.asked = []

    def synthesize(self, text, language="", speaker="", reference=None):
        self.asked.append((speaker, reference))
        own = speaker or reference.stem.split("-")[0]
        features = self.store.clip(self.positions[text, own])
        generator = np.random.default_rng(0)
        mel = features.mel + self.noise * generator.standard_normal(features.mel.shape).astype(np.float32)
        durations, _ = self.align(features.ids, mel)
        return SimpleNamespace(samples=self.vocoder(mel), mel=mel, durations=durations, phones=["a"] * len(durations))

    def align(self, ids, mel):
        edges = np.round(np.linspace(0, len(mel), len(ids) + 1)).astype(int)
        durations = np.diff(edges)
        return durations, np.eye(len(ids))[np.repeat(np.arange(len(ids)), durations)]


SETTINGS = Config.model_validate(
    {"evaluation": {"max_clips": 3, "recognizer": "none"}, "vocoder": {"griffin_lim_iterations": 8}}
)


@pytest.fixture(scope="module")
def results(small_features, small_corpus, tmp_path_factory):
    from model.features.store import FeatureStore

    store = FeatureStore(small_features)
    folders = {noise: tmp_path_factory.mktemp("evaluation") for noise in (0.0, 3.0)}
    measured = {
        noise: evaluate_voice(Parrot(store, noise), store, small_corpus, SETTINGS, folder)
        for noise, folder in folders.items()
    }
    return measured, folders[0.0]


def test_every_measure_has_a_value_or_a_reason(results):
    result = results[0][0.0]
    for part in PARTS:
        for kinds in result[part].values():
            for measure in kinds.values():
                assert (measure["value"] is None) == bool(measure["reason"])
    assert result["unseen"]["mel_cepstral_distortion"]["synthesised"]["value"] > 0
    assert result["unseen"]["duration_error"]["synthesised"]["value"] == 0.0
    assert result["unseen"]["pitch_range"]["recording"]["value"] > 0


def test_what_does_not_apply_says_so(results):
    result = results[0][0.0]
    for kind in KINDS:
        measure = result["unseen"]["character_error"][kind]
        assert measure["value"] is None
        assert "recognizer: none" in measure["reason"]
    assert result["gate"]["character_error_increase"]["value"] is None
    assert "true times" in result["unseen"]["boundary_error"]["recording"]["reason"]


def test_a_spoiled_voice_scores_worse(results):
    clean, spoiled = (results[0][noise] for noise in (0.0, 3.0))
    gate = "mel_cepstral_distortion"
    assert clean["gate"][gate]["value"] < spoiled["gate"][gate]["value"]
    for part in PARTS:
        for name in ("mel_cepstral_distortion", "pitch_frame_error", "voicing_error"):
            assert clean[part][name]["synthesised"]["value"] < spoiled[part][name]["synthesised"]["value"]
        ours, theirs = (r[part]["speaker_similarity"]["synthesised"]["value"] for r in (clean, spoiled))
        assert ours > theirs
        assert clean[part]["speaker_similarity"]["recording"] == spoiled[part]["speaker_similarity"]["recording"]


def test_a_voice_that_speaks_for_another_is_not_identified(store, small_corpus):
    bench = _Bench(Parrot(store), store, small_corpus, {"anna", "bob"})
    position = store.split("validation")[0]
    speaker = store.clips[position].speaker
    other = next(i for i in store.split("validation") if store.clips[i].speaker != speaker)
    own, foreign = bench.judge.compare([bench.recording(position), bench.recording(other)], speaker, position)
    assert (own["speaker_identified"].value, foreign["speaker_identified"].value) == (1.0, 0.0)
    assert own["speaker_similarity"].value > foreign["speaker_similarity"].value
    alone = _Bench(Parrot(store), store, small_corpus, {speaker}).judge.compare(
        [bench.recording(other)], speaker, other
    )
    assert alone[0]["speaker_identified"].reason


def test_the_judge_is_the_same_for_features_of_another_speaker_encoder(results, store, small_corpus, tmp_path):
    chosen = {
        "speaker_encoder_model": "deep_speaker",
        "speaker_encoder_weights": "f.h5",
        "speaker_encoder_sha256": "0" * 64,
    }
    store.index = replace(store.index, features=FeaturesConfig(**chosen))
    store.speaker_vectors = np.eye(len(store.clips), 512, dtype=np.float32)
    result = evaluate_voice(Parrot(store), store, small_corpus, SETTINGS, tmp_path)
    for part in PARTS:
        for kind in KINDS:
            ours, usual = (r[part]["speaker_similarity"][kind]["value"] for r in (result, results[0][0.0]))
            assert ours == pytest.approx(usual, abs=1e-5)


def test_the_file_holds_what_is_returned(results):
    result, folder = results[0][0.0], results[1]
    assert json.loads((folder / METRICS).read_text("utf-8")) == json.loads(json.dumps(result))
    assert sorted(item.name for item in folder.iterdir()) == sorted([METRICS, REPORT])
    assert len(result["clips"]) == 6


def test_the_page_is_whole_and_needs_nothing_else(results):
    result, folder = results[0][0.0], results[1]
    page = (folder / REPORT).read_text("utf-8")

    tags, addresses = Counter(), []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: (
        tags.update([tag]),
        addresses.extend(value for name, value in attributes if name in ("src", "href")),
    )
    parser.feed(page)
    assert tags["audio"] == tags["img"] == 3 * len(result["clips"])
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"https?://", page)
    for clip in result["clips"]:
        assert clip["text"] in page
    assert "recognizer: none" in page


def test_text_is_escaped(store, small_corpus, tmp_path, monkeypatch):
    voice = Parrot(store)
    original = voice.synthesize

    def tagged(text, **arguments):
        speech = original(text, **arguments)
        speech.phones[0] = "<script>alert(1)</script>"
        return speech

    monkeypatch.setattr(voice, "synthesize", tagged)
    settings = Config.model_validate({**SETTINGS.model_dump(), "evaluation": {"max_clips": 1, "recognizer": "none"}})
    evaluate_voice(voice, store, small_corpus, settings, tmp_path)
    assert "<script>" not in (tmp_path / REPORT).read_text("utf-8")


def test_clips_are_chosen_from_each_speaker_in_turn_and_both_parts(store):
    chosen, left_out = choose(store, Parrot(store), EvaluationConfig(max_clips=4))
    unseen = [store.clips[position] for position, part in chosen if part == "unseen"]
    training = [store.clips[position] for position, part in chosen if part == "training"]
    assert {clip.speaker for clip in unseen} == {"anna", "bob", "unheard"}
    assert {clip.split for clip in training} == {"train"}
    assert len(unseen) == len(training) == 4
    assert not left_out
    brief, _ = choose(store, Parrot(store), EvaluationConfig(max_clips=4, max_seconds=1e-3))
    assert [part for _, part in brief] == ["unseen", "training"]  # one of each is over the limit already
    everything, _ = choose(store, Parrot(store), EvaluationConfig(max_clips=1000, max_seconds=1e6))
    assert len(everything) == len(store.clips)


def test_a_speaker_whom_the_voice_does_not_know_is_cloned_from_another_clip(store, small_corpus, tmp_path):
    voice = Parrot(store, speakers=["anna", "bob", "lone"])
    evaluate_voice(voice, store, small_corpus, SETTINGS, tmp_path)
    references = [reference for speaker, reference in voice.asked if not speaker]
    cloned = [clip for clip in json.loads((tmp_path / METRICS).read_text())["clips"] if clip["speaker"] == "unheard"]
    assert len(references) == len(cloned) >= 1
    assert all(reference.stem != clip["id"] for reference, clip in zip(references, cloned, strict=True))


def test_a_language_that_the_voice_does_not_speak_is_left_out_with_a_count(store, small_corpus, tmp_path):
    with pytest.raises(FeatureError, match="language en, which the voice does not speak"):
        evaluate_voice(Parrot(store, languages=["fr"]), store, small_corpus, SETTINGS, tmp_path)


def test_another_corpus_than_that_of_the_features_is_refused(store, small_corpus, tmp_path):
    write_manifest(tmp_path, read_manifest(small_corpus)[:5])
    with pytest.raises(FeatureError, match=r"are not in"):
        evaluate_voice(Parrot(store), store, tmp_path, SETTINGS, tmp_path / "out")


@pytest.mark.real_data
def test_recognition_of_real_speech_reaches_the_gate(real_data, tmp_path):
    from model.audio.io import read_audio, write_audio
    from model.corpus.manifest import Clip
    from model.features.extract import build_features
    from model.features.store import FeatureStore

    clips = []
    for number, line in enumerate((real_data / "kathleen" / "metadata.csv").read_text("utf-8").splitlines()[:2]):
        name, text, _ = line.split("|")
        samples = read_audio(real_data / "kathleen" / "wavs" / f"{name}.wav", 22050)
        write_audio(tmp_path / "corpus" / f"{name}.flac", samples, 22050)
        seconds = len(samples) / 22050
        clips.append(Clip(name, f"{name}.flac", text, "en", "k", seconds, 22050, 22050, ("train", "test")[number]))
    write_manifest(tmp_path / "corpus", clips)
    build_features(tmp_path / "corpus", tmp_path / "features", Config())
    store = FeatureStore(tmp_path / "features")
    result = evaluate_voice(Parrot(store), store, tmp_path / "corpus", Config(), tmp_path / "out")
    errors = {kind: result["unseen"]["character_error"][kind]["value"] for kind in KINDS}
    assert all(0.0 <= error < 0.5 for error in errors.values())
    increase = result["gate"]["character_error_increase"]["value"]
    assert increase == pytest.approx(errors["synthesised"] - errors["recording"])
    assert all(set(clip["transcripts"]) == set(KINDS) for clip in result["clips"])
