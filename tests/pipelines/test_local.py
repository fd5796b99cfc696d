"""The local target with doubles of the steps: reports, caching, and processes and files after an interruption."""

import calendar
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from components.launch import VARIABLE as LAUNCH
from components.lineage import VARIABLE as LINEAGE
from components.runner import EVENT
from components.state import State, write_json
from model.config.resolution import ConfigError, resolve
from pipelines import local
from pipelines.compiling import compile_training
from pipelines.local import PipelineError, Target, _Watcher, drop_stale_cache, make_target, run_study, run_training
from pipelines.profiles import NOT_CACHED, STEPS, Profile, image_kind, local_profile, study_steps
from pipelines.run_records import RunRecord, StepRecord
from pipelines.training_pipeline import arguments

STAND_IN = """
import atexit, json, os, sys, time
from dataclasses import fields
from pathlib import Path
from components import contracts
from components.results import Results

STEP = Path(__file__).parent.name
OUTPUT = getattr(contracts, STEP.title().replace("_", "") + "Output")

def run(**inputs):
    state = Path(os.environ["MYXTTS_STATE"])
    with (state / "calls.txt").open("a") as file:
        file.write(STEP + "\\n")
    atexit.register((state / f"{STEP}.ended").touch)
    parts = inputs.pop("parts", [])
    if parts:
        (state / "joined.json").write_text(json.dumps([json.loads(Path(part).read_text())["part"] for part in parts]))
    with (state / "inputs.jsonl").open("a") as file:
        files = {name: Path(value) for name, value in inputs.items() if os.path.isfile(value)}
        records = {name: json.loads(path.read_text())["record"] for name, path in files.items()}
        file.write(json.dumps({"step": STEP, **records}) + "\\n")
    if (state / f"{STEP}.sleep").exists():
        (state / "sleeping").write_text(str(os.getpid()))
        time.sleep(60)
    if (state / f"{STEP}.fail").exists():
        raise ValueError("no luck")
    folder = state / "results" / STEP
    folder.mkdir(parents=True, exist_ok=True)
    known = {"summary": f"{STEP} did it", "name": "m", "version": "2", "champion": "2"}
    if STEP == "configure":
        known |= {"data_hash": inputs["data"], "train_settings": inputs["max_steps"]}
    values = {field.name: folder if field.type is Path else known.get(field.name, "") for field in fields(OUTPUT)}
    return OUTPUT(**values)

def results(output):
    page = Path(os.environ["MYXTTS_STATE"], "page.html") if STEP in ("evaluate", "resolve_data") else None
    if page:
        page.write_text("<p>speech</p>")
    model = "models:/m/2" if STEP == "register" else ""
    return Results(metrics={"good": 1.5, "bad": float("nan")}, html=page, markdown="## " + output.summary, model=model)
"""

PART = """
import os, time
from pathlib import Path
from components.contracts import PreprocessPartOutput

def run(data, settings, part):
    state = Path(os.environ["MYXTTS_STATE"])
    (state / part.replace("/", "-of-")).touch()
    deadline = time.monotonic() + 120
    while len(list(state.glob("*-of-2"))) < 2:
        assert time.monotonic() < deadline, "the other part does not run beside this one"
        time.sleep(0.02)
    return PreprocessPartOutput(summary="", shards=state, part=part)
"""


def stand_ins(folder: Path) -> State:
    """Makes a state, and in the same folder a copy of the code whose steps are doubles."""
    root = Path(__file__).parents[2]
    code = folder / "code"
    code.mkdir()
    (code / "model").symlink_to(root / "model")
    (code / "pipelines").symlink_to(root / "pipelines")
    (code / "components").mkdir()
    for path in (root / "components").glob("*.py"):
        (code / "components" / path.name).symlink_to(path)
    for step in (*STEPS, "preprocess_part"):
        package = code / "components" / step
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "component.py").symlink_to(root / "components" / step / "component.py")
        (package / "run.py").write_text(PART if step == "preprocess_part" else STAND_IN)
    return State(folder / "state").prepare()


def use(state: State, patch: pytest.MonkeyPatch) -> State:
    """Makes runs use this state and the copy of the code in its folder."""
    patch.setenv("PYTHONPATH", str(state.root.parent / "code"))
    patch.setenv("MYXTTS_STATE", str(state.root))
    return state


@pytest.fixture
def state(tmp_path, monkeypatch) -> State:
    """A state in which nothing has run."""
    return use(stand_ins(tmp_path), monkeypatch)


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory) -> tuple[State, RunRecord, list[str]]:
    """A state, its first run, and the steps that it ran. Later runs may follow it."""
    with pytest.MonkeyPatch.context() as patch:
        state = use(stand_ins(tmp_path_factory.mktemp("complete")), patch)
        return state, start(state), calls(state)


