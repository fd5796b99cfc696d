"""The gradient of a step does not depend on how it is computed: accumulated, checkpointed, in bfloat16, retried."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import distributed

from model.acoustic.model import AcousticModel
from model.config.resolution import resolve
from model.features.batching import FRAME_MULTIPLE, TOKEN_MULTIPLE, TrainingBatches, round_up
from model.features.store import FeatureStore
from model.loop.distributed import Processes
from model.training import step
from model.training.adaptation import freeze, model_dimensions
from model.training.losses import (
    AVERAGED_OVER,
    contrastive_speaker_loss,
    has_unused_parameters,
    loss_terms,
    loss_weights,
    weighted_sum,
)
from model.training.profiling import StepTimer
from model.training.step import (
    ModelWithLoss,
    Precision,
    StepContext,
    accumulate_gradients,
    accumulate_within_memory,
    split_batch,
)

CPU = torch.device("cpu")
STILL = {"model.dropout": 0.0, "model.predictor_dropout": 0.0, "model.aligner_dropout": 0.0}


@pytest.fixture(scope="module")
def setting(generated_features):
    """Returns a batch of 11 clips of different lengths, loss settings, and a function that builds the same model."""
    store = FeatureStore(generated_features)
    config = resolve(None, None, {"model_size": "xtiny", **STILL}).config
    batch = next(TrainingBatches(store, 11, seed=0))

    def build():
        torch.manual_seed(0)
        return AcousticModel(config.model, model_dimensions(store)).train()

    return batch, config.loss, build


def context(model, processes):
    """Returns the step context of a model on the CPU."""
    inner = model.module if hasattr(model, "module") else model
    return StepContext(
        model=model,
        precision=inner.precision,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        processes=processes,
        timer=StepTimer(CPU),
    )


def gradient(setting, micro_batches=1, autocast=None, run=accumulate_gradients, checkpointing=False, trim=True):
    batch, config, build = setting
    model = build()
    model.encoder.checkpointing = model.decoder.checkpointing = checkpointing
    precision = Precision(CPU, autocast, trim)
    weights = loss_weights(config, 1.0)
    loss = run(context(ModelWithLoss(model, config, precision), Processes()), batch, weights, micro_batches)
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


def largest_difference(one, other) -> float:
    """Returns the largest difference of two gradients, relative to the largest element of the first."""
    scale = max(float(g.abs().max()) for g in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / scale


@pytest.mark.parametrize("micro_batches", [2, 3, 11, 40])
@pytest.mark.parametrize("trim", [True, False])
def test_accumulated_gradients_equal_those_of_the_whole_batch(setting, micro_batches, trim):
    whole_loss, whole = gradient(setting)
    loss, accumulated = gradient(setting, micro_batches, trim=trim)
    assert largest_difference(whole, accumulated) < 1e-6
    assert loss.total == pytest.approx(whole_loss.total, rel=1e-6)
    assert loss.terms == pytest.approx(whole_loss.terms, rel=1e-5)


def compute_process_gradient(setting, rank: int, world_size: int, micro_batches: int, folder: Path) -> None:
    """Computes the gradient of one process's share of the clips, in micro-batches; gradient and loss go to a file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world_size)
    try:
        batch, config, build = setting
        share, processes = split_batch(batch, world_size, trim=True)[rank], Processes(rank=rank, world_size=world_size)
        precision, model = Precision(CPU, None, True), build()
        wrapped = processes.wrap(ModelWithLoss(model, config, precision), find_unused_parameters=False)
        weights = loss_weights(config, 1.0)
        loss = accumulate_gradients(context(wrapped, processes), share, weights, micro_batches)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        torch.save({"gradients": gradients, "total": loss.total, "terms": loss.terms}, folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 3), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_processes_together_have_the_gradient_of_the_whole_batch(setting, tmp_path, world_size, micro_batches):
    """Compares unclipped gradients by value, so that a missing factor of the averaging is detected."""
    loss, whole = gradient(setting)
    fork = multiprocessing.get_context("fork")  # a fresh interpreter would spend its time on imports
    ranks = [
        fork.Process(target=compute_process_gradient, args=(setting, rank, world_size, micro_batches, tmp_path))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(600)
    assert [process.exitcode for process in ranks] == [0] * world_size
    for rank in range(world_size):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert largest_difference(whole, found["gradients"]) < 1e-5
        assert found["total"] == pytest.approx(loss.total, rel=1e-5)
        assert found["terms"] == pytest.approx(loss.terms, rel=1e-5)


def test_dividing_by_the_number_of_micro_batches_would_not_be_equal(setting, monkeypatch):
    _, whole = gradient(setting)
    monkeypatch.setattr(step, "batch_counts", lambda batch: torch.ones(3) * (3 if len(batch.clip_ids) == 11 else 1))
    _, accumulated = gradient(setting, 3)
    assert largest_difference(whole, accumulated) > 1e-3


def test_micro_batches_are_all_clips_in_order_without_needless_padding(setting):
    batch = setting[0]
    pieces = split_batch(batch, 4, trim=True)
    assert [name for piece in pieces for name in piece.clip_ids] == batch.clip_ids
    for piece in pieces:
        assert piece.ids.shape[1] == round_up(int(piece.token_lengths.max()), TOKEN_MULTIPLE)
        assert piece.mel.shape[1] == piece.pitch.shape[1] == round_up(int(piece.mel_lengths.max()), FRAME_MULTIPLE)


def test_every_loss_term_has_a_unit_that_it_is_averaged_over(setting):
    batch, config, build = setting
    assert set(loss_terms(build()(batch), batch, config)) <= set(AVERAGED_OVER) == set(loss_weights(config, 1.0))


def test_checkpointed_gradients_equal_plain_ones_and_store_less(setting):
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


def test_a_micro_batch_of_one_speaker_has_no_contrast(generated_features):
    """Batches of the contrastive loss are ordered by speaker, which is why the checklist warns of small ones."""
    batch = next(TrainingBatches(FeatureStore(generated_features), 8, seed=0, clips_per_speaker=4))

    def contrast(piece):
        return float(contrastive_speaker_loss(piece.speaker_vector, piece.speaker, piece.reference_clip, 0.07))

    assert contrast(batch) > 0
    assert [contrast(piece) for piece in split_batch(batch, 2, trim=True)] == [0, 0]


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
        {"training.freeze": ["decoder"]},
    ],
)
def test_unused_parameters_are_known_from_the_settings(setting, generated_features, changes):
    config = resolve(None, None, {"model_size": "xtiny", **changes}).config
    model = AcousticModel(config.model, model_dimensions(FeatureStore(generated_features)))
    freeze(model, config.training.freeze)
    unused = set()
    for progress in (0.0, 0.2, 1.0):
        terms = loss_terms(model(setting[0]), setting[0], config.loss)
        weighted_sum(terms, loss_weights(config.loss, progress)).backward()
        trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        unused |= {name for name, parameter in trainable if parameter.grad is None}
        model.zero_grad()
    assert has_unused_parameters(config) == bool(unused)


