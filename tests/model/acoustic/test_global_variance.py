"""Global variance: the factors are estimated from recordings, and restoring scales the spread by them."""

import numpy as np
import pytest

from model.acoustic.global_variance import LARGEST_FACTOR, estimate_variance_factors, restore_variance
from model.acoustic.model import Synthesis
from model.audio import SILENCE


def test_restoring_scales_the_spread_and_keeps_the_mean():
    mel = np.random.default_rng(0).normal(-4, 1, (200, 80)).astype(np.float32)
    factors = np.linspace(1, 1.5, 80)
    wider = restore_variance(mel, factors)
    np.testing.assert_allclose(wider.std(0), mel.std(0) * factors, rtol=1e-5)
    np.testing.assert_allclose(wider.mean(0), mel.mean(0), atol=1e-5)
    np.testing.assert_allclose(restore_variance(mel, np.ones(80)), mel, atol=1e-6)
    assert wider.dtype == np.float32


def test_restored_mels_are_not_below_silence():
    mel = np.full((4, 80), SILENCE, np.float32)
    mel[0] = 0.0
    assert restore_variance(mel, np.full(80, 1.5)).min() == np.float32(SILENCE)


@pytest.mark.parametrize(("kept", "factor"), [(0.8, 1.25), (1.5, 1.0), (0.1, LARGEST_FACTOR)])
def test_the_estimated_factor_undoes_the_loss(make_model, batch, monkeypatch, kept, factor):
    model = make_model()

    def smoothed(batch):
        mel = batch.mel.clone()
        for index, frames in enumerate(batch.mel_lengths):
            own = mel[index, :frames]
            mel[index, :frames] = own.mean(0) + kept * (own - own.mean(0))
        return Synthesis(mel=mel, mel_lengths=batch.mel_lengths, durations=None, prosody=None)

    monkeypatch.setattr(model, "synthesize_batch", smoothed)
    assert estimate_variance_factors(model, [batch, batch]) == pytest.approx(np.full(80, factor), rel=1e-4)


def test_without_clips_all_factors_are_one(make_model):
    assert (estimate_variance_factors(make_model(), []) == 1).all()
