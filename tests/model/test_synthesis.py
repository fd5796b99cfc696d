"""Requests of synthesis: the speaker and language that are chosen, and the inputs of model and vocoder."""

import json
import math
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from model import synthesis
from model.acoustic.model import ProsodyShift
from model.audio.griffin_lim import GriffinLim
from model.audio.io import read_audio
from model.audio.mel import MelExtractor, average_spectrum
from model.audio.pitch import track_pitch
from model.config.resolution import resolve
from model.config.vocoder import VocoderConfig
from model.corpus.manifest import read_manifest
from model.corpus.sentences import shipped_list
from model.errors import TextError
from model.synthesis import (
    CALIBRATION_SENTENCES,
    DEFAULT_SIMILARITY,
    DEFAULT_STYLE,
    UNCHANGED_PROSODY,
    ProsodyControls,
    StyleControls,
    SynthesisError,
    Synthesizer,
)
from model.text.encode import encode
from model.text.sentences import LONGEST_PIECE
from model.training.trainer import train
from model.vocoder import build_vocoder

TEXTS = {"en": "Good morning.", "fa": "سلام"}
CONTROLS = (UNCHANGED_PROSODY, DEFAULT_STYLE)


@dataclass
class Call:
    """A call of the model's `synthesize`: speaker embedding (V,), language indices, prosody shift, log-mel (S, M)."""

    vector: np.ndarray
    language: int
    own_language: int | None
    shift: ProsodyShift
    mel: np.ndarray


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_settings, generated_features):
    settings = resolve(None, None, {**small_settings, "training.max_steps": 2}).config
    return train(settings, generated_features, tmp_path_factory.mktemp("voice")).voice


@pytest.fixture
def synthesizer(folder):
    return Synthesizer(folder)


@pytest.fixture
def calls(synthesizer, monkeypatch) -> list[Call]:
    made, original = [], synthesizer.voice.model.synthesize

    def synthesize(ids, lengths, vector, language, style, own_language, shift):
        result = original(ids, lengths, vector, language, style, own_language, shift)
        own = None if own_language is None else int(own_language)
        made.append(Call(vector[0].numpy(), int(language), own, shift, result.mel[0].numpy()))
        return result

    monkeypatch.setattr(synthesizer.voice.model, "synthesize", synthesize)
    return made


def speaker_of(synthesizer: Synthesizer, language: str) -> str:
    return next(name for name, own in synthesizer.voice.speaker_languages.items() if own == language)


@pytest.mark.parametrize("language", TEXTS)
def test_a_language_selects_a_speaker_of_it(synthesizer, calls, language):
    synthesizer.synthesize(TEXTS[language], language)
    (call,) = calls
    assert np.allclose(call.vector, synthesizer.voice.speakers[speaker_of(synthesizer, language)].vector)
    assert (call.language, call.own_language) == (synthesizer.languages.index(language), None)


@pytest.mark.parametrize("language", TEXTS)
def test_a_speaker_speaks_its_own_language_by_default(synthesizer, calls, language):
    synthesizer.synthesize(TEXTS[language], speaker=speaker_of(synthesizer, language))
    assert (calls[0].language, calls[0].own_language) == (synthesizer.languages.index(language), None)


@pytest.mark.parametrize("language", TEXTS)
def test_a_cloned_voice_speaks_the_language_of_its_reference_by_default(synthesizer, calls, generated_corpus, language):
    audio = next(clip.audio for clip in read_manifest(generated_corpus) if clip.language == language)
    synthesizer.synthesize(TEXTS[language], reference=generated_corpus / audio, reference_language=language)
    assert (calls[0].language, calls[0].own_language) == (synthesizer.languages.index(language), None)


@pytest.fixture
def reference(generated_corpus):
    """An English recording."""
    return generated_corpus / next(clip.audio for clip in read_manifest(generated_corpus) if clip.language == "en")


