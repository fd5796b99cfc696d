"""Global variance: what predictions lose of a recording's spread is measured, and given back."""

import numpy as np
import pytest

from model.acoustic.global_variance import LARGEST, give_back_variance, lost_variance
from model.acoustic.model import Synthesis
from model.audio import SILENCE


def test_spread_grows_by_the_factor_about_the_same_mean():
    mel = np.random.default_rng(0).normal(-4, 1, (200, 80)).astype(np.float32)
    factors = np.linspace(1, 1.5, 80)
    wider = give_back_variance(mel, factors)
    np.testing.assert_allclose(wider.std(0), mel.std(0) * factors, rtol=1e-5)
    np.testing.assert_allclose(wider.mean(0), mel.mean(0), atol=1e-5)
    np.testing.assert_allclose(give_back_variance(mel, np.ones(80)), mel, atol=1e-6)
    assert wider.dtype == np.float32


def test_nothing_is_quieter_than_silence():
    mel = np.full((4, 80), SILENCE, np.float32)
    mel[0] = 0.0
    assert give_back_variance(mel, np.full(80, 1.5)).min() == np.float32(SILENCE)


@pytest.mark.parametrize(("kept", "factor"), [(0.8, 1.25), (1.5, 1.0), (0.1, LARGEST)])
def test_the_factor_is_what_undoes_the_loss(make_model, batch, monkeypatch, kept, factor):
    model = make_model()

    def smoothed(batch):
        mel = batch.mel.clone()
        for index, frames in enumerate(batch.mel_lengths):
            own = mel[index, :frames]
            mel[index, :frames] = own.mean(0) + kept * (own - own.mean(0))
        return Synthesis(mel, batch.mel_lengths, None, None)

    monkeypatch.setattr(model, "synthesize_batch", smoothed)
    assert lost_variance(model, [batch, batch]) == pytest.approx(np.full(80, factor), rel=1e-4)


def test_without_clips_nothing_is_changed(make_model):
    assert (lost_variance(make_model(), []) == 1).all()
