"""Evaluation of a test voice: metrics by part and kind, gate metrics, report."""

import base64
import io
import json
import re
import shutil
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from accessible import problems
from browser import PROGRAM, appearance_problems, open_browser
from clips import make_clip
from small_speech import CONFIG, LOUDNESS, RATE

from model.audio.io import read_audio
from model.audio.loudness import loudness
from model.config.data import FeaturesConfig
from model.config.evaluation import EvaluationConfig
from model.config.schema import Config
from model.corpus.manifest import read_manifest, write_manifest
from model.corpus.split import split
from model.corpus.timings import write_alignments
from model.errors import FeatureError
from model.evaluation import recognizer
from model.evaluation.evaluate import AUDIO, METRICS, REPORT, _Evaluator, choose, evaluate_voice, few_clips
from model.evaluation.examination import choose_texts
from model.evaluation.metric_table import GATE_METRICS, METRIC_TABLE
from model.evaluation.metrics import Metric, not_applicable
from model.evaluation.report import format_interval
from model.evaluation.results import KINDS, PARTS, SentenceResult, by_group, gate_metrics, summarize
from model.evaluation.texts import further_texts
from model.text import sentence_hash
from model.text.encode import encode
from model.text.symbols import BOS, EOS, MARKS, WORD_BOUNDARY
from model.vocoder import build_vocoder


class Parrot:
    """Voice that synthesizes the sentences of a store from their recorded mels, with noise added."""

    def __init__(self, store, noise=0.0, speakers=None, languages=None):
        self.store, self.noise = store, noise
        self.speakers = store.speakers if speakers is None else speakers
        self.languages = store.languages if languages is None else languages
        self.training_sentences = None
        self.positions = {(clip.text, clip.speaker): position for position, clip in enumerate(store.clips)}
        self.vocoder = build_vocoder(Config(vocoder={"griffin_lim_iterations": 4}).vocoder, store.audio)
        self.requests = []

    def synthesize(self, text, language="", speaker="", *, reference=None):
        self.requests.append((speaker, reference))
        speaker = speaker or reference.stem.split("-")[0]
        features = self.store.clip(self.positions[text, speaker])
        generator = np.random.default_rng(0)
        mel = features.mel + self.noise * generator.standard_normal(features.mel.shape).astype(np.float32)
        durations, _ = self.align(features.ids, mel)
        return SimpleNamespace(samples=self.vocoder(mel), mel=mel, durations=durations, phones=["a"] * len(durations))

    def align(self, ids, mel):
        edges = np.round(np.linspace(0, len(mel), len(ids) + 1)).astype(int)
        durations = np.diff(edges)
        return durations, np.eye(len(ids))[np.repeat(np.arange(len(ids)), durations)]


SETTINGS = Config.model_validate(
    {
        "evaluation": {"max_clips": 3, "max_training_clips": 3, "texts": 2, "recognizer": "none"},
        "vocoder": {"griffin_lim_iterations": 8},
    }
)


@pytest.fixture(scope="module")
def results(small_features, small_corpus, tmp_path_factory):
    from model.features.store import FeatureStore

    store = FeatureStore(small_features)
    folders = {noise: tmp_path_factory.mktemp("evaluation") for noise in (0.0, 3.0)}
    evaluated = {
        noise: evaluate_voice(Parrot(store, noise), store, small_corpus, SETTINGS, folder)
        for noise, folder in folders.items()
    }
    return evaluated, folders[0.0]


def test_recordings_are_trimmed_and_as_loud_as_the_features(results, store, small_corpus):
    page = (results[1] / REPORT).read_text("utf-8")
    audio_files = [
        soundfile.read(io.BytesIO(base64.b64decode(data)))[0] for data in re.findall('audio/flac;base64,([^"]+)', page)
    ]
    clips = {clip.id: clip for clip in store.clips}
    audio = {clip.id: clip.audio for clip in read_manifest(small_corpus)}
    clips_in_result = results[0][0.0]["clips"]
    for item, recording in zip(clips_in_result, audio_files[:: len(KINDS)], strict=True):
        clip = clips[item["id"]]
        start, gain = round(clip.trimmed * RATE), np.float32(clip.gain)
        assert start > 0.1 * RATE
        assert abs(gain - 1) > 0.1
        whole = read_audio(small_corpus / audio[clip.id], RATE)
        assert np.abs(recording - whole[start : start + round(clip.seconds * RATE)] * gain).max() < 1e-4
        assert loudness(recording, RATE) == pytest.approx(LOUDNESS, abs=0.1)


