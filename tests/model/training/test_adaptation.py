"""Starting a training from another voice: copied, added and kept weights and speakers, and refused bases."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.acoustic.model import AcousticModel
from model.config.resolution import resolve
from model.features.index import ClipTable
from model.features.store import FeatureStore
from model.training import trainer
from model.training.adaptation import MODULES, TEXT_PARTS, AdaptationError, StartingPoint, freeze
from model.training.kept_speakers import speaker_similarities
from model.training.state import TrainingError
from model.training.trainer import train
from model.voice import VoiceError, read_voice

LANGUAGES = "conditioning.language_embedding.weight"


@pytest.fixture(scope="session")
def base(tmp_path_factory, generated_features, small_settings):
    """A voice of a few steps that others start from."""
    short = {**small_settings, "training.max_steps": 6, "training.enable_evaluation": False}
    return train(resolve(None, None, short).config, generated_features, tmp_path_factory.mktemp("base")).voice


@pytest.fixture
def store(generated_features):
    return FeatureStore(generated_features)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_a_training_starts_exactly_where_its_base_ended(config, base, generated_features, tmp_path):
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "ema_decay": 0.0, "enable_evaluation": False}
    voice = train(config(max_steps=1, **still), generated_features, tmp_path, base=base).voice
    for name, tensor in weights(base).items():
        torch.testing.assert_close(weights(voice)[name], tensor, atol=1e-6, rtol=1e-5)


def test_the_report_says_what_was_copied_and_the_voice_names_its_ancestors(config, base, generated_features, tmp_path):
    short = config(max_steps=2, enable_evaluation=False)
    one = train(short, generated_features, tmp_path / "one", base=base).voice
    report = json.loads((tmp_path / "one" / "adaptation.json").read_text())
    assert report["copied"] == sum(tensor.numel() for tensor in weights(base).values())
    assert report["added"] == report["left_out"] == []
    assert set(report["languages"].values()) == {"copied"}
    two = train(short, generated_features, tmp_path / "two", base=one).voice
    hashes = [json.loads((folder / "voice.json").read_text())["weights_sha256"] for folder in (one, base)]
    assert [entry["weights_sha256"] for entry in read_voice(two).lineage] == hashes
    assert read_voice(base).lineage == []


def test_languages_are_matched_by_name_in_any_order(config, base, store, monkeypatch):
    known = read_voice(base).languages
    monkeypatch.setattr(type(store), "languages", ["xx", *reversed(known)])
    start = StartingPoint(store, config(), base)
    model = AcousticModel(config().model, start.dimensions)
    report = start.initialize(model)
    ours, theirs = model.conditioning.language_embedding.weight, weights(base)[LANGUAGES]
    assert len(known) > 1
    for name in known:
        assert torch.equal(ours[start.languages.index(name)], theirs[known.index(name)])
    torch.testing.assert_close(ours[0], theirs.mean(0))
    assert report.languages == {"xx": "added", **dict.fromkeys(known, "copied")}


@pytest.mark.parametrize("keep", [True, False])
def test_languages_that_the_corpus_lacks_are_kept_or_dropped(config, base, store, monkeypatch, keep):
    *others, last = read_voice(base).languages
    monkeypatch.setattr(type(store), "languages", [last])
    start = StartingPoint(store, config(keep_languages=keep), base)
    assert start.languages == [last, *(others if keep else [])]
    assert start.dimensions.num_languages == len(start.languages)


def test_a_base_of_another_size_is_refused_with_both_sizes(config, base, store):
    settings = config()
    wider = settings.model_copy(update={"model": settings.model.model_copy(update={"ffn_dim": 96})})
    with pytest.raises(AdaptationError, match=f"ffn_dim is 96, the base has {settings.model.ffn_dim}"):
        StartingPoint(store, wider, base)


def test_a_base_of_other_mel_settings_is_refused(config, base, store, monkeypatch):
    monkeypatch.setattr(type(store), "audio", store.audio.model_copy(update={"fmax": 7000.0}))
    with pytest.raises(AdaptationError, match="other mel settings"):
        StartingPoint(store, config(), base)


@pytest.mark.parametrize("part", sorted(MODULES))
def test_frozen_parts_keep_the_weights_of_the_base(config, base, generated_features, tmp_path, part):
    settings = config(max_steps=3, freeze=(part,), ema_decay=0.0, enable_evaluation=False)
    before, after = weights(base), weights(train(settings, generated_features, tmp_path, base=base).voice)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(tuple(f"{module}." for module in MODULES[part]))}
    assert frozen
    assert changed
    assert not changed & frozen


def test_exported_text_parts_lie_between_the_trained_weights_and_those_of_the_base(
    config, base, generated_features, tmp_path
):
    exported = {}
    for share in (0.0, 0.25, 1.0):  # the first run trains, the others export it again
        settings = config(max_steps=3, base_interpolation=share, enable_evaluation=False)
        exported[share] = weights(train(settings, generated_features, tmp_path, base=base).voice)
    theirs, trained = weights(base), exported[0.0]
    text = tuple(f"{module}." for part in TEXT_PARTS for module in MODULES[part])
    assert {name.split(".")[0] for name in trained if name.startswith(text)} >= {"symbol_embedding", "encoder"}
    for name, tensor in trained.items():
        moves = name.startswith(text)
        assert torch.equal(exported[1.0][name], theirs[name] if moves else tensor)
        between = 0.75 * tensor + 0.25 * theirs[name] if moves else tensor
        torch.testing.assert_close(exported[0.25][name], between)
    assert any(not torch.equal(tensor, theirs[name]) for name, tensor in trained.items() if name.startswith(text))


def test_interpolation_without_a_base_is_refused(config, store):
    with pytest.raises(
        AdaptationError, match=r"base_interpolation is 0\.5, but there is no base voice; .* set it to 0"
    ):
        StartingPoint(store, config(base_interpolation=0.5))


def test_freezing_excludes_parameters_from_training(config, base, store):
    model = AcousticModel(config().model, StartingPoint(store, config(), base).dimensions)
    frozen = freeze(model, ["decoder"])
    assert frozen == [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert freeze(model, []) == []


def test_a_run_from_another_base_is_not_resumed(config, base, generated_features, tmp_path):
    short = config(max_steps=2, enable_evaluation=False)
    first = train(short, generated_features, tmp_path / "first", base=base).voice
    for other in (first, None):
        with pytest.raises(TrainingError, match="made with other settings or data"):
            train(short, generated_features, tmp_path / "first", base=other)


def test_a_finished_run_is_the_same_however_its_base_is_named(config, base, generated_features, tmp_path):
    by_path, by_name = (config(max_steps=2, start_from=name) for name in (str(base), "models:/m/1"))
    one = train(by_path, generated_features, tmp_path, base=base)
    assert train(by_name, generated_features, tmp_path, base=base) == one


def test_weights_other_than_those_recorded_are_refused(config, base, store):
    known = StartingPoint(store, config(), base).identity
    assert StartingPoint(store, config(start_from_sha256=known), base).identity == known
    with pytest.raises(AdaptationError, match="retrained or replaced"):
        StartingPoint(store, config(start_from_sha256="0" * 64), base)


def listed(folder):
    return list(read_voice(folder).speakers)


@pytest.fixture
def others_recordings(store):
    """The features of the base under other speaker names and embeddings."""
    index = store.index
    names = [f"new_{name}" for name in index.speakers]
    by_speaker = {
        key: {f"new_{name}": value for name, value in getattr(index.statistics, key).items()}
        for key in ("speakers", "log_f0")
    }
    statistics = replace(index.statistics, **by_speaker)
    clips = ClipTable(
        index.clips.rows,
        index.clips.names,
        speakers=names,
        languages=index.languages,
        sample_rate=index.audio.sample_rate,
    )
    store.index = replace(index, speakers=names, statistics=statistics, clips=clips)
    return store


@pytest.mark.parametrize(("rate", "kept"), [(1e-12, True), (0.02, False)])
def test_speakers_of_the_base_are_listed_while_they_sound_like_themselves(
    config, base, others_recordings, tmp_path, rate, kept
):
    settings = config(
        max_steps=3, learning_rate=rate, warmup_steps=0, ema_decay=0.0, enable_evaluation=False, keep_speakers=True
    )
    training = train(settings, others_recordings, tmp_path, base=base, compare_speakers=speaker_similarities)
    voice = read_voice(training.voice)
    theirs = listed(base)
    assert [name for name in voice.speakers if name in theirs] == (theirs if kept else [])
    assert next(iter(voice.speakers)) not in theirs
    if kept:
        assert voice.speaker_languages.items() >= read_voice(base).speaker_languages.items()
    report = json.loads((tmp_path / "adaptation.json").read_text())["speakers"]
    assert {what.split(",")[0] for what in report.values()} == {"kept" if kept else "dropped"}
    assert all("similarity" in what for what in report.values())


def test_speakers_are_not_kept_without_a_comparison_of_them(config, base, others_recordings, tmp_path):
    with pytest.raises(AdaptationError, match=r"training\.keep_speakers needs a comparison"):
        train(config(keep_speakers=True), others_recordings, tmp_path, base=base)


def test_without_the_setting_only_the_speakers_of_the_corpus_are_listed(config, base, others_recordings, tmp_path):
    short = config(max_steps=1, enable_evaluation=False)
    voice = train(short, others_recordings, tmp_path, base=base).voice
    assert listed(voice) == others_recordings.trained_speakers
    report = json.loads((tmp_path / "adaptation.json").read_text())["speakers"]
    assert set(report.values()) == {"dropped"}


def test_speakers_that_the_corpus_has_too_are_not_reported_as_dropped(config, base, generated_features, tmp_path):
    train(config(max_steps=1, enable_evaluation=False), generated_features, tmp_path, base=base)
    report = json.loads((tmp_path / "adaptation.json").read_text())["speakers"]
    assert set(report) == set(read_voice(base).speakers)
    assert set(report.values()) == {"in the corpus"}


def test_rehearsal_mixes_the_features_of_the_base_in(config, base, generated_features, tmp_path):
    store = FeatureStore(generated_features)
    short = config(max_steps=2, rehearsal=0.5, batch_size=4, enable_evaluation=False)
    mixed = train(short, generated_features, tmp_path / "mixed", base=base, rehearsed=store).voice
    plain = train(
        config(max_steps=2, batch_size=4, enable_evaluation=False), generated_features, tmp_path / "plain", base=base
    ).voice
    assert any(not torch.equal(weights(mixed)[name], weights(plain)[name]) for name in weights(plain))
    assert read_voice(mixed).trained_with["features_hash"] == store.content_hash


def test_rehearsal_needs_the_features_of_the_base(config, base, store, generated_features, tmp_path, monkeypatch):
    with pytest.raises(AdaptationError, match="but no feature store"):
        train(config(rehearsal=0.5), generated_features, tmp_path, base=base)
    with pytest.raises(AdaptationError, match="rehearsal is 0, but a feature store"):
        train(config(), generated_features, tmp_path, base=base, rehearsed=store)
    monkeypatch.setattr(type(store), "content_hash", "f" * 16)
    with pytest.raises(AdaptationError, match=r"holds features ffff.*was trained on"):
        StartingPoint(store, config(rehearsal=0.5), base).check_rehearsal(store)


def test_a_voice_carries_the_licenses_of_its_ancestors_over_three_generations(config, generated_features, tmp_path):
    short = config(max_steps=1, enable_evaluation=False)
    voice, hashes = None, []
    for number, (name, carried) in enumerate((("CC0-1.0", 1), ("", 1), ("CC-BY-4.0", 2), ("CC0-1.0", 2))):
        voice = train(short, generated_features, tmp_path / str(number), base=voice, data_license=name).voice
        described = read_voice(voice)
        assert len(described.licenses) == carried
        assert [entry["weights_sha256"] for entry in described.lineage] == hashes
        hashes.insert(0, json.loads((voice / "voice.json").read_text())["weights_sha256"])
    assert described.licenses == ["CC0-1.0", "CC-BY-4.0"]


@pytest.fixture
def changed(base, tmp_path):
    """A copy of the base whose files a test changes."""
    return shutil.copytree(base, tmp_path / "changed")


def test_a_base_of_other_symbols_is_refused(config, changed, store):
    description = json.loads((changed / "voice.json").read_text())
    (changed / "voice.json").write_text(json.dumps({**description, "symbols_hash": "0" * 16}))
    with pytest.raises(VoiceError, match="trained with symbol table 0000"):
        StartingPoint(store, config(), changed)


def test_weights_that_were_changed_under_the_path_of_the_base_are_refused(config, changed, store):
    known = StartingPoint(store, config(), changed).identity
    tensors = weights(changed)
    tensors[LANGUAGES] += 1.0
    save_file(tensors, changed / "model.safetensors")
    with pytest.raises(VoiceError, match="not the weights that"):
        StartingPoint(store, config(start_from_sha256=known), changed)


def test_a_deleted_base_is_named(config, changed, store):
    shutil.rmtree(changed)
    with pytest.raises(VoiceError, match=rf"{changed}: no voice\.json"):
        StartingPoint(store, config(), changed)


@pytest.mark.parametrize("rehearsal", [0.0, 0.5])
def test_a_training_that_was_killed_in_the_middle_resumes_instead_of_starting_from_the_base_again(
    config, base, generated_features, tmp_path, monkeypatch, rehearsal
):
    settings = config(max_steps=6, checkpoint_interval=1, rehearsal=rehearsal, enable_evaluation=False, batch_size=4)
    arguments = {"base": base, "rehearsed": FeatureStore(generated_features) if rehearsal else None}
    whole = train(settings, generated_features, tmp_path / "whole", **arguments).voice

    class Killed(BaseException):
        pass

    step = trainer.take_step

    def killed(state, *rest):
        if state.step == 3:
            raise Killed
        return step(state, *rest)

    monkeypatch.setattr(trainer, "take_step", killed)
    with pytest.raises(Killed):
        train(settings, generated_features, tmp_path / "killed", **arguments)
    monkeypatch.setattr(trainer, "take_step", step)
    resumed = train(settings, generated_features, tmp_path / "killed", **arguments).voice
    assert read_voice(resumed).lineage == read_voice(whole).lineage
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name
