"""`myxtts study`: search loss weights, batch size and learning rate of a model size."""

import json
from pathlib import Path
from typing import Any

import click
import yaml

from pipelines.cli.options import PATH, chosen_project, json_option, project_options

trials_option = click.option(
    "--trials", type=click.IntRange(min=1), help="Finished trials that the study shall have in all [study.trials]."
)


@click.group()
def study() -> None:
    """Search hyperparameters: one study per data and model size."""


@study.command()
@trials_option
@project_options
def run(trials: int | None, **chosen: Any) -> None:
    """Make the data if needed, open the study, and run its trials; run it again to go on."""
    project = chosen_project(**chosen)
    project.require_sound()
    project.make_data()
    _work(project, trials)


@study.command()
@trials_option
@project_options
def worker(trials: int | None, **chosen: Any) -> None:
    """Join a study from another process or machine; its data must have been made."""
    _work(chosen_project(**chosen), trials)


@study.command()
@json_option
@project_options
def show(as_json: bool, **chosen: Any) -> None:
    """The trials of the study."""
    from pipelines.study import load_study

    found = load_study(chosen_project(**chosen))
    rows = [
        {"trial": item.number, "state": item.state.name.lower(), "value": item.value, **item.user_attrs.get("used", {})}
        for item in found.get_trials(deepcopy=False)
    ]
    if as_json:
        click.echo(json.dumps({"study": found.study_name, "trials": rows}, indent=1))
        return
    click.echo(f"study {found.study_name}, MLflow run {found.user_attrs.get('mlflow_run', '-')}")
    for row in rows:
        click.echo("  ".join(f"{key} {_short(value)}" for key, value in row.items()))


@study.command()
@click.option("--output", type=PATH, help="File to write [default: stdout].")
@project_options
def best(output: Path | None, **chosen: Any) -> None:
    """The best trial's settings, in the form that --config reads."""
    from model.config.resolution import nest
    from pipelines.study import best_trial, load_study

    study = load_study(chosen_project(**chosen))
    found = best_trial(study)
    text = f"# Study {study.study_name}, trial {found.number}: {found.value:.4f} unweighted mel error\n"
    text += yaml.safe_dump(nest(found.user_attrs["used"]), sort_keys=True)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output}: use it with `myxtts run --config {output}`", err=True)


def _work(project: Any, trials: int | None) -> None:
    from pipelines.study import best_trial, open_study, prepare, work

    setting = prepare(project)
    opened = open_study(setting)
    wanted = trials or project.config.study.trials
    click.echo(f"study {setting.name}: until {wanted} trials have finished", err=True)

    def report(trial: Any) -> None:
        used = "  ".join(f"{key} {_short(value)}" for key, value in trial.user_attrs.get("used", {}).items())
        value = f"{trial.value:.4f}" if trial.value is not None else "-"
        line = f"trial {trial.number:>3} {trial.state.name.lower():<9} {value:>8}  {used}"
        click.echo(f"{line}  {trial.user_attrs.get('error', '')}".rstrip(), err=True)

    work(setting, opened, wanted, report)
    found = best_trial(opened)
    click.echo(f"best: {found.value:.4f} in trial {found.number}; `myxtts study best` writes it")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