@pytest.fixture
def complete(complete_run, monkeypatch) -> State:
    """A state in which every step has run."""
    calls(complete_run[0])
    return use(complete_run[0], monkeypatch)


def start(state: State, data: str = "h", printed: list | None = None, **changes) -> RunRecord:
    config = resolve(overrides=changes.pop("overrides", {})).config
    pipeline_arguments = arguments(config, data, "r", "n")
    target = make_target("local", config, **changes)
    return run_training(
        state, pipeline_arguments, lambda run_id: {"kfp.run_id": run_id}, output=(printed or []).append, target=target
    )


def calls(state: State) -> list[str]:
    path = state.root / "calls.txt"
    found = path.read_text().split() if path.is_file() else []
    path.unlink(missing_ok=True)
    return found


def states(record: RunRecord) -> set[str]:
    return {step.state for step in record.steps.values()}


def test_every_step_runs_once_and_then_only_those_that_act_on_the_registry(complete, complete_run):
    _, record, called = complete_run
    assert called == list(STEPS)
    assert states(record) == {"done"}
    assert record.result()["summary"] == "gate did it"
    # What a step leaves for its end is done.
    assert {path.stem for path in complete.root.glob("*.ended")} == set(STEPS)
    again = start(complete)
    assert calls(complete) == [step for step in STEPS if step in NOT_CACHED]
    assert {name for name, step in again.steps.items() if step.state == "cached"} == set(STEPS) - set(NOT_CACHED)
    assert again.result() == record.result()


def test_the_folder_of_a_run_keeps_what_the_page_of_kfp_shows(complete_run):
    folder = complete_run[1].folder / "results"
    metrics = {"train.json", "evaluate.json", "gate.json"}
    assert {path.name for path in folder.iterdir()} == {
        *metrics,
        "register.json",
        "resolve_data.html",
        "evaluate.html",
        "configure.md",
        "gate.html",
        "gate.md",
    }
    assert json.loads((folder / "register.json").read_text()) == {"uri": "models:/m/2"}
    assert all(json.loads((folder / name).read_text()) == {"good": 1.5} for name in metrics)  # nan is left out
    assert (folder / "evaluate.html").read_text() == "<p>speech</p>"
    assert (folder / "gate.md").read_text() == "## gate did it"


def test_every_step_gets_the_records_of_the_steps_that_it_depends_on(complete):
    written = (complete.root / "inputs.jsonl").read_text().splitlines()[: len(STEPS)]  # those of the first run
    lines = [json.loads(line) for line in written]
    data, features = {"data": "ResolveDataOutput"}, {"features": "PreprocessOutput"}
    training, finetuning = {"training": "TrainOutput"}, {"finetuning": "FinetuneVocoderOutput"}
    evaluation, registration = {"evaluation": "EvaluateOutput"}, {"registration": "RegisterOutput"}
    assert {line.pop("step"): line for line in lines} == {
        "configure": {},
        "resolve_data": {},
        "preprocess": data,
        "train": data | features,
        "finetune_vocoder": data | features | training,
        "evaluate": data | features | training | finetuning,
        "register": data | features | training | finetuning | evaluation,
        "gate": data | features | training | evaluation | registration,
    }


def test_parts_are_preprocessed_side_by_side_and_joined(state, tmp_path):
    """The parallel loop of a large corpus, as in a cluster's profile, under the local runner."""
    folder = state.folder("runs", "parts")
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(compile_training(replace(local_profile(), preprocess_parts=2)))
    names = ("pipeline_root", "workspace", "cache_root")
    request = {
        "pipeline": str(pipeline),
        "arguments": arguments(resolve().config, "h", "r", "n"),
        "run": "parts",
        "containers": {},
        "result": str(folder / "result.json"),
        **{name: str(folder / name) for name in names},
    }
    command = [sys.executable, "-m", "pipelines.local_worker", str(write_json(folder / "request.json", request))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, start_new_session=True, cwd=folder, **pipes) as process:
        said = process.stdout.read()
        assert process.wait(120) == 0, said
    assert calls(state) == list(STEPS)
    assert sorted(json.loads((state.root / "joined.json").read_text())) == ["0/2", "1/2"]


def test_other_data_runs_everything(complete):
    start(complete, data="other")
    assert calls(complete) == list(STEPS)


def test_another_parameter_runs_only_the_steps_whose_settings_it_changes(complete):
    start(complete, overrides={"training.max_steps": 7})
    assert calls(complete) == ["configure", *STEPS[STEPS.index("train") :]]


def test_nothing_is_taken_from_the_cache_under_force(complete):
    record = start(complete, cached=False)
    assert calls(complete) == list(STEPS)
    assert states(record) == {"done"}


def test_a_result_that_was_removed_is_made_again(complete):
    (complete.root / "results" / "evaluate").rmdir()
    record = start(complete)
    assert calls(complete)[:2] == ["configure", "evaluate"]
    assert [record.steps[step].state for step in ("resolve_data", "preprocess", "train")] == ["cached"] * 3