def test_a_clip_is_compared_with_other_clips_of_its_speaker(results, store):
    positions = {clip.id: position for position, clip in enumerate(store.clips)}
    for item in results[0][0.0]["clips"]:
        position = positions[item["id"]]
        wanted = store.speaker_vectors[position] @ store.speaker_centroid(item["speaker"], without=position)
        assert item["metrics"]["speaker_similarity"]["recording"]["value"] == pytest.approx(wanted, abs=1e-4)
        if item["part"] == "training" and item["speaker"] != "lone":
            with_itself = store.speaker_vectors[position] @ store.speaker_centroid(item["speaker"], without=-1)
            assert with_itself > wanted + 1e-3


def test_gate_metrics_are_of_unseen_sentences_only(results):
    for result in results[0].values():
        name = "mel_cepstral_distortion"
        unseen, training = (result[part][name]["synthesised"]["value"] for part in PARTS)
        assert result["gate"][name]["value"] == unseen != training


def test_every_metric_has_a_value_or_a_reason(results):
    result = results[0][0.0]
    assert set(result["gate"]) == set(GATE_METRICS)
    for part in PARTS:
        assert result[part].keys() <= METRIC_TABLE.keys()  # reports and command line name it
        for kinds in result[part].values():
            for metric in kinds.values():
                assert (metric["value"] is None) == bool(metric["reason"])
    assert result["unseen"]["mel_cepstral_distortion"]["synthesised"]["value"] > 0
    assert result["unseen"]["duration_error"]["synthesised"]["value"] == 0.0
    assert result["unseen"]["pitch_range"]["recording"]["value"] > 0


def test_a_metric_that_does_not_apply_names_the_reason(results):
    result = results[0][0.0]
    for kind in KINDS:
        metric = result["unseen"]["character_error"][kind]
        assert metric["value"] is None
        assert "recognizer: none" in metric["reason"]
    assert result["gate"]["character_error_increase"]["value"] is None
    assert "true times" in result["unseen"]["boundary_error"]["recording"]["reason"]


def test_a_noisy_voice_scores_worse(results):
    clean, noisy = (results[0][noise] for noise in (0.0, 3.0))
    gate = "mel_cepstral_distortion"
    assert clean["gate"][gate]["value"] < noisy["gate"][gate]["value"]
    for part in PARTS:
        for name in ("mel_cepstral_distortion", "pitch_frame_error", "voicing_error"):
            assert clean[part][name]["synthesised"]["value"] < noisy[part][name]["synthesised"]["value"]
        ours, theirs = (r[part]["speaker_similarity"]["synthesised"]["value"] for r in (clean, noisy))
        assert ours > theirs
        assert clean[part]["speaker_similarity"]["recording"] == noisy[part]["speaker_similarity"]["recording"]


def test_speech_of_another_speaker_is_not_identified(store, small_corpus):
    evaluator = _Evaluator(Parrot(store), store, small_corpus, {"anna", "bob"})
    position = store.split("validation")[0]
    speaker = store.clips[position].speaker
    other = next(i for i in store.split("validation") if store.clips[i].speaker != speaker)
    own, foreign = evaluator.speaker_similarity.compare(
        [evaluator.read_recording(position), evaluator.read_recording(other)], speaker, position
    )
    assert (own["speaker_identified"].value, foreign["speaker_identified"].value) == (1.0, 0.0)
    assert own["speaker_similarity"].value > foreign["speaker_similarity"].value
    alone = _Evaluator(Parrot(store), store, small_corpus, {speaker}).speaker_similarity.compare(
        [evaluator.read_recording(other)], speaker, other
    )
    assert alone[0]["speaker_identified"].reason


def test_speaker_similarity_does_not_depend_on_the_encoder_of_the_features(results, store, small_corpus, tmp_path):
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


def test_the_metrics_file_equals_the_result(results):
    result, folder = results[0][0.0], results[1]
    assert json.loads((folder / METRICS).read_text("utf-8")) == json.loads(json.dumps(result))
    assert sorted(item.name for item in folder.iterdir()) == sorted([AUDIO, METRICS, REPORT])
    assert len(result["clips"]) == 6


