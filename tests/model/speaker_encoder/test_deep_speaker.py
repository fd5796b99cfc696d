"""Deep Speaker reads weights of the published layout only, equals the published network, and is never untrained."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from model.config.resolution import ConfigError, resolve
from model.speaker_encoder import DeepSpeaker, SpeakerEncoderError, load_speaker_encoder
from model.speaker_encoder.base import SAMPLE_RATE
from model.speaker_encoder.deep_speaker import BANDS, CHANNELS, PIECE_FRAMES, filterbank


def layers_of_the_paper() -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns layer -> variable -> shape of the published file (Keras: height, width, inputs, outputs)."""

    def norm(channels: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (channels,))

    layers, inputs = {}, 1
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        layers[f"conv{channels}-s"] = {"kernel": (5, 5, inputs, channels), "bias": (channels,)}
        layers[f"conv{channels}-s_bn"] = norm(channels)
        for block in range(3):
            for letter in "ab":
                name = f"res{stage}_{block}_branch_2{letter}"
                layers[name] = {"kernel": (3, 3, channels, channels), "bias": (channels,)}
                layers[f"{name}_bn"] = norm(channels)
        inputs = channels
    return layers | {"affine": {"kernel": (2048, 512), "bias": (512,)}}


def write_keras(path: Path, layers: dict[str, dict[str, np.ndarray]], root: str = "") -> Path:
    with h5py.File(path, "w") as file:
        for layer, variables in layers.items():
            for name, value in variables.items():
                file[f"{root}{layer}/{layer}/{name}:0"] = value
    return path


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, np.ndarray]]:
    """Random weights in the published layout, scaled so that no layer's output vanishes."""
    generator = np.random.default_rng(0)
    layers = {}
    for layer, variables in layers_of_the_paper().items():
        layers[layer] = {}
        for name, shape in variables.items():
            if name in ("gamma", "moving_variance"):
                value = generator.uniform(0.5, 1.5, shape)
            else:
                value = generator.normal(0, np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.1, shape)
            layers[layer][name] = value.astype(np.float32)
    return layers


@pytest.fixture(scope="module")
def weights(published, tmp_path_factory) -> Path:
    return write_keras(tmp_path_factory.mktemp("weights") / "ResCNN.h5", published)


