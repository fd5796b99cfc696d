"""Metrics of a vocoder: distances clip by clip, PESQ where it is installed, and a note where it is not."""

import sys

import numpy as np
import pytest

from model.audio.griffin_lim import GriffinLim
from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.vocoder_training import perceptual
from model.vocoder_training.finetuning import Report
from model.vocoder_training.pairs import Pair
from model.vocoder_training.perceptual import UnratedError, wide_band_pesq
from model.vocoder_training.speech_metrics import compute_distances, compute_metrics

AUDIO = AudioConfig()


@pytest.fixture
def pairs(voiced):
    samples = [voiced(0.6, 120.0 + 60 * number, number)[: 50 * AUDIO.hop_length] for number in range(2)]
    return [Pair(f"clip{number}", MelExtractor(AUDIO).numpy(sound), sound) for number, sound in enumerate(samples)]


@pytest.fixture
def griffin_lim():
    return GriffinLim(AUDIO, iterations=4)


def test_means_are_those_of_the_clips(griffin_lim, pairs, monkeypatch):
    monkeypatch.setattr(perceptual, "INSTALLED", False)
    metrics = compute_metrics(griffin_lim, pairs, AUDIO)
    assert list(metrics.clips) == ["clip0", "clip1"]
    assert metrics.clips["clip0"] == compute_distances(griffin_lim, pairs[:1], AUDIO)
    assert metrics.mean() == pytest.approx(compute_distances(griffin_lim, pairs, AUDIO))
    assert "pesq" not in metrics.mean()


class FakePesq:
    """Double of the `pesq` package: refuses silence and short signals with the package's exceptions."""

    class NoUtterancesError(RuntimeError):
        pass

    class BufferTooShortError(RuntimeError):
        pass

    @classmethod
    def pesq(cls, rate, recorded, made, mode):
        assert (rate, mode) == (16000, "wb")
        if not recorded.any():
            raise cls.NoUtterancesError(b"No utterances detected")
        if len(recorded) < 4000:
            raise cls.BufferTooShortError(b"Buffer needs to be at least 1/4 of a second long")
        return 4.0


def test_a_clip_that_pesq_cannot_rate_is_left_out_and_counted(griffin_lim, pairs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", FakePesq)
    monkeypatch.setattr(perceptual, "INSTALLED", True)
    silent = Pair("silent", pairs[0].mel, np.zeros_like(pairs[0].samples))
    short = Pair("short", pairs[0].mel[:10], pairs[0].samples[: 10 * AUDIO.hop_length])
    metrics = compute_metrics(griffin_lim, [*pairs, silent, short], AUDIO)
    assert metrics.mean()["pesq"] == 4.0
    assert "pesq" not in metrics.clips["silent"]
    assert metrics.notes == [
        "pesq leaves out 1 of 4 clips: no utterance detected",
        "pesq leaves out 1 of 4 clips: shorter than a quarter of a second",
    ]


def test_pesq_is_high_for_the_recording_and_low_for_noise(voiced):
    pytest.importorskip("pesq")
    recorded = voiced(1.0, 150.0, 1)
    noise = np.random.default_rng(0).normal(0, recorded.std(), recorded.shape).astype(np.float32)
    assert wide_band_pesq(noise, recorded, 22050) < 2.0 < 4.5 < wide_band_pesq(recorded, recorded, 22050)
    for made, theirs in ((noise, np.zeros_like(noise)), (np.zeros_like(noise), recorded), (noise[:1000], noise[:1000])):
        with pytest.raises(UnratedError):
            wide_band_pesq(made, theirs, 22050)


def test_the_gain_is_reported_over_clips(tmp_path):
    distances = {"a": (0.5, 0.4), "b": (0.6, 0.4), "c": (0.5, 0.6)}
    clips = {
        name: {"before": {"mel_distance": before}, "after": {"mel_distance": after}}
        for name, (before, after) in distances.items()
    }
    report = Report(before={}, after={}, griffin_lim={}, clips=clips, notes=[], samples=[], voice=tmp_path)
    assert report.gain() == (
        "fine-tuning reduces the mel distance on 2 of 3 held-out clips, by 0.0667 (standard error 0.0882)"
    )
