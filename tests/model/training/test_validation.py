"""Validation metrics: style tokens and latents in use, no error for a perfect voice, length of slow speech."""

from dataclasses import replace

import pytest
import torch

from model.acoustic.conditioning import Conditions
from model.acoustic.encoders import Gaussian
from model.acoustic.model import AcousticModel, Synthesis
from model.config.resolution import resolve
from model.training.adaptation import model_dimensions
from model.training.validation import StyleMetrics, validate


def used(weights=None, posterior=None, prior=None) -> dict[str, float]:
    style = StyleMetrics()
    for half in (slice(0, 2), slice(2, 4)):  # two batches
        first, second = (g and Gaussian(g.mean[half], g.log_variance[half]) for g in (posterior, prior))
        chosen = None if weights is None else weights[half, None, :].expand(-1, 2, -1)
        style.add(
            Conditions(
                vector=torch.zeros(2, 8),
                speaker=torch.zeros(2, 4),
                token_weights=chosen,
                posterior=first,
                prior=second,
            )
        )
    return style.compute()


def test_style_tokens_in_use_are_counted():
    alone, turns = used(torch.eye(4)[[2, 2, 2, 2]]), used(torch.eye(4))
    assert (alone["style_tokens_used"], alone["style_variation"]) == (pytest.approx(1, abs=1e-3), 0)
    assert turns["style_tokens_used"] == pytest.approx(4, abs=1e-3)
    assert turns["style_variation"] == pytest.approx(0.433, abs=1e-3)  # of 0, 0, 0, 1
    assert [alone[f"style_token_0{i}"] for i in range(4)] == [0, 0, 1, 0]


def test_latent_dimensions_in_use_are_counted():
    means = torch.tensor([[0.0, 1.0, 5.0]]).repeat(4, 1)
    means[1:3, 1] = -1.0  # the others are the same for every clip, the last one far from what was expected
    prior = Gaussian(torch.zeros(4, 3), torch.zeros(4, 3))
    found = used(posterior=Gaussian(means, torch.zeros(4, 3)), prior=prior)
    assert found["active_units"] == 1
    assert [found[f"kl_dimension_0{i}"] for i in range(3)] == [0.0, 0.5, 12.5]


@pytest.fixture
def metrics_of(store, monkeypatch):
    """Returns a function that validates a voice whose speech repeats every recorded frame `repeat` times."""
    config = resolve(None, None, {"model_size": "xtiny", "training.batch_size": 3}).config
    model = AcousticModel(config.model, model_dimensions(store))

    def run(repeat: int) -> dict[str, float]:
        def speak(batch):
            spoken = batch.mel.repeat_interleave(repeat, 1)
            return Synthesis(mel=spoken, mel_lengths=repeat * batch.mel_lengths, durations=None, prosody=None)

        monkeypatch.setattr(model, "synthesize_batch", speak)
        return validate(model, store, config)

    return run


@pytest.mark.parametrize("batch_size", [1, 3])
def test_metrics_are_means_over_the_split_whatever_the_batch_size(store, batch_size):
    """With four clips in batches of three, a mean over batches would weight the last clip threefold."""
    assert len(store.split("validation")) == 4
    of_all, of_some = (
        resolve(None, None, {"model_size": "xtiny", "training.batch_size": size}).config for size in (4, batch_size)
    )
    model = AcousticModel(of_all.model, model_dimensions(store))
    apart, together = validate(model, store, of_some), validate(model, store, of_all)
    assert apart == pytest.approx(together, rel=1e-4)


def test_speech_equal_to_the_recording_has_no_error_and_slow_speech_is_long(metrics_of):
    for repeat in (1, 2):
        values = metrics_of(repeat)
        assert values["validation/mel_free"] == pytest.approx(0, abs=1e-6)
        assert values["validation/length_ratio"] == pytest.approx(repeat)


def test_sharpness_and_duration_error_ignore_padding(metrics_of, store, monkeypatch):
    whole = metrics_of(1)
    original = AcousticModel.forward

    def certain(self, batch):
        output = original(self, batch)
        log_soft = torch.full_like(output.alignment.log_soft, -1e4)
        log_soft[..., 0] = 0.0
        past = torch.arange(log_soft.shape[1])[None] >= batch.mel_lengths[:, None]
        log_soft[past] = -1e4  # were padding counted, the mean share would fall below 1
        predicted = replace(output.predicted, log_durations=output.alignment.durations.float().log1p())
        return replace(output, alignment=replace(output.alignment, log_soft=log_soft), predicted=predicted)

    monkeypatch.setattr(AcousticModel, "forward", certain)
    values = metrics_of(1)
    assert values["validation/sharpness"] == pytest.approx(1.0)
    assert values["validation/duration_error"] == pytest.approx(0.0, abs=1e-4)
    assert whole["validation/sharpness"] < 1
    assert whole["validation/duration_error"] > 0
