"""Measures the overhead of pipeline steps, and checks that every target produces the same voice.

    python -m benchmarks.pipeline --target local --target docker

Each target starts with an empty state folder of its own and the same seed and settings: a generated corpus and a model
that trains in seconds. The overhead of a step is the time outside of its own code: process or container, and the KFP
executor. The files of the registered models are compared by content.
"""

import hashlib
import json
import os
import re
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

SETTINGS = {
    "model_size": "xtiny",
    "corpus.name": "benchmark",
    "corpus.engine": "espeak",
    "corpus.generated_voices": {"en": 1},
    "corpus.sentences_per_voice": 12,
    "split.min_held_out": 2,
    "training.max_steps": 40,
    "training.evaluation_interval": 20,
    "training.num_threads": 1,
    "evaluation.max_clips": 2,
    "evaluation.recognizer": "none",
    "vocoder.griffin_lim_iterations": 4,
    "registry.max_mel_cepstral_distortion": 99,
    "registry.min_alignment_monotonicity": 0,
}
LINE = re.compile(r"(?m)^([\d:.]{12}) - INFO - (?:Executing task|Task) \x1b\[\d+m'([\w-]+)'\x1b\[0m(?:$| finished)")
VARYING = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt")
"""Files in which MLflow writes ids, times and the Python version."""


@click.command()
@click.option("--target", "targets", multiple=True, default=("local",), type=click.Choice(["local", "docker"]))
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the states [default: removed at the end].")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Another setting.")
def main(targets: tuple[str, ...], keep: Path | None, assignments: tuple[str, ...]) -> None:
    """Run the pipeline on each target and print times and differences."""
    from pipelines.cli.options import parse_assignments

    settings = {**SETTINGS, **parse_assignments(assignments)}
    with tempfile.TemporaryDirectory() as scratch:
        results = {target: measure(target, (keep or Path(scratch)) / target, settings) for target in targets}
    for target, result in results.items():
        overhead = {step: result["walls"][step] - seconds for step, seconds in result["steps"].items()}
        click.echo(f"\n{target}: {result['seconds']:.1f} s, of which {sum(result['walls'].values()):.1f} s in steps")
        click.echo(f"  overhead: {statistics.median(overhead.values()):.2f} s per step (median)")
        click.echo(f"  second run, with every step cached: {result['again']:.1f} s")
        for step, seconds in result["steps"].items():
            click.echo(f"  {step:<18} work {seconds:7.2f} s  overhead {overhead[step]:5.2f} s")
        for container in result["containers"]:
            click.echo(f"  {container['container']}  {container['image']:<48} exit {container['exit_status']}")
    first, *others = results
    for other in others:
        compare(first, results[first], other, results[other])


def measure(target: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs the pipeline twice in an empty `folder`; returns the times and results of the first run."""
    from components.state import read_json
    from pipelines.local import make_target, run_training
    from pipelines.project import open_project

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MYXTTS_STATE"] = str(folder.resolve())
    project = open_project(None, None, settings)
    project.make_data()
    where = make_target(target, project.config)
    record = run_training(project.state, project.run_arguments(), project.lineage, target=where)
    started = time.monotonic()
    run_training(project.state, project.run_arguments(), project.lineage, target=where)
    again = time.monotonic() - started
    result = record.result()
    steps = {name: step.seconds for name, step in record.steps.items()}
    listed = record.folder / "containers.json"
    return {
        "seconds": record.seconds,
        "steps": steps,
        "walls": walls((record.folder / "log.txt").read_text("utf-8")),
        "again": again,
        "metrics": without_timing(read_json(Path(result["evaluation"]) / "metrics.json")),
        "model": registered_files(project.state, result["name"], result["version"]),
        "containers": read_json(listed) if listed.is_file() else [],
    }


def without_timing(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns the metrics of an evaluation without the real-time factor."""
    return {name: value for name, value in metrics.items() if name != "real_time_factor"}


def walls(log: str) -> dict[str, float]:
    """Returns step -> seconds between the log lines of KFP for its start and its end."""
    times: dict[str, list[datetime]] = {}
    for stamp, name in LINE.findall(log):
        times.setdefault(name.replace("-", "_"), []).append(datetime.strptime(stamp, "%H:%M:%S.%f"))
    return {name: (stamps[-1] - stamps[0]).total_seconds() % 86400 for name, stamps in times.items()}


def registered_files(state: Any, name: str, version: str) -> dict[str, str]:
    """Returns file of the registered model -> hash of its content."""
    import mlflow

    from components.registry import Registry

    source = Registry(state).version(name, version).source
    folder = Path(mlflow.artifacts.download_artifacts(source))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in VARYING and "__pycache__" not in path.parts
    }


def compare(first: str, one: dict[str, Any], second: str, other: dict[str, Any]) -> None:
    """Prints the differences between two targets.

    Raises:
        SystemExit: there are differences (status 1).
    """
    files = sorted(
        name for name in {*one["model"], *other["model"]} if one["model"].get(name) != other["model"].get(name)
    )
    equal = json.dumps(one["metrics"], sort_keys=True) == json.dumps(other["metrics"], sort_keys=True)
    click.echo(
        f"\n{first} and {second}: {len(one['model'])} files of the registered model, {len(files)} differ", nl=False
    )
    click.echo(f"; evaluation metrics {'are equal to the last digit' if equal else 'differ'}")
    for name in files:
        click.echo(f"  differs: {name}")
    if files or not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
