"""`myxtts vocoder`: training, fine-tuning, export and import, in trainings of three steps."""

import hashlib
import json

import pytest

from components import lineage, tracking
from model.synthesis import Synthesizer
from model.voice_folder import vocoder_of

TYPE = ("--vocoder-type", "hifigan", "--vocoder-variant", "xtiny")
TRAINING = (*TYPE, "--vocoder-max-steps", 2, "--vocoder-finetune-steps", 2)


@pytest.fixture
def places(generated_features, generated_corpus) -> tuple:
    return ("--features", generated_features, "--corpus", generated_corpus)


def test_a_vocoder_is_trained_tuned_and_given_out(myxtts, places, untrained_voice, state, tmp_path, monkeypatch):
    monkeypatch.setenv("MYXTTS_GIT_SHA", "abc123-dirty")
    monkeypatch.delenv(lineage.VARIABLE, raising=False)
    status, said, _ = myxtts("vocoder", "train", *places, "--output", tmp_path / "base", *TRAINING)
    assert (status, said.splitlines()[-1]) == (0, f"vocoder: {tmp_path / 'base' / 'vocoder'}")

    # The run is recorded with where it comes from.
    (recorded,) = (json.loads(path.read_text())["run_id"] for path in (tmp_path / "base").rglob("run.json"))
    run = tracking.client(state).get_run(recorded)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "vocoder-base"
    assert (run.data.tags["git.sha"], run.data.tags["git.dirty"]) == ("abc123", "true")
    assert run.data.params["variant"] == "xtiny"

    # Fine-tuned on a voice's mels, it is the voice's.
    common = ("--model", untrained_voice, *places, *TRAINING, "--vocoder-checkpoint", tmp_path / "base" / "vocoder")
    status, said, _ = myxtts("vocoder", "finetune", *common, "--output", tmp_path / "tuned", "--no-track", "--json")
    assert status == 0
    report = json.loads(said.splitlines()[-1])
    assert report["voice"] == str(tmp_path / "tuned" / "voice")
    assert report["clips"]
    assert report["before"] != report["after"]
    assert Synthesizer(tmp_path / "tuned" / "voice").vocoder.name.startswith("hifigan")
    assert not list((tmp_path / "tuned").rglob("run.json"))

    # A person reads the same numbers.
    status, said, _ = myxtts("vocoder", "finetune", *common, "--output", tmp_path / "tuned", "--no-track")
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line and line[0] in "bag"}
    for name in ("before", "after"):
        assert f"{report[name]['mel_distance']:.4f}" in rows[name]
    assert "griffin-lim" in rows
    assert "fine-tuning reduces the mel distance on" in said
    assert said.splitlines()[-1] == f"voice: {tmp_path / 'tuned' / 'voice'}"

    # Official files of it go out, and in again: as a path, and checked by their hash.
    voice = tmp_path / "tuned" / "voice"
    status, said, _ = myxtts("vocoder", "export", voice, "--output", tmp_path / "official", "--json")
    assert status == 0
    names = [path.rpartition("/")[2] for path in json.loads(said)]
    assert names[0] == "config.json"
    generator = tmp_path / "official" / names[1]
    digest = hashlib.sha256(generator.read_bytes()).hexdigest()
    status, said, _ = myxtts(
        "vocoder", "import", generator, "--output", tmp_path / "again", "--sha256", digest, "--json"
    )
    assert status == 0
    described = json.loads(said)
    own = json.loads((vocoder_of(voice) / "vocoder.json").read_text())
    assert [described[key] for key in ("type", "variant", "audio")] == [
        own[key] for key in ("type", "variant", "audio")
    ]
    status, said, _ = myxtts("vocoder", "import", generator, "--output", tmp_path / "again")
    assert said.startswith(f"{tmp_path / 'again'}: hifigan xtiny, ")
    assert "22050 Hz, 80 mel bands up to 8000 Hz" in said
    status, said, complaint = myxtts(
        "vocoder", "import", generator, "--output", tmp_path / "not", "--sha256", "0" * 64, "--json"
    )
    assert (status, said) == (2, "")
    assert digest in complaint
    assert not (tmp_path / "not").exists()


def test_a_run_that_fails_is_recorded_as_failed(myxtts, places, state, tmp_path, monkeypatch):
    from model.errors import VocoderError
    from model.vocoder_training import finetuning

    def broken(config, features, corpus, output, logger, start):
        logger.metrics(1, {"train/mel": 1.0})
        raise VocoderError("not finite")

    monkeypatch.setattr(finetuning, "base_vocoder", broken)
    status, said, complaint = myxtts("vocoder", "train", *places, "--output", tmp_path / "base", *TRAINING)
    assert (status, said, complaint) == (2, "", "myxtts: not finite\n")
    (recorded,) = (json.loads(path.read_text())["run_id"] for path in (tmp_path / "base").rglob("run.json"))
    run = tracking.client(state).get_run(recorded)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"train/mel": 1.0}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train", "--vocoder-type", "griffin_lim"), "griffin_lim has no weights to train"),
        (("finetune", "--model", "voice", *TYPE), "give --vocoder-checkpoint"),
    ],
)
def test_what_cannot_be_trained_is_a_usage_error(arguments, reason, myxtts, places, tmp_path):
    status, said, complaint = myxtts("vocoder", *arguments, *places, "--output", tmp_path / "base")
    assert (status, said) == (2, "")
    assert reason in complaint
    assert not (tmp_path / "base").exists()
