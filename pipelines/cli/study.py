"""`myxtts study`: searches hyperparameters in trials, on this machine, in its containers or on a cluster."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.state import State
from pipelines.cli.options import PATH, chosen_project, given_settings, json_option, project_options
from pipelines.cli.pipeline import (
    cancel_run,
    print_logs,
    require_cluster,
    run_on_cluster,
    show_status,
    target_options,
)
from pipelines.run_records import find_run

if TYPE_CHECKING:
    from components.studies.identity import StudyArguments
    from pipelines.cli.console import Console
    from pipelines.project import Project

Lineage = Callable[[str], Mapping[str, str]]
"""Function from the id of a run to the tags of its MLflow runs and model versions."""

study_argument = click.argument("name", required=False, default="")


@click.group()
def study() -> None:
    """Search hyperparameters: trials with other settings, and the best of them."""


@study.command()
@study_argument
@click.option("--trials", type=click.IntRange(min=1), help="Total number of trials [study.trials].")
@click.option("--workers", type=click.IntRange(min=1), help="Number of parallel workers [study.workers].")
@click.option(
    "--then-train", is_flag=True, help="Train with the best settings afterwards, through evaluation and gate."
)
@target_options(settings=project_options)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Watch a run on the cluster until it ends.")
@click.option("--force", is_flag=True, help="Start on the cluster even if an equal run is active or has succeeded.")
@json_option
def run(
    name: str,
    trials: int | None,
    workers: int | None,
    then_train: bool,
    wait: bool,
    force: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Make the data if needed, and run the trials of a study. The same command resumes it.

    NAME alone continues a study with the settings that it has. By default a study is named after its model size, its
    corpus and all that its trials depend on, so that other settings start another study.

    Exit status: 0 succeeded (with --no-wait: started), 1 failed or cancelled, 2 not started.
    """
    from pipelines.cli.console import Console
    from pipelines.compiling import compile_study
    from pipelines.local import PipelineError, make_target, run_study
    from pipelines.profiles import cluster_profile, study_steps

    require_cluster(where["target"], host=where["host"], namespace=where["namespace"], no_wait=not wait, force=force)
    console = Console()
    named = {"study.name": name, "study.trials": trials, "study.workers": workers}
    project = _project(where, named)
    if where["target"] == "cluster":
        text = compile_study(cluster_profile(project.config), project.config.study.workers, then_train)
        run_on_cluster(
            project,
            console,
            text,
            lambda: project.study_arguments().plain(),
            wait=wait,
            force=force,
            as_json=as_json,
        )
        return
    arguments, lineage = _continued(project, name, where, trials, workers) or _begun(project, where["target"], console)
    click.echo(f"study {arguments.study}: {arguments.settings.study.trials} trials", err=True)
    target = make_target(where["target"], project.config, steps=study_steps(then_train))
    try:
        record = run_study(
            project.state,
            arguments.plain(),
            arguments.settings.study.workers,
            lineage,
            console.report,
            console.output,
            target,
            then_train,
        )
    except PipelineError as error:
        if as_json:
            click.echo(json.dumps(error.record.plain(), indent=1))
        raise
    if as_json:
        click.echo(json.dumps(record.plain(), indent=1))
        return
    folder = project.state.root / "studies" / arguments.study
    click.echo(f"{record.steps['conclude_study'].message}\npage:          {folder / 'study.html'}")
    if then_train:
        click.echo(f"gate:          {record.steps['gate'].message}")
    else:
        file = folder / "best.yaml"
        data = f" --data {where['data']}" if where["data"] else ""
        click.echo(f"best settings: {file}\ntrain with it: myxtts run{data} --config {file}")


def _project(where: dict[str, Any], named: dict[str, Any]) -> "Project":
    chosen = {key: value for key, value in where.items() if key not in ("target", "host", "namespace")}
    cluster = {"cluster.host": where["host"], "cluster.namespace": where["namespace"]}
    return chosen_project(**chosen, overrides={**cluster, **named})


