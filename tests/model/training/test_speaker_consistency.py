"""The speaker consistency loss with the pretrained encoder: what it compares, and that it makes voices more similar."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.audio import SILENCE
from model.config.resolution import ConfigError, base_layers, resolve
from model.config.training import TrainSettings
from model.features.batching import TrainingBatches
from model.features.store import FeatureStore
from model.loop.devices import Devices
from model.loop.distributed import Processes
from model.speaker_encoder import MelResemblyzer, Resemblyzer
from model.speaker_encoder.resemblyzer import WHEELS
from model.training import losses
from model.training.losses import SpeakerConsistency, embed_speakers
from model.training.state import TrainingState, speaker_consistency
from model.training.trainer import train

pytestmark = pytest.mark.skipif(
    not list(WHEELS.glob("[Rr]esemblyzer-*.whl")), reason=f"{WHEELS} lacks the wheel with the weights (`make install`)"
)
CPU = torch.device("cpu")
ON = {"model.use_speaker_consistency_loss": True, "loss.speaker_consistency_start": 0.0}


@pytest.fixture(scope="module")
def store(generated_features) -> FeatureStore:
    return FeatureStore(generated_features)


@pytest.fixture(scope="module")
def embed(store) -> MelResemblyzer:
    return MelResemblyzer(store.audio, Resemblyzer.load())


@pytest.fixture
def consistency(store, embed) -> SpeakerConsistency:
    return SpeakerConsistency(embed, embed_speakers(store, embed).clone())


@pytest.fixture
def batch(store):
    return next(TrainingBatches(store, 8, seed=0))


def loss(consistency, batch, speakers=None) -> float:
    return float(consistency(batch.mel, batch.mel_lengths, batch.speaker if speakers is None else speakers))


def test_recordings_are_nearer_to_their_own_speaker_than_to_the_other(consistency, batch):
    with torch.no_grad():
        own = loss(consistency, batch)
        assert 0 < own < 0.35
        assert loss(consistency, batch, 1 - batch.speaker) > own + 0.1


def test_speakers_are_unit_vectors_in_the_order_of_the_store(store, embed, consistency):
    vectors = consistency.speakers
    assert vectors.shape == (len(store.speakers), 256)
    assert vectors.norm(dim=1).numpy() == pytest.approx(1.0, abs=1e-5)
    for row, name in enumerate(store.speakers):
        theirs = torch.from_numpy(store.speaker_centroid(name))
        assert int((vectors @ theirs).argmax()) == row


def test_many_speakers_are_embedded_from_fewer_clips(store, embed, monkeypatch):
    read = []
    clip = store.clip
    monkeypatch.setattr(store, "clip", lambda position: read.append(position) or clip(position))
    monkeypatch.setattr(losses, "MAX_CLIPS", 4)
    embed_speakers(store, embed)
    assert len(read) == 4
    monkeypatch.setattr(losses, "MAX_CLIPS", 1)
    read.clear()
    embed_speakers(store, embed)
    assert len(read) == len(store.speakers)


@torch.no_grad()
def test_neither_padding_nor_other_clips_count(consistency, batch):
    each = [
        float(consistency(batch.mel[i : i + 1, : int(n)], batch.mel_lengths[i : i + 1], batch.speaker[i : i + 1]))
        for i, n in enumerate(batch.mel_lengths)
    ]
    padded = batch.mel.clone()
    for i, n in enumerate(batch.mel_lengths):
        padded[i, int(n) :] = 3.0
    assert float(consistency(padded, batch.mel_lengths, batch.speaker)) == pytest.approx(np.mean(each), abs=1e-5)


def test_training_draws_excerpts_and_validation_takes_the_middle(consistency, embed, batch, monkeypatch):
    seen = []
    monkeypatch.setattr(
        embed, "forward", lambda mel: seen.append(mel) or torch.nn.functional.normalize(mel[:, 0], dim=1)
    )
    consistency = replace(consistency, speakers=torch.zeros(2, batch.mel.shape[2]))
    with torch.no_grad():
        for _ in range(2):
            loss(consistency, batch)
    assert torch.equal(seen[0], seen[1])
    assert len(seen[0]) == len(batch.clip_ids)
    longest = int(batch.mel_lengths.argmax())
    start = (int(batch.mel_lengths[longest]) - embed.frames) // 2
    assert torch.equal(seen[0][longest], batch.mel[longest, start : start + embed.frames])
    seen.clear()
    for _ in range(2):
        loss(consistency, batch)
    assert len(seen[0]) == losses.MAX_EXCERPTS
    assert not torch.equal(seen[0], seen[1])


def test_a_clip_shorter_than_an_excerpt_is_followed_by_silence(consistency, embed, batch, monkeypatch):
    seen = []
    monkeypatch.setattr(
        embed, "forward", lambda mel: seen.append(mel) or torch.nn.functional.normalize(mel[:, 0], dim=1)
    )
    consistency = replace(consistency, speakers=torch.zeros(2, batch.mel.shape[2]))
    loss(consistency, replace(batch, mel_lengths=torch.full_like(batch.mel_lengths, 50)))
    assert bool((seen[0][:, 50:] == SILENCE).all())
    assert bool((seen[0][:, :50] != SILENCE).any())


def settings(small_settings, **changes) -> TrainSettings:
    return TrainSettings.of(resolve(None, None, {**small_settings, **changes}).config)


def test_the_loss_makes_predicted_speech_resemble_its_speaker(small_settings, store, tmp_path):
    """Twenty steps of a small model, with and without weight; both report the term."""
    found = {}
    for weight in (0.0, 10.0):
        changes = {**ON, "loss.speaker_consistency_loss_weight": weight, "training.max_steps": 20}
        config = settings(small_settings, **changes, **{"training.learning_rate": 3e-3})
        found[weight] = train(config, store, tmp_path / str(weight)).metrics["validation/speaker_consistency"]
    assert found[10.0] < found[0.0] - 0.05


def test_the_models_weights_do_not_include_the_encoder(small_settings, store, tmp_path):
    def state(**changes):
        return TrainingState(
            config=settings(small_settings, **changes),
            store=store,
            folder=tmp_path,
            devices=Devices(CPU, CPU),
            processes=Processes(),
        )

    plain, trained_with_loss = state(), state(**ON)
    assert plain.consistency is None
    assert isinstance(trained_with_loss.consistency, SpeakerConsistency)
    assert list(plain.model.state_dict()) == list(trained_with_loss.model.state_dict())


def test_the_speakers_of_a_rehearsed_base_follow_those_of_the_corpus(small_settings, store, consistency):
    both = speaker_consistency(settings(small_settings, **ON), [store, store], CPU)
    assert torch.equal(both.speakers, torch.cat([consistency.speakers, consistency.speakers]))


def test_deep_speaker_cannot_embed_mels():
    weights = {
        "features.speaker_encoder_model": "deep_speaker",
        "features.speaker_encoder_weights": "a.h5",
        "features.speaker_encoder_sha256": "0" * 64,
    }
    with pytest.raises(ConfigError, match="deep_speaker cannot; set that to resemblyzer"):
        resolve(None, None, {**weights, **ON})
    resolve(None, None, {**weights, **ON, "model.use_pretrained_speaker_encoder": False})


@pytest.mark.parametrize("encoder", ["resemblyzer", "deep_speaker"])
def test_trainings_from_a_base_use_the_loss_where_its_encoder_allows(encoder):
    base = resolve(None, None, {"model_size": "tiny"}).config.model_dump()
    base["features"]["speaker_encoder_model"] = encoder
    layers = base_layers(base, 60.0)
    given = {key: value for layer in layers.values() for key, value in layer.items()}
    assert given["model.use_speaker_consistency_loss"] == (encoder == "resemblyzer")
