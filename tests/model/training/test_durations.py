"""Kept durations: only once the alignment has converged, the aligner rests, and a resumed run finds the same again."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

import model.training.durations as durations
import model.training.step as step
from model.config.resolution import resolve
from model.training.trainer import train


@pytest.fixture
def settings(small_settings):
    return resolve(None, None, {**small_settings, "training.durations": "cached", "training.max_steps": 20}).config


def weights(folder, step):
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_an_alignment_that_has_not_converged_is_learned_on(tmp_path, settings, generated_features):
    train(settings, generated_features, tmp_path)
    before, after = weights(tmp_path, 10), weights(tmp_path, 20)
    assert not torch.equal(before["aligner.keys.0.weight"], after["aligner.keys.0.weight"])


@pytest.mark.parametrize(("mode", "kept"), [("cached", [0.5, 0.6]), ("learned", [])])
def test_durations_are_kept_no_earlier_than_told_and_only_if_told(monkeypatch, mode, kept):
    cache, at = durations.DurationCache(None, None, mode, earliest=0.5), []
    for progress in (0.3, 0.4, 0.5, 0.6):
        monkeypatch.setattr(cache, "_keep", lambda progress=progress: at.append(progress))
        for _ in range(100):
            cache.observe({"binarization": 0.1}, progress)
    assert sorted(set(at)) == kept


def test_a_converged_aligner_rests_and_the_rest_learns_on_across_a_restart(
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
