"""What a step's result is kept under: everything that shapes the result, and nothing else.

The steps run as they are; only the work behind their keys is replaced by a double that writes what the step reads back.
Each test changes one ingredient at a time and compares the folders that the results lie in.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from other_values import keys, with_another

from components import lineage
from components.evaluate import run as evaluate
from components.finetune_vocoder import run as finetune_vocoder
from components.finetune_vocoder import work as vocoder_work
from components.gate import run as gate
from components.launch import VARIABLE as LAUNCH
from components.preprocess import run as preprocess
from components.preprocess_part import run as preprocess_part
from components.state import State, write_json
from components.train import run as train
from model.config.resolution import resolve, subset
from model.config.schema import Config
from model.features.index import INDEX
from pipelines.training_pipeline import STEP_SECTIONS


def with_settings(**overrides: Any) -> Config:
    """Settings in which every other one can be changed alone."""
    given = {
        "seed": 77,
        "features.target_loudness": -23.0,
        "features.speaker_encoder_weights": "encoder.pt",
        "features.speaker_encoder_sha256": "0" * 64,
        "model.use_forward_attention": True,
        "model.use_pretrained_speaker_encoder": False,
        "vocoder.type": "hifigan",
        "vocoder.max_steps": 30,
    }
    return resolve(None, None, given | overrides).config


CONFIG = with_settings()
FIXED = {"model.use_duration_predictor", "vocoder.checkpoint_sha256"}
"""Settings that have one valid value, or none without another setting."""


@pytest.fixture
def state(tmp_path, monkeypatch) -> State:
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path / "state"))
    for name in (LAUNCH, lineage.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return State(tmp_path / "state").prepare()


@dataclass
class Step:
    """A step whose inputs a test can change.

    Attributes:
        name: The step, as in `STEP_SECTIONS`.
        pointer: What the step before hands on.
        run: (path of a pointer, settings as JSON) -> folder of the result.
        folder: For the pointers.
        worked: Grows by one entry whenever the work is really done.
        fixed: Settings under which the step does other work.
    """

    name: str
    pointer: dict[str, str]
    run: Callable[[str, str], str]
    folder: Path
    worked: list[Any]
    fixed: frozenset[str] = frozenset()

    def __call__(self, config: Config = CONFIG, **changes: str) -> str:
        pointer = write_json(self.folder / "pointer.json", {**self.pointer, **changes})
        return self.run(str(pointer), json.dumps(subset(config, *STEP_SECTIONS[self.name])))

    def unnoticed(self) -> list[str]:
        """Settings whose change leaves the result where it is."""
        before = self()
        settings = [key for key in keys(CONFIG, *STEP_SECTIONS[self.name]) if key not in FIXED | self.fixed]
        return [key for key in settings if self(with_another(CONFIG, key)) == before]


def write_voice(folder: Path, weights: str = "w") -> Path:
    """A voice that is only described."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / "voice.json", {"weights_sha256": weights, "config": {}}).parent


@pytest.fixture
def preprocess_step(state, tmp_path, monkeypatch) -> Step:
    worked = []

    def build(corpus, destination, config, *, code, earlier, report):
        worked.append(code)
        destination.mkdir(parents=True)
        (destination / INDEX).touch()

    about = {"content_hash": "h", "number_of_clips": 3, "number_of_frames": 9}
    monkeypatch.setattr(preprocess, "build_features", build)
    monkeypatch.setattr(preprocess, "push", lambda *_: 0)
    monkeypatch.setattr(preprocess, "read_about", lambda folder: about)
    pointer = {"folder": str(tmp_path), "hash": "d" * 32 + ".dir", "summary": "3 clips"}
    return Step("preprocess", pointer, lambda data, told: preprocess.run(data, told)["folder"], tmp_path, worked)


@pytest.fixture
def preprocess_part_step(state, tmp_path, monkeypatch) -> Step:
    worked = []

    def extract(corpus, destination, config, part, *, code, earlier, report):
        worked.append(code)
        return part.of

    monkeypatch.setattr(preprocess_part, "extract_part", extract)
    pointer = {"folder": str(tmp_path), "hash": "d" * 32 + ".dir", "summary": "3 clips"}
    return Step(
        "preprocess", pointer, lambda data, told: preprocess_part.run(data, told, "1/3")["folder"], tmp_path, worked
    )


