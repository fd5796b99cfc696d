"""The loader: batches loaded ahead, resuming, sharing among processes, static shapes."""

import pytest
import torch

from model.config.resolution import resolve
from model.errors import FeatureError
from model.features.batching import TrainingBatches
from model.features.loader import Loader, ShapeSampler, pad_batch


def settings(seed=1, **training):
    return resolve(None, None, {"seed": seed, **{f"training.{key}": value for key, value in training.items()}}).config


def same(one, other) -> bool:
    tensors = [name for name, value in vars(one).items() if isinstance(value, torch.Tensor)]
    return one.clip_ids == other.clip_ids and all(torch.equal(getattr(one, n), getattr(other, n)) for n in tensors)


@pytest.mark.parametrize(("buffer_size", "num_workers"), [(0, 1), (1, 1), (5, 2), (30, 3)])
def test_batches_loaded_ahead_are_the_same_batches(store, buffer_size, num_workers):
    plain = TrainingBatches(store, 4, seed=3)
    loader = Loader(store, settings(batch_size=4, buffer_size=buffer_size, num_workers=num_workers, seed=3))
    for _ in range(25):
        assert same(next(loader), next(plain))
    assert len(loader._queue) == max(buffer_size - 1, 0)
    loader.close()


@pytest.mark.parametrize("static", [True, False])
def test_a_resumed_loader_continues_after_the_last_batch_returned(store, static):
    training = settings(batch_size=4, buffer_size=6, num_workers=2, enable_static_shapes=static, num_shape_buckets=3)
    whole, first = Loader(store, training), Loader(store, training)
    for _ in range(7):
        next(whole)
        next(first)
    resumed = Loader(store, training)
    next(resumed)  # batches loaded ahead are discarded
    resumed.load_state_dict(first.state_dict())
    for _ in range(12):
        assert same(next(whole), next(resumed))


def test_processes_share_each_batch_evenly(store):
    whole = Loader(store, settings(batch_size=8))
    parts = [Loader(store, settings(batch_size=4), rank=rank, world=2) for rank in (0, 1)]
    for _ in range(10):
        batch, shares = next(whole), [next(part) for part in parts]
        assert [share.clip_ids for share in shares] == [batch.clip_ids[0::2], batch.clip_ids[1::2]]
    for rank in (0, 39):  # every process raises, so that none waits for the others
        with pytest.raises(FeatureError, match="cannot be shared among 40 processes"):
            next(Loader(store, settings(batch_size=1, buffer_size=0), rank=rank, world=40))


def test_each_process_can_compare_speakers(store):
    losses = {"loss.use_contrastive_speaker_loss": True, "loss.contrastive_clips_per_speaker": 2}
    config = resolve(None, None, {"training.batch_size": 4, **losses}).config
    whole = TrainingBatches(store, 16, config.seed, clips_per_speaker=2)
    parts = [Loader(store, config, rank=rank, world=4) for rank in range(4)]
    for _ in range(6):
        batch, shares = next(whole), [next(part) for part in parts]
        assert [name for share in shares for name in share.clip_ids] == batch.clip_ids
        repeated = [len(share.speaker.unique()) < len(share.speaker) for share in shares if len(share.speaker) > 2]
        assert all(repeated)


def test_an_error_while_loading_ahead_reaches_the_step(store, monkeypatch):
    loader = Loader(store, settings(batch_size=4, buffer_size=3))

    def broken(*_):
        raise FeatureError("shard lost")

    monkeypatch.setattr(loader.batches, "load", broken)
    with pytest.raises(FeatureError, match="shard lost"):
        next(loader)


@pytest.mark.parametrize("max_frames", [0, 700])
def test_every_batch_has_one_of_few_shapes(store, max_frames):
    training = settings(
        batch_size=4, max_batch_frames=max_frames, enable_static_shapes=True, num_shape_buckets=3, buffer_size=0
    )
    loader = Loader(store, training)
    shapes, seen = set(), set()
    for _ in range(40):
        batch = next(loader)
        shapes.add((*batch.ids.shape[:2], batch.mel.shape[1]))
        seen |= set(batch.clip_ids)
        assert not max_frames or batch.mel.shape[0] * batch.mel.shape[1] <= max_frames
    assert len(shapes) <= 3
    assert len(seen) == len(store.split("train"))
    assert all(tokens % 8 == frames % 8 == 0 for _, tokens, frames in shapes)


def test_every_clip_comes_in_every_epoch_of_a_shape_sampler():
    frames, tokens = [100 + 7 * (i % 40) for i in range(150)], [10 + i % 40 for i in range(150)]
    sampler = ShapeSampler(frames, tokens, batch_size=16, seed=0, max_frames=0, buckets=4, divisor=4)
    assert sampler.order(0) != sampler.order(1)
    assert sampler.order(2) == sampler.order(2)
    for epoch in range(3):
        order = sampler.order(epoch)
        assert {clip for batch in order for clip in batch} == set(range(150))
        for batch in order:
            shape = sampler.shape_of(batch[0])
            assert len(batch) == shape.clips == 16
            assert max(frames[i] for i in batch) <= shape.frames
            assert max(tokens[i] for i in batch) <= shape.tokens


def test_padding_to_a_bucket_changes_no_loss(store):
    from model.acoustic.model import AcousticModel
    from model.training.adaptation import model_dimensions
    from model.training.losses import loss_terms

    config = resolve(None, None, {"model_size": "xtiny"}).config
    model = AcousticModel(config.model, model_dimensions(store)).eval()
    batch = next(TrainingBatches(store, 4, seed=0))
    padded = pad_batch(batch, batch.ids.shape[1] + 9, batch.mel.shape[1] + 50)
    assert padded.mel.shape[1] == batch.mel.shape[1] + 50
    with torch.no_grad():
        plain, more = (loss_terms(model(item), item, config.loss) for item in (batch, padded))
    for name in plain:
        assert float(more[name]) == pytest.approx(float(plain[name]), abs=1e-5), name


def test_batches_for_a_gpu_are_pinned_whole(store, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    batch = next(Loader(store, settings(batch_size=4, buffer_size=0), pin=True))
    assert len(pinned) == sum(isinstance(value, torch.Tensor) for value in vars(batch).values())
