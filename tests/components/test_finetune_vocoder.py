"""The step between training and evaluation: Griffin-Lim passes through, checkpoints are fetched and checked."""

import hashlib
import io
import json
import sys
from functools import partial
from pathlib import Path

import pytest
from step_records import step_inputs

from components import fetching, tracking
from components.configure import parameters
from components.fetching import FetchError, fetch_checkpoint
from components.finetune_vocoder import run as step
from components.finetune_vocoder import work
from components.outage import retry_during_outage
from components.train.run import run as train
from model.config.resolution import ConfigError, resolve
from model.config.vocoder import FinetuneVocoderSettings
from model.vocoder.folder import read_vocoder


class Started(Exception):
    """Raised instead of training a vocoder."""


@pytest.fixture
def trained(tmp_path):
    """Inputs of the step, with a voice that has a description but no weights."""
    voice = tmp_path / "training" / "voice"
    voice.mkdir(parents=True)
    (voice / "voice.json").write_text(json.dumps({"config": {"vocoder": {}}, "weights_sha256": "w"}))
    (voice / "model.safetensors").write_bytes(b"weights")
    return step_inputs(tmp_path, ("data", "features", "training"), {"training.voice": voice})


def step_settings(**keys):
    overrides = {f"vocoder.{name}": value for name, value in keys.items()}
    return FinetuneVocoderSettings.of(resolve(None, None, overrides).config).to_json()


def test_griffin_lim_passes_the_voice_through_without_training(trained, state, monkeypatch):
    monkeypatch.setitem(sys.modules, "components.finetune_vocoder.work", None)  # importing it would fail
    answer = step.run(**trained, settings=step_settings(griffin_lim_iterations=7), experiment="e")
    described = json.loads((answer.voice / "voice.json").read_text())
    assert answer.voice.is_relative_to(state.root)
    assert described["config"]["vocoder"]["griffin_lim_iterations"] == 7
    assert described["weights_sha256"] == "w"


def test_another_setting_of_the_vocoder_makes_another_voice(trained, state):
    one, other = (step.run(**trained, settings=step_settings(griffin_lim_iterations=n), experiment="e") for n in (7, 8))
    assert one.voice_hash != other.voice_hash
    assert step.run(**trained, settings=step_settings(griffin_lim_iterations=7), experiment="e") == one


def test_a_neural_vocoder_is_trained_once_and_its_audio_is_in_the_run_of_its_voice(
    state, generated_features, generated_corpus, small_settings, tmp_path, monkeypatch
):
    steps = {"training.max_steps": 2, "vocoder.type": "hifigan", "vocoder.max_steps": 2, "vocoder.finetune_steps": 2}
    settings = parameters.step_settings(resolve(None, None, {**small_settings, **steps}).config)
    made = {"features.features": generated_features, "data.corpus": generated_corpus}
    inputs = step_inputs(tmp_path, ("data", "features"), made)
    trained = train(**inputs, settings=settings["train_settings"], experiment="test")
    inputs["training"] = str(trained.write(tmp_path / "training.json"))
    tune = partial(step.run, **inputs, settings=settings["finetune_vocoder_settings"], experiment="test")
    first = tune()
    weights = first.voice / "vocoder" / "generator.safetensors"
    written = weights.stat().st_mtime_ns
    assert tune() == first
    assert weights.stat().st_mtime_ns == written
    client = tracking.client(state)
    kept = [Path(item.path).name for item in client.list_artifacts(trained.run_id, "vocoder")]
    assert "report.json" in kept
    assert sum(name.endswith(("-before.wav", "-after.wav")) for name in kept) == 4

    # The next voice starts from this one, and so does its vocoder.
    description = json.loads((trained.voice / "voice.json").read_text())
    description["lineage"] = [{"uri": str(first.voice), "weights_sha256": description["weights_sha256"]}]
    (trained.voice / "voice.json").write_text(json.dumps(description))

    def started(config, features, corpus, output, logger, start):
        raise Started(start.content_hash())

    monkeypatch.setattr(work, "base_vocoder", started)
    with pytest.raises(Started, match=read_vocoder(first.voice / "vocoder").content_hash()):
        tune()
    assert "vocoder/after/mel_distance" in client.get_run(trained.run_id).data.metrics


def opener(files):
    def open_file(address):
        if address not in files:
            raise OSError("404")
        return io.BytesIO(files[address])

    return {"https": open_file, "s3": open_file}


