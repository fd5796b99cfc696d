"""Feature stores: features read are those extracted; damaged and mismatched stores are errors."""

import hashlib
import json
import logging
import shutil

import numpy as np
import pytest
import safetensors.numpy
from small_speech import CONFIG, LOUDNESS

import model.features.extract
import model.features.store
from model.audio.io import read_audio, write_audio
from model.audio.mel import MelExtractor, frame_energy
from model.audio.pitch import track_pitch
from model.config.data import AudioConfig
from model.config.schema import Config
from model.corpus.manifest import read_manifest, write_manifest
from model.errors import FeatureError
from model.features.extract import build_features
from model.features.index import CLIPS, INDEX, NAMES, SPEAKER_VECTORS
from model.features.store import FeatureStore
from model.text.encode import encode


def config(**features) -> Config:
    """Returns the settings of the small corpus, with changes in section `features`."""
    return Config.model_validate({"features": {"target_loudness": LOUDNESS, **features}})


def test_features_read_are_those_of_the_recording(store, small_corpus):
    clips = read_manifest(small_corpus)
    assert [clip.id for clip in store.clips] == [clip.id for clip in clips]
    for position in (0, 7, len(clips) - 1):
        entry, features = store.clips[position], store.clip(position)
        samples = read_audio(small_corpus / clips[position].audio, 22050)
        start = round(entry.trimmed * 22050)
        assert start > 0.1 * 22050
        assert abs(entry.gain - 1) > 0.1
        samples = samples[start : start + round(entry.seconds * 22050)] * np.float32(entry.gain)
        mel = MelExtractor(store.audio).numpy(samples)
        assert np.array_equal(features.mel, mel)
        assert np.array_equal(features.energy, frame_energy(mel))
        assert np.array_equal(features.pitch, track_pitch(samples, store.audio, store.index.features))
        assert np.array_equal(features.ids, encode(clips[position].text, clips[position].language).ids)
        assert len(mel) == len(samples) // 256 == entry.frames
        assert store.speakers[features.speaker] == clips[position].speaker
        assert features.speaker_vector @ features.speaker_vector == pytest.approx(1.0, abs=1e-5)


def test_statistics_are_computed_from_the_training_clips(store):
    training = [store.clip(position) for position in store.split("train")]
    mel = np.concatenate([clip.mel for clip in training]).astype(np.float64)
    assert store.statistics.mel_mean == pytest.approx(mel.mean())
    assert store.statistics.mel_std == pytest.approx(mel.std())
    for name in ("anna", "bob"):
        own = [clip.pitch[clip.pitch > 0] for clip in training if store.speakers[clip.speaker] == name]
        log_f0 = np.log(np.concatenate(own).astype(np.float64))
        assert store.statistics.log_f0[name] == pytest.approx((log_f0.mean(), log_f0.std()), rel=1e-5)
    assert np.exp(store.statistics.log_f0["unheard"][0]) == pytest.approx(300, rel=0.1)


