"""`myxtts study`: searches loss weights, batch size and learning rate of a model size."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from pipelines.cli.options import PATH, chosen_project, json_option, project_options

if TYPE_CHECKING:
    import optuna

    from pipelines.project import Project

trials_option = click.option(
    "--trials", type=click.IntRange(min=1), help="Total number of finished trials to reach [study.trials]."
)


@click.group()
def study() -> None:
    """Search hyperparameters: one study per data and model size."""


@study.command()
@trials_option
@project_options
def run(trials: int | None, **chosen: Any) -> None:
    """Make the data if needed, open the study and run trials. The same command resumes a study."""
    project = chosen_project(**chosen)
    project.require_sound()
    project.make_data()
    _work(project, trials)


@study.command()
@trials_option
@project_options
def worker(trials: int | None, **chosen: Any) -> None:
    """Join a study from another process or machine. Its data must exist."""
    _work(chosen_project(**chosen), trials)


@study.command()
@json_option
@project_options
def show(as_json: bool, **chosen: Any) -> None:
    """List the trials of the study."""
    from pipelines.study import load_study

    found = load_study(chosen_project(**chosen))
    trials = found.get_trials(deepcopy=False)
    if as_json:
        rows = [
            {
                "trial": item.number,
                "state": item.state.name.lower(),
                "value": item.value,
                "error": item.user_attrs.get("error", ""),
                **item.user_attrs.get("used", {}),
            }
            for item in trials
        ]
        click.echo(json.dumps({"study": found.study_name, "trials": rows}, indent=1))
        return
    click.echo(f"study {found.study_name}, MLflow run {found.user_attrs.get('mlflow_run', '-')}")
    for trial in trials:
        click.echo(_line(trial))


@study.command()
@click.option("--output", type=PATH, help="File to write [default: stdout].")
@project_options
def best(output: Path | None, **chosen: Any) -> None:
    """Write the settings of the study with those of its best trial, as a file for --config."""
    from model.config.resolution import COMMAND_LINE, flatten, nest
    from pipelines.study import best_trial, load_study

    project = chosen_project(**chosen)
    study = load_study(project)
    found = best_trial(study)
    values = flatten(project.config.model_dump(mode="json"))
    given = (str(chosen["config_file"]), COMMAND_LINE)
    own = {key: values[key] for key, origin in project.resolved.origins.items() if origin in given}
    own = {key: value for key, value in own.items() if not key.startswith("study.")}
    text = f"# Study {study.study_name}, trial {found.number}: {found.value:.4f} unweighted mel error\n"
    text += yaml.safe_dump(nest({**own, **found.user_attrs["used"]}), allow_unicode=True)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output}: use it with `myxtts run --config {output}`", err=True)


def _work(project: "Project", trials: int | None) -> None:
    """Runs trials until the study has the wanted number, and prints the best one."""
    from pipelines.study import best_trial, open_study, prepare, work

    context = prepare(project)
    opened = open_study(context)
    wanted = trials or project.config.study.trials
    click.echo(f"study {context.name}: until {wanted} trials have finished", err=True)
    work(context, opened, wanted, lambda trial: click.echo(_line(trial), err=True))
    found = best_trial(opened)
    click.echo(f"best: {found.value:.4f} in trial {found.number}; `myxtts study best` writes it")


def _line(trial: "optuna.trial.FrozenTrial") -> str:
    """Returns a trial as one line: error, settings, and why it failed."""
    used = "  ".join(f"{key} {_short(value)}" for key, value in trial.user_attrs.get("used", {}).items())
    value = f"{trial.value:.4f}" if trial.value is not None else "-"
    reason = trial.user_attrs.get("error", "")
    return f"trial {trial.number:>3} {trial.state.name.lower():<9} {value:>8}  {used}  {reason}".rstrip()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