def test_the_report_is_complete_and_self_contained(results):
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
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?://", page)
    for clip in result["clips"]:
        assert clip["text"] in page
    assert "recognizer: none" in page


@pytest.mark.parametrize(
    ("lineage", "shown"),
    [((), "trained from scratch"), (("models:/b/2", "models:/a/1"), "started from models:/b/2, from models:/a/1")],
)
def test_the_report_says_what_the_voice_started_from(store, small_corpus, tmp_path, lineage, shown):
    limits = {"max_clips": 1, "max_training_clips": 1, "texts": 0, "recognizer": "none"}
    settings = Config.model_validate({**SETTINGS.model_dump(), "evaluation": limits})
    result = evaluate_voice(Parrot(store), store, small_corpus, settings, tmp_path, lineage=lineage)
    assert result["lineage"] == list(lineage)
    assert shown in (tmp_path / REPORT).read_text("utf-8")


def test_text_is_escaped(store, small_corpus, tmp_path, monkeypatch):
    voice = Parrot(store)
    original = voice.synthesize

    def tagged(text, **arguments):
        speech = original(text, **arguments)
        speech.phones[0] = "<script>alert(1)</script>"
        return speech

    monkeypatch.setattr(voice, "synthesize", tagged)
    limits = {"max_clips": 1, "max_training_clips": 1, "texts": 0, "recognizer": "none"}
    settings = Config.model_validate({**SETTINGS.model_dump(), "evaluation": limits})
    evaluate_voice(voice, store, small_corpus, settings, tmp_path)
    assert "<script>" not in (tmp_path / REPORT).read_text("utf-8")


def test_clips_are_chosen_from_each_speaker_in_turn_in_both_parts(store):
    chosen, left_out = choose(store, Parrot(store), EvaluationConfig(max_clips=4, max_training_clips=4))
    unseen = [store.clips[position] for position, part in chosen if part == "unseen"]
    training = [store.clips[position] for position, part in chosen if part == "training"]
    assert {clip.speaker for clip in unseen} == {"anna", "bob", "unheard"}
    assert {clip.split for clip in training} == {"train"}
    assert len(unseen) == len(training) == 4
    assert not left_out
    brief, _ = choose(store, Parrot(store), EvaluationConfig(max_clips=4, max_training_clips=4, max_seconds=1e-3))
    assert [part for _, part in brief] == ["unseen", "training"]  # one of each is over the limit already
    unlimited = EvaluationConfig(max_clips=1000, max_training_clips=1000, max_seconds=1e6)
    everything, _ = choose(store, Parrot(store), unlimited)
    assert len(everything) == len(store.clips)


def remembers(store, *splits):
    """Returns a voice that was trained on the sentences of these splits."""
    voice = Parrot(store)
    clips = [store.clips[position] for split in splits for position in store.split(split)]
    voice.training_sentences = frozenset(sentence_hash(clip.text) for clip in clips)
    return voice


def parts(store, voice, exclude=frozenset()):
    """Returns the sentences of the chosen clips by part, without limits, and the numbers of clips left out."""
    limits = EvaluationConfig(max_clips=1000, max_training_clips=1000, max_seconds=1e6)
    chosen, left_out = choose(store, voice, limits, exclude)
    found = {part: {store.clips[i].text for i, name in chosen if name == part} for part in PARTS}
    return found["unseen"], found["training"], left_out


def test_what_a_voice_was_trained_on_is_never_unseen_whatever_split_it_is_in(store):
    held_out, trained, _ = parts(store, remembers(store, "train"))
    assert (held_out, trained) == parts(store, Parrot(store))[:2]
    other_split, learned, left_out = parts(store, remembers(store, "train", "test"))
    texts = {store.clips[position].text for position in store.split("test")}
    assert other_split == held_out - texts
    assert learned == trained
    assert left_out == {"held out here, but the voice was trained on the sentence": len(store.split("test"))}


def test_another_corpus_is_unseen_as_a_whole(store):
    voice = Parrot(store)
    voice.training_sentences = frozenset()
    unseen, training, left_out = parts(store, voice)
    assert unseen == {clip.text for clip in store.clips}
    assert not training
    assert not left_out


