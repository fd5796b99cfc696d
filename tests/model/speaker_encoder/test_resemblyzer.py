"""Resemblyzer equals the original, fails without its weights, and distinguishes speakers."""

import importlib
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from model.audio.io import read_audio, resample
from model.speaker_encoder import SAMPLE_RATE, Resemblyzer, SpeakerEncoderError, centroid, resemblyzer
from model.speaker_encoder.resemblyzer import WHEELS, window_starts

WHEEL = next(iter(WHEELS.glob("[Rr]esemblyzer-*.whl")), None)
pytestmark = pytest.mark.skipif(WHEEL is None, reason=f"{WHEELS} lacks the wheel with the weights (`make install`)")


@pytest.fixture(scope="module")
def encoder() -> Resemblyzer:
    return Resemblyzer.load()


@pytest.fixture(scope="module")
def original(monkeypatch_module, tmp_path_factory):
    """The original network and front end from the wheel, without the modules that we do not install."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    package = types.ModuleType("resemblyzer")
    package.__path__ = [str(folder / "resemblyzer")]
    morphology = types.ModuleType("scipy.ndimage.morphology")
    morphology.binary_dilation = None
    for name, module in {
        "resemblyzer": package,
        "webrtcvad": types.ModuleType("webrtcvad"),
        "scipy.ndimage.morphology": morphology,
    }.items():
        monkeypatch_module.setitem(sys.modules, name, module)
    voice_encoder = importlib.import_module("resemblyzer.voice_encoder")
    yield voice_encoder.VoiceEncoder("cpu", verbose=False)
    for name in [name for name in sys.modules if name.startswith("resemblyzer")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def voice_like(seconds: float, f0: float = 140.0, seed: int = 0) -> np.ndarray:
    """Returns harmonics with a moving pitch, loud enough not to be amplified."""
    generator = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(f0 * (1 + 0.1 * np.sin(3 * t))) / SAMPLE_RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    return (0.15 * tone + 0.01 * generator.standard_normal(len(t))).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.7, 1.6, 2.0, 3.33, 8.0])
def test_equals_the_original(encoder, original, seconds):
    samples = voice_like(seconds)
    assert np.abs(encoder.embed(samples) - original.embed_utterance(samples)).max() < 1e-4


@pytest.mark.parametrize("samples", [100, 25599, 25600, 40000, 64000, 100001])
def test_windows_start_where_those_of_the_original_do(original, samples):
    _, slices = original.compute_partial_slices(samples, rate=1.3, min_coverage=0.75)
    assert window_starts(samples) == [piece.start for piece in slices]


def test_vectors_have_unit_length_and_any_rate_is_accepted(encoder):
    samples = voice_like(2.0)
    vector = encoder.embed(samples, 22050)
    assert vector.shape == (256,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    higher = resample(samples, SAMPLE_RATE, 22050)
    assert encoder.embed(higher, 22050) @ encoder.embed(samples) > 0.99 > encoder.embed(higher) @ encoder.embed(samples)


def test_many_at_once_equal_one_by_one(encoder):
    clips = [voice_like(1.0), voice_like(4.0, 220.0), voice_like(2.5, 90.0)]
    together = encoder.embed_many(clips)
    for clip, vector in zip(clips, together, strict=True):
        assert np.abs(encoder.embed(clip) - vector).max() < 1e-5


def test_an_embedding_does_not_depend_on_its_batch(encoder):
    recordings = [
        voice_like(seconds, f0=100 + 7 * seconds, seed=int(seconds)) for seconds in (1.0, 3.0, 9.0, 5.0, 30.0)
    ]
    together = encoder.embed_many(recordings)
    for recording, vector in zip(recordings, together, strict=True):
        assert np.array_equal(encoder.embed(recording), vector)


def test_quiet_recordings_are_raised_to_one_level(encoder):
    samples = voice_like(2.0) * 0.01
    assert np.abs(encoder.embed(samples) - encoder.embed(samples * 0.1)).max() < 1e-3


def test_missing_weights_are_an_error_that_names_the_fix(tmp_path, monkeypatch):
    with pytest.raises(SpeakerEncoderError, match=r"pip download --no-deps --dest .* resemblyzer"):
        Resemblyzer.load(tmp_path / "pretrained.pt")
    monkeypatch.setattr(resemblyzer, "WHEELS", tmp_path / "share")
    with pytest.raises(SpeakerEncoderError, match=r"share: the speaker encoder's weights are missing"):
        Resemblyzer.load()


def test_other_weights_are_refused(tmp_path):
    torch.save({"model_state": {"linear.weight": torch.zeros(3, 3)}}, tmp_path / "pretrained.pt")
    with pytest.raises(SpeakerEncoderError, match="not the weights"):
        Resemblyzer.load(tmp_path / "pretrained.pt")
    for name in ("pretrained.pt", "resemblyzer-1-py3-none-any.whl"):
        (tmp_path / name).write_bytes(b"no checkpoint")
        with pytest.raises(SpeakerEncoderError, match="not the weights"):
            Resemblyzer.load(tmp_path / name)
    with zipfile.ZipFile(tmp_path / name, "w") as wheel:
        wheel.writestr("resemblyzer/__init__.py", "")
    with pytest.raises(SpeakerEncoderError, match="not the weights"):
        Resemblyzer.load(tmp_path / name)


def test_silence_has_no_speaker(encoder):
    with pytest.raises(SpeakerEncoderError, match="without any sound"):
        encoder.embed(np.zeros(SAMPLE_RATE, dtype=np.float32))


def test_the_centroid_is_the_mean_direction():
    found = centroid(np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32))
    assert found == pytest.approx(np.array([1, 2]) / np.sqrt(5))


def test_no_parameter_is_trained(encoder):
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.real_data
def test_clips_of_one_speaker_are_closer_than_those_of_two(encoder, real_data):
    clips = {
        name: [read_audio(path, SAMPLE_RATE) for path in sorted((real_data / name / "wavs").iterdir())[:4]]
        for name in ("kathleen", "ljspeech")
    }
    vectors = {name: encoder.embed_many(own) for name, own in clips.items()}
    within = np.mean([own @ own.T for own in vectors.values()])
    assert within > (vectors["kathleen"] @ vectors["ljspeech"].T).mean() + 0.1
    first, second = (centroid(own) for own in vectors.values())
    assert all(own @ first > own @ second for own in vectors["kathleen"])
    assert all(own @ second > own @ first for own in vectors["ljspeech"])


def test_saved_weights_are_the_same_encoder(tmp_path):
    encoder = Resemblyzer.load()
    again = Resemblyzer.load(encoder.save(tmp_path / "encoder.safetensors"))
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    assert np.array_equal(encoder.embed(noise), again.embed(noise))
