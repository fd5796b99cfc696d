"""What a request becomes: whose voice and language are chosen, and what the model and the vocoder are asked for."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from model.acoustic.model import ProsodyShift
from model.audio.mel import MelExtractor
from model.audio.pitch import track_pitch
from model.config.resolution import resolve
from model.corpus.manifest import read_manifest
from model.synthesis import ProsodyControls, StyleControls, Synthesizer
from model.training.trainer import train

TEXTS = {"en": "Good morning.", "fa": "سلام"}


@dataclass
class Call:
    """One call of the model's `synthesize`: speaker vector (V,), positions of languages, controls, log-mel (S, M)."""

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
    return Synthesizer.load(folder)


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
def test_a_language_alone_chooses_a_speaker_of_it(synthesizer, calls, language):
    synthesizer.synthesize(TEXTS[language], language)
    (call,) = calls
    assert np.allclose(call.vector, synthesizer.voice.speakers[speaker_of(synthesizer, language)].vector)
    assert (call.language, call.own_language) == (synthesizer.languages.index(language), None)


@pytest.mark.parametrize("language", TEXTS)
def test_a_speaker_alone_speaks_its_own_language(synthesizer, calls, language):
    synthesizer.synthesize(TEXTS[language], speaker=speaker_of(synthesizer, language))
    assert (calls[0].language, calls[0].own_language) == (synthesizer.languages.index(language), None)


@pytest.mark.parametrize("language", TEXTS)
def test_a_reference_alone_speaks_its_own_language(synthesizer, calls, generated_corpus, language):
    audio = next(clip.audio for clip in read_manifest(generated_corpus) if clip.language == language)
    synthesizer.synthesize(TEXTS[language], reference=generated_corpus / audio, reference_language=language)
    assert (calls[0].language, calls[0].own_language) == (synthesizer.languages.index(language), None)


def test_pitch_and_energy_are_shifted_in_deviations_of_the_speaker_and_of_the_corpus(synthesizer, calls):
    name = synthesizer.speakers[-1]
    synthesizer.voice.speakers[name] = replace(synthesizer.voice.speakers[name], log_f0_std=0.3)
    synthesizer.voice.energy_std = 1.7
    prosody = ProsodyControls(speed=1.25, pitch_scale=1.2, energy_scale=0.6)
    synthesizer.synthesize(TEXTS[synthesizer.voice.speaker_languages[name]], speaker=name, prosody=prosody)
    shifted, plain = (call.shift for call in calls)
    assert shifted == ProsodyShift(1.25, pytest.approx(math.log(1.2) / 0.3), pytest.approx(math.log(0.6) / 1.7))
    assert plain == ProsodyShift(1.25)  # what the model followed is measured at the same speed


def test_pitch_is_scaled_on_the_waveform_only_as_far_as_the_model_did_not_follow(synthesizer, monkeypatch):
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


def test_the_vocoder_is_given_mels_with_the_spread_of_recordings(synthesizer, calls):
    synthesizer.voice.variance_factors = np.linspace(1.2, 2.0, synthesizer.config.audio.n_mels).tolist()
    speech = synthesizer.synthesize(TEXTS["en"], "en")
    assert np.allclose(speech.mel.std(0), calls[0].mel.std(0) * synthesizer.voice.variance_factors, rtol=1e-3)


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
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            controls(**{name: value})
