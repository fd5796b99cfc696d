"""Training pairs of a vocoder: extracted and predicted mels correspond to their samples frame by frame."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from model.audio.io import write_audio
from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.config.resolution import resolve
from model.features.extract import build_features
from model.features.index import SPLITS
from model.features.store import FeatureStore
from model.loop.reporting import NullLogger
from model.synthesis import Synthesizer
from model.training.trainer import train
from model.vocoder_training import perceptual
from model.vocoder_training.finetuning import base_vocoder, finetune
from model.vocoder_training.pairs import PairingError, predicted_pairs, recorded_pairs
from model.voice import read_voice
from pipelines.cli.corpus import corpus as import_corpus

NEURAL = {"vocoder.type": "hifigan", "vocoder.max_steps": 3, "vocoder.finetune_steps": 3, "training.max_steps": 2}


@pytest.fixture(scope="module")
def config(small_settings):
    return resolve(None, None, {**small_settings, **NEURAL}).config


@pytest.fixture(scope="module")
def voice(tmp_path_factory, config, generated_features):
    return train(config, generated_features, tmp_path_factory.mktemp("voice")).voice


@pytest.mark.parametrize("split", SPLITS)
def test_recorded_mels_are_those_of_the_samples(generated_features, generated_corpus, tmp_path, split):
    """Mels are those of the trimmed samples at the loudness of the features."""
    store = FeatureStore(generated_features)
    clips = {store.clips[position].id: store.clips[position] for position in store.split(split)}
    assert all(clip.trimmed > 0.1 and abs(clip.gain - 1) > 0.1 for clip in clips.values())
    extractor = MelExtractor(store.audio)
    pairs = recorded_pairs(store, generated_corpus, split, tmp_path)
    assert [pair.id for pair in pairs] == list(clips)
    for pair in pairs:
        assert len(pair.samples) == len(pair.mel) * store.audio.hop_length
        difference = np.abs(extractor.numpy(pair.samples) - pair.mel)
        assert difference[:-2].max() < 1e-2  # the last frames saw the samples after the last whole frame


def test_predicted_mels_have_the_frames_of_the_recording(voice, generated_features, generated_corpus, tmp_path):
    store = FeatureStore(generated_features)
    own = recorded_pairs(store, generated_corpus, "train", tmp_path)
    predicted = predicted_pairs(read_voice(voice), store, generated_corpus, "train", tmp_path)
    assert [pair.id for pair in predicted] == [pair.id for pair in own]
    for one, other in zip(predicted, own, strict=True):
        assert one.mel.shape == other.mel.shape
        assert not np.allclose(one.mel, other.mel)
        assert np.array_equal(one.samples, other.samples)


def test_pairs_lie_on_disk_and_leave_nothing_there(generated_features, generated_corpus, tmp_path):
    pairs = recorded_pairs(FeatureStore(generated_features), generated_corpus, "train", tmp_path / "run")
    assert all(isinstance(array, np.memmap) for pair in pairs for array in (pair.mel, pair.samples))
    assert not list((tmp_path / "run").iterdir())


def test_a_disk_without_room_for_pairs_is_an_error_not_a_crash(
    generated_features, generated_corpus, tmp_path, monkeypatch
):
    def full(descriptor, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        recorded_pairs(FeatureStore(generated_features), generated_corpus, "train", tmp_path)


@pytest.mark.slow
@pytest.mark.real_data
def test_teacher_forced_mels_pair_to_the_frame_for_every_clip_of_a_real_corpus(real_data, small_settings, tmp_path):
    recordings = real_data / "ljspeech"
    done = CliRunner().invoke(import_corpus, ["import", str(recordings), "--output", str(tmp_path / "data"), "--json"])
    assert done.exit_code == 0, done.output
    corpus, hop = tmp_path / "data" / "corpus", AudioConfig().hop_length
    config = resolve(None, None, {**small_settings, "training.max_steps": 2}).config
    build_features(corpus, tmp_path / "features", config)
    store = FeatureStore(tmp_path / "features")
    voice = read_voice(train(config, store.path, tmp_path / "voice").voice)
    pairs = [pair for split in SPLITS for pair in predicted_pairs(voice, store, corpus, split, tmp_path)]
    assert len(pairs) == len(list((recordings / "wavs").glob("*.wav")))
    assert {len(pair.mel) - len(pair.samples) / hop for pair in pairs} == {0}


def test_a_recording_that_changed_is_refused(generated_features, generated_corpus, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(generated_corpus, corpus)
    store = FeatureStore(generated_features)
    name = store.clips[store.split("train")[0]].id
    clip = next(json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines() if name in line)
    write_audio(corpus / clip["audio"], np.zeros(9000, dtype=np.float32), store.audio.sample_rate)
    with pytest.raises(PairingError, match=f"clip {name}: .*build them again"):
        recorded_pairs(store, corpus, "train", tmp_path)


def test_a_voice_gets_a_fine_tuned_vocoder_and_speaks_with_it(
    voice, config, generated_features, generated_corpus, tmp_path
):
    assert not (voice / "vocoder").exists()
    assert Synthesizer(voice).vocoder.name == "Griffin-Lim"  # until it is given another
    start = base_vocoder(config, generated_features, generated_corpus, tmp_path / "base", NullLogger())
    report = finetune(config, voice, generated_features, generated_corpus, start, tmp_path / "tuned", NullLogger())
    assert report.after != report.before
    assert report.after["mel_distance"] == pytest.approx(
        np.mean([clip["after"]["mel_distance"] for clip in report.clips.values()])
    )
    assert (perceptual.ABSENT in report.notes) != ("pesq" in report.after)
    assert len(report.samples) == 4
    assert all(path.is_file() for path in report.samples)
    synthesizer = Synthesizer(report.voice)
    assert synthesizer.vocoder.name == "hifigan xtiny"
    speech = synthesizer.synthesize("Good morning.", language="en")
    assert len(speech.samples) == len(speech.mel) * 256
    assert not (report.voice / "vocoder" / "discriminators.safetensors").exists()


def test_a_trained_vocoder_is_trained_on_from_its_own_weights(config, generated_features, generated_corpus, tmp_path):
    start = base_vocoder(config, generated_features, generated_corpus, tmp_path / "base", NullLogger())
    further = base_vocoder(config, generated_features, generated_corpus, tmp_path / "on", NullLogger(), start)
    assert further.steps == 2 * start.steps
    distances = [float((further.generator[n] - tensor).abs().max()) for n, tensor in start.generator.items()]
    assert 0 < max(distances) < 0.05  # three steps away, not another beginning


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_predicted_mels_are_those_of_the_cpu_on_a_gpu(voice, generated_features, generated_corpus, tmp_path):
    spoken, store = read_voice(voice), FeatureStore(generated_features)
    on_cpu = predicted_pairs(spoken, store, generated_corpus, "validation", tmp_path)
    spoken.model.to("cuda")
    on_gpu = predicted_pairs(spoken, store, generated_corpus, "validation", tmp_path)
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert np.allclose(one.mel, other.mel, atol=1e-2)