def test_sentences_of_the_voice_it_is_compared_with_are_left_out(store):
    other = remembers(store, "test").training_sentences
    unseen, training, left_out = parts(store, remembers(store, "train"), other)
    assert unseen == {store.clips[position].text for position in store.split("validation")}
    assert training
    assert left_out == {"a voice that it is compared with was trained on the sentence": len(store.split("test"))}


def test_the_choice_of_sentences_does_not_depend_on_their_order(store):
    limits = EvaluationConfig(max_clips=3, max_training_clips=2)
    names = [store.clips[position].id for position, _ in choose(store, Parrot(store), limits)[0]]
    rows = list(store.clips)
    backwards = SimpleNamespace(
        clips=rows[::-1], split=lambda name: [i for i, c in enumerate(rows[::-1]) if c.split == name]
    )
    again = [backwards.clips[position].id for position, _ in choose(backwards, Parrot(store), limits)[0]]
    assert sorted(again) == sorted(names)


def test_equal_sets_of_sentences_have_equal_hashes(results, store, small_corpus, tmp_path):
    ours, noisy = (results[0][noise]["examination"] for noise in (0.0, 3.0))
    assert ours == noisy
    assert ours["clips"] == 3
    fewer = evaluate_voice(remembers(store, "train", "test"), store, small_corpus, SETTINGS, tmp_path)
    assert fewer["examination"]["hash"] != ours["hash"]


def test_an_unknown_speaker_is_cloned_from_another_clip(store, small_corpus, tmp_path):
    voice = Parrot(store, speakers=["anna", "bob", "lone"])
    evaluate_voice(voice, store, small_corpus, SETTINGS, tmp_path)
    references = [reference for speaker, reference in voice.requests if not speaker]
    cloned = [clip for clip in json.loads((tmp_path / METRICS).read_text())["clips"] if clip["speaker"] == "unheard"]
    assert len(references) == len(cloned) >= 1
    assert all(reference.stem != clip["id"] for reference, clip in zip(references, cloned, strict=True))


def test_a_language_that_the_voice_does_not_speak_is_left_out_with_a_count(store, small_corpus, tmp_path):
    with pytest.raises(FeatureError, match="language en, which the voice does not speak"):
        evaluate_voice(Parrot(store, languages=["fr"]), store, small_corpus, SETTINGS, tmp_path)


def test_a_corpus_that_does_not_match_the_features_is_refused(store, small_corpus, tmp_path):
    write_manifest(tmp_path, read_manifest(small_corpus)[:5])
    with pytest.raises(FeatureError, match=r"are not in"):
        evaluate_voice(Parrot(store), store, tmp_path, SETTINGS, tmp_path / "out")


@pytest.mark.real_data
def test_recognition_of_real_speech_reaches_the_gate(real_data, tmp_path):
    from model.audio.io import read_audio, write_audio
    from model.features.extract import build_features
    from model.features.store import FeatureStore

    clips = []
    for number, line in enumerate((real_data / "kathleen" / "metadata.csv").read_text("utf-8").splitlines()[:2]):
        name, text, _ = line.split("|")
        samples = read_audio(real_data / "kathleen" / "wavs" / f"{name}.wav", 22050)
        write_audio(tmp_path / "corpus" / f"{name}.flac", samples, 22050)
        seconds = len(samples) / 22050
        clips.append(make_clip(name, text, audio=f"{name}.flac", seconds=seconds, split=("train", "test")[number]))
    write_manifest(tmp_path / "corpus", clips)
    build_features(tmp_path / "corpus", tmp_path / "features", Config())
    store = FeatureStore(tmp_path / "features")
    settings = Config.model_validate({"evaluation": {"min_sentences": 0, "texts": 0}})
    result = evaluate_voice(Parrot(store), store, tmp_path / "corpus", settings, tmp_path / "out")
    errors = {kind: result["unseen"]["character_error"][kind]["value"] for kind in KINDS}
    assert all(0.0 <= error < 0.5 for error in errors.values())
    increase = result["gate"]["character_error_increase"]["value"]
    assert increase == pytest.approx(errors["synthesised"] - errors["recording"])
    assert all(set(clip["transcripts"]) == set(KINDS) for clip in result["clips"])


