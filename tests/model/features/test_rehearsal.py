"""Rehearsal: each batch has clips of the corpus and of the base in the configured shares; resuming is exact."""

import numpy as np
import pytest
import torch

from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.errors import FeatureError
from model.features.loader import Loader, RehearsalLoader, batch_sizes
from model.features.store import FeatureStore


@pytest.fixture
def other(generated_features):
    """The base's features: those of the generated corpus, as if the base had learned its languages in reverse order."""
    return FeatureStore(generated_features)


@pytest.fixture
def own(generated_features):
    return FeatureStore(generated_features)


def settings(**training) -> TrainSettings:
    given = {"rehearsal": 0.25, "batch_size": 8, "max_batch_frames": 0, "buffer_size": 0, **training}
    return TrainSettings.of(resolve(None, None, {f"training.{key}": value for key, value in given.items()}).config)


@pytest.mark.parametrize(
    ("share", "size", "clips", "expected"),
    [(0.25, 8, 100, (6, 2)), (0.5, 16, 100, (8, 8)), (0.25, 16, 3, (3, 1)), (0.5, 16, 4, (4, 4)), (0.01, 8, 9, (7, 1))],
)
def test_the_share_holds_in_full_batches_and_in_those_of_a_few_clips(share, size, clips, expected):
    assert batch_sizes(settings(rehearsal=share, batch_size=size), clips) == expected


def test_a_batch_is_that_of_the_corpus_and_that_of_the_base(own, other):
    languages = ["xx", *reversed(other.languages)]
    loader = RehearsalLoader(own, other, settings(), languages)
    ours, theirs = (Loader(store, settings(batch_size=size)) for store, size in ((own, 6), (other, 2)))
    for _ in range(4):
        batch, first, second = next(loader), next(ours), next(theirs)
        assert batch.clip_ids == [*first.clip_ids, *second.clip_ids]
        rows = len(first.clip_ids)
        assert torch.equal(batch.mel_lengths, torch.cat([first.mel_lengths, second.mel_lengths]))
        for whole, part in ((batch.mel[:rows], first.mel), (batch.mel[rows:], second.mel)):
            assert torch.equal(whole[:, : part.shape[1]], part)
        names = [languages[index] for index in batch.language[rows:]]
        assert names == [other.languages[index] for index in second.language]
        assert torch.equal(batch.language[:rows], first.language)
        assert set(batch.speaker[rows:].tolist()).isdisjoint(range(len(own.speakers)))
        assert torch.equal(batch.speaker_vector[rows:], second.speaker_vector)


def test_it_resumes_at_the_batch(own, other):
    loader = RehearsalLoader(own, other, settings(), other.languages)
    for _ in range(5):
        next(loader)
    state = loader.state_dict()
    wanted = [next(loader) for _ in range(4)]
    again = RehearsalLoader(own, other, settings(buffer_size=2), other.languages)
    again.load_state_dict(state)
    for batch in wanted:
        found = next(again)
        assert found.clip_ids == batch.clip_ids
        assert torch.equal(found.mel, batch.mel)
    again.close()


def test_two_processes_share_the_batches_of_one(own, other):
    whole = RehearsalLoader(own, other, settings(batch_size=16), other.languages)
    halves = [RehearsalLoader(own, other, settings(batch_size=8), other.languages, rank=r, world=2) for r in (0, 1)]
    for _ in range(3):
        assert sorted(next(whole).clip_ids) == sorted(clip for half in halves for clip in next(half).clip_ids)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"enable_static_shapes": True}, "enable_static_shapes"), ({"durations": "cached"}, "durations: cached")],
)
def test_settings_that_do_not_go_with_rehearsal_are_refused(own, other, changes, named):
    with pytest.raises(FeatureError, match=f"training.{named}"):
        RehearsalLoader(own, other, settings(**changes), other.languages)


def test_languages_and_features_that_do_not_fit_are_refused(own, other):
    with pytest.raises(FeatureError, match=rf"the base speaks {other.languages[-1]}.*keep_languages"):
        RehearsalLoader(own, other, settings(), other.languages[:-1])
    other.speaker_vectors = np.ones((len(other.clips), 3), np.float32)
    with pytest.raises(FeatureError, match="other mel settings or speaker embeddings"):
        RehearsalLoader(own, other, settings(), other.languages)