@pytest.fixture(scope="module")
def encoder(weights) -> DeepSpeaker:
    return DeepSpeaker.load(weights, hashlib.sha256(weights.read_bytes()).hexdigest())


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def test_has_the_published_shapes(encoder):
    """The paper's network at 64 bands has 24 million parameters, without the statistics of the norms."""
    assert sum(parameter.numel() for parameter in encoder.parameters()) == sum(
        int(np.prod(shape))
        for variables in layers_of_the_paper().values()
        for name, shape in variables.items()
        if not name.startswith("moving_")
    )
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("seconds", [0.3, 1.6, 2.5])
def test_vectors_have_unit_length(encoder, seconds):
    vector = encoder.embed(noise(seconds))
    assert vector.shape == (512,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_computes_what_keras_would(encoder, published):
    """Stage by stage against the definition of Keras' layers, written out in float64."""

    def convolve(x: np.ndarray, layer: str, stride: int) -> np.ndarray:
        kernel, bias = published[layer]["kernel"].astype(float), published[layer]["bias"]
        size, (rows, columns) = kernel.shape[0], (-(-n // stride) for n in x.shape[:2])
        totals = [max((out - 1) * stride + size - n, 0) for out, n in zip((rows, columns), x.shape, strict=False)]
        padded = np.pad(x, [*((total // 2, total - total // 2) for total in totals), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))[::stride, ::stride]
        return np.einsum("rcihw,hwio->rco", windows[:rows, :columns], kernel) + bias

    def norm(x: np.ndarray, layer: str) -> np.ndarray:
        own = published[layer]
        return own["gamma"] * (x - own["moving_mean"]) / np.sqrt(own["moving_variance"] + 1e-3) + own["beta"]

    def clip(x: np.ndarray) -> np.ndarray:
        return x.clip(0, 20)

    piece = torch.from_numpy(noise(0.1, 3)[: 16 * BANDS].reshape(1, 16, BANDS))
    x = piece[0, :, :, None].numpy().astype(float)
    for stage, channels in enumerate(CHANNELS, 1):
        x = clip(norm(convolve(x, f"conv{channels}-s", 2), f"conv{channels}-s_bn"))
        for block in range(3):
            name = f"res{stage}_{block}_branch_2"
            inner = clip(norm(convolve(x, f"{name}a", 1), f"{name}a_bn"))
            x = clip(clip(norm(convolve(inner, f"{name}b", 1), f"{name}b_bn")) + x)
    means = x.reshape(-1, 2048).mean(0)
    wanted = means @ published["affine"]["kernel"] + published["affine"]["bias"]
    assert encoder(piece)[0].numpy() == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)


def test_filters_are_the_published_ones():
    """Triangles between the bins floor((n + 1) f / rate), computed by the loops of their definition."""
    edges = [0.0] * (BANDS + 2)
    for i in range(BANDS + 2):
        mel = i * 2595 * np.log10(1 + 8000 / 700) / (BANDS + 1)
        edges[i] = np.floor(513 * 700 * (10 ** (mel / 2595) - 1) / 16000)
    bank = np.zeros((BANDS, 257))
    for j in range(BANDS):
        for i in range(int(edges[j]), int(edges[j + 1])):
            bank[j, i] = (i - edges[j]) / (edges[j + 1] - edges[j])
        for i in range(int(edges[j + 1]), int(edges[j + 2])):
            bank[j, i] = (edges[j + 2] - i) / (edges[j + 2] - edges[j + 1])
    assert np.abs(filterbank() - bank).max() < 1e-6


def test_frames_are_normalized_and_loudness_does_not_matter(encoder):
    samples = noise(1.0)
    features = encoder.features(samples)
    assert features.shape == (99, BANDS)  # 1 + ceil((16000 - 400) / 160), the last one filled up
    assert features.mean(1).abs().max() < 1e-5
    assert (features.std(1, correction=0) - 1).abs().max() < 1e-4
    assert (encoder.features(samples * 0.1) - features).abs().max() < 1e-3


def test_pieces_cover_the_speech(encoder):
    pieces = encoder.pieces(noise(4.0))
    assert pieces.shape[1:] == (PIECE_FRAMES, BANDS)
    assert len(pieces) == 3
    short = encoder.pieces(noise(0.5))
    assert short.shape == (1, PIECE_FRAMES, BANDS)
    assert bool((short[0, -1] == 0).all())


def test_an_embedding_does_not_depend_on_its_batch(encoder):
    recordings = [noise(1.0, 1), noise(2.5, 2)]
    for recording, vector in zip(recordings, encoder.embed_many(recordings), strict=True):
        assert np.array_equal(encoder.embed(recording), vector)


def test_a_whole_saved_model_and_its_classifier_are_read_too(encoder, published, tmp_path):
    layers = published | {"dense": {"kernel": np.zeros((512, 251)), "bias": np.zeros(251)}}
    again = DeepSpeaker.load(write_keras(tmp_path / "model.h5", layers, "model_weights/"))
    assert np.array_equal(again.embed(noise(0.5)), encoder.embed(noise(0.5)))


def test_saved_weights_are_the_same_encoder(encoder, tmp_path):
    again = DeepSpeaker.load(encoder.save(tmp_path / "encoder.safetensors"))
    assert np.array_equal(again.embed(noise(0.5)), encoder.embed(noise(0.5)))


def test_missing_weights_are_an_error_that_says_where_to_get_them(tmp_path):
    for path in (None, tmp_path / "absent.h5"):
        with pytest.raises(SpeakerEncoderError, match=r"weights are missing; get ResCNN.*philipperemy/deep-speaker"):
            DeepSpeaker.load(path)


def test_a_wrong_checksum_is_refused_with_both(weights):
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    with pytest.raises(SpeakerEncoderError, match=rf"SHA-256 is {found}, but .* says {'0' * 64}"):
        DeepSpeaker.load(weights, "0" * 64)


def test_other_weights_are_refused(published, tmp_path):
    del (incomplete := dict(published))["affine"]
    with pytest.raises(SpeakerEncoderError, match="not the weights"):
        DeepSpeaker.load(write_keras(tmp_path / "incomplete.h5", incomplete))
    narrow = published | {"affine": {"kernel": np.zeros((2048, 256)), "bias": np.zeros(256)}}
    with pytest.raises(SpeakerEncoderError, match="not the weights"):
        DeepSpeaker.load(write_keras(tmp_path / "narrow.h5", narrow))
    (tmp_path / "text.h5").write_bytes(b"no checkpoint")
    with pytest.raises(SpeakerEncoderError, match="not the weights"):
        DeepSpeaker.load(tmp_path / "text.h5")


def test_silence_has_no_speaker(encoder):
    with pytest.raises(SpeakerEncoderError, match="without any sound"):
        encoder.embed(np.zeros(SAMPLE_RATE, dtype=np.float32))


def test_settings_select_it_and_require_a_checksum(weights):
    chosen = {"features.speaker_encoder_model": "deep_speaker", "features.speaker_encoder_weights": str(weights)}
    with pytest.raises(ConfigError, match="philipperemy/deep-speaker"):
        resolve(None, None, chosen)
    checked = chosen | {"features.speaker_encoder_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    config = resolve(None, None, checked).config
    assert isinstance(load_speaker_encoder(config.features), DeepSpeaker)


def test_features_depend_on_the_checksum_of_the_weights_not_on_their_path(weights):
    def extraction(place: str, checksum: str) -> dict:
        settings = {
            "features.speaker_encoder_model": "deep_speaker",
            "features.speaker_encoder_weights": place,
            "features.speaker_encoder_sha256": checksum,
        }
        return resolve(None, None, settings).config.features.extraction()

    assert extraction("here.h5", "0" * 64) == extraction("there.h5", "0" * 64)
    assert extraction("here.h5", "0" * 64) != extraction("here.h5", "1" * 64)