def _begun(project: "Project", target: str, console: "Console") -> "tuple[StudyArguments, Lineage]":
    """Returns the arguments of the study that the settings describe, and its lineage.

    Data that are missing are made on this machine; so is the base voice, unless the steps run in containers.
    """
    from pipelines.full_run import make_base

    project.require_sound()
    project.require_space()
    project.make_data()
    if target == "local" and project.needs_base:
        project = project.with_base(
            lambda settings: make_base(settings, console.report, console.output, console.output)
        )
    return project.study_arguments(), project.lineage


def _continued(
    project: "Project", name: str, where: dict[str, Any], trials: int | None, workers: int | None
) -> "tuple[StudyArguments, Lineage] | None":
    """Returns the arguments of a study that is named without further settings; `None` for any other study."""
    from components import lineage
    from components.studies.study import arguments_of, load_studies

    if not name or given_settings(where):
        return None
    known = next((study for study in load_studies(project.state) if study.study_name == name), None)
    if known is None:
        return None
    arguments = arguments_of(known).with_amounts(trials, workers)
    return arguments, lambda run_id: {"kfp.run_id": run_id, **lineage.git_state(Path(__file__).parent)}


@study.command()
@click.argument("name")
def worker(name: str) -> None:
    """Join a study from another process or machine, until none of its trials is left.

    The worker needs the database of the studies (MYXTTS_STUDY_STORAGE, or the same state), the remote of the data and
    the base voice, if there is one.
    """
    from pipelines.study import join_study

    click.echo(join_study(State.locate().prepare(), name, lambda line: click.echo(line, err=True)))


@study.command(name="list")
@json_option
def list_command(as_json: bool) -> None:
    """List studies, the newest first."""
    from components.studies.study import load_studies
    from components.studies.table import overview

    found = [overview(study) for study in load_studies(State.locate())]
    if as_json:
        click.echo(json.dumps([vars(item) for item in found], indent=1))
        return
    for item in found:
        best = f"best {item.best:.4f} in trial {item.best_trial}" if item.best is not None else "no best trial yet"
        click.echo(f"{item.name}  {item.finished}/{item.trials} trials  {best}")
    if not found:
        click.echo("no studies yet; `myxtts study run` makes the first")


@study.command()
@study_argument
@json_option
@click.option("--html", type=PATH, help="File to write the page with table and plots to.")
def show(name: str, as_json: bool, html: Path | None) -> None:
    """Show the trials of a study [default: the newest]."""
    from components.studies.attributes import PARENT_RUN
    from components.studies.study import load_study
    from components.studies.table import row, trial_line

    found = load_study(State.locate(), name)
    trials = found.get_trials(deepcopy=False)
    if html is not None:
        from components.studies.page import study_page

        html.write_text(study_page(found), "utf-8")
        click.echo(f"{html}: open it in a browser", err=True)
    if as_json:
        rows = [row(trial).plain() for trial in trials]
        click.echo(json.dumps({"study": found.study_name, "trials": rows}, indent=1))
        return
    click.echo(f"study {found.study_name}, MLflow run {found.user_attrs.get(PARENT_RUN, '-')}")
    for trial in trials:
        click.echo(trial_line(trial))


@study.command()
@study_argument
@click.option("--output", type=PATH, help="File to write [default: stdout].")
def best(name: str, output: Path | None) -> None:
    """Write the best settings of a study [default: the newest] to a file for --config."""
    from components.studies.best import best_file
    from components.studies.study import load_study

    text = best_file(load_study(State.locate(), name))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        use = f"`myxtts run --config {output}`, and with the --data of the study if it had one"
        click.echo(f"{output}: use it with {use}", err=True)


@study.command()
@study_argument
@json_option
def status(name: str, as_json: bool) -> None:
    """Show the newest run of a study on this machine [default: of any]; exit 1 if it failed."""
    show_status(_run_of(name), as_json)


@study.command()
@study_argument
def logs(name: str) -> None:
    """Print the log of the newest run of a study on this machine."""
    print_logs(_run_of(name))


@study.command()
@study_argument
def cancel(name: str) -> None:
    """Cancel the run of a study on this machine. Trials keep their checkpoints; `study run NAME` resumes it."""
    cancel_run(_run_of(name))


def _run_of(name: str) -> Any:
    """Returns the newest run of a study; of the newest study if it has no name."""
    from components.studies.study import load_study

    state = State.locate()
    return find_run(state, None, name or load_study(state).study_name)