def test_a_cloned_voice_has_the_long_term_spectrum_of_its_reference_in_every_text(synthesizer, reference):
    cloned = synthesizer._request([TEXTS["en"]], "en", "", reference, "", 0.0, *CONTROLS)
    plain = replace(cloned, timbre=None)
    samples = synthesizer._read_reference(reference)
    expected = average_spectrum(MelExtractor(synthesizer.config.audio).numpy(samples))

    def spectrum(request):
        sentences = [encode(text, "en") for text in shipped_list("en")[:CALIBRATION_SENTENCES]]
        mels = [synthesizer._predict(tokens, request, ProsodyShift())[0] for tokens in sentences]
        return average_spectrum(np.concatenate(mels))

    assert np.abs(spectrum(plain) - expected).mean() > 0.3
    assert np.abs(spectrum(cloned) - expected).mean() < 0.1
    assert np.allclose(cloned.timbre.spectrum, spectrum(plain) + cloned.timbre.spectral_correction, atol=1e-5)
    other = synthesizer._request(["A text of other words."], "en", "", reference, "", 0.0, *CONTROLS)
    assert np.array_equal(other.timbre.spectral_correction, cloned.timbre.spectral_correction)
    mel = synthesizer.synthesize(TEXTS["en"], "en", reference=reference, similarity=0.0).mel
    assert np.allclose(mel, synthesizer._predict(encode(TEXTS["en"], "en"), cloned, ProsodyShift())[0], atol=1e-5)
    assert mel.dtype == np.float32


@pytest.mark.parametrize(("difference", "share"), [(0.4, 0.0), (0.5, 0.0), (0.625, 0.5), (0.75, 1.0), (2.0, 1.0)])
def test_less_is_corrected_and_moved_the_better_the_voice_knows_the_speaker(
    synthesizer, reference, monkeypatch, difference, share
):
    band = np.tile(np.float32([-difference, difference]), 40)
    spectra = iter((np.zeros(80, np.float32), band))  # of the clone, of the reference
    monkeypatch.setattr(synthesis, "average_spectrum", lambda mel: next(spectra))
    timbre = synthesizer._request([TEXTS["en"]], "en", "", reference, "", None, *CONTROLS).timbre
    assert np.allclose(timbre.spectral_correction, share * band, atol=1e-5)
    assert timbre.spectral_correction.dtype == np.float32
    assert timbre.similarity == pytest.approx(share * DEFAULT_SIMILARITY)
    spectra = iter((np.zeros(80, np.float32), band))
    given = synthesizer._request([TEXTS["en"]], "en", "", reference, "", 0.2, *CONTROLS).timbre
    assert given.similarity == 0.2


def test_the_similarity_moves_a_clone_towards_the_frames_of_its_reference(synthesizer, reference):
    frames = MelExtractor(synthesizer.config.audio).numpy(synthesizer._read_reference(reference))

    def distance(similarity):
        mel = synthesizer.synthesize(TEXTS["en"], "en", reference=reference, similarity=similarity).mel
        assert mel.dtype == np.float32
        return float(np.mean([np.abs(frames - frame).mean(1).min() for frame in mel]))

    far, middle, near = (distance(share) for share in (0.0, 0.5, 1.0))
    assert near < middle < far
    assert near < 0.7 * far


@pytest.mark.parametrize("similarity", [-0.1, 1.1, float("nan")])
def test_a_similarity_out_of_range_is_refused(synthesizer, reference, similarity):
    with pytest.raises(SynthesisError, match=r"similarity is .*, but must lie between 0\.0 and 1\.0"):
        synthesizer.synthesize(TEXTS["en"], "en", reference=reference, similarity=similarity)
    with pytest.raises(SynthesisError, match="similarity requires reference; give a reference"):
        synthesizer.synthesize(TEXTS["en"], "en", similarity=0.5)


def test_a_stream_of_a_clone_has_its_similarity(synthesizer, reference):
    streams = [
        np.concatenate(list(synthesizer.stream(TEXTS["en"], "en", reference=reference, similarity=share)))
        for share in (0.0, 1.0)
    ]
    assert not np.allclose(*streams)


