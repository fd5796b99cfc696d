"""A voice with every model feature, from training to synthesis: stored speaker styles and style controls."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.audio.io import AudioError, read_audio, write_audio
from model.audio.loudness import loudness
from model.audio.mel import MelExtractor, frame_energy
from model.audio.pitch import track_pitch
from model.config.resolution import resolve
from model.corpus.manifest import read_manifest
from model.synthesis import ProsodyControls, StyleControls, SynthesisError, Synthesizer
from model.training.trainer import train

FEATURES = {
    "model.use_location_attention": True,
    "model.use_forward_attention": True,
    "model.forward_attention_mask": True,
    "model.enable_gst": True,
    "model.use_variational_encoder": True,
    "model.use_pretrained_speaker_encoder": False,
    "model.use_speaker_consistency_loss": True,
    "loss.use_guided_attention": True,
    "loss.use_contrastive_speaker_loss": True,
    "loss.contrastive_clips_per_speaker": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_settings, generated_features):
    folder = tmp_path_factory.mktemp("styled")
    train(resolve(None, None, {**small_settings, **FEATURES}).config, generated_features, folder)
    return folder


@pytest.fixture(scope="module")
def voice(run):
    return Synthesizer(run / "voice")


def difference(one, other):
    """Returns the largest difference of two log-mels, or 1 where their lengths differ."""
    if one.mel.shape != other.mel.shape:
        return 1.0
    return float(np.abs(one.mel - other.mel).max())


def test_loss_terms_of_every_feature_are_logged(run):
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    reported = {name for line in lines for name in line}
    for term in ("guided_attention", "kl", "contrastive_speaker", "speaker_consistency"):
        assert {f"train/{term}", f"validation/{term}"} <= reported


def test_the_use_of_style_tokens_and_latent_is_logged(run):
    last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    assert 1 <= last["validation/style_tokens_used"] <= 10
    assert 0 <= last["validation/active_units"] <= 16
    assert sum(last[f"validation/kl_dimension_{i:02d}"] for i in range(16)) >= 0
    assert sum(last[f"validation/style_token_{i:02d}"] for i in range(10)) == pytest.approx(1, abs=1e-3)


def test_speakers_are_stored_with_their_style(voice):
    for speaker in voice.voice.speakers.values():
        assert np.linalg.norm(speaker.vector) == pytest.approx(1, abs=1e-4)
        assert np.allclose(np.sum(speaker.style, axis=1), 1, atol=1e-4)


def test_the_stored_style_of_a_speaker_is_its_default_style(voice, monkeypatch):
    name, row = voice.speakers[0], [0.0, 1.0] + [0.0] * 8
    usual = replace(voice.voice.speakers[name], style=[row] * voice.config.model.gst_num_heads)
    chosen, before = StyleControls(token_weights=row), voice.synthesize("Good morning.", "en", name)
    monkeypatch.setitem(voice.voice.speakers, name, usual)
    after = voice.synthesize("Good morning.", "en", name)
    assert difference(after, voice.synthesize("Good morning.", "en", name, style=chosen)) == 0
    assert difference(after, before) > 0


@pytest.fixture
def synthesize(voice, monkeypatch):
    """Returns a function from controls to (speaker embedding, style, speech): inputs of the model, and its output."""
    original, calls = voice.voice.model.synthesize, []

    def recording(ids, lengths, vector, language, style, *others):
        calls.append((vector, style))
        return original(ids, lengths, vector, language, style, *others)

    monkeypatch.setattr(voice.voice.model, "synthesize", recording)

    def call(**controls):
        speech = voice.synthesize("Good morning.", **controls)
        return (*calls.pop(), speech)

    return call


def test_style_controls_change_the_input_of_the_model_and_the_speech(synthesize):
    _, usual, plain = synthesize()
    assert difference(plain, synthesize()[2]) == 0
    weights, latent = [0.2, 0.0, 0.8] + [0.0] * 7, [3.0, *[-1.0] * 15]
    _, style, speech = synthesize(style=StyleControls(token_weights=weights))
    torch.testing.assert_close(style.token_weights, torch.tensor(weights).expand(1, 4, 10))
    assert difference(plain, speech) > 0
    _, style, speech = synthesize(style=StyleControls(latent=latent))
    assert style.latent.tolist() == [latent]
    assert torch.equal(style.token_weights, usual.token_weights)
    assert difference(plain, speech) > 0


def test_a_style_reference_overrides_the_style_of_the_cloned_voice(synthesize, generated_corpus):
    cloned, other = (generated_corpus / read_manifest(generated_corpus)[i].audio for i in (0, -1))
    (cloned_voice, cloned_style, own), (_, other_style, _) = synthesize(reference=cloned), synthesize(reference=other)
    assert not torch.equal(cloned_style.token_weights, other_style.token_weights)
    vector, style, speech = synthesize(reference=cloned, style=StyleControls(reference=other))
    assert torch.equal(vector, cloned_voice)
    for part in ("token_weights", "latent"):
        assert torch.equal(getattr(style, part), getattr(other_style, part))
    assert difference(own, speech) > 0
    assert difference(own, synthesize(reference=cloned, style=StyleControls(reference=cloned))[2]) == 0


def test_a_style_reference_keeps_the_speaker_and_a_reference_replaces_it(synthesize, generated_corpus):
    other = generated_corpus / read_manifest(generated_corpus)[-1].audio
    usual_voice, usual_style, _ = synthesize()
    cloned_voice, cloned_style, cloned = synthesize(reference=other)
    vector, style, speech = synthesize(style=StyleControls(reference=other))
    assert torch.equal(vector, usual_voice)
    assert not torch.equal(cloned_voice, usual_voice)
    assert torch.equal(style.token_weights, cloned_style.token_weights)
    assert not torch.equal(style.token_weights, usual_style.token_weights)
    assert difference(speech, cloned) > 0


def test_more_variation_deviates_more_from_the_mean_of_the_prior(voice):
    expected = voice.synthesize("Good morning.").mel.mean(0)
    deviations = []
    for variation in (0.3, 1.5):
        style = StyleControls(variation=variation)
        ways = [voice.synthesize("Good morning.", style=style).mel.mean(0) for _ in range(5)]
        deviations.append(float(np.abs(np.stack(ways) - expected).mean()))
    assert 0 < 2 * deviations[0] < deviations[1]


def test_silence_around_a_reference_is_trimmed_as_in_training(voice, generated_corpus, tmp_path):
    path = generated_corpus / read_manifest(generated_corpus)[0].audio
    samples = read_audio(path, voice.sample_rate)
    quiet = np.zeros(2 * voice.sample_rate, np.float32)
    write_audio(tmp_path / "long.wav", np.concatenate([quiet, samples, quiet]), voice.sample_rate)
    plain, padded = (len(voice._read_reference(file)) for file in (path, tmp_path / "long.wav"))
    assert abs(padded - plain) <= 2 * 0.08 * voice.sample_rate + 2 * 256  # at most the margins


def test_a_reference_has_the_loudness_of_the_features(voice, generated_corpus, monkeypatch):
    path = generated_corpus / read_manifest(generated_corpus)[0].audio
    features = voice.config.features.model_copy(update={"target_loudness": -30.0})
    monkeypatch.setattr(voice, "config", voice.config.model_copy(update={"features": features}))
    assert loudness(voice._read_reference(path), voice.sample_rate) == pytest.approx(-30, abs=0.1)


def test_style_weights_are_normalized(voice):
    once, twice = ([factor * weight for weight in (1.0, 3.0, *[0.0] * 8)] for factor in (1, 2))
    spoken = [
        voice.synthesize("Good morning.", style=StyleControls(token_weights=weights)) for weights in (once, twice)
    ]
    assert difference(*spoken) == 0


def test_every_style_token_and_latent_changes_the_speech(voice):
    """The mean standard deviation of the time-averaged log-mel must exceed 0.005."""
    torch.manual_seed(0)
    tokens = [
        voice.synthesize("Good morning.", style=StyleControls(token_weights=row)).mel.mean(0) for row in np.eye(10)
    ]
    latents = [voice.synthesize("Good morning.", style=StyleControls(variation=1.0)).mel.mean(0) for _ in range(6)]
    for ways in (tokens, latents):
        assert np.stack(ways).std(0).mean() > 0.005


def test_style_controls_that_do_not_fit_are_refused(voice):
    for control, message in (
        ({"token_weights": [1.0, 2.0]}, "give 10 numbers"),
        ({"token_weights": [0.0] * 10}, "not all 0"),
        ({"latent": [1.0]}, "this voice has 16"),
        ({"variation": 3.0}, "variation is 3"),
    ):
        with pytest.raises(SynthesisError, match=message):
            voice.synthesize("Good morning.", style=StyleControls(**control))


def test_energy_scale_changes_the_level_exactly(voice):
    plain = voice.synthesize("Good morning.")
    for scale in (0.5, 1.2):
        louder = voice.synthesize("Good morning.", prosody=ProsodyControls(energy_scale=scale))
        assert np.mean(frame_energy(louder.mel) - frame_energy(plain.mel)) == pytest.approx(np.log(scale), abs=1e-4)
        assert len(louder.samples) == len(plain.samples)


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_pitch_scale_is_exact_even_if_the_model_does_not_follow(voice, monkeypatch, scale):
    phase = 2 * np.pi * 150 * np.arange(voice.sample_rate) / voice.sample_rate
    tone = sum(0.1 * np.sin(k * phase) / k for k in range(1, 20)).astype(np.float32)
    mel = MelExtractor(voice.config.audio).numpy(tone)
    spoken = voice.voice.model.synthesize

    def without_change(*arguments, **controls):
        return replace(spoken(*arguments, **controls), mel=torch.from_numpy(mel)[None])

    monkeypatch.setattr(voice.voice.model, "synthesize", without_change)
    pitches = []
    for requested in (1.0, scale):
        samples = voice.synthesize("Good morning.", prosody=ProsodyControls(pitch_scale=requested)).samples
        f0 = track_pitch(samples, voice.config.audio, voice.config.features)
        pitches.append(float(np.median(f0[f0 > 0])))
    assert pitches[1] / pitches[0] == pytest.approx(scale, rel=0.05)


def test_speed_changes_the_length_exactly(voice):
    text = "Good morning, how are you this fine day?"
    plain, fast = (len(voice.synthesize(text, prosody=ProsodyControls(speed=speed)).mel) for speed in (0.5, 0.625))
    assert plain / fast == pytest.approx(1.25, rel=0.05)


@pytest.mark.parametrize("kind", ["five milliseconds", "silence", "noise"])
def test_a_reference_without_a_voice_is_refused_before_cloning(voice, tmp_path, kind):
    rate = voice.sample_rate
    noise = (0.1 * np.random.default_rng(0).standard_normal(3 * rate)).astype(np.float32)
    samples = {"five milliseconds": noise[: rate // 200], "silence": 0 * noise, "noise": noise}[kind]
    path = write_audio(tmp_path / "reference.wav", samples, rate)
    for chosen in ({"reference": path}, {"style": StyleControls(reference=path)}):
        with pytest.raises(AudioError, match=r"reference\.wav: (too short|silent|no voice)"):
            voice.synthesize("Good morning.", **chosen)
