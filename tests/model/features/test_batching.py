"""Batches: every clip once per epoch, exact resuming, padding, reference clips."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.audio import SILENCE
from model.errors import FeatureError
from model.features.batching import FRAME_MULTIPLE, TOKEN_MULTIPLE, TrainingBatches, evaluation_batches
from model.features.sampling import BatchSampler, SpeakerBatchSampler

LENGTHS = st.lists(st.integers(1, 900), min_size=1, max_size=200)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5))
def test_every_clip_comes_once_per_epoch(lengths, batch_size, seed):
    sampler = BatchSampler(lengths, batch_size, seed)
    for epoch in range(3):
        seen = []
        while len(seen) < len(lengths):
            batch = next(sampler)
            assert 1 <= len(batch) <= batch_size
            assert sampler.epoch == epoch
            seen += batch
        assert sorted(seen) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 20), st.integers(0, 60))
def test_a_resumed_sampler_gives_the_batches_of_an_uninterrupted_one(lengths, batch_size, steps):
    sampler = BatchSampler(lengths, batch_size, seed=7)
    for _ in range(steps):
        next(sampler)
    resumed = BatchSampler(lengths, batch_size, seed=7)
    resumed.load_state_dict(sampler.state_dict())
    for _ in range(50):
        assert next(resumed) == next(sampler)


@given(LENGTHS, st.integers(1, 20))
def test_no_batch_is_much_smaller_than_the_others(lengths, batch_size):
    sizes = [len(batch) for batch in BatchSampler(lengths, batch_size, seed=0).order(0)]
    assert max(sizes) <= batch_size
    assert min(sizes) >= min(len(lengths), batch_size // 2)


def test_epochs_and_seeds_differ():
    orders = [BatchSampler(range(1, 100), 8, seed).order(epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4


def test_clips_of_similar_length_come_together():
    lengths = np.random.default_rng(0).integers(50, 900, size=512)

    def padded_share(batches):
        return 1 - lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches)

    shuffled = np.random.default_rng(0).permutation(512).reshape(-1, 16)
    assert padded_share(BatchSampler(lengths, 16, 0).order(0)) < 0.12 < 0.35 < padded_share(shuffled)


def test_a_frame_budget_bounds_every_batch_and_loses_no_clip():
    lengths = np.random.default_rng(1).integers(50, 900, size=200)
    batches = BatchSampler(lengths, 16, 0, max_frames=4096).order(0)
    assert sorted(clip for batch in batches for clip in batch) == list(range(200))
    sizes = [len(batch) for batch in batches]
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 4096
    assert max(sizes) > 2 * min(sizes)  # short clips come in larger batches than long ones


def test_a_clip_above_the_frame_budget_is_a_batch_of_its_own():
    batches = BatchSampler([900, 100, 100, 5000], 8, 0, max_frames=1000).order(0)
    assert sorted(sorted(batch) for batch in batches) == [[0], [1, 2], [3]]


@given(LENGTHS, st.integers(2, 4), st.integers(1, 5), st.integers(1, 2000))
def test_every_process_gets_a_clip_of_every_batch(lengths, processes, clips, max_frames):
    batches = BatchSampler(lengths, processes * clips, 0, max_frames=max_frames, min_size=processes).order(0)
    assert min(map(len, batches)) >= min(processes, len(lengths))
    assert sorted(clip for batch in batches for clip in batch) == list(range(len(lengths)))


def test_training_resumes_to_the_batch(store):
    batches = TrainingBatches(store, 4, seed=3)
    for _ in range(7):
        next(batches)
    state = batches.state_dict()
    resumed = TrainingBatches(store, 4, seed=3)
    resumed.load_state_dict(state)
    for _ in range(10):
        ours, theirs = next(resumed), next(batches)
        assert ours.clip_ids == theirs.clip_ids
        assert torch.equal(ours.mel, theirs.mel)
        assert torch.equal(ours.speaker_vector, theirs.speaker_vector)


def test_shapes_types_and_padding(store):
    batch = next(TrainingBatches(store, 6, seed=0))
    size, tokens, frames = len(batch.clip_ids), batch.ids.shape[1], batch.mel.shape[1]
    assert tokens % TOKEN_MULTIPLE == frames % FRAME_MULTIPLE == 0  # few shapes, which recur
    assert 0 <= tokens - int(batch.token_lengths.max()) < TOKEN_MULTIPLE
    assert 0 <= frames - int(batch.mel_lengths.max()) < FRAME_MULTIPLE
    assert batch.ids.shape == (size, tokens, 2)
    assert batch.mel.shape == (size, frames, 80)
    assert batch.pitch.shape == batch.voiced.shape == batch.energy.shape == (size, frames)
    assert batch.speaker_vector.shape == (size, 256)
    for name in ("mel", "pitch", "energy", "speaker_vector"):
        assert getattr(batch, name).dtype == torch.float32
    for name in ("ids", "token_lengths", "mel_lengths", "speaker", "language"):
        assert getattr(batch, name).dtype == torch.int64
    assert batch.voiced.dtype == torch.bool
    by_id = {clip.id: position for position, clip in enumerate(store.clips)}
    for row, name in enumerate(batch.clip_ids):
        clip = store.clip(by_id[name])
        s, t = len(clip.mel), len(clip.ids)
        assert (int(batch.mel_lengths[row]), int(batch.token_lengths[row])) == (s, t)
        assert np.array_equal(batch.mel[row, :s], clip.mel)
        assert np.array_equal(batch.ids[row, :t], clip.ids)
        assert np.array_equal(batch.voiced[row, :s], clip.pitch > 0)
        assert (batch.mel[row, s:] == SILENCE).all()
        assert not batch.ids[row, t:].any()
        assert not batch.pitch[row, s:].any()
        assert not batch.energy[row, s:].any()
        assert not batch.voiced[row, s:].any()
        assert not batch.pitch[row, :s][~batch.voiced[row, :s]].any()
        mean, deviation = store.statistics.log_f0[store.speakers[clip.speaker]]
        voiced = clip.pitch > 0
        wanted = (np.log(clip.pitch[voiced]) - mean) / deviation
        assert np.allclose(batch.pitch[row, :s][voiced], wanted, atol=1e-3)


def test_pitch_and_energy_are_standardized_over_the_training_clips(store):
    batches = TrainingBatches(store, 17, seed=0)
    batch = next(batches)
    assert len(batch.clip_ids) == len(store.split("train"))
    inside = torch.arange(batch.mel.shape[1]) < batch.mel_lengths[:, None]
    assert batch.energy[inside].mean().abs() < 1e-3
    assert abs(batch.energy[inside].std() - 1) < 1e-2
    assert batch.pitch[batch.voiced].mean().abs() < 1e-2


def test_training_conditions_on_another_clip_if_there_is_one(store):
    batches = TrainingBatches(store, 4, seed=0)
    drawn: dict[str, set[int]] = {}
    for _ in range(40):
        batch = next(batches)
        for row, name in enumerate(batch.clip_ids):
            position = next(i for i, clip in enumerate(store.clips) if clip.id == name)
            reference = batches.reference_position(position, batches.sampler.epoch)
            clip, other = store.clips[position], store.clips[reference]
            assert other.speaker == clip.speaker
            assert other.split == "train"
            assert (reference != position) or clip.speaker == "lone"
            assert np.array_equal(batch.speaker_vector[row], store.speaker_vectors[reference])
            drawn.setdefault(name, set()).add(reference)
    assert max(len(references) for references in drawn.values()) > 3


def test_evaluation_is_in_order_and_conditions_on_the_centroid(store):
    batches = list(evaluation_batches(store, "test", 3))
    assert [name for batch in batches for name in batch.clip_ids] == [
        clip.id for clip in store.clips if clip.split == "test"
    ]
    position = store.split("test")[0]
    wanted = store.speaker_centroid(store.clips[position].speaker)
    assert np.allclose(batches[0].speaker_vector[0], wanted, atol=1e-6)


def test_evaluation_never_conditions_on_the_clip_itself(store):
    first, second = (i for i in store.split("test") if store.clips[i].speaker == "unheard")
    batch = next(evaluation_batches(store, "test", 9))
    for position, other in ((first, second), (second, first)):
        row = batch.clip_ids.index(store.clips[position].id)
        assert np.allclose(batch.speaker_vector[row], store.speaker_vectors[other], atol=1e-6)
        assert int(batch.reference_clip[row]) == other


def test_an_empty_split_is_an_error(store):
    with pytest.raises(FeatureError, match="no clip is in the dev split"):
        next(evaluation_batches(store, "dev", 4))


def test_a_batch_moves_as_a_whole(store):
    moved = next(TrainingBatches(store, 2, seed=0)).to("meta")
    assert moved.mel.device.type == moved.voiced.device.type == "meta"
    assert len(moved.clip_ids) == 2


def test_a_batch_costs_little(store):
    batches = TrainingBatches(store, 16, seed=0)
    fastest = min(_seconds(batches) for _ in range(20))
    assert fastest < 0.01


def _seconds(batches) -> float:
    started = time.process_time()
    next(batches)
    return time.process_time() - started


def test_batches_of_speakers_hold_several_clips_of_each_and_every_clip_once():
    generator = np.random.default_rng(0)
    lengths, speakers = generator.integers(50, 400, 60), np.repeat([0, 1, 2, 3, 4], [20, 20, 10, 8, 2])
    sampler = SpeakerBatchSampler(lengths, speakers, batch_size=8, clips_per_speaker=4, seed=1)
    batches = sampler.order(0)
    assert sorted(clip for batch in batches for clip in batch) == list(range(60))
    assert max(map(len, batches)) <= 8
    assert sampler.without_contrast == sum(
        len(set(speakers[batch])) == 1 or len(set(speakers[batch])) == len(batch) for batch in batches
    )
    assert sampler.without_contrast <= len(batches) / 4
    assert sampler.order(1) != batches
    bounded = SpeakerBatchSampler(lengths, speakers, batch_size=8, clips_per_speaker=4, seed=1, max_frames=1600)
    assert all(len(batch) * lengths[batch].max() <= 1600 or len(batch) <= 4 for batch in bounded.order(0))


def test_a_small_last_batch_of_speakers_is_balanced_with_the_one_before():
    lengths, speakers = [50] * 17, [0] * 8 + [1] * 8 + [2]
    for epoch in range(20):
        batches = SpeakerBatchSampler(lengths, speakers, batch_size=8, clips_per_speaker=4, seed=1).order(epoch)
        assert min(map(len, batches)) >= 4
        assert sorted(clip for batch in batches for clip in batch) == list(range(17))


@pytest.mark.parametrize(("speakers", "without"), [([0, 1, 2, 3], 1), ([0, 0, 0, 0], 1), ([0, 0, 1, 1], 0)])
def test_batches_without_contrast_are_those_of_one_speaker_or_of_one_clip_each(speakers, without):
    sampler = SpeakerBatchSampler([50] * 4, speakers, batch_size=4, clips_per_speaker=2, seed=0)
    assert sampler.without_contrast == without


def test_batches_of_speakers_resume_exactly():
    lengths, speakers = np.arange(20) + 50, np.arange(20) % 3
    whole, first, resumed = (
        SpeakerBatchSampler(lengths, speakers, batch_size=4, clips_per_speaker=2, seed=5) for _ in range(3)
    )
    expected = [next(whole) for _ in range(12)]
    again = [next(first) for _ in range(7)]
    resumed.load_state_dict(first.state_dict())
    assert again + [next(resumed) for _ in range(5)] == expected


def test_a_store_without_contrast_is_an_error(store, monkeypatch):
    alone = [i for i in store.split("train") if store.clips[i].speaker == "anna"]
    monkeypatch.setattr(store, "split", lambda name: alone)
    with pytest.raises(FeatureError, match="use_contrastive_speaker_loss"):
        TrainingBatches(store, 8, 0, clips_per_speaker=4)


def test_references_are_excerpts_of_other_clips_and_a_speakers_only_clip_has_none(store):
    batches = TrainingBatches(store, 4, 3)
    for batch in (next(batches) for _ in range(6)):
        for row, clip_id in enumerate(batch.clip_ids):
            own = next(i for i, clip in enumerate(store.clips) if clip.id == clip_id)
            source = int(batch.reference_clip[row])
            frames = int(batch.reference_lengths[row])
            assert store.clips[source].speaker == store.clips[own].speaker
            assert (frames == 0) == (source == own) == (store.clips[own].speaker == "lone")
            assert float(batch.reference_mel[row, frames:].max()) == pytest.approx(float(np.log(1e-5)), abs=1e-3)
            excerpt, recorded = batch.reference_mel[row, :frames].numpy(), store.clip(source).mel
            starts = range(len(recorded) - frames + 1)
            assert not frames or any(np.array_equal(recorded[i : i + frames], excerpt) for i in starts)
    for batch in evaluation_batches(store, "test", 4):
        own = [next(i for i, clip in enumerate(store.clips) if clip.id == name) for name in batch.clip_ids]
        assert not any(source == position for source, position in zip(batch.reference_clip.tolist(), own, strict=True))
