"""Random speakers: how they are drawn, which clips they speak, and what these clips teach the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.acoustic.model import AcousticModel
from model.config.resolution import resolve
from model.config.training import TrainSettings
from model.features.batching import TrainingBatches
from model.features.store import FeatureStore
from model.training import losses
from model.training.adaptation import model_dimensions
from model.training.losses import SpeakerConsistency, loss_terms
from model.training.random_speakers import RandomSpeakers, SpeakerDistribution
from model.training.state import speaker_consistency
from model.training.trainer import train
from model.voice import read_voice

PRETRAINED = {"model.use_speaker_consistency_loss": True}


def unit_vectors(count, width=256, seed=0):
    """Returns non-negative unit vectors that vary along three directions."""
    random = np.random.default_rng(seed)
    vectors = random.random(width) + random.normal(size=(count, 3)) @ random.normal(size=(3, width)) * 0.1
    vectors = vectors.clip(0)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def batch(generated_features):
    return next(TrainingBatches(FeatureStore(generated_features), 11, seed=0))


def test_drawn_vectors_are_distributed_like_those_of_the_speakers():
    vectors = unit_vectors(60)
    drawn = SpeakerDistribution.fit(vectors).draw(4000).numpy()
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.abs(drawn.mean(0) - vectors.mean(0)).max() < 0.01
    spread, theirs = (np.linalg.norm(item - item.mean(0), axis=1).mean() for item in (drawn, vectors))
    assert spread == pytest.approx(theirs, rel=0.1)


def test_the_distribution_is_saved_and_has_fewer_directions_than_speakers(tmp_path):
    fitted = SpeakerDistribution.fit(unit_vectors(12))
    fitted.save(tmp_path / "d.npz")
    loaded = SpeakerDistribution.load(tmp_path / "d.npz")
    assert loaded.directions.shape == (11, 256)
    torch.testing.assert_close(loaded.mean, fitted.mean, atol=1e-3, rtol=1e-2)


def test_the_shipped_distribution_differs_between_draws_as_speakers_do():
    drawn = SpeakerDistribution.load().draw(200)
    cosines = drawn @ drawn.T
    between = float((cosines.sum() - len(drawn)) / (len(drawn) * (len(drawn) - 1)))
    assert 0.5 < between < 0.65  # recordings of different speakers: 0.56 (`benchmarks/cloning.py`)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_a_share_of_the_clips_gets_other_speakers_and_one_at_least_keeps_its_own(batch, share):
    clips = len(batch.clip_ids)
    replaced = {0.0: 0, 0.99: clips - 1}.get(share, round(share * clips))
    changed = RandomSpeakers(share, SpeakerDistribution.fit(unit_vectors(9))).apply_to(batch)
    differs = (changed.speaker_vector != batch.speaker_vector).any(1)
    assert int(differs.sum()) == replaced
    if replaced:
        assert torch.equal(changed.random_speaker, differs)
    assert changed.mel is batch.mel


def test_other_clips_and_speakers_are_drawn_each_time_and_the_same_from_the_same_random_state(batch):
    random_speakers = RandomSpeakers(0.5, SpeakerDistribution.fit(unit_vectors(9)))

    def draw(seed=None):
        if seed is not None:
            torch.manual_seed(seed)
        return random_speakers.apply_to(batch).speaker_vector

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(), draw())


@pytest.fixture
def output(batch, generated_features):
    config = resolve(None, None, {"model_size": "xtiny"}).config
    torch.manual_seed(0)
    model = AcousticModel(config.model, model_dimensions(FeatureStore(generated_features))).eval()
    return model(batch), config.loss


def test_the_mel_error_of_random_speakers_ignores_the_mean_spectrum_only(batch, output):
    result, config = output
    louder = replace(result, mel=result.mel + torch.linspace(-1, 1, batch.mel.shape[2]))
    slanted = replace(result, mel=result.mel + torch.linspace(-1, 1, batch.mel.shape[1])[:, None])

    def error(given, mel):
        return loss_terms(mel, given, config)["mel"].item()

    everyone = replace(batch, random_speaker=torch.ones(len(batch.clip_ids), dtype=torch.bool))
    nobody = replace(batch, random_speaker=torch.zeros(len(batch.clip_ids), dtype=torch.bool))
    assert error(everyone, louder) == pytest.approx(error(everyone, result), rel=1e-5)
    assert abs(error(everyone, slanted) - error(everyone, result)) > 0.01
    assert error(nobody, louder) == pytest.approx(error(batch, louder))
    assert error(batch, louder) != pytest.approx(error(batch, result), rel=1e-3)


class Bands(torch.nn.Module):
    """Encoder whose embedding is the direction of an excerpt's mean spectrum."""

    frames = 5

    def forward(self, mel):
        return torch.nn.functional.normalize(mel.mean(1), dim=1)


def test_random_speakers_are_the_target_of_their_clips_and_come_first(batch, monkeypatch):
    clips = len(batch.clip_ids)
    vectors = torch.nn.functional.normalize(torch.rand(clips, batch.mel.shape[2]), dim=1)
    chosen = torch.zeros(clips, dtype=torch.bool)
    chosen[[2, 5]] = True
    random = replace(batch, speaker_vector=vectors, random_speaker=chosen)
    consistency = SpeakerConsistency(Bands(), torch.zeros(2, batch.mel.shape[2]))  # own speakers: cosine 0
    matching = torch.where(chosen[:, None, None], vectors[:, None].expand_as(batch.mel), batch.mel)
    monkeypatch.setattr(losses, "MAX_EXCERPTS", 2)
    assert float(consistency(matching, random)) == pytest.approx(0.0, abs=1e-5)  # only clips 2 and 5 are drawn
    assert float(consistency(matching, batch)) == pytest.approx(1.0)
    with torch.no_grad():
        assert float(consistency(matching, random)) == pytest.approx(1 - 2 / clips, abs=1e-5)  # all clips


def test_training_with_random_speakers_makes_others_sound_like_themselves(
    small_settings, generated_features, batch, tmp_path
):
    """Thirty steps of a small model; all but one clip of a batch are then spoken by other random speakers."""
    torch.manual_seed(1)
    spoken = RandomSpeakers(0.99, SpeakerDistribution.load()).apply_to(batch)
    store, found = FeatureStore(generated_features), {}
    for share in (0.0, 0.5):
        changes = {**PRETRAINED, "loss.speaker_consistency_start": 0.0, "loss.speaker_consistency_loss_weight": 10.0}
        changes |= {"training.max_steps": 30, "training.learning_rate": 3e-3, "training.random_speakers": share}
        config = TrainSettings.of(resolve(None, None, {**small_settings, **changes}).config)
        model = read_voice(train(config, store, tmp_path / str(share)).voice).model
        consistency = speaker_consistency(config, [store], torch.device("cpu"))
        with torch.no_grad():
            found[share] = float(consistency(model(spoken).mel, spoken))
    assert found[0.5] < found[0.0] - 0.02
