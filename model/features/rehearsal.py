"""Rehearsal: a share of each training batch comes from the features of the base voice, so that it is not forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from model.acoustic.batch import Batch
from model.config.training import TrainSettings
from model.errors import FeatureError
from model.features.loader import Loader, pad_batch
from model.features.store import FeatureStore


class RehearsalLoader:
    """Endless iterator over the training batches of one process, with clips of two feature stores in each.

    A batch has at most `training.batch_size` clips. Where the corpus has fewer, there are fewer clips of the base too,
    so that their share stays. Each store is drawn from as if it were alone.

    Args:
        store: Features of the corpus.
        rehearsed: Features of the base voice.
        config: Settings of the training; `training.rehearsal` is above 0.
        languages: Languages of the model, to which the indices in batches refer.
        rank: Rank of this process.
        world: World size.
        pin: Put batches into pinned memory, for a GPU.

    Raises:
        FeatureError: the two stores do not fit together, or settings contradict each other.
    """

    def __init__(
        self,
        store: FeatureStore,
        rehearsed: FeatureStore,
        config: TrainSettings,
        languages: Sequence[str],
        *,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
    ) -> None:
        self._check(store, rehearsed, config, languages)
        own, others = batch_sizes(config, len(store.split("train")) // world)
        self.pin = pin
        self.own = Loader(store, _with_batches(config, own), rank, world)
        self.others = Loader(rehearsed, _with_batches(config, others), rank, world)
        self._languages = torch.tensor([languages.index(name) for name in rehearsed.languages])
        self._first_speaker, self._first_clip = len(store.speakers), len(store.clips)

    @staticmethod
    def _check(store: FeatureStore, rehearsed: FeatureStore, config: TrainSettings, languages: Sequence[str]) -> None:
        for key, given in (
            ("training.enable_static_shapes", config.training.enable_static_shapes),
            ("training.durations: cached", config.training.durations == "cached"),
        ):
            if given:
                raise FeatureError(f"{key} does not support training.rehearsal; disable one of them")
        if missing := [name for name in rehearsed.languages if name not in languages]:
            raise FeatureError(
                f"training.rehearsal: the base speaks {', '.join(missing)}, which this voice does not; enable "
                "training.keep_languages, or set training.rehearsal to 0"
            )
        if rehearsed.audio != store.audio or rehearsed.speaker_vectors.shape[1] != store.speaker_vectors.shape[1]:
            raise FeatureError(
                f"{rehearsed.path}: the features of the base have other mel settings or speaker embeddings than "
                f"{store.path}; set training.rehearsal to 0"
            )

    def __next__(self) -> Batch:
        others = next(self.others)
        others = replace(
            others,
            language=self._languages[others.language],
            speaker=others.speaker + self._first_speaker,
            reference_clip=others.reference_clip + self._first_clip,
        )
        batch = concatenate(next(self.own), others)
        return batch.pin_memory() if self.pin else batch

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of both loaders."""
        return {"own": self.own.state_dict(), "others": self.others.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes after the batch at which `state` was taken."""
        self.own.load_state_dict(state["own"])
        self.others.load_state_dict(state["others"])

    def close(self) -> None:
        """Stops the loading threads."""
        self.own.close()
        self.others.close()


def batch_sizes(config: TrainSettings, clips: int) -> tuple[int, int]:
    """Returns the numbers of clips in a batch of a process that come from the corpus and from the base.

    Args:
        config: Settings of the training.
        clips: Training clips of the corpus for each process.
    """
    share, size = config.training.rehearsal, config.training.batch_size
    own = max(1, min(size - max(1, round(share * size)), clips))
    return own, max(1, round(own * share / (1 - share)))


def concatenate(first: Batch, second: Batch) -> Batch:
    """Returns one batch with the clips of two, padded to the longer one."""
    tokens = max(first.ids.shape[1], second.ids.shape[1])
    frames = max(first.mel.shape[1], second.mel.shape[1])
    one, other = (pad_batch(batch, tokens, frames) for batch in (first, second))
    values: dict[str, Any] = {"clip_ids": [*one.clip_ids, *other.clip_ids]}
    for field in fields(Batch):
        tensor = getattr(one, field.name)
        if torch.is_tensor(tensor):
            values[field.name] = torch.cat([tensor, getattr(other, field.name)])
    return Batch(**values)


def _with_batches(config: TrainSettings, size: int) -> TrainSettings:
    """Returns the settings with another batch size, and a bound on frames in proportion."""
    training = config.training
    frames = math.ceil(training.max_batch_frames * size / training.batch_size)
    changed = training.model_copy(update={"batch_size": size, "max_batch_frames": frames})
    return config.model_copy(update={"training": changed})
