"""Cached durations: only once the alignment has converged; the aligner is frozen; a resumed run computes the same."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

import model.training.durations as durations
import model.training.step as step
from model.acoustic.model import AcousticModel
from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.features.store import FeatureStore
from model.training.adaptation import freeze, model_dimensions
from model.training.trainer import train


@pytest.fixture
def settings(small_settings):
    changes = {"training.durations": "cached", "training.max_steps": 20}
    return TrainSettings.of(resolve(None, None, {**small_settings, **changes}).config)


def weights(folder, step):
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_clearing_the_cache_leaves_the_parts_of_the_settings_frozen(settings, generated_features):
    """A rollback or a resumed run loads the state of a cache."""
    store = FeatureStore(generated_features)
    model = AcousticModel(settings.model, model_dimensions(store))
    cache = durations.DurationCache(model, store, mode="cached", earliest=0.0)
    freeze(model, ["embeddings"])
    for cached in (True, False):
        cache.load_state_dict({"mean": 0.1, "cached": cached})
        assert cache.is_filled == cached
        assert not model.symbol_embedding.weight.requires_grad
        assert all(parameter.requires_grad != cached for parameter in model.aligner.parameters())


def test_an_alignment_that_has_not_converged_is_still_learned(tmp_path, settings, generated_features):
    train(settings, generated_features, tmp_path)
    before, after = weights(tmp_path, 10), weights(tmp_path, 20)
    assert not torch.equal(before["aligner.keys.0.weight"], after["aligner.keys.0.weight"])


@pytest.mark.parametrize(("mode", "cached_at"), [("cached", [0.5, 0.6]), ("learned", [])])
def test_durations_are_cached_no_earlier_than_set_and_only_if_set(monkeypatch, mode, cached_at):
    cache, at = durations.DurationCache(None, None, mode=mode, earliest=0.5), []
    for progress in (0.3, 0.4, 0.5, 0.6):
        monkeypatch.setattr(cache, "_cache", lambda progress=progress: at.append(progress))
        for _ in range(100):
            cache.update({"binarization": 0.1}, progress)
    assert sorted(set(at)) == cached_at


def test_a_converged_aligner_is_frozen_while_the_rest_learns_across_a_restart(
    tmp_path, settings, generated_features, monkeypatch
):
    monkeypatch.setattr(durations, "CONVERGED", 100.0)
    train(settings, generated_features, tmp_path / "whole")
    before, after = weights(tmp_path / "whole", 10), weights(tmp_path / "whole", 20)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(("aligner.", "symbol_embedding", "stress_embedding")) for name in changed)
    assert "mel_head.weight" in changed

    steps, original = 0, step.clip_gradients

    def interrupting(*arguments):
        nonlocal steps
        steps += 1
        if steps == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(step, "clip_gradients", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(settings, generated_features, tmp_path / "parts")
    train(settings, generated_features, tmp_path / "parts")
    resumed = weights(tmp_path / "parts", 20)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in after.items())