def test_known_times_of_phones_are_those_of_the_recording_before_trimming(store, small_corpus, tmp_path):
    """The phones of each clip end a different number of frames later than in the alignment of the voice."""
    corpus = shutil.copytree(small_corpus, tmp_path / "corpus")
    voice, frame = Parrot(store), store.audio.hop_length / RATE
    times, delays = {}, {}
    for number, clip in enumerate(store.clips):
        tokens = encode(clip.text, clip.language)
        durations, _ = voice.align(tokens.ids, np.zeros((clip.frames, store.audio.n_mels)))
        ends = np.cumsum(durations)
        delays[clip.id] = number % 4
        spoken = [i for i, phone in enumerate(tokens.phones) if phone not in (BOS, EOS, WORD_BOUNDARY, *MARKS)]
        times[clip.id] = [
            (
                tokens.phones[i],
                *(clip.trimmed + (edge + delays[clip.id]) * frame for edge in (ends[i] - durations[i], ends[i])),
            )
            for i in spoken
        ]
    write_alignments(corpus, times)
    result = evaluate_voice(voice, store, corpus, SETTINGS, tmp_path / "out")
    errors = {clip["id"]: clip["metrics"]["boundary_error"]["recording"]["value"] for clip in result["clips"]}
    assert len({delays[name] for name in errors}) > 2
    assert errors == pytest.approx({name: delays[name] for name in errors}, abs=0.01)


SPOKEN = {
    "Good morning.": "good morning", "How are you?": "how are you", "Boat 21.": "boat twenty one",
    "Rain again.": "rain again", "We sat down.": "we sat down", "It is late now.": "it is late now",
    "Come in!": "come in", "A small boat.": "a small boat", "Room 12, please.": "room twelve please",
    "Who is there?": "who is there", "At 7:10.": "at seven ten",
    "Ring twice.": "ring twice", "The lamp is on.": "the lamp is on",
}  # fmt: skip


def test_character_errors_are_against_the_words_that_are_spoken(store, small_corpus, tmp_path, monkeypatch):
    """The transcript of the recording lacks a letter, that of copy-synthesis is right, that of synthesis is empty."""
    settings = Config.model_validate(
        {
            **CONFIG.model_dump(),
            "evaluation": {"max_clips": 5, "max_training_clips": 3, "min_sentences": 0, "texts": 0},
        }
    )
    voice = Parrot(store)
    english = [store.clips[position] for position, _ in choose(store, voice, settings.evaluation)[0]]
    english = [clip for clip in english if clip.language == "en"]
    assert {"Room 12, please.", "At 7:10."} <= {clip.text for clip in english}
    queue = [(clip, kind) for clip in english for kind in KINDS]

    def transcribe(self, samples):
        clip, kind = queue.pop(0)
        assert len(samples) / recognizer.SAMPLE_RATE == pytest.approx(clip.seconds, abs=0.02)
        words = {"recording": SPOKEN[clip.text][:-1], "copy_synthesis": SPOKEN[clip.text].upper(), "synthesised": ""}
        future = Future()
        future.set_result(words[kind])
        return future

    monkeypatch.setattr(recognizer.Recognizer, "submit", transcribe)
    result = evaluate_voice(voice, store, small_corpus, settings, tmp_path)
    assert not queue
    unseen = []
    for clip in result["clips"]:
        errors = {kind: metric["value"] for kind, metric in clip["metrics"]["character_error"].items()}
        if clip["language"] == "de":
            assert set(errors.values()) == {None}
            assert "not de" in clip["metrics"]["character_error"]["recording"]["reason"]
            continue
        one_letter = 1 / len(SPOKEN[clip["text"]])
        assert errors == pytest.approx({"recording": one_letter, "copy_synthesis": 0.0, "synthesised": 1.0})
        if clip["part"] == "unseen":
            unseen.append(1.0 - one_letter)
    assert result["gate"]["character_error_increase"]["value"] == pytest.approx(np.mean(unseen))
    assert len(unseen) < len(english)