@pytest.fixture
def train_step(state, tmp_path, monkeypatch) -> Step:
    worked = []

    def launch(module, request, folder):
        worked.append(request)
        voice = write_voice(folder / "voice")
        return {"voice": str(voice), "steps": 3, "exported_step": 3, "metrics": {}, "run_id": "r"}

    monkeypatch.setattr(train, "launch", launch)
    pointer = {"folder": str(tmp_path), "hash": "f", "corpus": "c", "data": "d.dir"}
    return Step("train", pointer, lambda features, told: train.run(features, told, "e")["folder"], tmp_path, worked)


@pytest.fixture
def finetune_step(state, tmp_path, monkeypatch) -> Step:
    worked = []

    def work(state, trained, config, folder, experiment):
        worked.append(folder)
        write_voice(folder / "voice")
        return "fine-tuned"

    monkeypatch.setattr(vocoder_work, "work", work)
    pointer = {
        "folder": str(tmp_path),
        "voice": str(write_voice(tmp_path / "trained")),
        "features": "features",
        "features_hash": "f",
        "run_id": "r",
        "spool": "s",
    }
    return Step(
        "finetune_vocoder",
        pointer,
        lambda training, told: finetune_vocoder.run(training, told, "e")["folder"],
        tmp_path,
        worked,
    )


@pytest.fixture
def base_step(state, tmp_path, monkeypatch) -> Step:
    """The base training of a vocoder, which every voice of the same features shares."""

    class Started(Exception):
        pass

    worked = []

    def base_vocoder(config, features, corpus, folder, logger):
        worked.append(folder)
        raise Started

    def run(training: str, told: str) -> str:
        trained, config = json.loads(Path(training).read_text()), Config.model_validate(json.loads(told))
        with pytest.raises(Started):
            vocoder_work.work(state, trained, config, tmp_path / trained["voice"], "e")
        return str(worked[-1])

    monkeypatch.setattr(vocoder_work, "base_vocoder", base_vocoder)
    monkeypatch.setattr(vocoder_work, "open_store", lambda folder, state: folder)
    monkeypatch.setattr(vocoder_work, "MlflowRunLogger", lambda *_, **__: nullcontext())
    pointer = {
        "voice": "voice",
        "features": "features",
        "features_hash": "f",
        "corpus": "c",
        "data": "d.dir",
        "run_id": "r",
        "spool": "s",
    }
    return Step("finetune_vocoder", pointer, run, tmp_path, worked, frozenset({"vocoder.checkpoint"}))


@pytest.fixture
def metrics_of(monkeypatch) -> list[Path]:
    """Voices that are really evaluated, in order."""
    evaluated = []

    def measure(voice, store, corpus, config, output):
        evaluated.append(voice)
        deciding = {"mel_cepstral_distortion": 6.0 + len(evaluated), "character_error_increase": 0.1}
        values = {**deciding, "alignment_monotonicity": 0.9}
        write_json(output / "metrics.json", {"gate": {name: {"value": value} for name, value in values.items()}})

    monkeypatch.setattr(evaluate, "evaluate", measure)
    monkeypatch.setattr(evaluate, "open_store", lambda folder, state: folder)
    monkeypatch.setattr(evaluate, "append_to_run", lambda *_, **__: None)
    return evaluated


EVALUATED = {
    "voice": "voice",
    "voice_hash": "v",
    "features": "features",
    "features_hash": "f",
    "corpus": "corpus",
    "data": "d.dir",
    "run_id": "r",
    "spool": "s",
}


@pytest.fixture
def evaluate_step(state, tmp_path, metrics_of) -> Step:
    pointer = {"folder": str(tmp_path), **EVALUATED}
    return Step("evaluate", pointer, lambda tuned, told: evaluate.run(tuned, told)["folder"], tmp_path, metrics_of)


