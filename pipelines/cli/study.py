"""`myxtts study`: search loss weights, batch size and learning rate of a model size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from pipelines.cli.assignments import parse_assignments


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which study is meant: data, model size, settings."""
    for option in (
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, by its full key."),
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings over params.yaml."),
        click.option("--data", type=click.Path(path_type=Path), help="Recordings in LJSpeech layout."),
        click.option("--model-size", default=None, help="One study per size [default: params.yaml's]."),
    ):
        command = option(command)
    return command


@click.group()
def study() -> None:
    """Search hyperparameters."""


@study.command()
@click.option("--trials", type=click.IntRange(min=1), help="Finished trials that the study shall have in all.")
@study_options
def run(trials: int | None, **chosen: Any) -> None:
    """Make the data if needed, open the study, and run its trials; run it again to go on."""
    project = _project(**chosen)
    project.make_data()
    _work(project, trials)


@study.command()
@click.option("--trials", type=click.IntRange(min=1), help="Finished trials that the study shall have in all.")
@study_options
def worker(trials: int | None, **chosen: Any) -> None:
    """Join a study from another process or machine; its data must have been made."""
    _work(_project(**chosen), trials)


@study.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@study_options
def show(as_json: bool, **chosen: Any) -> None:
    """The trials of the study."""
    found = _load(_project(**chosen))
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
@click.option("--output", type=click.Path(path_type=Path), help="File to write [default: stdout].")
@study_options
def best(output: Path | None, **chosen: Any) -> None:
    """The best trial's settings, in the form that --config reads."""
    from model.config.resolution import nest
    from pipelines.study import best_values

    found = _load(_project(**chosen))
    values = best_values(found)
    text = f"# Study {found.study_name}, trial {found.best_trial.number}: {found.best_value:.4f} unweighted mel error\n"
    text += yaml.safe_dump(nest(values), sort_keys=True)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        click.echo(f"{output}: use it with `myxtts run --config {output}`", err=True)


def _project(data: Path | None, model_size: str | None, config_file: Path | None, assignments: tuple[str, ...]) -> Any:
    from pipelines.project import open_project

    overrides = parse_assignments(assignments)
    if model_size is not None:
        overrides["model_size"] = model_size
    return open_project(data, config_file, overrides)


def _work(project: Any, trials: int | None) -> None:
    from pipelines.study import open_study, prepare, work

    setting = prepare(project)
    opened = open_study(setting)
    wanted = trials or project.config.study.trials
    click.echo(f"study {setting.name}: until {wanted} trials have finished", err=True)

    def report(trial: Any) -> None:
        used = "  ".join(f"{key} {_short(value)}" for key, value in trial.user_attrs.get("used", {}).items())
        value = f"{trial.value:.4f}" if trial.value is not None else "-"
        click.echo(f"trial {trial.number:>3} {trial.state.name.lower():<9} {value:>8}  {used}", err=True)

    work(setting, opened, wanted, report)
    click.echo(f"best: {opened.best_value:.4f} in trial {opened.best_trial.number}; `myxtts study best` writes it")


def _load(project: Any) -> Any:
    import optuna

    from pipelines.study import StudyError, storage, study_name

    name = study_name(project.config.model_size, project.run_arguments()["data_hash"])
    try:
        return optuna.load_study(study_name=name, storage=storage(project.state))
    except KeyError as error:
        raise StudyError(f"there is no study {name} yet; `myxtts study run` makes it") from error


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