@pytest.mark.parametrize(
    ("recordings", "increase"),
    [((0.5, 0.7), None), ((0.1, 0.6), pytest.approx(-0.15)), ((0.3, 0.5), pytest.approx(-0.2)), ((0.401, 0.4), None)],
)
def test_the_gate_ignores_the_recognizer_where_it_does_not_understand_the_recordings(recordings, increase):
    """By the mean over sentences: a single unclear recording among clear ones does not matter."""
    sentences = [
        sentence(
            "anna",
            character_error={"recording": error, "synthesised": 0.2},
            phone_error={"recording": 0.5, "synthesised": 0.6},
            mel_cepstral_distortion={"synthesised": 5.0},
            alignment_monotonicity={"recording": 0.9},
        )
        for error in recordings
    ]
    found = gate_metrics(sentences, [], 0.4)
    assert found["character_error_increase"]["value"] == increase
    assert found["mel_cepstral_distortion"]["value"] == 5.0
    reason = found["character_error_increase"]["reason"]
    if increase is None:
        assert found["phone_error_increase"]["value"] == pytest.approx(0.1)
        assert f"{np.mean(recordings):.3f}, above evaluation.max_recording_error (0.4)" in reason
        assert gate_metrics(sentences, [], 0.7)["character_error_increase"]["value"] is not None
    else:
        assert not reason
        assert found["phone_error_increase"]["reason"] == "all sentences are in languages with a character error rate"


def test_the_limit_for_recordings_is_a_setting(store, small_corpus, tmp_path, monkeypatch):
    """Nothing is recognized, so the recordings' error is 1: above the default, below a limit of 1.5."""

    def transcribe(self: object, samples: np.ndarray) -> Future:
        future: Future = Future()
        future.set_result("")
        return future

    monkeypatch.setattr(recognizer.Recognizer, "submit", transcribe)
    settings = Config(
        **{
            **CONFIG.model_dump(),
            "evaluation": {"max_clips": 2, "min_sentences": 0, "texts": 0, "max_recording_error": 1.5},
        }
    )
    result = evaluate_voice(Parrot(store), store, small_corpus, settings, tmp_path)
    assert result["gate"]["character_error_increase"] == {"value": 0.0, "reason": ""}


def test_progress_counts_every_sentence_twice_without_a_recognizer(store, small_corpus, tmp_path):
    progress = []
    result = evaluate_voice(Parrot(store), store, small_corpus, SETTINGS, tmp_path, lambda *done: progress.append(done))
    total = 2 * len(result["clips"])
    assert progress == [(done, total) for done in range(1, total + 1)]