@pytest.fixture
def champion_step(state, tmp_path, metrics_of) -> Step:
    """The evaluation of the champion on the candidate's data, which the gate asks for."""

    def run(registration: str, told: str) -> str:
        registered = {**json.loads(Path(registration).read_text()), "evaluation_settings": told}
        registry = SimpleNamespace(voice_folder=lambda uri: Path(uri))
        champion = SimpleNamespace(name="m", number="4", tags={"voice.sha256": registered["champion_hash"]})
        return str(gate.champion_measures(state, registry, champion, registered))

    pointer = {"folder": str(tmp_path), **EVALUATED, "voice_hash": "candidate", "champion_hash": "v"}
    return Step("evaluate", pointer, run, tmp_path, metrics_of)


ALL = (
    "preprocess_step",
    "preprocess_part_step",
    "train_step",
    "finetune_step",
    "base_step",
    "evaluate_step",
    "champion_step",
)


@pytest.fixture
def step(request) -> Step:
    return request.getfixturevalue(request.param)


def each(*cases: tuple) -> Any:
    """Parametrised by cases whose first value names a step's fixture."""
    names = ("step", "change", "expected")[: len(cases[0])]
    ids = ["-".join(str(value) for value in case if not isinstance(value, tuple)) for case in cases]
    return pytest.mark.parametrize(names, cases, indirect=["step"], ids=ids)


@pytest.mark.parametrize("step", ALL, indirect=True)
def test_the_same_inputs_lead_to_the_same_result(step):
    assert step() == step()


@pytest.mark.parametrize("step", ["preprocess_step", "evaluate_step", "champion_step"], indirect=True)
def test_a_result_that_is_there_is_not_made_again(step):
    step()
    step()
    assert len(step.worked) == 1


@each(
    ("preprocess_step", "hash"),
    ("preprocess_part_step", "hash"),
    ("train_step", "hash"),
    ("finetune_step", "features_hash"),
    ("base_step", "features_hash"),
    ("evaluate_step", "voice_hash"),
    ("evaluate_step", "features_hash"),
    ("evaluate_step", "data"),
    ("champion_step", "champion_hash"),
    ("champion_step", "features_hash"),
    ("champion_step", "data"),
)
def test_every_input_that_shapes_a_result_is_in_its_key(step, change):
    assert step(**{change: "another"}) != step()


@each(
    ("preprocess_step", "summary"),
    ("train_step", "corpus"),
    ("finetune_step", "run_id"),
    ("finetune_step", "spool"),
    ("base_step", "voice"),
    ("base_step", "run_id"),
    ("evaluate_step", "voice"),
    ("evaluate_step", "features"),
    ("evaluate_step", "corpus"),
    ("evaluate_step", "run_id"),
    ("evaluate_step", "spool"),
    ("champion_step", "voice_hash"),
    ("champion_step", "run_id"),
)
def test_where_things_lie_and_who_recorded_them_is_in_no_key(step, change):
    assert step(**{change: "another"}) == step()


@pytest.mark.parametrize("weights", ["w", "another"])
def test_fine_tuning_belongs_to_one_voice_wherever_it_lies(finetune_step, tmp_path, weights):
    before = finetune_step()
    voice = write_voice(tmp_path / "elsewhere", weights)
    assert (finetune_step(voice=str(voice)) == before) is (weights == "w")


@each(
    ("preprocess_step", ()),
    ("preprocess_part_step", ()),
    ("train_step", ("optimization_level",)),
    ("finetune_step", ()),
    (
        "base_step",  # audio is part of the features
        (
            *(
                f"audio.{name}"
                for name in ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels", "fmin", "fmax")
            ),
            *(f"vocoder.{name}" for name in ("griffin_lim_iterations", "griffin_lim_momentum", "precision")),
            *(f"vocoder.{name}" for name in ("chunk_frames", "device", "enable_compile", "finetune_steps")),
            *(f"vocoder.{name}" for name in ("finetune_learning_rate_ratio", "finetune_adversarial_start")),
            "vocoder.discriminator_freeze_steps",
        ),
    ),
    ("evaluate_step", ()),
    ("champion_step", ()),
)
def test_every_setting_is_in_the_key_but_those_that_shape_no_result(step, change):
    assert sorted(step.unnoticed()) == sorted(change)


