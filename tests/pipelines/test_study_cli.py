"""`myxtts study`: the commands that read a study, addressed by its name."""

import json

import pytest
import yaml
from optuna.trial import create_trial
from small_study import study_arguments

from components.studies import study as module
from components.studies.attributes import PARENT_RUN, USED
from components.studies.study import create_study
from pipelines.cli.console import Console
from pipelines.cli.options import given_settings
from pipelines.cli.study import _begun

SPACE = {"loss.mel_loss_weight": 3.5, "training.batch_size": 8}


@pytest.fixture
def study(state, monkeypatch):
    """A study with one complete trial and two waiting ones."""
    monkeypatch.delenv("MYXTTS_STUDY_STORAGE", raising=False)
    monkeypatch.setattr(module, "_open_parent_run", lambda study, *_: study.set_user_attr(PARENT_RUN, "parent"))
    found = create_study(state, study_arguments({"study.name": "mine", "study.trials": 2}))
    found.add_trial(create_trial(value=1.25, user_attrs={USED: SPACE}))
    return found


def test_studies_are_listed_with_their_progress_and_best_trial(study, myxtts):
    assert myxtts("study", "list")[:2] == (0, "mine  1/3 trials  best 1.2500 in trial 2\n")
    (listed,) = json.loads(myxtts("study", "list", "--json")[1])
    assert listed == {"name": "mine", "trials": 3, "finished": 1, "best": 1.25, "best_trial": 2}


@pytest.mark.parametrize("name", [(), ("mine",)])
def test_trials_are_shown_by_name_or_of_the_newest_study(study, myxtts, name):
    status, said, _ = myxtts("study", "show", *name)
    assert (status, said.splitlines()[0]) == (0, "study mine, MLflow run parent")
    assert "loss.mel_loss_weight 3.5  training.batch_size 8" in said
    rows = json.loads(myxtts("study", "show", *name, "--json")[1])["trials"]
    assert [row["state"] for row in rows] == ["waiting", "waiting", "complete"]
    assert rows[2]["settings"] == SPACE


def test_the_page_is_written_to_a_file(study, myxtts, tmp_path):
    assert myxtts("study", "show", "mine", "--html", tmp_path / "study.html")[0] == 0
    assert "<h1>Study mine</h1>" in (tmp_path / "study.html").read_text()


def test_the_best_settings_are_printed_or_written(study, myxtts, tmp_path):
    _, said, _ = myxtts("study", "best", "mine")
    assert said.startswith("# Study mine, trial 2: mel 1.2500\n")
    assert yaml.safe_load(said)["loss"] == {"mel_loss_weight": 3.5}
    myxtts("study", "best", "--output", tmp_path / "best.yaml")
    assert (tmp_path / "best.yaml").read_text() == said


@pytest.mark.parametrize("command", ["show", "best", "worker"])
def test_an_unknown_name_is_refused_with_the_known_ones(study, myxtts, command):
    status, _, error = myxtts("study", command, "yours")
    assert (status, "there is no study yours; there are: mine" in error) == (2, True)


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_a_study_without_a_run_here_says_how_to_start_one(study, myxtts, command):
    status, _, error = myxtts("study", command)
    assert (status, "the study mine has no run" in error) == (2, True)


class Unmade:
    """A project without data, which refuses to name a study before they are made."""

    needs_base = True

    def __init__(self) -> None:
        self.made: list[str] = []

    def require_sound(self) -> None:
        """All settings are good."""

    def require_space(self) -> None:
        """So is the space."""

    def make_data(self) -> None:
        self.made.append("data")

    def with_base(self, make) -> "Unmade":
        self.made.append("base voice")
        return self

    def study_arguments(self):
        assert self.made
        return study_arguments({})

    lineage = "lineage"


@pytest.mark.parametrize(("target", "made"), [("local", ["data", "base voice"]), ("docker", ["data"])])
def test_a_new_study_has_its_data_made_on_every_target(target, made):
    project = Unmade()
    arguments, lineage = _begun(project, target, Console())
    assert project.made == made
    assert (arguments, lineage) == (study_arguments({}), "lineage")


@pytest.mark.parametrize("name", ["data", "model_size", "config_file", "assignments", "start_from"])
def test_settings_beside_a_name_are_noticed(name):
    empty = dict.fromkeys(("data", "model_size", "config_file", "assignments", "start_from"))
    assert not given_settings(empty)
    assert given_settings({**empty, name: "x"})
