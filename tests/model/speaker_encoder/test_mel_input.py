"""Embeddings of log-mels approximate those of the samples, and have gradients for the mels only."""

import numpy as np
import pytest
import torch

from model.audio import SILENCE
from model.audio.io import resample
from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.speaker_encoder import SAMPLE_RATE, MelResemblyzer, Resemblyzer, mel_input
from model.speaker_encoder.mel_input import filter_responses, frame_weights
from model.speaker_encoder.resemblyzer import HOP_LENGTH, WHEELS, WINDOW_FRAMES

pytestmark = pytest.mark.skipif(
    not list(WHEELS.glob("[Rr]esemblyzer-*.whl")), reason=f"{WHEELS} lacks the wheel with the weights (`make install`)"
)
AUDIO = AudioConfig()


@pytest.fixture(scope="module")
def encoder() -> Resemblyzer:
    return Resemblyzer.load()


@pytest.fixture(scope="module")
def embed(encoder) -> MelResemblyzer:
    return MelResemblyzer(AUDIO, encoder)


def voice_like(f0: float, formant: float, level: float = 0.1) -> np.ndarray:
    """Returns 1.6 s of harmonics with a moving pitch and one formant, at the extractor's sample rate."""
    t = np.arange(int(1.6 * AUDIO.sample_rate) + AUDIO.hop_length) / AUDIO.sample_rate
    phase = 2 * np.pi * np.cumsum(f0 * (1 + 0.1 * np.sin(3 * t))) / AUDIO.sample_rate
    tone = sum(np.sin(k * phase) / (1 + ((k * f0 - formant) / 300) ** 2) for k in range(1, 40) if k * f0 < 7500)
    return (level * tone / np.sqrt(np.mean(tone**2))).astype(np.float32)


def mel_of(samples: np.ndarray, frames: int) -> torch.Tensor:
    return torch.from_numpy(MelExtractor(AUDIO).numpy(samples))[None, :frames]


VOICES = ((110.0, 500.0), (150.0, 900.0), (210.0, 1500.0), (260.0, 2500.0))


def test_embeddings_resemble_those_of_the_samples(encoder, embed):
    recordings = [voice_like(*voice) for voice in VOICES]
    ours = torch.cat([embed(mel_of(samples, embed.frames)) for samples in recordings])
    theirs = torch.from_numpy(encoder.embed_many(recordings, AUDIO.sample_rate))
    cosines = ours @ theirs.T
    assert ours.norm(dim=1).numpy() == pytest.approx(1.0, abs=1e-5)
    assert cosines.diagonal().min() > 0.75
    assert cosines.argmax(1).tolist() == list(range(len(VOICES)))  # each is nearest to its own samples


def test_magnitudes_that_are_fitted_to_the_mel_come_closer(encoder, embed, monkeypatch):
    samples = voice_like(150.0, 900.0)
    wanted = torch.from_numpy(encoder.embed(samples, AUDIO.sample_rate))
    fitted = float(embed(mel_of(samples, embed.frames))[0] @ wanted)
    monkeypatch.setattr(mel_input, "MAGNITUDE_UPDATES", 0)
    assert fitted > float(embed(mel_of(samples, embed.frames))[0] @ wanted) + 0.02


def test_gradients_reach_the_mels_and_not_the_weights(embed):
    mel = mel_of(voice_like(150.0, 900.0), embed.frames).requires_grad_()
    embed(mel).max().backward()
    assert float(mel.grad.abs().sum()) > 0
    assert bool(mel.grad.isfinite().all())
    assert not any(parameter.requires_grad for parameter in embed.parameters())


def test_silence_has_finite_gradients(embed):
    mel = torch.full((1, embed.frames, AUDIO.n_mels), SILENCE, requires_grad=True)
    embed(mel).sum().backward()
    assert bool(mel.grad.isfinite().all())


def test_quiet_recordings_are_raised_as_resemblyzer_does(encoder, embed):
    loud, quiet = (embed(mel_of(voice_like(150.0, 900.0, level), embed.frames)) for level in (0.032, 0.004))
    assert float((loud * quiet).sum()) > 0.999
    louder = embed(mel_of(voice_like(150.0, 900.0, 0.3), embed.frames))
    assert float((loud * louder).sum()) < 0.999  # beyond that level, loudness counts


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 3300.0])
def test_a_sinusoid_has_the_filter_outputs_of_resemblyzers_front_end(encoder, embed, frequency):
    t = np.arange(2 * WINDOW_FRAMES * HOP_LENGTH) / SAMPLE_RATE
    theirs = encoder.pieces((0.2 * np.sin(2 * np.pi * frequency * t)).astype(np.float32))[0, 80]
    row = filter_responses(encoder, frequency, 2)[1] * (0.2 / 2) ** 2
    assert row.numpy() == pytest.approx(theirs.numpy(), rel=0.02, abs=1e-3 * float(theirs.max()))


def test_frames_are_interpolated_at_the_positions_of_resemblyzers(embed):
    weights = frame_weights(AUDIO, embed.frames)
    assert weights.shape == (WINDOW_FRAMES, embed.frames)
    assert weights.sum(1).numpy() == pytest.approx(1.0, abs=1e-5)
    centers = (np.arange(embed.frames) + 0.5) * AUDIO.hop_length / AUDIO.sample_rate
    found = weights.double().numpy() @ centers
    wanted = np.arange(WINDOW_FRAMES) * HOP_LENGTH / SAMPLE_RATE
    inside = (wanted >= centers[0]) & (wanted <= centers[-1])
    assert inside.sum() >= WINDOW_FRAMES - 2
    assert found[inside] == pytest.approx(wanted[inside], abs=1e-4)


def test_other_mel_settings_cover_the_same_time(encoder):
    coarse = AudioConfig(sample_rate=16000, hop_length=200, fmax=8000.0)
    other = MelResemblyzer(coarse, encoder)
    assert other.frames == 128
    samples = resample(voice_like(150.0, 900.0), AUDIO.sample_rate, 16000)
    mel = torch.from_numpy(MelExtractor(coarse).numpy(samples))[None, :128]
    wanted = torch.from_numpy(encoder.embed(samples, 16000))
    assert float(other(mel)[0] @ wanted) > 0.9