def test_a_fetched_file_is_checked_kept_and_brings_its_settings(tmp_path):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    files = {"s3://bucket/LJ_V1/g_02500000": content, "s3://bucket/LJ_V1/config.json": b"{}"}
    found = fetch_checkpoint("s3://bucket/LJ_V1/g_02500000", digest, tmp_path, opener(files))
    assert found.read_bytes() == content
    assert found.with_name("config.json").read_bytes() == b"{}"
    assert fetch_checkpoint("s3://bucket/LJ_V1/g_02500000", digest, tmp_path, opener({})) == found


@pytest.mark.parametrize(
    ("source", "sha256", "message"),
    [
        ("https://host/g_1", "0" * 64, "its SHA-256 is .*, not 0000"),
        ("https://host/g_1", "", "give its SHA-256"),
        ("https://host/g_2", "0" * 64, "could not be fetched"),
        ("ftp://host/g_1", "0" * 64, "cannot fetch ftp://"),
        ("/nowhere/g_1", "", "no such checkpoint"),
    ],
)
def test_what_cannot_be_fetched_is_refused_and_leaves_nothing(source, sha256, message, tmp_path):
    with pytest.raises(FetchError, match=message):
        fetch_checkpoint(source, sha256, tmp_path, opener({"https://host/g_1": b"other"}))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "source",
    [
        "https://[::1/g_1",
        "https://host:x/g_1",
        "https:///g_1",
        "https://host/",
        "https://host/..",
        "https://host/g 1",
        "s3://bucket/a\nb",
    ],
)
def test_a_malformed_address_is_refused_before_anything_is_asked(source, tmp_path):
    with pytest.raises(FetchError, match=r"is no address|names no file"):
        fetch_checkpoint(source, "0" * 64, tmp_path, {"https": pytest.fail, "s3": pytest.fail})


@pytest.mark.parametrize("sha256", ["../../planted", "0" * 63, "g" * 64])
def test_what_is_no_sha256_is_refused_before_anything_is_written(sha256, tmp_path):
    with pytest.raises(FetchError, match="is no SHA-256"):
        fetch_checkpoint("https://host/g_1", sha256, tmp_path / "fetched", {"https": pytest.fail})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="checkpoint_sha256"):
        resolve(None, None, {"vocoder.checkpoint": "https://host/g", "vocoder.checkpoint_sha256": sha256})


class BrokenOff(io.BytesIO):
    """A connection that ends after three bytes."""

    def read(self, size):
        if self.tell():
            raise ConnectionResetError("reset by peer")
        return super().read(3)


def test_a_download_that_breaks_off_is_begun_again_and_names_the_object_if_it_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "retry_during_outage", partial(retry_during_outage, seconds=12, sleep=lambda _: None))
    content, opened = b"weights", []

    def open_file(address):
        if address.endswith(("config.json", "config.yaml")):
            raise OSError("404")
        opened.append(address)
        return BrokenOff(content) if len(opened) < 3 else io.BytesIO(content)

    digest = hashlib.sha256(content).hexdigest()
    assert fetch_checkpoint("s3://bucket/g", digest, tmp_path, {"s3": open_file}).read_bytes() == content
    assert len(opened) == 3
    now = [0.0]

    def clock():
        now[0] += 5.0
        return now[0]

    always = partial(retry_during_outage, seconds=12, sleep=lambda _: None, clock=clock)
    monkeypatch.setattr(fetching, "retry_during_outage", always)
    with pytest.raises(FetchError, match=r"s3://bucket/h: could not be fetched \(the connection broke off"):
        fetch_checkpoint("s3://bucket/h", digest, tmp_path, {"s3": lambda address: BrokenOff(content)})


@pytest.mark.parametrize("file", ["g_1", "base/generator.safetensors"])
def test_another_checkpoint_under_the_same_path_is_another_step(file, tmp_path):
    weights = tmp_path / file
    weights.parent.mkdir(exist_ok=True)
    source = tmp_path / Path(file).parts[0]
    config = resolve(None, None, {"vocoder.type": "hifigan", "vocoder.checkpoint": str(source)}).config
    step_arguments = []
    for content in (b"one", b"one", b"other"):
        weights.write_bytes(content)
        step_arguments.append(parameters.step_settings(config))
    assert step_arguments[0] == step_arguments[1]
    assert [name for name in step_arguments[0] if step_arguments[0][name] != step_arguments[2][name]] == [
        "finetune_vocoder_settings"
    ]
    noted = json.loads(step_arguments[0]["finetune_vocoder_settings"])["vocoder"]["checkpoint_sha256"]
    with pytest.raises(FetchError, match=f"not {noted}"):
        fetch_checkpoint(str(source), noted, tmp_path)
    weights.write_bytes(b"one")
    assert fetch_checkpoint(str(source), noted, tmp_path) == source
