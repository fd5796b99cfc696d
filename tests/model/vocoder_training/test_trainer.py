"""Adversarial training of a vocoder: losses, steps, resuming, settings, and segments."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.loop.devices import DeviceError
from model.threads import computes_in_bfloat16
from model.vocoder import univnet
from model.vocoder.architectures import ARCHITECTURES
from model.vocoder.discriminators import discriminate
from model.vocoder.folder import read_vocoder
from model.vocoder_training.adversarial import (
    AdversarialStep,
    MultiResolutionStft,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from model.vocoder_training.finetuning import BASE_KEYS, INFERENCE_KEYS, MACHINE_KEYS
from model.vocoder_training.pairs import Pair, PairingError, Segments
from model.vocoder_training.speech_metrics import compute_distances
from model.vocoder_training.state import VocoderTrainingState, recipe_of
from model.vocoder_training.trainer import TrainingPlan, VocoderTrainingError, train_vocoder

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
    return TrainingPlan(
        settings=VocoderConfig(**{**FAST, **keys}),
        audio=AUDIO,
        steps=steps,
        seed=1,
        fingerprint=fingerprint,
        identity={"vocoder.batch_size": {**FAST, **keys}["batch_size"]},
        start=start,
    )


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
    """Returns a function that trains on two short sounds, with a third held out."""

    def call(keys=None, steps=4, folder="run", start=None, logger=None):
        return train_vocoder(plan(keys or {}, steps, start=start), pairs[:2], pairs[2:], tmp_path / folder, logger)

    return call


@pytest.fixture
def build_step(tmp_path):
    """Returns a function from settings to the step of a new run of ten steps."""

    def build(start=None, **keys):
        return AdversarialStep(VocoderTrainingState(plan(keys, 10, start=start), tmp_path / "parts"))

    return build


@pytest.fixture
def batch(pairs):
    """Returns mel and samples of a step."""
    return Segments(pairs[:2], frames=FAST["segment_frames"], batch_size=FAST["batch_size"], seed=1).batch(0)


def weights(folder):
    return load_file(folder / "generator.safetensors")


def moved(before, network):
    return any(not torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def copied(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("kind", "rate"), [("hifigan", 3e-3), ("univnet", 1e-2), ("vocos", 1e-2)])
def test_training_brings_the_mel_closer(kind, rate, run, pairs):
    """Compares with an untrained generator (HiFi-GAN: silence, others: noise) and with noise, on a held-out pitch."""
    keys = {"type": kind, "learning_rate": rate, "adversarial_start": 1.0, "evaluation_interval": 100}
    keys["refinement_iterations"] = 0  # which would fit even noise to the mel
    first, last = run(keys, 1, "short"), run(keys, 40, "long")
    noise = np.random.default_rng(0).normal(0, pairs[2].samples.std(), pairs[2].samples.shape).astype(np.float32)
    of_noise = compute_distances(lambda mel: noise, pairs[2:], AUDIO)["mel_distance"]
    name = "validation/mel_distance"
    assert last.metrics[name] < 0.8 * min(first.metrics[name], of_noise)


def test_small_vocos_learns_the_magnitudes_that_the_mel_does_not_resolve(build_step, batch):
    """It starts from those that fit the mel; no samples are generated before the discriminators join."""
    step = build_step(type="vocos", variant="tiny", learning_rate=2e-3)
    terms = [step(*batch) for _ in range(12)]
    assert all(set(each) == {"magnitude", "learning_rate"} for each in terms)
    assert terms[-1]["magnitude"] < 0.9 * terms[0]["magnitude"]


def test_the_magnitudes_of_the_recording_have_no_distance(build_step, batch, monkeypatch):
    step = build_step(type="vocos", variant="tiny")
    mel, recorded = batch
    real = MelExtractor(AUDIO).magnitudes(recorded[:, 0]).transpose(1, 2)
    for factor, distance in ((1.0, 0.0), (2.0, np.log(2) + 1)):
        monkeypatch.setattr(step.state.generator, "magnitudes", lambda mel, factor=factor: real * factor)
        terms = step._magnitude_terms(mel, recorded)
        assert float(terms["magnitude"]) == pytest.approx(distance, abs=1e-5)


def test_discriminators_train_small_vocos_through_its_continued_phases(build_step, batch):
    step = build_step(type="vocos", variant="tiny", adversarial_start=0.0)
    before = copied(step.state.generator.backbone)
    torch.nn.init.normal_(step.state.generator.head.out.weight, std=0.01)  # zeros hide the backbone
    assert {"magnitude", "discriminator", "adversarial", "feature_matching"} <= step(*batch).keys()
    assert moved(before, step.state.generator.backbone)


def test_the_weight_of_magnitudes_is_for_vocos(build_step, batch):
    """It counts as much as it says, can be replaced by losses of samples, and is refused elsewhere."""
    published = build_step(type="vocos", variant="xtiny")
    assert "magnitude" not in published(*batch)
    terms = build_step(type="vocos", variant="tiny", magnitude_loss_weight=0.0, mel_loss_weight=1.0)(*batch)
    assert "magnitude" not in terms
    assert "mel" in terms
    assert build_step(type="vocos", variant="tiny", magnitude_loss_weight=3.0).weights["magnitude"] == 3.0
    with pytest.raises(VocoderTrainingError, match="magnitude_loss_weight is for vocos; set it to 0 for hifigan"):
        build_step(magnitude_loss_weight=1.0)
    with pytest.raises(VocoderTrainingError, match="magnitude_loss_weight are all 0; set one of them"):
        build_step(type="vocos", variant="tiny", magnitude_loss_weight=0.0)


def test_variants_that_are_not_published_have_recipes_of_their_own():
    def recipe(kind, variant, **keys):
        return recipe_of(VocoderConfig(type=kind, variant=variant, **keys), kind, variant)

    assert (recipe("hifigan", "v2").stft, recipe("hifigan", "v2").adversarial_start) == (0.0, 0.0)
    assert (recipe("hifigan", "tiny").stft, recipe("hifigan", "tiny").adversarial_start) == (2.5, 0.6)
    assert (recipe("univnet", "c16").adversarial_start, recipe("univnet", "tiny").adversarial_start) == (0.0, 0.6)
    assert (recipe("vocos", "full").mel, recipe("vocos", "full").magnitude) == (45.0, 0.0)
    small = recipe("vocos", "small")
    assert (small.mel, small.stft, small.magnitude, small.adversarial_start) == (0.0, 0.0, 45.0, 1.0)
    assert recipe("vocos", "small", adversarial_start=0.5, mel_loss_weight=2.0).mel == 2.0


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


def test_repeated_steps_are_recorded_once(run, tmp_path):
    run({}, 4)
    history = tmp_path / "run" / "history.jsonl"
    before = history.read_text()
    history.write_text(
        before + '{"step": 5, "train/mel": 1.0}\n{"step": 6, "tra'
    )  # a kill came before step 6 was saved
    run({}, 4)
    assert history.read_text() == before


def test_a_folder_of_another_run_is_refused(run, tmp_path, pairs):
    run({}, 2)
    with pytest.raises(VocoderTrainingError, match=r"or data: vocoder\.batch_size is 3 instead of 2; ch"):
        train_vocoder(plan({"batch_size": 3}, 4, "another"), pairs, pairs, tmp_path / "run")


def test_the_discriminators_learn_to_detect_a_fixed_fake(build_step):
    step = build_step()
    discriminators = step.state.discriminators
    recorded, fake = torch.randn(2, 1, 2048) * 0.1, torch.zeros(2, 1, 2048)
    values = []
    for _ in range(12):
        loss = discriminator_loss(discriminate(discriminators, recorded), discriminate(discriminators, fake))
        assert step.descend(loss, discriminators)
        values.append(float(loss.detach()))
    assert values[-1] < 0.8 * values[0]


def test_the_adversarial_loss_reaches_the_generator_and_no_discriminator(build_step, batch):
    state = build_step(mel_loss_weight=0.0, stft_loss_weight=1e-9, feature_matching_loss_weight=0.0).state
    state.discriminators.requires_grad_(False)
    adversarial_loss(discriminate(state.discriminators, state.generator(batch[0]))).backward()
    assert sum(float(p.grad.abs().sum()) for p in state.generator.parameters()) > 0
    assert all(p.grad is None for p in state.discriminators.parameters())


def test_a_step_moves_both_networks_each_by_its_own_loss(build_step, batch):
    step = build_step()
    generator, discriminators = copied(step.state.generator), copied(step.state.discriminators)
    assert {"discriminator", "mel", "adversarial", "feature_matching"} <= step(*batch).keys()
    assert moved(generator, step.state.generator)
    assert moved(discriminators, step.state.discriminators)


def test_perfect_speech_has_no_distance(pairs):
    sound = torch.from_numpy(pairs[0].samples)[None, None]
    discriminators = ARCHITECTURES["hifigan"].discriminators("xtiny")
    assert feature_matching_loss(discriminate(discriminators, sound), discriminate(discriminators, sound)).item() == 0.0
    assert float(torch.stack(MultiResolutionStft()(sound, sound)).abs().sum()) < 1e-6
    values = compute_distances(lambda mel: pairs[0].samples, pairs[:1], AUDIO)
    noise = compute_distances(
        lambda mel: np.random.default_rng(0).normal(0, 0.1, pairs[0].samples.shape).astype(np.float32), pairs[:1], AUDIO
    )
    assert all(values[name] < 1e-4 < noise[name] for name in values)


def test_new_discriminators_join_late_and_trained_ones_at_the_fine_tuning_share(build_step, batch, run):
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


def test_discriminators_that_never_joined_are_not_exported(run):
    assert read_vocoder(run({"adversarial_start": 1.0}, 2, "alone").vocoder).discriminators == {}
    assert set(read_vocoder(run({}, 2, "both").vocoder).discriminators) == {"mrd", "mpd"}


def test_fine_tuning_starts_at_its_share_of_the_learning_rate(build_step, batch, run):
    start = read_vocoder(run({}, 2, "base").vocoder)
    rates = [build_step(start, finetune_learning_rate_ratio=r)(*batch)["learning_rate"] for r in (0.3, 1.0)]
    assert rates == pytest.approx([0.3 * FAST["learning_rate"], FAST["learning_rate"]])


def test_frozen_discriminators_contribute_without_learning(build_step, batch, run):
    """The discriminators are frozen for the set number of steps, in which the generator learns from them."""
    step = build_step(read_vocoder(run({}, 2, "base").vocoder), discriminator_freeze_steps=2)
    for frozen in (True, True, False, False):
        discriminators, generator = copied(step.state.discriminators), copied(step.state.generator)
        terms = step(*batch)
        assert "adversarial" in terms
        assert ("discriminator" in terms) == (not frozen)
        assert moved(discriminators, step.state.discriminators) == (not frozen)
        assert moved(generator, step.state.generator)
        step.state.step += 1


def test_new_discriminators_are_not_frozen(build_step, batch, run):
    untrained = read_vocoder(run({"adversarial_start": 1.0}, 2, "alone").vocoder)
    for start in (None, untrained):
        step = build_step(start, discriminator_freeze_steps=5)
        discriminators = copied(step.state.discriminators)
        assert "discriminator" in step(*batch)
        assert moved(discriminators, step.state.discriminators)


def test_discriminators_frozen_for_a_whole_fine_tuning_are_exported_unchanged(run):
    base = run({}, 2, "base").vocoder
    tuned = run({"discriminator_freeze_steps": 3}, 3, "tuned", read_vocoder(base)).vocoder
    before, after = (load_file(folder / "discriminators.safetensors") for folder in (base, tuned))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(weights(base)[name], tensor) for name, tensor in weights(tuned).items())


def head(score: float, *features: float):
    """Returns the score and features of one head."""
    return torch.full((2, 3), score), [torch.full((2, 4), feature) for feature in features]


def test_adversarial_losses_are_summed_over_the_heads_or_averaged():
    real, fake = [head(1.0), head(0.5), head(0.0)], [head(0.0), head(0.5), head(2.0)]
    # Recordings are wanted at 1, generated speech at 0: 0 + 0, 0.25 + 0.25, 1 + 4.
    assert float(discriminator_loss(real, fake)) == pytest.approx(5.5)
    assert float(discriminator_loss(real, fake, average=True)) == pytest.approx(5.5 / 3)
    # The generator wants its speech at 1: 1, 0.25, 1.
    assert float(adversarial_loss(fake)) == pytest.approx(2.25)
    assert float(adversarial_loss(fake, average=True)) == pytest.approx(2.25 / 3)


def test_the_hinge_loss_wants_a_margin_of_one():
    real, fake = [head(2.0), head(0.5)], [head(-3.0), head(0.0)]
    # Recordings are wanted above 1, generated speech below -1: 0 + 0, 0.5 + 1.
    assert float(discriminator_loss(real, fake, hinge=True)) == pytest.approx(1.5)
    assert float(discriminator_loss(real, fake, average=True, hinge=True)) == pytest.approx(0.75)
    # The generator wants its speech above 1: 4, 1; speech above 1 costs nothing.
    assert float(adversarial_loss(fake, hinge=True)) == pytest.approx(5.0)
    assert float(adversarial_loss(real, hinge=True)) == pytest.approx(0.5)


def test_vocos_weighs_its_discriminators(build_step, batch):
    """Heads that score everything 0 have a hinge loss of 2 for the discriminators and 1 for the generator."""
    step = build_step(type="vocos", learning_rate=1e-9)
    for each in step.state.discriminators.values():
        for single in each.discriminators:
            for parameter in (single.conv_post.parametrizations.weight.original0, single.conv_post.bias):
                torch.nn.init.zeros_(parameter)
    terms = step(*batch)
    assert terms["discriminator"] == pytest.approx(2 * (1.0 + 0.1), rel=1e-3)
    assert terms["adversarial"] == pytest.approx(1.0 + 0.1, rel=1e-3)
    assert terms["feature_matching"] > 0


def test_the_learning_rate_of_vocos_decays_along_a_cosine(traced):
    run = traced({"type": "vocos", "adversarial_start": 1.0}, 4, "cosine")
    ratio = VocoderConfig().final_learning_rate_ratio
    shares = [ratio + (1 - ratio) * share for share in (1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2)]
    assert run.term("learning_rate") == pytest.approx([FAST["learning_rate"] * share for share in shares])


def test_features_are_matched_by_the_sum_over_all_layers_and_only_the_generated_ones_learn():
    real = [head(0.0, 1.0, 2.0), head(0.0, 3.0)]
    generated = torch.tensor(2.5, requires_grad=True)
    fake = [(score, [generated.expand_as(feature) for feature in features]) for score, features in real]
    assert float(feature_matching_loss(real, fake).detach()) == pytest.approx(1.5 + 0.5 + 0.5)
    theirs = torch.zeros(2, 4, requires_grad=True)
    feature_matching_loss([(theirs, [theirs + 1])], [(theirs, [generated.expand(2, 4)])]).backward()
    assert theirs.grad is None
    assert float(generated.grad) == 1.0


@pytest.mark.parametrize(("kind", "averaged"), [("hifigan", False), ("univnet", True)])
def test_univnet_averages_over_its_heads_and_hifigan_sums(kind, averaged, build_step, batch):
    """Heads that score everything 0 have an error of 1 on each recording, and so has the generator."""
    step = build_step(type=kind, learning_rate=1e-9)
    heads = [head for each in step.state.discriminators.values() for head in each.discriminators]
    for each in heads:
        for parameter in (each.conv_post.parametrizations.weight.original0, each.conv_post.bias):
            torch.nn.init.zeros_(parameter)
    assert len(heads) > 2
    terms = step(*batch)
    expected = 1 if averaged else len(heads)
    assert terms["discriminator"] == pytest.approx(expected, rel=1e-3)
    assert terms["adversarial"] == pytest.approx(expected, rel=1e-3)


def test_a_step_that_is_not_finite_moves_nothing_and_too_many_stop(build_step, batch, pairs, tmp_path):
    step, (mel, recorded) = build_step(), batch
    generator = copied(step.state.generator)
    assert step(mel * torch.nan, recorded) is None
    assert not moved(generator, step.state.generator)
    broken = [Pair(pair.id, pair.mel * np.nan, pair.samples) for pair in pairs]
    with pytest.raises(VocoderTrainingError, match="20 steps in a row were not finite"):
        train_vocoder(plan({}, 40), broken, pairs, tmp_path / "nan")
    assert not (tmp_path / "nan" / "vocoder").exists()


@dataclass
class Run:
    """A finished run and records of its steps.

    Attributes:
        settings: Settings of the run.
        vocoder: The exported vocoder.
        checkpoint: Folder of its last checkpoint.
        shapes: Shape of the mels of each batch.
        terms: Loss terms that each step returns.
        losses: Loss that the generator minimizes in each step.
        norms: Joint norm of each clipped gradient, of both networks in turn.
    """

    settings: VocoderConfig
    vocoder: Path | None = None
    checkpoint: Path | None = None
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def term(self, name: str) -> list[float]:
        return [terms[name] for terms in self.terms]


@pytest.fixture
def traced(run, tmp_path, monkeypatch):
    """Returns a function that trains and records every step."""

    def call(keys: dict, steps: int, folder: str) -> Run:
        traced, step, descend = Run(plan(keys, steps).settings), AdversarialStep.__call__, AdversarialStep.descend

        def watching_step(self, mel, recorded):
            traced.shapes.append(tuple(mel.shape))
            traced.terms.append(step(self, mel, recorded))
            return traced.terms[-1]

        def watching_descend(self, loss, network):
            moved = descend(self, loss, network)
            traced.norms.append(float(torch.cat([p.grad.flatten() for p in network.parameters()]).norm()))
            if network is self.state.generator:
                traced.losses.append(float(loss.detach()))
            return moved

        monkeypatch.setattr(AdversarialStep, "__call__", watching_step)
        monkeypatch.setattr(AdversarialStep, "descend", watching_descend)
        traced.vocoder = run(keys, steps, folder).vocoder
        traced.checkpoint = tmp_path / folder / "checkpoints" / f"step-{steps:08d}"
        monkeypatch.setattr(AdversarialStep, "__call__", step)
        monkeypatch.setattr(AdversarialStep, "descend", descend)
        return traced

    return call


def larger_batches(plain: Run, changed: Run) -> None:
    assert set(plain.shapes) == {(2, 80, 8)}
    assert set(changed.shapes) == {(3, 80, 8)}


def longer_segments(plain: Run, changed: Run) -> None:
    assert set(changed.shapes) == {(2, 80, 9)}


def twice_the_rate(plain: Run, changed: Run) -> None:
    assert changed.term("learning_rate") == pytest.approx([2 * rate for rate in plain.term("learning_rate")])


def slower_fall(plain: Run, changed: Run) -> None:
    for run, share in ((plain, 0.2), (changed, 0.5)):
        rates = [FAST["learning_rate"] * share ** (step / 3) for step in range(3)]
        assert run.term("learning_rate") == pytest.approx(rates)


def weighted(name: str) -> Callable[[Run, Run], None]:
    """Returns a check that the first loss changes by the difference of the weights times the term."""

    def effect(plain: Run, changed: Run) -> None:
        published = vars(ARCHITECTURES["hifigan"].recipe)[name]
        difference = getattr(changed.settings, f"{name}_loss_weight") - published
        term = changed.terms[0][name]
        assert plain.terms[0].get(name, term) == term > 0
        assert changed.losses[0] - plain.losses[0] == pytest.approx(difference * term, rel=1e-3)

    return effect


def late_discriminators(plain: Run, changed: Run) -> None:
    for run, joined in ((plain, [True] * 3), (changed, [False, False, True])):
        for name in ("adversarial", "discriminator", "feature_matching"):
            assert [name in terms for terms in run.terms] == joined
    assert changed.losses[0] == pytest.approx(45 * changed.terms[0]["mel"])


def bounded_norm(plain: Run, changed: Run) -> None:
    assert max(changed.norms) <= 0.01 * 1.001
    assert min(plain.norms) > 0.01


def averaged_export(plain: Run, changed: Run) -> None:
    for run, same in ((plain, True), (changed, False)):
        raw, averaged = (load_file(run.checkpoint / f"{name}.safetensors") for name in ("model", "ema"))
        assert all(torch.equal(raw[f"generator.{name}"], averaged[name]) for name in averaged) == same


def rounded(plain: Run, changed: Run) -> None:
    assert changed.losses[0] != plain.losses[0]
    assert changed.losses[0] == pytest.approx(plain.losses[0], rel=0.05)


def wider(plain: Run, changed: Run) -> None:
    small, large = (sum(tensor.numel() for tensor in weights(run.vocoder).values()) for run in (plain, changed))
    assert large > 2 * small
    assert read_vocoder(changed.vocoder).variant == "tiny"


def another_type(plain: Run, changed: Run) -> None:
    assert (read_vocoder(plain.vocoder).kind, read_vocoder(changed.vocoder).kind) == ("hifigan", "univnet")
    assert "stft" in changed.terms[0]
    assert "mel" not in changed.terms[0]


EFFECTS: dict[str, tuple[object, Callable[[Run, Run], None]]] = {
    "batch_size": (3, larger_batches),
    "segment_frames": (9, longer_segments),
    "learning_rate": (2e-3, twice_the_rate),
    "final_learning_rate_ratio": (0.5, slower_fall),
    "mel_loss_weight": (20.0, weighted("mel")),
    "feature_matching_loss_weight": (4.0, weighted("feature_matching")),
    "stft_loss_weight": (2.5, weighted("stft")),
    "adversarial_start": (0.5, late_discriminators),
    "gradient_clip_norm": (0.01, bounded_norm),
    "ema_decay": (0.9, averaged_export),
    "use_mixed_precision": (True, rounded),
    "variant": ("tiny", wider),
    "type": ("univnet", another_type),
}
"""Setting -> another value, and a check of its effect on a run."""


@pytest.mark.parametrize("key", EFFECTS)
def test_every_setting_of_training_does_what_it_says(key, traced):
    if key == "use_mixed_precision" and not computes_in_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    value, effect = EFFECTS[key]
    assert getattr(plan({}, 3).settings, key) != value
    steps = 1 if key in ("variant", "type") else 3
    effect(traced({}, steps, "plain"), traced({key: value}, steps, "changed"))


def test_every_setting_has_a_test_of_its_effect():
    elsewhere = {
        *INFERENCE_KEYS,  # test_neural, test_griffin_lim
        *MACHINE_KEYS,  # below
        *(
            "checkpoint",
            "checkpoint_sha256",
            "start_from_base",
            "finetune_steps",
            "max_steps",
        ),  # tests of the step and of the files
        *(
            "evaluation_interval",
            "checkpoint_interval",
            "discriminator_freeze_steps",
            "finetune_learning_rate_ratio",
            "finetune_adversarial_start",
            "magnitude_loss_weight",
        ),  # above and below
    }
    assert set(VocoderConfig.model_fields) == {*EFFECTS, *elsewhere}
    assert set(BASE_KEYS) <= set(VocoderConfig.model_fields)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_named(run):
    with pytest.raises(DeviceError, match=r"vocoder\.device is cuda, but this machine has 0 GPUs"):
        run({"device": "cuda"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "steps", "tolerance"),
    # Compiled code draws UnivNet's noise from another generator.
    [("hifigan", 3, 2e-3), ("univnet", 1, 1e-2), ("vocos", 3, 2e-3)],
)
def test_compiling_the_generator_changes_no_number(kind, steps, tolerance, build_step, batch, monkeypatch):
    from torch._dynamo.utils import counters

    # Compiling takes minutes, in proportion to the layers: UnivNet gets one of each kind in two stages.
    small = replace(univnet.VARIANTS["xtiny"], strides=(16, 16), dilations=(3,))
    monkeypatch.setitem(univnet.VARIANTS, "xtiny", small)
    variant = "tiny" if kind == "vocos" else "xtiny"  # that learns without generating samples

    def first_steps(compiled: bool) -> list[dict[str, float]]:
        step = build_step(type=kind, variant=variant, enable_compile=compiled)
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
    segments = Segments(pairs, frames=8, batch_size=4, seed=5)
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
        assert len(Segments([short, *pairs], frames=8, batch_size=2, seed=1).pairs) == 3
    assert "1 clips are shorter than a segment of 8 frames: left out" in caplog.text
    with pytest.raises(PairingError, match=r"none of the 1 clips has the 8 frames.*vocoder\.segment_frames"):
        Segments([short], frames=8, batch_size=2, seed=1)