def test_a_failing_step_is_named_with_its_reason_and_the_rest_waits(state):
    (state.root / "train.fail").touch()
    with pytest.raises(PipelineError, match=r"step train failed: no luck\nlog: ") as caught:
        start(state)
    record = caught.value.record
    assert calls(state) == ["configure", "resolve_data", "preprocess", "train"]
    assert (record.state, record.steps["train"].state, record.steps["gate"].state) == ("failed", "failed", "waiting")
    assert record.steps["train"].message == "no luck"
    assert RunRecord.load(record.folder) == record
    (state.root / "train.fail").unlink()
    start(state)
    assert calls(state) == ["configure", *STEPS[STEPS.index("train") :]]


def test_nothing_is_left_in_the_systems_temporary_folder(complete_run):
    record = complete_run[1]
    assert (record.folder / "tmp").is_dir()
    assert not (record.folder / "workspace").exists()


DRIVER = """
import sys
from pathlib import Path
from components.state import State
from model.config.resolution import resolve
from pipelines.local import run_training
from pipelines.training_pipeline import arguments

try:
    run_training(State(Path(sys.argv[1])), arguments(resolve().config, "h", "r", "n"), lambda run_id: {})
except KeyboardInterrupt:
    sys.exit(130)
"""


def alive_with(marker: str) -> list[str]:
    """Returns the command lines of running processes whose environment contains `marker`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "how", [signal.SIGINT, *(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGTERM, signal.SIGKILL))]
)
def test_stopping_leaves_no_process(state, how):
    (state.root / "resolve_data.sleep").touch()
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(state.root)])
    wait_until((state.root / "sleeping").is_file)
    process.send_signal(how)
    assert process.wait(120) == (130 if how != signal.SIGKILL else -signal.SIGKILL)
    wait_until(lambda: not alive_with(str(state.root)))
    if how != signal.SIGKILL:
        record = RunRecord.load(next(state.runs.iterdir()))
        assert (record.state, record.steps["resolve_data"].state) == ("interrupted", "interrupted")


def test_a_run_is_cancelled_from_another_terminal(state):
    (state.root / "resolve_data.sleep").touch()
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(state.root)])
    wait_until((state.root / "sleeping").is_file)
    command = [sys.executable, "-m", "pipelines.cli.main", "pipeline", "cancel"]
    assert subprocess.run(command, check=False).returncode == 0
    assert process.wait(120) == 130
    assert RunRecord.load(next(state.runs.iterdir())).state == "interrupted"
    assert subprocess.run(command, capture_output=True).returncode == 2  # nothing is running any more


@pytest.mark.parametrize("launcher", ["torchrun", "inline"])
def test_steps_get_the_settings_of_the_launcher(launcher):
    config = resolve(overrides={"launch.launcher": launcher, "launch.processes": 2 if launcher == "torchrun" else 1})
    environment = make_target("local", config.config).environment(State(Path("/state")), {})
    assert ("MYXTTS_LAUNCH" in environment) == (launcher == "torchrun")


def test_several_nodes_need_a_cluster():
    with pytest.raises(ConfigError, match="needs a cluster"):
        make_target("local", resolve(overrides={"launch.launcher": "trainjob"}).config)


def test_a_mistyped_vocoder_checkpoint_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"vocoder\.checkpoint: .*nowhere does not exist"):
        make_target("local", resolve(overrides={"vocoder.checkpoint": str(tmp_path / "nowhere")}).config)
    for there in (str(tmp_path), "s3://bucket/g_02500000"):  # what is elsewhere is found when it is fetched
        make_target("local", resolve(overrides={"vocoder.checkpoint": there}).config)


def wait_until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_unreadable_cache_entries_are_dropped(tmp_path):
    state = State(tmp_path).prepare()
    state.folder("kfp-cache")
    (state.kfp_cache / "torn.json").write_text("{")
    write_json(state.kfp_cache / "good.json", {"data": {"metadata": {"corpus": str(tmp_path)}}})
    write_json(state.kfp_cache / "gone.json", {"data": {"metadata": {"corpus": str(tmp_path / "gone")}}})
    drop_stale_cache(state)
    assert [path.name for path in state.kfp_cache.iterdir()] == ["good.json"]


@pytest.mark.parametrize("gone", ["training", "voice"])
def test_a_cached_step_holds_only_while_its_results_are_there(tmp_path, gone):
    state = State(tmp_path / "state").prepare()
    metadata = {"training": str(tmp_path), "voice": str(tmp_path)} | {gone: str(tmp_path / "gone")}
    write_json(state.folder("kfp-cache") / "train.json", {"output": {"metadata": metadata}})
    drop_stale_cache(state)
    assert not list(state.kfp_cache.iterdir())


IMAGES = {step: f"myxtts-python-{image_kind(step)}:content-{image_kind(step)}77" for step in STEPS}
TAGS = {"kfp.run_id": "run-7", "git.sha": "abc"}


def test_in_containers_the_image_of_training_is_part_of_the_lineage(tmp_path):
    config = resolve().config
    target = Target(Profile(name="docker", images=IMAGES, launch=config.launch), config)
    environment = target.environment(State(tmp_path), TAGS)
    assert json.loads(environment[LINEAGE]) == {**TAGS, "image": "myxtts-python-train:content-train77"}
    assert environment["MYXTTS_STATE"] == str(tmp_path)


def test_subprocesses_have_no_image(tmp_path):
    environment = make_target("local", resolve().config).environment(State(tmp_path), TAGS)
    assert json.loads(environment[LINEAGE]) == TAGS


def test_steps_get_a_launcher_other_than_inline(tmp_path):
    assert LAUNCH not in make_target("local", resolve().config).environment(State(tmp_path), TAGS)
    config = resolve(overrides={"launch.launcher": "torchrun", "launch.processes": 3}).config
    launch = json.loads(make_target("local", config).environment(State(tmp_path), TAGS)[LAUNCH])["launch"]
    assert (launch["launcher"], launch["processes"]) == ("torchrun", 3)


def test_ids_of_runs_do_not_depend_on_the_zone_or_the_direction_of_the_clock(tmp_path, monkeypatch):
    state = State(tmp_path / "state").prepare()
    now = [calendar.timegm((2026, 3, 29, 1, 30, 0))]
    monkeypatch.setattr(local.time, "time", lambda: now[0])
    first, folder = local._new_run(state)
    assert first.startswith("run-20260329-013000-")
    assert folder == state.runs / first
    (state.runs / "run-unlike-the-others").mkdir()
    now[0] -= 3600  # the end of summer time, or a correction of the clock
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    identifiers = [first, *(local._new_run(state)[0] for _ in range(3))]
    monkeypatch.undo()
    time.tzset()
    assert identifiers == sorted(set(identifiers))


def watched(tmp_path: Path, lines: list[dict]) -> tuple[RunRecord, list[str]]:
    """Returns the record of a run after these events, and the states that were reported."""
    record = RunRecord(id="run-1", folder=tmp_path, arguments={"study": "s", "name": "m"})
    record.steps = {step: StepRecord() for step in study_steps(then_train=False)}
    reported = []
    watcher = _Watcher(record, lambda name, step, details: reported.append(f"{name} {step.state}"), lambda _: None)
    for line in lines:
        watcher.read(f"{EVENT} {json.dumps({'step': 'study_worker', **line})}\n")
    return record, reported


STARTED, FINISHED = {"state": "started"}, {"state": "finished", "seconds": 2.0, "message": "no trial is left"}


def test_workers_side_by_side_are_one_step_that_ends_with_the_last_of_them(tmp_path):
    progress = {"state": "progress", "done": 3, "total": 12}
    record, _ = watched(tmp_path, [STARTED, STARTED, progress, FINISHED])
    step = record.steps["study_worker"]
    assert (step.state, step.progress) == ("running", "3/12 (25 %)")
    record, reported = watched(tmp_path, [STARTED, STARTED, FINISHED, {**FINISHED, "seconds": 5.0}])
    assert (record.steps["study_worker"].state, record.steps["study_worker"].seconds) == ("done", 5.0)
    assert reported.count("study_worker done") == 1
    assert record.subject == "s"
    assert RunRecord.load(record.folder).steps == record.steps


def test_a_worker_that_fails_makes_the_step_fail_even_if_another_ends_later(tmp_path):
    failed = {"state": "failed", "seconds": 1.0, "error": "3 trials in a row failed"}
    record, _ = watched(tmp_path, [STARTED, STARTED, failed, FINISHED])
    assert record.steps["study_worker"].state == "failed"


def test_what_kfp_writes_when_one_of_two_workers_ends_is_not_shown(tmp_path):
    shown = []
    record = RunRecord(id="run-1", folder=tmp_path, arguments={"study": "s", "name": "m"})
    record.steps = {"study_worker": StepRecord()}
    watcher = _Watcher(record, lambda *_: None, shown.append)
    started = json.dumps({"step": "study_worker", **STARTED})
    for line in (f"{EVENT} {started}", "Wrote executor output file to x.", "trial 1"):
        watcher.read(f"            {line}\n")
    assert shown == ["trial 1"]


def test_more_workers_than_the_local_runner_runs_side_by_side_are_refused(state):
    with pytest.raises(ConfigError, match=r"study.workers = 3.*`myxtts study worker mine`"):
        run_study(state, {"study": "mine", "name": "m"}, 3, lambda run_id: {})