def test_a_language_without_sentences_is_cloned_from_the_text_itself(synthesizer, calls, generated_corpus, monkeypatch):
    monkeypatch.setattr(synthesis, "shipped_languages", lambda: ())
    clip = next(clip for clip in read_manifest(generated_corpus) if clip.language == "en")
    synthesizer.synthesize(TEXTS["en"], "en", reference=generated_corpus / clip.audio)
    measured, spoken = calls
    assert np.array_equal(measured.mel, spoken.mel)


def test_pitch_and_energy_shifts_are_normalized_by_the_deviations_of_speaker_and_corpus(synthesizer, calls):
    name = synthesizer.speakers[-1]
    synthesizer.voice.speakers[name] = replace(synthesizer.voice.speakers[name], log_f0_std=0.3)
    synthesizer.voice = replace(synthesizer.voice, energy_std=1.7)
    prosody = ProsodyControls(speed=1.25, pitch_scale=1.2, energy_scale=0.6)
    synthesizer.synthesize(TEXTS[synthesizer.voice.speaker_languages[name]], speaker=name, prosody=prosody)
    shifted, plain = (call.shift for call in calls)
    assert shifted == ProsodyShift(
        speed=1.25, pitch=pytest.approx(math.log(1.2) / 0.3), energy=pytest.approx(math.log(0.6) / 1.7)
    )
    assert plain == ProsodyShift(speed=1.25)  # the prediction to compare with has the same speed


def test_the_waveform_is_scaled_by_the_part_of_the_pitch_change_that_the_model_did_not_follow(synthesizer, monkeypatch):
    rate, original = synthesizer.sample_rate, synthesizer.voice.model.synthesize

    def hum(f0: float) -> torch.Tensor:
        phase = 2 * np.pi * f0 * np.arange(rate) / rate
        tone = sum(0.1 * np.sin(k * phase) / k for k in range(1, 20)).astype(np.float32)
        return torch.from_numpy(MelExtractor(synthesizer.config.audio).numpy(tone))[None]

    def follow_halfway(*arguments):
        return replace(original(*arguments), mel=hum(150.0 if arguments[-1].pitch == 0 else 165.0))

    monkeypatch.setattr(synthesizer.voice.model, "synthesize", follow_halfway)
    pitches = []
    for scale in (1.0, 1.2):
        samples = synthesizer.synthesize(TEXTS["en"], "en", prosody=ProsodyControls(pitch_scale=scale)).samples
        track = track_pitch(samples, synthesizer.config.audio, synthesizer.config.features)
        pitches.append(float(np.median(track[track > 0])))
    assert pitches[1] / pitches[0] == pytest.approx(1.2, rel=0.03)


def test_the_variance_of_the_mel_is_restored_before_the_vocoder(synthesizer, calls):
    factors = np.linspace(1.2, 2.0, synthesizer.config.audio.n_mels)
    synthesizer.voice = replace(synthesizer.voice, variance_factors=factors.tolist())
    speech = synthesizer.synthesize(TEXTS["en"], "en")
    assert np.allclose(speech.mel.std(0), calls[0].mel.std(0) * factors, rtol=1e-3)


@pytest.mark.parametrize(
    ("controls", "name", "low", "high"),
    [
        (ProsodyControls, "speed", 0.25, 4),
        (ProsodyControls, "pitch_scale", 0.5, 2),
        (ProsodyControls, "energy_scale", 0.1, 10),
        (StyleControls, "variation", 0, 2),
    ],
)
def test_controls_are_accepted_up_to_their_bounds_and_refused_beyond(controls, name, low, high):
    for value in (low, high):
        assert getattr(controls(**{name: value}), name) == value
    for value in (low - 0.01, high + 0.01, math.nan):
        with pytest.raises(SynthesisError, match=f"{name} is {value}"):
            controls(**{name: value})


