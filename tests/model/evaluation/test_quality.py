"""Predicted quality without a reference."""

import numpy as np
import pytest

from model.audio.io import resample
from model.evaluation.metric_table import METRIC_TABLE
from model.evaluation.quality import SAMPLE_RATE, WINDOW, PredictedQuality
from model.text.espeak import speak


@pytest.fixture(scope="module")
def quality() -> PredictedQuality:
    return PredictedQuality()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    samples, rate, _ = speak("The birch canoe slid on the smooth planks, and the sun came up over the lake.", "en")
    return resample(samples.astype(np.float32), rate, SAMPLE_RATE)


def test_noise_and_distortion_lower_the_score(quality, speech):
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    scores = [quality.score(speech + level * noise).value for level in (0.0, 0.01, 0.1)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[2] > 0.3
    assert METRIC_TABLE["dnsmos"].worsening(scores[2] - scores[0]) > 0
    assert all(1.0 <= score <= 5.0 for score in scores)


def test_the_score_is_that_of_the_package(quality, speech, monkeypatch):
    """On speech shorter and longer than a window, where the package repeats it or takes the mean of several."""
    import onnxruntime
    from speechmos import dnsmos

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(dnsmos.ort, "InferenceSession", lambda path: session(path, options))
    for samples in (speech, np.tile(speech, 3)[: WINDOW + 2 * SAMPLE_RATE]):
        expected = dnsmos.run(np.clip(samples, -1, 1), SAMPLE_RATE)["p808_mos"]
        assert quality.score(samples).value == pytest.approx(expected, abs=1e-3)


def test_silence_of_no_length_has_no_score(quality):
    assert quality.score(np.zeros(0, np.float32)).reason == "there is no speech"
