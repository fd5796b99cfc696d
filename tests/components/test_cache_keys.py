"""Keys of the steps' results: everything that determines a result is part of its key, and nothing else.

The real steps run; only the work behind their keys is replaced by doubles, which write the files that the step reads.
Each test changes one ingredient at a time and compares the folders of the results.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from other_values import keys, with_another
from step_records import step_inputs

from components import lineage
from components.contracts import FinetuneVocoderOutput, PreprocessOutput, ResolveDataOutput, TrainOutput
from components.evaluate import run as evaluate
from components.finetune_vocoder import run as finetune_vocoder
from components.finetune_vocoder import work as vocoder_work
from components.gate.examination import examine
from components.launch import VARIABLE as LAUNCH
from components.preprocess import run as preprocess
from components.preprocess_part import run as preprocess_part
from components.state import State
from components.train import run as train
from model.config.data import FeaturesConfig, PreprocessSettings
from model.config.evaluation import EvaluateSettings
from model.config.resolution import resolve
from model.config.schema import Config
from model.config.vocoder import FinetuneVocoderSettings
from model.features.index import INDEX
from model.files import write_json
from model.voice_folder import write_training_sentences
from pipelines.training_pipeline import STEP_SETTINGS


def with_settings(**overrides: Any) -> Config:
    """Returns settings in which every other setting can be changed alone."""
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
        name: The step, as in `STEP_SETTINGS`.
        inputs: Names of the records that it reads.
        run: (path of each record, settings as JSON) -> folder of the result.
        folder: Folder of the records.
        worked: Gets one entry whenever the work is done rather than reused.
        fixed: Settings under which the step does other work.
        changes: Changes of the records that always apply, by `<input>.<field>`.
    """

    name: str
    inputs: tuple[str, ...]
    run: Callable[[dict[str, str], str], Path]
    folder: Path
    worked: list[Any]
    fixed: frozenset[str] = frozenset()
    changes: Mapping[str, str | Path] | None = None

    def __call__(self, config: Config = CONFIG, changes: Mapping[str, str | Path] | None = None) -> Path:
        paths = step_inputs(self.folder, self.inputs, {**(self.changes or {}), **(changes or {})})
        return self.run(paths, STEP_SETTINGS[self.name].of(config).to_json())

    def unnoticed(self) -> list[str]:
        """Returns the settings whose change does not change the folder of the result."""
        before = self()
        settings = keys(CONFIG, *STEP_SETTINGS[self.name].model_fields)
        return [key for key in settings if key not in FIXED | self.fixed and self(with_another(CONFIG, key)) == before]


def write_voice(folder: Path, weights: str = "w") -> Path:
    """Writes the description of a voice, without weights."""
    return write_json(folder / "voice.json", {"weights_sha256": weights, "languages": ["en"], "config": {}}).parent


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
    monkeypatch.setattr(preprocess, "read_metadata", lambda folder: about)
    return Step(
        "preprocess",
        ("data",),
        lambda paths, settings: preprocess.run(**paths, settings=settings).features,
        tmp_path,
        worked,
    )


@pytest.fixture
def preprocess_part_step(state, tmp_path, monkeypatch) -> Step:
    worked = []

    def extract(corpus, destination, config, part, *, code, earlier, report):
        worked.append(code)
        return part.of

    monkeypatch.setattr(preprocess_part, "extract_part", extract)

    def run(paths: dict[str, str], settings: str) -> Path:
        return preprocess_part.run(**paths, settings=settings, part="1/3").shards

    return Step("preprocess", ("data",), run, tmp_path, worked)


@pytest.fixture
def train_step(state, tmp_path, monkeypatch) -> Step:
    worked = []

    def launch(module, request, folder):
        worked.append(request)
        voice = write_voice(folder / "voice")
        return {"voice": str(voice), "steps": 3, "exported_step": 3, "metrics": {}, "run_id": "r"}

    monkeypatch.setattr(train, "launch", launch)

    def run(paths: dict[str, str], settings: str) -> Path:
        return train.run(**paths, settings=settings, experiment="e").training

    return Step("train", ("data", "features"), run, tmp_path, worked)


@pytest.fixture
def finetune_step(state, tmp_path, monkeypatch) -> Step:
    worked = []

    def work(*, folder, **_):
        worked.append(folder)
        write_voice(folder / "voice")
        return "fine-tuned"

    monkeypatch.setattr(vocoder_work, "work", work)

    def run(paths: dict[str, str], settings: str) -> Path:
        return finetune_vocoder.run(**paths, settings=settings, experiment="e").voice

    voice = {"training.voice": write_voice(tmp_path / "trained")}
    return Step("finetune_vocoder", ("data", "features", "training"), run, tmp_path, worked, changes=voice)