def test_the_size_of_shards_does_not_change_the_features(small_corpus, small_features, tmp_path, monkeypatch):
    monkeypatch.setattr(model.features.extract, "CHUNK", 3)
    monkeypatch.setattr(model.features.extract, "MEGABYTE", 1000)
    build_features(small_corpus, tmp_path / "many", CONFIG)
    many, one = FeatureStore(tmp_path / "many"), FeatureStore(small_features)
    assert len({clip.shard for clip in many.clips}) == len(many.index.shards) > 3
    assert len(one.index.shards) == 1
    for position in range(len(one.clips)):
        ours, theirs = many.clip(position), one.clip(position)
        for name in ("ids", "mel", "pitch", "energy", "speaker_vector"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert many.content_hash == one.content_hash


def test_a_shard_is_a_plain_safetensors_file_named_by_its_checksum(store):
    (path,) = (store.path / "shards").iterdir()
    assert path.name == f"shard-{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors"
    arrays = safetensors.numpy.load_file(path)
    first = store.clip(0)
    assert np.array_equal(arrays["mel"][: len(first.mel)], first.mel)
    assert np.array_equal(arrays["tokens"][: len(first.ids)], first.ids)


def test_the_same_corpus_gives_the_same_content_with_any_number_of_processes(small_corpus, small_features, tmp_path):
    index = build_features(small_corpus, tmp_path / "again", CONFIG, workers=2)
    assert index.content_hash == FeatureStore(small_features).content_hash


def test_settings_of_extraction_change_the_content(small_corpus, small_features, tmp_path):
    index = build_features(small_corpus, tmp_path / "other", config(pitch_fmin=150.0))
    assert index.content_hash != FeatureStore(small_features).content_hash
    lowest = []
    for store in (FeatureStore(small_features), FeatureStore(tmp_path / "other")):
        pitch = np.concatenate([store.clip(position).pitch for position in store.clips_of_speaker["bob"]])
        lowest.append(pitch[pitch > 0].min())
    assert lowest[0] < 149 < lowest[1]


def test_other_mel_settings_are_an_error_that_names_both_sides(store):
    with pytest.raises(FeatureError, match=r"audio\.hop_length 256 there, 128 here") as caught:
        store.check(AudioConfig(hop_length=128))
    assert store.index.extractor_hash in str(caught.value)
    store.check(AudioConfig())


def test_another_symbol_table_is_an_error(store, monkeypatch):
    monkeypatch.setattr(model.features.store, "symbols_hash", lambda: "other-table")
    with pytest.raises(FeatureError, match=f"{store.index.symbols_hash}.*other-table"):
        store.check(AudioConfig())


def test_changed_speaker_vectors_are_an_error(small_features, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(small_features, folder)
    vectors = folder / SPEAKER_VECTORS
    flipped = bytearray(vectors.read_bytes())
    flipped[-100] ^= 1
    vectors.write_bytes(flipped)
    with pytest.raises(FeatureError, match=rf"damaged: {SPEAKER_VECTORS}"):
        FeatureStore(folder).check(AudioConfig())


def test_damaged_and_missing_shards_are_errors(small_corpus, tmp_path):
    folder = tmp_path / "store"
    build_features(small_corpus, folder, CONFIG)
    FeatureStore(folder).verify()

    (shard,) = (folder / "shards").iterdir()
    flipped = bytearray(shard.read_bytes())
    flipped[-100] ^= 1
    shard.write_bytes(flipped)
    with pytest.raises(FeatureError, match=rf"damaged: {shard.name}"):
        FeatureStore(folder).verify()

    with pytest.raises(FeatureError, match=rf"{shard.name}: damaged"):
        FeatureStore(folder).clip(0)

    shard.write_bytes(flipped[: len(flipped) // 2])
    with pytest.raises(FeatureError, match=rf"{shard.name}: damaged"):
        FeatureStore(folder).clip(0)

    shard.unlink()
    with pytest.raises(FeatureError, match=r"missing \(1 of 1 shards\)"):
        FeatureStore(folder)


@pytest.mark.parametrize("name", [CLIPS, NAMES])
def test_a_changed_or_truncated_table_is_an_error(small_features, tmp_path, name):
    shutil.copytree(small_features, tmp_path / "store")
    content = bytearray((tmp_path / "store" / name).read_bytes())
    content[-60] ^= 1
    (tmp_path / "store" / name).write_bytes(content)
    with pytest.raises(FeatureError, match="changed after it was written"):
        FeatureStore(tmp_path / "store")
    (tmp_path / "store" / name).write_bytes(content[:50])
    with pytest.raises(FeatureError, match=r"damaged index|changed after"):
        FeatureStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"anna"', '"eve"', 1), "changed after it was written"),
        (lambda text: text[:200], "damaged"),
        (lambda text: text.replace('"format": 2', '"format": 99'), "format 99"),
        (lambda text: json.dumps({"format": 2}), "changed after"),
        (lambda text: "[]", "Input should be an object; damaged"),
    ],
)
def test_a_changed_or_damaged_index_is_an_error(small_features, tmp_path, change, message):
    (tmp_path / INDEX).write_text(change((small_features / INDEX).read_text("utf-8")), "utf-8")
    with pytest.raises(FeatureError, match=message):
        FeatureStore(tmp_path)


def test_a_missing_store_is_an_error_that_names_the_command(tmp_path):
    with pytest.raises(FeatureError, match="myxtts features build"):
        FeatureStore(tmp_path)


def _broken_corpus(small_corpus, tmp_path, **changes):
    clips = read_manifest(small_corpus)
    folder = tmp_path / "broken"
    (folder / "audio").mkdir(parents=True)
    for clip in clips:
        (folder / clip.audio).symlink_to(small_corpus / clip.audio)
    write_manifest(
        folder, [type(clip)(**{**vars(clip), **changes}) if i == 3 else clip for i, clip in enumerate(clips)]
    )
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": "audio/gone.flac"}, "anna-03.*No such file"),
        ({"text": "..."}, "anna-03.*can be spoken"),
        ({"text": "far too many words for so short a clip " * 9}, "anna-03.*tokens cannot be spoken in"),
        ({"split": ""}, "anna-03 has the split ''"),
    ],
)
def test_an_unusable_clip_stops_the_build_by_name_and_leaves_the_old_store(
    small_corpus, small_features, tmp_path, changes, message
):
    broken = _broken_corpus(small_corpus, tmp_path, **changes)
    destination = tmp_path / "store"
    build_features(small_corpus, destination, CONFIG)
    with pytest.raises(FeatureError, match=message):
        build_features(broken, destination, CONFIG)
    assert FeatureStore(destination).content_hash == FeatureStore(small_features).content_hash