def test_the_python_api_of_the_readme(folder, generated_corpus, tmp_path):
    voice = Synthesizer(str(folder))
    clip = read_manifest(generated_corpus)[0]
    spoken = voice.synthesize("Good morning.")
    cloned = voice.synthesize("Good morning.", reference=str(generated_corpus / clip.audio))
    for speech, name in ((spoken, "spoken.wav"), (cloned, "cloned.flac")):
        path = speech.save(str(tmp_path / name))
        saved = read_audio(path, voice.sample_rate)
        assert np.abs(saved - speech.samples.clip(-1, 1)).max() < 1e-4  # 16-bit samples
    assert not np.array_equal(spoken.mel, cloned.mel)


@pytest.mark.parametrize("start", ["random", "continued"])
def test_a_stream_is_the_speech_of_the_sentences(folder, start):
    description = json.loads((folder / "voice.json").read_text())
    settings = {**description["config"]["vocoder"], "griffin_lim_start": start, "chunk_frames": 20}
    synthesizer = Synthesizer(folder)
    synthesizer.vocoder = build_vocoder(VocoderConfig(**settings), synthesizer.config.audio)
    sentences = ["Good morning.", "How are you?"]
    chunks = list(synthesizer.stream(" ".join(sentences), "en"))
    whole = [synthesizer.synthesize(sentence, "en").samples for sentence in sentences]
    assert np.abs(np.concatenate(chunks) - np.concatenate(whole)).max() < 1e-4
    assert (len(chunks) > 2) == (start == "continued")


def test_a_stream_keeps_the_controls(synthesizer):
    for prosody in (ProsodyControls(energy_scale=0.5, speed=1.5), ProsodyControls(speed=1.5)):
        chunks = list(synthesizer.stream("Good morning.", "en", prosody=prosody))
        whole = synthesizer.synthesize("Good morning.", "en", prosody=prosody).samples
        assert np.abs(np.concatenate(chunks) - whole).max() < 1e-4


def test_a_stream_refuses_its_arguments_at_once(synthesizer):
    with pytest.raises(SynthesisError, match="unknown speaker"):
        synthesizer.stream("Good morning.", speaker="nobody")
    with pytest.raises(TextError, match="the text is empty"):
        next(synthesizer.stream("  ", "en"))


def test_a_long_text_is_spoken_in_pieces_of_bounded_length(synthesizer, calls):
    sentence = "Good morning to you."
    text = " ".join([sentence] * 60)
    assert len(text) > 2 * LONGEST_PIECE
    synthesizer.vocoder = lambda mel: np.zeros(len(mel) * 256, dtype=np.float32)
    speech = synthesizer.synthesize(text, "en")
    lengths = [len(call.mel) for call in calls]
    assert len(lengths) == 3
    assert len(speech.mel) == sum(lengths)
    assert len(speech.samples) == len(speech.mel) * 256
    assert len(speech.durations) == len(speech.phones)
    assert speech.durations.sum() == len(speech.mel)


def test_pieces_without_a_word_are_left_out(synthesizer, calls):
    chunks = list(synthesizer.stream("Good morning. ... How are you?", "en"))
    assert len(calls) == 2
    assert sum(map(len, chunks)) == 256 * sum(len(call.mel) for call in calls)


def test_a_voice_from_before_continued_phases_keeps_its_sound(folder, tmp_path):
    voice = shutil.copytree(folder, tmp_path / "voice")
    description = json.loads((voice / "voice.json").read_text())
    description["config"]["vocoder"] = {"type": "griffin_lim", "griffin_lim_iterations": 3}
    (voice / "voice.json").write_text(json.dumps(description))
    old = Synthesizer(voice)
    mel = np.full((9, old.config.audio.n_mels), -4.0, dtype=np.float32)
    assert np.array_equal(old.vocoder(mel), GriffinLim(old.config.audio, 3, 0.99)(mel))
