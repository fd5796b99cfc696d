"""The step `preprocess`: the same features whole or in parts, reused, and extended from stores of earlier runs."""

import hashlib
import json
from dataclasses import replace

import pytest

from components.configure.parameters import step_settings
from components.contracts import ResolveDataOutput
from components.preprocess import run as preprocess
from components.preprocess.run import PARTS, run
from components.preprocess_part.run import run as run_part
from model.config.data import PreprocessSettings
from model.config.resolution import resolve
from model.config.schema import Config
from model.corpus.manifest import read_manifest, write_manifest
from model.features.extractor import ClipExtractor
from model.features.store import FeatureStore

SETTINGS = PreprocessSettings.of(Config()).to_json()


@pytest.fixture
def data(generated_corpus, tmp_path, state):
    """Returns a function from data hash and folder of a corpus to the path of its record."""

    def data(digest="0" * 32 + ".dir", folder=generated_corpus):
        record = ResolveDataOutput(
            summary="", corpus=folder, data_hash=digest, examination=folder, examination_hash=digest
        )
        return str(record.write(tmp_path / f"{digest[:4]}.json"))

    return data


def test_a_pinned_corpus_has_features_of_its_own(data, generated_corpus, tmp_path, monkeypatch):
    built = []

    def build(corpus, digest, config, extracted=()):
        built.append((corpus, digest))
        return tmp_path / digest

    monkeypatch.setattr(preprocess, "build", build)
    monkeypatch.setattr(
        preprocess,
        "read_metadata",
        lambda folder: {"content_hash": folder.name[:3], "number_of_clips": 1, "number_of_frames": 1},
    )
    train, pinned = "0" * 32 + ".dir", "1" * 32 + ".dir"
    record = ResolveDataOutput(
        summary="", corpus=generated_corpus, data_hash=train, examination=tmp_path, examination_hash=pinned
    )
    result = run(str(record.write(tmp_path / "both.json")), SETTINGS)
    assert built == [(generated_corpus, train), (tmp_path, pinned)]
    assert (result.features, result.features_hash) == (tmp_path / train, "000")
    assert (result.examination, result.examination_hash) == (tmp_path / pinned, "111")
    assert run(data(), SETTINGS).examination == tmp_path / train
    assert len(built) == 3


def test_parts_side_by_side_give_what_one_step_gives(data, state, tmp_path, capsys):
    pointers = [
        str(run_part(data(), SETTINGS, f"{number}/3").write(tmp_path / f"part-{number}.json")) for number in range(3)
    ]
    joined = run(data(), SETTINGS, pointers)
    events = [
        json.loads(line.removeprefix("::step:: "))
        for line in capsys.readouterr().out.splitlines()
        if "::step::" in line
    ]
    assert events[-1]["done"] == events[-1]["total"]  # nothing was left to extract
    FeatureStore(joined.features).verify()
    assert list((state.root / PARTS).rglob("*.safetensors")) == []
    alone = run(data("1" * 32 + ".dir"), SETTINGS)
    assert alone.features_hash == joined.features_hash
    assert alone.features != joined.features


def test_a_grown_corpus_takes_its_features_from_the_run_before(data, generated_corpus, tmp_path, monkeypatch, capsys):
    run(data(), SETTINGS)
    extracted = []
    extract = ClipExtractor.extract

    def watched(self, recordings, clips, keys):
        extracted.extend(clip.id for clip in clips)
        return extract(self, recordings, clips, keys)

    monkeypatch.setattr(ClipExtractor, "extract", watched)
    grown = tmp_path / "grown"
    grown.mkdir()
    for item in generated_corpus.iterdir():
        if item.is_dir():
            (grown / item.name).symlink_to(item)
    clips = read_manifest(generated_corpus)
    write_manifest(grown, [*clips[1:], replace(clips[0], text="Another sentence for these sounds.")])
    answer = run(data("2" * 32 + ".dir", grown), SETTINGS)
    assert extracted == [clips[0].id]
    assert f"{len(clips)} clips" in answer.summary


def test_other_weights_of_the_speaker_encoder_under_the_same_path_are_other_features(tmp_path):
    weights = tmp_path / "encoder.pt"
    config = resolve(None, None, {"features.speaker_encoder_weights": str(weights)}).config
    step_arguments = []
    for content in (b"one", b"one", b"another"):
        weights.write_bytes(content)
        step_arguments.append(step_settings(config))
    assert step_arguments[0] == step_arguments[1]
    assert [name for name in step_arguments[0] if step_arguments[0][name] != step_arguments[2][name]] == [
        "preprocess_settings",
        "train_settings",
    ]
    noted = json.loads(step_arguments[2]["preprocess_settings"])["features"]["speaker_encoder_sha256"]
    assert noted == hashlib.sha256(b"another").hexdigest()