def test_an_interrupted_build_is_not_a_store(small_corpus, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model.features.extract, "_write_index", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_features(small_corpus, tmp_path / "store", CONFIG)
    assert not (tmp_path / "store").exists()
    monkeypatch.undo()
    build_features(small_corpus, tmp_path / "store", CONFIG)
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


def test_trimmed_silence_is_recorded_in_the_index(small_corpus, tmp_path, voiced):
    folder = tmp_path / "quiet"
    clips = read_manifest(small_corpus)[:1]
    samples = 0.3 * voiced(1.2, 190.0)
    write_audio(folder / clips[0].audio, np.concatenate([np.zeros(11025), samples]), 22050)
    write_manifest(folder, clips)
    trimmed = build_features(folder, tmp_path / "trimmed", CONFIG).clips[0]
    assert trimmed.trimmed == pytest.approx(0.5 - 0.08, abs=0.02)
    kept = build_features(folder, tmp_path / "kept", config(trim_silence_db=0)).clips[0]
    assert kept.trimmed == 0
    assert kept.frames == (11025 + len(samples)) // 256
    wide = build_features(folder, tmp_path / "wide", config(trim_margin=0.3)).clips[0]
    assert trimmed.trimmed - wide.trimmed == pytest.approx(0.3 - 0.08, abs=0.02)


def test_unknown_characters_are_counted_and_logged(small_corpus, tmp_path, caplog):
    broken = _broken_corpus(small_corpus, tmp_path, text="Good ☃ boat.")
    with caplog.at_level(logging.WARNING):
        index = build_features(broken, tmp_path / "store", CONFIG)
    assert index.unknown_symbols == {"☃": 1}
    assert "☃" in caplog.text


def test_the_centroid_leaves_the_clip_out_unless_it_is_the_only_one(store):
    anna = store.clips_of_speaker["anna"]
    others = store.speaker_vectors[anna[1:]].mean(0)
    assert store.speaker_centroid("anna", without=anna[0]) == pytest.approx(others / np.linalg.norm(others), abs=1e-6)
    assert all(store.clips[position].split == "train" for position in anna)
    only = store.clips_of_speaker["lone"]
    assert store.speaker_centroid("lone", without=only[0]) == pytest.approx(store.speaker_vectors[only[0]], abs=1e-6)
    first, second = store.clips_of_speaker["unheard"]
    assert store.speaker_centroid("unheard", without=first) == pytest.approx(store.speaker_vectors[second], abs=1e-6)
    assert store.speaker_languages == {**dict.fromkeys(store.speakers, "en"), "bob": "de"}
