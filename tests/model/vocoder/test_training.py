"""The adversarial training: each network learns its part, a resumed run is the run, mels stand beside their samples."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.audio.mel import MelExtractor
from model.config.schema import AudioConfig, VocoderConfig
from model.threads import computes_in_bfloat16
from model.training.devices import DeviceError
from model.vocoder.architectures import ARCHITECTURES
from model.vocoder.discriminators import judge
from model.vocoder.finetuning import BASE_KEYS, MACHINE_KEYS, SPEAKING_KEYS
from model.vocoder.folder import read_vocoder
from model.vocoder.losses import (
    MultiResolutionStft,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from model.vocoder.measures import measure
from model.vocoder.pairs import Pair, PairingError, Segments
from model.vocoder.run_state import RunState
from model.vocoder.step import AdversarialStep
from model.vocoder.training import TrainingPlan, VocoderTrainingError, train_vocoder

AUDIO = AudioConfig()
FAST = {
    "type": "hifigan",
    "variant": "xtiny",
    "batch_size": 2,
    "segment_frames": 8,
    "learning_rate": 1e-3,
    "evaluation_interval": 4,
    "checkpoint_interval": 2,
}


def plan(keys, steps, fingerprint="print", start=None):
    return TrainingPlan(VocoderConfig(**{**FAST, **keys}), AUDIO, steps, 1, fingerprint, start)


@pytest.fixture(scope="module")
def pairs(voiced):
    extractor = MelExtractor(AUDIO)
    found = []
    for number in range(3):
        samples = voiced(0.4, 120.0 + 40 * number, number)
        mel = extractor.numpy(samples)
        found.append(Pair(f"clip{number}", mel, samples[: len(mel) * AUDIO.hop_length]))
    return found


@pytest.fixture
def run(pairs, tmp_path):
    """Function: (keys, steps, folder, start) -> a finished run on three short sounds."""

    def call(keys=None, steps=4, folder="run", start=None, logger=None):
        return train_vocoder(plan(keys or {}, steps, start=start), pairs[:2], pairs[2:], tmp_path / folder, logger)

    return call


@pytest.fixture
def build_step(tmp_path):
    """Function: keys -> the step of a run of ten, not begun."""

    def build(start=None, **keys):
        return AdversarialStep(RunState(plan(keys, 10, start=start), tmp_path / "parts"))

    return build


@pytest.fixture
def batch(pairs):
    """Mel and samples of a step."""
    return Segments(pairs[:2], FAST["segment_frames"], FAST["batch_size"], 1).batch(0)


def weights(folder):
    return load_file(folder / "generator.safetensors")


def moved(before, network):
    return any(not torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def copied(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("kind", "rate"), [("hifigan", 3e-3), ("univnet", 1e-2)])
def test_training_brings_the_mel_closer(kind, rate, run, pairs):
    """On a pitch not trained on; closer than noise too: an untrained UnivNet is one, an untrained HiFi-GAN silent."""
    keys = {"type": kind, "learning_rate": rate, "adversarial_start": 1.0, "evaluation_interval": 100}
    first, last = run(keys, 1, "short"), run(keys, 40, "long")
    noise = np.random.default_rng(0).normal(0, pairs[2].samples.std(), pairs[2].samples.shape).astype(np.float32)
    of_noise = measure(lambda mel: noise, pairs[2:], AUDIO)["mel_distance"]
    name = "validation/mel_distance"
    assert last.metrics[name] < 0.8 * min(first.metrics[name], of_noise)


def test_an_interrupted_run_ends_like_an_uninterrupted_one(run, tmp_path, monkeypatch):
    whole = run({"ema_decay": 0.5}, 6, "whole")
    step = AdversarialStep.__call__

    def dies(self, *batch):
        if self.state.step == 5:
            raise MemoryError
        return step(self, *batch)

    monkeypatch.setattr(AdversarialStep, "__call__", dies)
    with pytest.raises(MemoryError):
        run({"ema_decay": 0.5}, 6, "torn")
    monkeypatch.setattr(AdversarialStep, "__call__", step)
    resumed = run({"ema_decay": 0.5}, 6, "torn")
    one, other = weights(whole.vocoder), weights(resumed.vocoder)
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (load_file(item.vocoder / "discriminators.safetensors") for item in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_steps_that_come_again_are_told_once(run, tmp_path):
    run({}, 4)
    history = tmp_path / "run" / "history.jsonl"
    told = history.read_text()
    history.write_text(told + '{"step": 5, "train/mel": 1.0}\n{"step": 6, "tra')  # a kill came before step 6 was saved
    run({}, 4)
    assert history.read_text() == told


def test_a_folder_of_another_run_is_refused(run, tmp_path, pairs):
    run({}, 2)
    with pytest.raises(VocoderTrainingError, match="other settings or data"):
        train_vocoder(plan({}, 4, "another"), pairs, pairs, tmp_path / "run")


def test_the_discriminators_learn_to_tell_a_fixed_fake(build_step):
    step = build_step()
    judges = step.state.discriminators
    recorded, fake = torch.randn(2, 1, 2048) * 0.1, torch.zeros(2, 1, 2048)
    values = []
    for _ in range(12):
        loss = discriminator_loss(judge(judges, recorded), judge(judges, fake))
        assert step.descend(loss, judges)
        values.append(float(loss.detach()))
    assert values[-1] < 0.8 * values[0]


def test_the_adversarial_loss_reaches_the_generator_and_no_discriminator(build_step, batch):
    state = build_step(mel_loss_weight=0.0, stft_loss_weight=1e-9, feature_matching_loss_weight=0.0).state
    state.discriminators.requires_grad_(False)
    adversarial_loss(judge(state.discriminators, state.generator(batch[0]))).backward()
    assert sum(float(p.grad.abs().sum()) for p in state.generator.parameters()) > 0
    assert all(p.grad is None for p in state.discriminators.parameters())


def test_a_step_moves_both_networks_each_by_its_own_loss(build_step, batch):
    step = build_step()
    generator, judges = copied(step.state.generator), copied(step.state.discriminators)
    assert {"discriminator", "mel", "adversarial", "feature_matching"} <= step(*batch).keys()
    assert moved(generator, step.state.generator)
    assert moved(judges, step.state.discriminators)


def test_perfect_speech_has_no_distance(pairs):
    sound = torch.from_numpy(pairs[0].samples)[None, None]
    judges = ARCHITECTURES["hifigan"].discriminators("xtiny")
    assert feature_matching_loss(judge(judges, sound), judge(judges, sound)).item() == 0.0
    assert float(torch.stack(MultiResolutionStft()(sound, sound)).abs().sum()) < 1e-6
    values = measure(lambda mel: pairs[0].samples, pairs[:1], AUDIO)
    noise = measure(
        lambda mel: np.random.default_rng(0).normal(0, 0.1, pairs[0].samples.shape).astype(np.float32), pairs[:1], AUDIO
    )
    assert all(values[name] < 1e-4 < noise[name] for name in values)


def test_new_discriminators_wait_and_trained_ones_join_when_fine_tuning_says(build_step, batch, run):
    waiting = build_step(adversarial_start=0.5)
    assert "adversarial" not in waiting(*batch)
    waiting.state.step = 5
    assert "adversarial" in waiting(*batch)
    start = read_vocoder(run({}, 2, "base").vocoder)
    assert "adversarial" in build_step(start, adversarial_start=0.5)(*batch)
    waiting = build_step(start, finetune_adversarial_start=0.5)
    assert "adversarial" not in waiting(*batch)
    waiting.state.step = 5
    assert "adversarial" in waiting(*batch)
    assert "adversarial" in build_step(finetune_adversarial_start=0.5)(*batch)


def test_discriminators_that_never_joined_do_not_pass_for_trained_ones(run):
    assert read_vocoder(run({"adversarial_start": 1.0}, 2, "alone").vocoder).discriminators == {}
    assert set(read_vocoder(run({}, 2, "both").vocoder).discriminators) == {"mrd", "mpd"}


def test_fine_tuning_starts_at_its_share_of_the_rate(build_step, batch, run):
    start = read_vocoder(run({}, 2, "base").vocoder)
    rates = [build_step(start, finetune_learning_rate_ratio=r)(*batch)["learning_rate"] for r in (0.3, 1.0)]
    assert rates == pytest.approx([0.3 * FAST["learning_rate"], FAST["learning_rate"]])


def test_frozen_discriminators_judge_without_learning(build_step, batch, run):
    step = build_step(read_vocoder(run({}, 2, "base").vocoder), discriminator_freeze_steps=1)
    judges = copied(step.state.discriminators)
    terms = step(*batch)
    assert "adversarial" in terms
    assert "discriminator" not in terms
    assert not moved(judges, step.state.discriminators)
    step.state.step = 1
    assert "discriminator" in step(*batch)


def test_a_step_that_is_not_finite_moves_nothing_and_too_many_stop(build_step, batch, pairs, tmp_path):
    step, (mel, recorded) = build_step(), batch
    generator = copied(step.state.generator)
    assert step(mel * torch.nan, recorded) is None
    assert not moved(generator, step.state.generator)
    broken = [Pair(pair.id, pair.mel * np.nan, pair.samples) for pair in pairs]
    with pytest.raises(VocoderTrainingError, match="20 steps in a row were not finite"):
        train_vocoder(plan({}, 40), broken, pairs, tmp_path / "nan")
    assert not (tmp_path / "nan" / "vocoder").exists()


CHANGES = {
    "batch_size": 3,
    "segment_frames": 9,
    "learning_rate": 2e-3,
    "final_learning_rate_ratio": 0.5,
    "mel_loss_weight": 20.0,
    "feature_matching_loss_weight": 4.0,
    "stft_loss_weight": 2.5,
    "adversarial_start": 0.9,
    "gradient_clip_norm": 0.01,
    "ema_decay": 0.9,
    "use_mixed_precision": True,
    "variant": "tiny",
    "type": "univnet",
}


@pytest.mark.parametrize("key", CHANGES)
def test_every_setting_of_training_changes_the_weights(key, run):
    if key == "use_mixed_precision" and not computes_in_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    steps = 1 if key in ("variant", "type") else 3
    one, other = weights(run({}, steps, "plain").vocoder), weights(run({key: CHANGES[key]}, steps, "changed").vocoder)
    assert one.keys() != other.keys() or any(
        one[name].shape != other[name].shape or not torch.equal(one[name], other[name]) for name in one
    )


def test_no_setting_is_left_out_of_these_tests():
    elsewhere = {
        *SPEAKING_KEYS,  # test_neural, test_griffin_lim
        *MACHINE_KEYS,  # below
        *("checkpoint", "checkpoint_sha256", "finetune_steps", "max_steps"),  # tests of the step and of the files
        *(
            "evaluation_interval",
            "checkpoint_interval",
            "discriminator_freeze_steps",
            "finetune_learning_rate_ratio",
            "finetune_adversarial_start",
        ),  # above and below
    }
    assert set(VocoderConfig.model_fields) == {*CHANGES, *elsewhere}
    assert set(BASE_KEYS) <= set(VocoderConfig.model_fields)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_named(run):
    with pytest.raises(DeviceError, match=r"vocoder\.device is cuda, but this machine has 0 GPUs"):
        run({"device": "cuda"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "steps", "tolerance"),
    [("hifigan", 3, 2e-3), ("univnet", 1, 1e-2)],  # compiled code draws UnivNet's noise from another generator
)
def test_compiling_the_generator_changes_no_number(kind, steps, tolerance, build_step, batch):
    from torch._dynamo.utils import counters

    def first_steps(compiled: bool) -> list[dict[str, float]]:
        step = build_step(type=kind, enable_compile=compiled)
        return [step(*batch) for _ in range(steps)]

    eager = first_steps(False)
    before = counters["stats"]["unique_graphs"]
    compiled = first_steps(True)
    assert counters["stats"]["unique_graphs"] > before
    for one, other in zip(eager, compiled, strict=True):
        assert other == pytest.approx(one, rel=tolerance)


def test_validations_and_checkpoints_come_at_their_intervals(run, tmp_path):
    run({"evaluation_interval": 2, "checkpoint_interval": 3}, 5)
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/mel_distance" in line] == [2, 4, 5]
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == [
        f"clip2-{step:08d}.wav" for step in (2, 4, 5)
    ]


def test_segments_are_frames_beside_their_own_samples(pairs):
    segments = Segments(pairs, 8, 4, seed=5)
    mel, samples = segments.batch(3)
    assert mel.shape == (4, 80, 8)
    assert samples.shape == (4, 1, 8 * 256)
    again = segments.batch(3)
    assert torch.equal(mel, again[0])
    assert not torch.equal(mel, segments.batch(4)[0])
    made = MelExtractor(AUDIO)(samples[:, 0])
    assert (made[..., 2:-2] - mel[..., 2:-2]).abs().max() < 1e-3  # the outer frames see past the segment


def test_clips_shorter_than_a_segment_are_counted_and_alone_refused(pairs, caplog):
    short = Pair("short", pairs[0].mel[:5], pairs[0].samples[: 5 * 256])
    with caplog.at_level(logging.WARNING):
        assert len(Segments([short, *pairs], 8, 2, 1).pairs) == 3
    assert "1 clips are shorter than a segment of 8 frames: left out" in caplog.text
    with pytest.raises(PairingError, match=r"none of the 1 clips has the 8 frames.*vocoder\.segment_frames"):
        Segments([short], 8, 2, 1)