@pytest.fixture
def base_step(state, tmp_path, monkeypatch) -> Step:
    """The base training of a vocoder, which every voice of the same features shares."""

    class Started(Exception):
        pass

    worked = []

    def base_vocoder(config, features, corpus, folder, logger, start):
        worked.append(folder)
        raise Started

    def run(paths: dict[str, str], settings: str) -> Path:
        config = FinetuneVocoderSettings.from_json(settings)
        trained = TrainOutput.read(paths["training"])
        with pytest.raises(Started):
            vocoder_work.work(
                state=state,
                corpus=ResolveDataOutput.read(paths["data"]),
                store=PreprocessOutput.read(paths["features"]),
                trained=trained,
                config=config,
                base=None,
                folder=tmp_path / "tuned",
                experiment="e",
            )
        return worked[-1]

    monkeypatch.setattr(vocoder_work, "base_vocoder", base_vocoder)
    monkeypatch.setattr(vocoder_work, "open_store", lambda folder, state: folder)
    monkeypatch.setattr(vocoder_work, "MlflowRunLogger", lambda *_, **__: nullcontext())
    inputs = ("data", "features", "training")
    return Step("finetune_vocoder", inputs, run, tmp_path, worked, frozenset({"vocoder.checkpoint"}))


@pytest.fixture
def evaluated_voices(tmp_path, monkeypatch) -> list[Path]:
    """Voices that are really evaluated, in order."""
    evaluated: list[Path] = []
    write_voice(tmp_path)

    def evaluate_voice(voice, store, corpus, config, output, progress, *, exclude, about):
        evaluated.append(voice)
        deciding = {"mel_cepstral_distortion": 6.0 + len(evaluated), "character_error_increase": 0.1}
        values = {**deciding, "phone_error_increase": None, "alignment_monotonicity": 0.9}
        write_json(output / "metrics.json", {"gate": {name: {"value": value} for name, value in values.items()}})

    monkeypatch.setattr(evaluate, "evaluate", evaluate_voice)
    monkeypatch.setattr(evaluate, "open_store", lambda folder, state: folder)
    monkeypatch.setattr(evaluate, "append_to_run", lambda *_, **__: None)
    return evaluated


@pytest.fixture
def evaluate_step(state, tmp_path, evaluated_voices) -> Step:
    inputs = ("data", "features", "training", "finetuning")
    return Step(
        "evaluate",
        inputs,
        lambda paths, settings: evaluate.run(**paths, settings=settings).evaluation,
        tmp_path,
        evaluated_voices,
    )


@pytest.fixture
def champion_step(state, tmp_path, evaluated_voices) -> Step:
    """The evaluation of the champion on the candidate's data, which the gate needs; its key is read from the state.

    The record `finetuning` is that of the champion.
    """

    def run(paths: dict[str, str], settings: str) -> Path:
        asked = []

        def evaluation_of(**arguments):
            asked.append(evaluation(**arguments))
            return asked[-1]

        write_training_sentences(tmp_path / "champion", ["a sentence's hash"])
        write_voice(tmp_path / "champion")
        registry = SimpleNamespace(voice_folder=lambda uri: tmp_path / "champion")
        champion_hash = FinetuneVocoderOutput.read(paths["finetuning"]).voice_hash
        champion = SimpleNamespace(name="m", number="4", tags={"voice.sha256": champion_hash, "dvc.data": "own"})
        with pytest.MonkeyPatch.context() as patch:
            evaluation = evaluate.evaluation_of
            patch.setattr(evaluate, "evaluation_of", evaluation_of)
            examine(
                state,
                registry,
                champion,
                [],
                ResolveDataOutput.read(paths["data"]),
                PreprocessOutput.read(paths["features"]),
                EvaluateSettings.from_json(settings),
            )
        return asked[-1]

    return Step("evaluate", ("data", "features", "finetuning"), run, tmp_path, evaluated_voices)


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
    """Returns a parametrization by cases whose first value names a step's fixture."""
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
    ("preprocess_step", "data.data_hash"),
    ("preprocess_part_step", "data.data_hash"),
    ("train_step", "features.features_hash"),
    ("finetune_step", "features.features_hash"),
    ("base_step", "features.features_hash"),
    ("evaluate_step", "finetuning.voice_hash"),
    ("evaluate_step", "features.examination_hash"),
    ("evaluate_step", "data.examination_hash"),
    ("champion_step", "finetuning.voice_hash"),
    ("champion_step", "features.examination_hash"),
    ("champion_step", "data.examination_hash"),
)
def test_every_input_that_shapes_a_result_is_in_its_key(step, change):
    assert step(changes={change: "another"}) != step()