def test_another_checkpoint_under_the_same_path_is_another_fine_tuning(finetune_step):
    folders = {
        finetune_step(with_settings(**{"vocoder.checkpoint": "g_1", "vocoder.checkpoint_sha256": digit * 64}))
        for digit in "01"
    }
    assert len(folders) == 2


@each(
    ("preprocess_step", "model/features/extractor.py", True),
    ("preprocess_step", "model/audio/loudness.py", True),
    ("preprocess_step", "model/text/symbols.py", True),
    ("preprocess_step", "components/preprocess/run.py", True),
    ("preprocess_step", "model/config/presets/sizes.yaml", False),  # steps are given the resolved settings
    ("preprocess_step", "model/evaluation/metrics.py", False),
    ("preprocess_step", "components/train/run.py", False),
    ("preprocess_part_step", "model/features/extractor.py", True),
    ("preprocess_part_step", "components/gate/run.py", False),
    ("train_step", "model/training/trainer.py", True),
    ("train_step", "model/training/losses.py", True),
    ("train_step", "model/acoustic/model.py", True),
    ("train_step", "components/gate/run.py", False),
    ("train_step", "components/train/component.py", False),
    ("finetune_step", "model/vocoder/hifigan.py", True),
    ("finetune_step", "model/vocoder_training/finetuning.py", True),
    ("finetune_step", "components/finetune_vocoder/run.py", True),
    ("finetune_step", "components/gate/run.py", False),
    ("base_step", "model/vocoder_training/adversarial.py", True),
    ("base_step", "model/vocoder_training/adversarial.py", True),
    ("base_step", "components/gate/run.py", False),
    ("evaluate_step", "model/evaluation/metrics.py", True),
    ("evaluate_step", "model/evaluation/report.html", True),
    ("evaluate_step", "model/synthesis.py", True),
    ("evaluate_step", "components/evaluate/run.py", True),
    ("evaluate_step", "components/gate/run.py", False),
    ("evaluate_step", "components/register/run.py", False),
    ("champion_step", "model/evaluation/evaluate.py", True),
)
def test_an_edit_makes_the_results_of_the_code_that_runs_stale(step, change, expected, edit):
    before = step()
    edit(change)
    assert (step() != before) is expected


@pytest.mark.parametrize("step", ["preprocess_step", "preprocess_part_step"], indirect=True)
def test_clips_are_extracted_anew_by_other_code(step, edit):
    """Unchanged clips are taken from earlier stores by a key that holds the code, too."""
    step()
    edit("model/audio/pitch.py")
    step()
    assert all(step.worked)
    assert len(set(step.worked)) == 2


def test_parts_of_another_division_lie_apart(preprocess_part_step):
    pointer = write_json(preprocess_part_step.folder / "pointer.json", preprocess_part_step.pointer)
    told = json.dumps(subset(CONFIG, "audio", "features"))
    folders = {preprocess_part.run(str(pointer), told, part)["folder"] for part in ("0/2", "1/2", "0/3", "1/3", "2/3")}
    assert len(folders) == 5


@pytest.mark.parametrize("step", ALL, indirect=True)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (lineage.VARIABLE, {"git.sha": "0" * 40, "kfp.run_id": "another"}),
        (LAUNCH, {"launch": {"launcher": "torchrun", "processes": 1}}),
    ],
    ids=["commit and run", "launcher"],
)
def test_who_runs_a_step_is_in_no_key(step, variable, value, monkeypatch):
    before = step()
    monkeypatch.setenv(variable, json.dumps(value))
    assert step() == before


def test_trainings_of_another_experiment_are_the_same(train_step):
    before = train_step()
    train_step.run = lambda features, told: train.run(features, told, "another")["folder"]
    assert train_step() == before


def test_the_champion_is_measured_on_the_features_of_the_candidate(champion_step, evaluate_step):
    """It was evaluated on its own features of the same data: those numbers are of other recordings."""
    own = evaluate_step(features_hash="quiet")
    assert own == evaluate_step(features_hash="quiet")
    champion_step(features_hash="loud")
    assert len(evaluate_step.worked) == 2
    champion_step(features_hash="quiet")
    assert len(evaluate_step.worked) == 2