def test_the_real_time_factor_is_the_time_of_synthesis_over_that_of_speech(store, small_corpus, tmp_path, monkeypatch):
    voice, clock, seconds = Parrot(store), [100.0], []
    original = voice.synthesize

    def slow(text, **arguments):
        speech = original(text, **arguments)
        clock[0] += 3.0
        seconds.append(len(speech.samples) / RATE)
        return speech

    monkeypatch.setattr(voice, "synthesize", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    result = evaluate_voice(voice, store, small_corpus, SETTINGS, tmp_path)
    assert result["real_time_factor"]["value"] == pytest.approx(3.0 * len(seconds) / sum(seconds))


def sentence(speaker, **values):
    """Returns a result with these metrics: kind -> value, or the reason why there is none."""
    clip = SimpleNamespace(language="en", speaker=speaker, id=speaker, split="test", text="")
    metrics = {
        name: {kind: not_applicable(v) if isinstance(v, str) else Metric(v) for kind, v in kinds.items()}
        for name, kinds in values.items()
    }
    return SentenceResult(clip=clip, part="unseen", speech=None, metrics=metrics)


def test_means_are_over_sentences_not_over_speakers():
    sentences = [sentence("anna", pitch_error={"synthesised": value}) for value in (1.0, 2.0, 3.0, 6.0)]
    sentences += [
        sentence("bob", pitch_error={"synthesised": 8.0}),
        sentence("bob", pitch_error={"synthesised": "no voice"}),
    ]
    assert summarize(sentences)["pitch_error"]["synthesised"]["value"] == 4.0
    groups = {group["speaker"]: group for group in by_group(sentences)}
    assert (groups["anna"]["sentences"], groups["bob"]["sentences"]) == (4, 2)
    assert [groups[name]["metrics"]["pitch_error"]["synthesised"]["value"] for name in ("anna", "bob")] == [3.0, 8.0]


def test_the_gate_compares_errors_sentence_by_sentence_and_takes_the_right_kind():
    def result(recording, synthesised, distortion, monotonicity):
        return sentence(
            "anna",
            character_error={"recording": recording, "copy_synthesis": 0.9, "synthesised": synthesised},
            phone_error={"recording": 0.5, "copy_synthesis": 0.9, "synthesised": 0.6},
            mel_cepstral_distortion={"copy_synthesis": 99.0, "synthesised": distortion},
            alignment_monotonicity={"recording": monotonicity},
        )

    found = gate_metrics(
        [result(0.1, 0.4, 5.0, 0.9), result(0.2, 0.1, 7.0, 0.5), result("silent", "silent", 9.0, 0.7)], [], 0.4
    )
    assert found.pop("phone_error_increase")["value"] is None  # the silent one is English too
    assert {name: metric["value"] for name, metric in found.items()} == pytest.approx(
        {"character_error_increase": 0.1, "mel_cepstral_distortion": 7.0, "alignment_monotonicity": 0.7}
    )


def test_the_phone_error_of_the_gate_is_of_languages_without_character_error():
    def result(name, language, recording, synthesised, character):
        found = sentence(
            name,
            character_error={"recording": character, "synthesised": character},
            phone_error={"recording": recording, "copy_synthesis": 0.9, "synthesised": synthesised},
            mel_cepstral_distortion={"synthesised": 5.0},
            alignment_monotonicity={"recording": 0.9},
        )
        found.clip.language = language
        return found

    english, persian = result("anna", "en", 0.1, 0.9, 0.2), result("reza", "fa", 0.5, 0.6, "English only")
    unrecorded = result("sara", "fa", "too little", "too little", "English only")
    assert gate_metrics([english, persian, unrecorded], [], 0.4)["phone_error_increase"]["value"] == pytest.approx(0.1)
    assert gate_metrics([unrecorded], [], 0.4)["phone_error_increase"]["reason"] == "too little"
    assert gate_metrics([english], [], 0.4)["phone_error_increase"]["value"] is None


def test_every_kind_of_audio_and_every_text_has_a_phone_error_rate(store, small_corpus, tmp_path, monkeypatch):
    """The corpus is short, so the minimum is lowered; noise makes the phones of a voice less clear."""
    monkeypatch.setattr("model.evaluation.phone_error.MIN_SECONDS", 5.0)
    rates = {}
    for noise in (0.0, 3.0):
        result = evaluate_voice(Parrot(store, noise), store, small_corpus, SETTINGS, tmp_path / str(noise))
        rates[noise] = {kind: result["training"]["phone_error"][kind]["value"] for kind in KINDS}
        spoken = [clip["metrics"]["phone_error"]["synthesised"]["value"] for clip in result["clips"]]
        assert all(rate is not None for rate in spoken)
        assert result["gate"]["phone_error_increase"]["value"] is not None
        assert "Phone error rate" in (tmp_path / str(noise) / REPORT).read_text("utf-8")
    assert rates[0.0]["recording"] == rates[3.0]["recording"] < rates[3.0]["synthesised"]
    assert rates[0.0]["synthesised"] < rates[3.0]["synthesised"]


def test_few_held_out_clips_are_joined_by_texts_without_recordings(store, small_corpus, tmp_path, monkeypatch):
    """The transcripts of the voice are empty; those of the recordings lack one letter in four."""
    monkeypatch.setattr(recognizer, "character_error", lambda text, transcript: 0.25 if transcript == "heard" else 1.0)
    voice = Parrot(store)
    original = voice.synthesize
    further = []

    def synthesize(text, **arguments):
        if (text, arguments["speaker"]) in voice.positions or arguments.get("reference"):
            return original(text, **arguments)
        further.append((text, arguments["speaker"]))
        return SimpleNamespace(samples=np.zeros(RATE, np.float32))

    order = []

    def transcribe(self, samples):
        order.append(len(samples))
        future = Future()
        future.set_result("heard" if len(order) % 3 == 1 and len(samples) != recognizer.SAMPLE_RATE else "")
        return future

    monkeypatch.setattr(voice, "synthesize", synthesize)
    monkeypatch.setattr(recognizer.Recognizer, "submit", transcribe)
    limits = {"max_clips": 5, "max_training_clips": 5, "min_sentences": 5, "texts": 0}
    chosen = [store.clips[i] for i, part in choose(store, voice, EvaluationConfig(**limits))[0] if part == "unseen"]
    lacking = 5 - sum(clip.language == "en" for clip in chosen)
    assert lacking > 0
    settings = Config(**{**CONFIG.model_dump(), "evaluation": limits})
    progress = []
    result = evaluate_voice(voice, store, small_corpus, settings, tmp_path, lambda *done: progress.append(done))
    assert len(result["texts"]) == len(further) == lacking
    assert progress[-1][0] == progress[-1][1]
    assert {speaker for _, speaker in further} <= set(voice.speakers)
    assert not {text for text, _ in further} & {clip.text for clip in store.clips}
    assert result["gate"]["character_error_increase"]["value"] == pytest.approx(0.75)
    assert result["few_clips"][-1].startswith(f"Intelligibility is measured on {lacking} further texts")
    page = (tmp_path / REPORT).read_text("utf-8")
    assert all(text in page for text in (*(text for text, _ in further), *result["few_clips"]))


def test_what_rests_on_few_held_out_clips_is_named():
    limits = EvaluationConfig(min_sentences=2)
    one, *_ = few_clips([sentence("anna")], [], limits)
    assert "rest on 1 held-out recording:" in one
    assert few_clips([sentence("anna"), sentence("bob")], [], limits) == []


def test_enough_held_out_clips_need_no_further_texts(results):
    assert results[0][0.0]["texts"] == results[0][0.0]["few_clips"] == []


def test_further_texts_are_those_that_the_corpus_lacks():
    first, second, third = further_texts(3, [])
    assert further_texts(2, [second.upper().rstrip(".")]) == [first, third]
    generated = Path(split.__code__.co_filename).with_name("sentences_en.txt").read_text("utf-8").splitlines()
    assert further_texts(1000, generated) == further_texts(1000, [])


def test_the_report_is_usable_by_keyboard_screen_reader_and_on_a_narrow_screen(results):
    assert problems((results[1] / REPORT).read_text("utf-8")) == []


@pytest.mark.skipif(not PROGRAM, reason="Chromium is not installed")
def test_the_report_can_be_read_in_narrow_and_wide_windows_in_light_and_dark(results, tmp_path):
    with open_browser(tmp_path / "profile") as browser:
        assert appearance_problems(browser, results[1] / REPORT) == []


def test_the_report_names_voice_data_and_date(store, small_corpus, tmp_path):
    about = {"Voice": "tiny <voice>", "Data": "0123.dir"}
    result = evaluate_voice(Parrot(store), store, small_corpus, SETTINGS, tmp_path, about=about)
    page = (tmp_path / REPORT).read_text("utf-8")
    assert "<title>tiny &lt;voice&gt;: evaluation</title>" in page
    assert "0123.dir" in page
    assert time.strftime("%Y-%m-%d") in page
    assert result["examination"]["hash"] in page


def test_a_mean_of_enough_sentences_has_an_interval(store):
    few, many = (summarize([sentence("anna", pitch_error={"synthesised": float(v)}) for v in range(n)]) for n in (7, 8))
    assert "interval" not in few["pitch_error"]["synthesised"]
    low, high = many["pitch_error"]["synthesised"]["interval"]
    assert low < many["pitch_error"]["synthesised"]["value"] < high
    assert format_interval(many["pitch_error"]["synthesised"], 1) == f"{low:.1f} to {high:.1f}"
    assert format_interval(few["pitch_error"]["synthesised"], 1) == format_interval(None, 1) == ""


def test_the_audio_of_unseen_sentences_lies_beside_the_report(results):
    result, folder = results[0][0.0], results[1]
    for clip in result["clips"]:
        assert set(clip["audio"]) == (set(KINDS) if clip["part"] == "unseen" else set())
        for name in clip["audio"].values():
            assert len(read_audio(folder / name, RATE)) > RATE // 2


def test_a_voice_speaks_texts_that_no_compared_voice_was_trained_on(store):
    texts = further_texts(5, [])
    limits = EvaluationConfig(texts=3, min_sentences=0)
    voice = Parrot(store)
    seen = frozenset(map(sentence_hash, (texts[0], texts[2])))
    found = choose_texts(store, voice, [], limits, seen)
    assert [text for text, _, _ in found] == [texts[1], texts[3], texts[4]]
    assert {language for _, language, _ in found} == {"en"}
    assert {speaker for _, _, speaker in found} <= set(voice.speakers)
    assert choose_texts(store, voice, [], EvaluationConfig(texts=0, min_sentences=0), frozenset()) == []
    assert len(choose_texts(store, voice, [], EvaluationConfig(texts=2, min_sentences=6), frozenset())) == 6