@each(
    ("preprocess_step", "data.summary"),
    ("preprocess_step", "data.corpus"),
    ("train_step", "data.corpus"),
    ("train_step", "data.data_hash"),
    ("train_step", "features.features"),
    ("finetune_step", "training.run_id"),
    ("finetune_step", "training.training"),
    ("base_step", "training.voice"),
    ("base_step", "features.features"),
    ("base_step", "training.run_id"),
    ("evaluate_step", "features.features"),
    ("evaluate_step", "data.corpus"),
    ("evaluate_step", "training.run_id"),
    ("evaluate_step", "training.training"),
    ("champion_step", "data.corpus"),
    ("champion_step", "features.features"),
)
def test_where_things_lie_and_who_recorded_them_is_in_no_key(step, change):
    assert step(changes={change: "another"}) == step()


def test_a_voice_is_evaluated_once_wherever_it_lies(evaluate_step, tmp_path):
    before = evaluate_step()
    assert evaluate_step(changes={"finetuning.voice": write_voice(tmp_path / "elsewhere")}) == before


@pytest.mark.parametrize("weights", ["w", "another"])
def test_fine_tuning_belongs_to_one_voice_wherever_it_lies(finetune_step, tmp_path, weights):
    before = finetune_step()
    voice = write_voice(tmp_path / "elsewhere", weights)
    assert (finetune_step(changes={"training.voice": voice}) == before) is (weights == "w")


@each(
    ("preprocess_step", ()),
    ("preprocess_part_step", ()),
    ("train_step", ("optimization_level", *(f"features.{name}" for name in FeaturesConfig.model_fields))),
    ("finetune_step", ()),
    (
        "base_step",  # audio is part of the features
        (
            *(
                f"audio.{name}"
                for name in ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels", "fmin", "fmax")
            ),
            *(f"vocoder.{name}" for name in ("griffin_lim_iterations", "griffin_lim_momentum", "precision")),
            *(f"vocoder.{name}" for name in ("griffin_lim_start", "refinement_iterations")),
            *(f"vocoder.{name}" for name in ("chunk_frames", "device", "enable_compile", "finetune_steps")),
            *(f"vocoder.{name}" for name in ("finetune_learning_rate_ratio", "finetune_adversarial_start")),
            "vocoder.discriminator_freeze_steps",
            "vocoder.start_from_base",  # the weights that it leads to count
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
    ("preprocess_step", "model/config/data.py", True),
    ("preprocess_step", "model/config/vocoder.py", False),
    ("preprocess_step", "model/evaluation/metrics.py", False),
    ("preprocess_step", "components/train/run.py", False),
    ("preprocess_part_step", "model/features/extractor.py", True),
    ("preprocess_part_step", "components/gate/run.py", False),
    ("train_step", "model/training/trainer.py", True),
    ("train_step", "model/training/losses.py", True),
    ("train_step", "model/acoustic/model.py", True),
    ("train_step", "model/vocoder/hifigan.py", False),
    ("train_step", "components/gate/run.py", False),
    ("train_step", "components/train/component.py", False),
    ("finetune_step", "model/vocoder/hifigan.py", True),
    ("finetune_step", "model/vocoder_training/finetuning.py", True),
    ("finetune_step", "components/finetune_vocoder/run.py", True),
    ("finetune_step", "components/gate/run.py", False),
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


def test_parts_of_another_division_lie_apart(preprocess_part_step, tmp_path):
    paths, settings = step_inputs(tmp_path, ["data"]), PreprocessSettings.of(CONFIG).to_json()
    parts = ("0/2", "1/2", "0/3", "1/3", "2/3")
    assert len({preprocess_part.run(**paths, settings=settings, part=part).shards for part in parts}) == 5


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
    train_step.run = lambda paths, settings: train.run(**paths, settings=settings, experiment="another").training
    assert train_step() == before


def test_the_champion_is_measured_on_the_features_of_the_candidate(champion_step, evaluate_step):
    """It was evaluated on its own features of the same data: those metrics compare it with other recordings."""
    quiet, loud = ({"features.examination_hash": name} for name in ("quiet", "loud"))
    own = evaluate_step(changes=quiet)
    assert own == evaluate_step(changes=quiet)
    assert champion_step(changes=loud) != own
    assert len(evaluate_step.worked) == 2
    assert champion_step(changes=quiet) == own
    assert len(evaluate_step.worked) == 2
