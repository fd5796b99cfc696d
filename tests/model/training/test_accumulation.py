"""The gradient of a step does not depend on how it is computed: in parts, checkpointed, in bfloat16, after a retry."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import distributed

from model.acoustic.model import AcousticModel
from model.config.resolution import resolve
from model.features.batching import TrainingBatches
from model.features.store import FeatureStore
from model.loop.distributed import Processes
from model.training import step as accumulation
from model.training.adaptation import model_dimensions
from model.training.losses import (
    AVERAGED_OVER,
    contrastive_speaker_loss,
    leaves_parameters_out,
    loss_terms,
    loss_weights,
    weighted_sum,
)
from model.training.profiling import StepTimer
from model.training.step import Computation, Objective, Precision, accumulate_gradients, gradients_that_fit, split_batch

CPU = torch.device("cpu")
STILL = {"model.dropout": 0.0, "model.predictor_dropout": 0.0, "model.aligner_dropout": 0.0}


@pytest.fixture(scope="module")
def setting(generated_features):
    """(batch of 11 clips of uneven length, losses' settings, function that builds the same model again)."""
    store = FeatureStore(generated_features)
    config = resolve(None, None, {"model_size": "xtiny", **STILL}).config
    batch = next(TrainingBatches(store, 11, seed=0))

    def build():
        torch.manual_seed(0)
        return AcousticModel(config.model, model_dimensions(store)).train()

    return batch, config.loss, build


def gradient(setting, parts=1, autocast=None, run=accumulate_gradients, checkpointing=False, trim=True):
    batch, config, build = setting
    model = build()
    model.encoder.checkpointing = model.decoder.checkpointing = checkpointing
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    precision = Precision(CPU, autocast, trim)
    weights = loss_weights(config, 1.0)
    objective = Objective(model, config, precision)
    loss = run(Computation(objective, precision, scaler, Processes(), StepTimer(CPU)), batch, weights, parts)
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


def largest_difference(one, other) -> float:
    """Over the parameters, relative to the largest element of the whole gradient."""
    scale = max(float(g.abs().max()) for g in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / scale


@pytest.mark.parametrize("parts", [2, 3, 11, 40])
@pytest.mark.parametrize("trim", [True, False])
def test_accumulated_gradients_equal_those_of_the_whole_batch(setting, parts, trim):
    whole_loss, whole = gradient(setting)
    loss, parted = gradient(setting, parts, trim=trim)
    assert largest_difference(whole, parted) < 1e-6
    assert loss.total == pytest.approx(whole_loss.total, rel=1e-6)
    assert loss.terms == pytest.approx(whole_loss.terms, rel=1e-5)


def rest_of_the_gradient(setting, rank: int, world: int, parts: int, folder: Path) -> None:
    """What one of several processes does: its share of the clips, in parts; gradient and loss go to a file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    try:
        batch, config, build = setting
        share, processes = split_batch(batch, world, trim=True)[rank], Processes(rank, world, rank)
        precision, model = Precision(CPU, None, True), build()
        objective = processes.wrap(Objective(model, config, precision), partial=False)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        computation = Computation(objective, precision, scaler, processes, StepTimer(CPU))
        loss = accumulate_gradients(computation, share, loss_weights(config, 1.0), parts)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        torch.save({"gradients": gradients, "total": loss.total, "terms": loss.terms}, folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(("world", "parts"), [(2, 3), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_processes_together_have_the_gradient_of_the_whole_batch(setting, tmp_path, world, parts):
    """Unclipped, and by their size: a factor that is missing, as that of the averaging, does not cancel."""
    loss, whole = gradient(setting)
    context = multiprocessing.get_context("fork")  # a fresh interpreter would spend its time on imports
    ranks = [
        context.Process(target=rest_of_the_gradient, args=(setting, rank, world, parts, tmp_path))
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0] * world
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert largest_difference(whole, found["gradients"]) < 1e-5
        assert found["total"] == pytest.approx(loss.total, rel=1e-5)
        assert found["terms"] == pytest.approx(loss.terms, rel=1e-5)


def test_dividing_by_the_number_of_parts_would_not_be_equal(setting, monkeypatch):
    _, whole = gradient(setting)
    monkeypatch.setattr(accumulation, "counts", lambda batch: torch.ones(3) * (3 if len(batch.clip_ids) == 11 else 1))
    _, parted = gradient(setting, 3)
    assert largest_difference(whole, parted) > 1e-3


def test_parts_are_all_the_clips_in_order_with_no_more_padding_than_they_need(setting):
    batch = setting[0]
    parts = split_batch(batch, 4, trim=True)
    assert [name for part in parts for name in part.clip_ids] == batch.clip_ids
    for part in parts:
        assert part.ids.shape[1] == part.token_lengths.max()
        assert part.mel.shape[1] == part.pitch.shape[1] == part.mel_lengths.max()


def test_every_loss_term_says_what_it_is_a_mean_over(setting):
    batch, config, build = setting
    assert set(loss_terms(build()(batch), batch, config)) <= set(AVERAGED_OVER) == set(loss_weights(config, 1.0))


def test_checkpointed_gradients_equal_plain_ones_and_keep_less(setting):
    def kept(checkpointing):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return gradient(setting, checkpointing=checkpointing)[1], sum(sizes)

    plain, plain_size = kept(False)
    checkpointed, checkpointed_size = kept(True)
    assert largest_difference(plain, checkpointed) == 0
    assert checkpointed_size < 0.8 * plain_size


def test_bfloat16_stays_near_float32(setting):
    exact_loss, exact = gradient(setting)
    rounded_loss, rounded = gradient(setting, autocast=torch.bfloat16)
    assert rounded_loss.total == pytest.approx(exact_loss.total, rel=0.01)
    one, other = (torch.cat([g.flatten() for g in grads.values()]) for grads in (exact, rounded))
    assert float((one - other).norm() / one.norm()) < 0.1
    assert float(torch.cosine_similarity(one, other, dim=0)) > 0.99


def test_a_part_of_one_speaker_has_no_contrast(generated_features):
    """Why the checklist wants two speakers in a part: batches that compare speakers come speaker by speaker."""
    batch = next(TrainingBatches(FeatureStore(generated_features), 8, seed=0, clips_per_speaker=4))

    def contrast(part):
        return float(contrastive_speaker_loss(part.speaker_vector, part.speaker, part.reference_clip, 0.07))

    assert contrast(batch) > 0
    assert [contrast(part) for part in split_batch(batch, 2, trim=True)] == [0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.enable_gst": True, "model.use_location_attention": True, "loss.use_contrastive_speaker_loss": True},
        {"model.use_pretrained_speaker_encoder": False, "model.use_speaker_consistency_loss": True},
        {"model.predictors_read": "embedding", "model.frames_per_step": 2, "loss.binarization_loss_weight": 0.0},
        {"model.enable_prosody_prediction": False, "loss.pitch_loss_weight": 0.0},
        {"model.use_forward_attention": True},
        {"model.use_forward_attention": True, "loss.use_guided_attention": False},
        {"model.use_forward_attention": True, "loss.guided_attention_end": 0.1},
        {"model.use_forward_attention": True, "loss.binarization_loss_weight": 0.0},
        {"model.use_variational_encoder": True},
        {"loss.duration_loss_weight": 0.0},
        {"loss.energy_loss_weight": 0.0},
    ],
)
def test_it_is_known_beforehand_whether_a_step_leaves_parameters_out(setting, generated_features, changes):
    config = resolve(None, None, {"model_size": "xtiny", **changes}).config
    model = AcousticModel(config.model, model_dimensions(FeatureStore(generated_features)))
    left_out = set()
    for progress in (0.0, 0.2, 1.0):
        terms = loss_terms(model(setting[0]), setting[0], config.loss)
        weighted_sum(terms, loss_weights(config.loss, progress)).backward()
        left_out |= {name for name, parameter in model.named_parameters() if parameter.grad is None}
        model.zero_grad()
    assert leaves_parameters_out(config) == bool(left_out)


def test_processes_need_no_gradient_of_terms_without_weight_and_talk_once_a_step(setting, generated_features, tmp_path):
    """At first the divergence weighs nothing, so the latent's prior gets no gradient, which nobody may wait for."""
    config = resolve(None, None, {"model_size": "xtiny", **STILL, "model.use_variational_encoder": True}).config
    model = AcousticModel(config.model, model_dimensions(FeatureStore(generated_features)))
    precision, talks, exchanged = Precision(CPU, None, True), [], []

    def count(_, bucket):
        talks.append(bucket.index())
        exchanged.append(bucket.buffer().numel())
        answer = torch.futures.Future()
        answer.set_result(bucket.buffer())
        return answer

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model.aligner.requires_grad_(False)  # kept durations, from which the run goes back: averaged all the same
        objective = Processes(world=2).wrap(Objective(model, config.loss, precision), leaves_parameters_out(config))
        model.aligner.requires_grad_(True)
        objective.register_comm_hook(None, count)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        computation = Computation(objective, precision, scaler, Processes(), StepTimer(CPU))
        for progress in (0.0, 0.5):
            talks.clear()
            exchanged.clear()
            accumulate_gradients(computation, setting[0], loss_weights(config.loss, progress), parts=2)
            assert len(talks) == len(set(talks))
            assert sum(exchanged) == sum(parameter.numel() for parameter in model.parameters())
    finally:
        distributed.destroy_process_group()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_out_of_memory_is_answered_with_smaller_parts_and_the_same_gradient(setting, monkeypatch):
    _, whole = gradient(setting)
    attempts = []

    def scarce(computation, batch, weights, parts):
        attempts.append(parts)
        loss = accumulate_gradients(computation, batch, weights, parts)
        if parts < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss

    monkeypatch.setattr(accumulation, "accumulate_gradients", scarce)
    (_, parts), retried = gradient(setting, run=gradients_that_fit)
    assert attempts == [1, 2, 4]
    assert parts == 4
    assert largest_difference(whole, retried) < 1e-6


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no such operator"), MemoryError()]
)
def test_other_errors_and_a_single_clip_too_large_are_raised(setting, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(accumulation, "accumulate_gradients", fails)
    with pytest.raises(type(error)):
        gradient(setting, parts=11, run=gradients_that_fit)