@pytest.mark.parametrize("aligner_trains", [True, False])
def test_processes_exchange_trainable_gradients_once_a_step_and_need_none_of_terms_without_weight(
    setting, generated_features, tmp_path, aligner_trains
):
    """The KL divergence has weight 0 at first, so the prior gets no gradient, and no process may wait for one."""
    config = resolve(None, None, {"model_size": "xtiny", **STILL, "model.use_variational_encoder": True}).config
    model = AcousticModel(config.model, model_dimensions(FeatureStore(generated_features)))
    precision, buckets, exchanged = Precision(CPU, None, True), [], []

    def count(_, bucket):
        buckets.append(bucket.index())
        exchanged.append(bucket.buffer().numel())
        answer = torch.futures.Future()
        answer.set_result(bucket.buffer())
        return answer

    def wrap():
        return Processes(world_size=2).wrap(
            ModelWithLoss(model, config.loss, precision), find_unused_parameters=has_unused_parameters(config)
        )

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        wrap()
        model.aligner.requires_grad_(aligner_trains)  # frozen once its durations are cached
        wrapped = wrap()
        wrapped.register_comm_hook(None, count)
        for progress in (0.0, 0.5):
            buckets.clear()
            exchanged.clear()
            weights = loss_weights(config.loss, progress)
            accumulate_gradients(context(wrapped, Processes()), setting[0], weights, micro_batches=2)
            assert len(buckets) == len(set(buckets))
            trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
            assert sum(exchanged) == sum(parameter.numel() for parameter in trainable)
    finally:
        distributed.destroy_process_group()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())


def test_out_of_memory_leads_to_smaller_micro_batches_and_the_same_gradient(setting, monkeypatch):
    _, whole = gradient(setting)
    attempts = []

    def scarce(context, batch, weights, micro_batches):
        attempts.append(micro_batches)
        loss = accumulate_gradients(context, batch, weights, micro_batches)
        if micro_batches < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss

    monkeypatch.setattr(step, "accumulate_gradients", scarce)
    (_, micro_batches), retried = gradient(setting, run=accumulate_within_memory)
    assert attempts == [1, 2, 4]
    assert micro_batches == 4
    assert largest_difference(whole, retried) < 1e-6


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no such operator"), MemoryError()]
)
def test_other_errors_and_a_single_clip_too_large_are_raised(setting, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(step, "accumulate_gradients", fails)
    with pytest.raises(type(error)):
        gradient(setting, micro_batches=11, run=accumulate_within_memory)
