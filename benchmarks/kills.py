"""Kills processes at random moments with SIGKILL and checks the remaining state: `python -m benchmarks.kills`.

Each round starts an operation in a process of its own, kills it, reads the state in another process, and runs the
operation again. An end state is wrong if the state that was read is neither the one before nor the one after the
operation, or if the second run does not end in the latter. Promotion, rollback and registration run against one MLflow
server from two state folders. Exit status: 0 if no end state is wrong, 1 otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import mlflow  # in the parent, so that the forked processes have it at once  # noqa: F401
import numpy as np

from benchmarks import faults
from benchmarks.generated_corpus import SETTINGS, small_features
from components import contracts, tracking
from components.register.run import run as register_voice
from components.registry import CANDIDATE, CHAMPION, PREVIOUS, ROLLED_BACK, Registry
from components.state import State
from components.tracking import MlflowRunLogger
from model.audio.io import write_audio
from model.config.resolution import resolve
from model.corpus.ingest import ingest
from model.corpus.manifest import Clip, write_manifest
from model.corpus.split import split
from model.evaluation.metric_table import GATE_METRICS
from model.features.extract import build_features
from model.features.store import FeatureStore
from model.files import sha256_of_file, write_json
from model.training.trainer import train
from model.voice_folder import voice_hash

ROUNDS = {
    "promote": 60, "rollback": 60, "register": 10, "first start": 10, "ingest": 20, "split": 20, "features": 10,
    "training": 10,
}  # fmt: skip
ON_A_SERVER = {"promote", "rollback", "register"}
"""Operations from two state folders that use one MLflow server."""
SERVER_SECONDS = 600.0
FORK = multiprocessing.get_context("fork")

Check = Callable[[], Any]


@dataclass
class Round:
    """One operation on fresh data.

    Attributes:
        act: The operation.
        look: Reads the state in another process, as comparable data.
        before: The state before the operation; None if the state between the two runs is not checked.
    """

    act: Callable[[], object]
    look: Check
    before: Any = None


def answer_of(action: Callable[[], object], kill_after: float | None = None) -> tuple[bool, Any]:
    """Runs an action in a process of its own; returns whether it ended by itself, and its answer.

    Raises:
        RuntimeError: the action failed.
    """
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_answer, args=(action, there))
    process.start()
    there.close()
    if kill_after is None:
        try:
            failed, answer = here.recv()
        except EOFError:
            failed, answer = True, "the process ended without an answer"
        process.join()
        if failed:
            raise RuntimeError(answer)
        return True, answer
    process.join(kill_after)
    ended = not process.is_alive()
    process.kill()
    process.join()
    return ended, None


def _answer(action: Callable[[], object], connection: Connection) -> None:
    logging.disable(logging.CRITICAL)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    try:
        connection.send((False, action()))
    except Exception:  # noqa: BLE001 - handed to the parent
        connection.send((True, traceback.format_exc()[-1500:]))
    os._exit(0)


# Operations on the registry


class Machines:
    """Two state folders that use one MLflow server."""

    def __init__(self, root: Path) -> None:
        self.states = [root / "one", root / "two"]
        self.models = 0

    def registry(self, which: int) -> Registry:
        os.environ["MYXTTS_STATE"] = str(self.states[which])
        return Registry(State(self.states[which]).prepare())

    def model(self, promoted: tuple[str, ...]) -> str:
        """Makes a model with four versions, of which some were promoted in turn, and returns its name."""
        self.models += 1
        name = f"voice-{self.models}"

        def make() -> None:
            registry = self.registry(0)
            registry.client.create_registered_model(name)
            for _ in range(4):
                registry.client.create_model_version(name, "s3://voices/one")
            for number in promoted:
                registry.promote(name, number, None, "prepared")

        answer_of(make)
        return name

    def standing(self, name: str) -> dict[str, str]:
        """Returns aliases and rolled-back versions, read from the other machine."""
        registry = self.registry(1)
        versions = registry.versions(name)
        aliases = {alias: number for alias, number in registry.aliases(name).items() if alias in (CHAMPION, PREVIOUS)}
        return {**aliases, "rolled back": " ".join(item.number for item in versions if ROLLED_BACK in item.tags)}

    def promotion(self) -> Round:
        name = self.model(("1", "2"))
        return Round(
            act=lambda: self.registry(0).promote(name, "3", None, "better"),
            look=lambda: self.standing(name),
            before={CHAMPION: "2", PREVIOUS: "1", "rolled back": ""},
        )

    def rollback(self) -> Round:
        name = self.model(("1", "2", "3"))

        def act() -> None:
            registry = self.registry(0)
            if registry.aliases(name)[CHAMPION] == "3":  # as a user would check before rolling back again
                registry.rollback(name, "clicks")

        before = {CHAMPION: "3", PREVIOUS: "2", "rolled back": ""}
        return Round(act=act, look=lambda: self.standing(name), before=before)

    def registration(self, root: Path) -> Round:
        self.models += 1
        name, folder = f"registered-{self.models}", root / f"registration-{self.models}"
        inputs = answer_of(lambda: step_inputs(State(self.states[0]).prepare(), folder))[1]

        def act() -> object:
            self.registry(0)
            return register_voice(**inputs, name=name)

        def look() -> Any:
            registry = self.registry(1)
            found = [(item.number, item.aliases, sorted(item.metrics)) for item in registry.versions(name)]
            return found if found and registry.aliases(name).get(CANDIDATE) else []

        return Round(act=act, look=look, before=[])


def step_inputs(state: State, folder: Path) -> dict[str, str]:
    """Writes the records of the steps before `register`, and returns their paths."""
    voice = folder / "voice"
    voice.mkdir(parents=True)
    config = {"model": {"use_pretrained_speaker_encoder": False}, "features": {}}
    write_json(voice / "voice.json", {"config": config, "name": folder.name})
    (voice / "model.safetensors").write_bytes(os.urandom(200_000))
    write_json(folder / "metrics.json", evaluation())
    MlflowRunLogger(state, folder / contracts.SPOOL, "kills", "r", {}, {}, interval=0.01).close()
    records = step_records(folder, voice)
    return {name: str(record.write(folder / f"{name}.json")) for name, record in records.items()}


def evaluation() -> dict[str, Any]:
    """Returns the result of an evaluation without sentences."""
    gate = {name: {"value": 0.5, "reason": ""} for name in GATE_METRICS}
    gate["alignment_monotonicity"] = {"value": 0.9, "reason": ""}
    return {"gate": gate, "clips": [], "texts": [], "examination": {"hash": "0" * 16, "clips": 0, "texts": 0}}


def step_records(folder: Path, voice: Path) -> dict[str, contracts.StepOutput]:
    """Returns what the steps before `register` would hand on for a voice, by input name."""
    data, digest = "0" * 32 + ".dir", "0" * 64
    return {
        "data": contracts.ResolveDataOutput(
            summary="", corpus=folder, data_hash=data, examination=folder, examination_hash=data
        ),
        "features": contracts.PreprocessOutput(
            summary="", features=folder, features_hash=digest, examination=folder, examination_hash=digest
        ),
        "training": contracts.TrainOutput(summary="", training=folder, voice=voice, weights_sha256=digest, run_id=""),
        "finetuning": contracts.FinetuneVocoderOutput(summary="", voice=voice, voice_hash=voice_hash(voice)),
        "evaluation": contracts.EvaluateOutput(summary="", evaluation=folder),
    }


# Other operations


def first_start(root: Path) -> Round:
    """Returns the round in which MLflow's database is made in a new state folder."""
    state = State(root / "state")

    def act() -> str:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        return str(tracking.client(state).search_experiments()[0].name)

    return Round(act=act, look=act)


def digest_of(folder: Path) -> str:
    """Returns a hash of the names and contents of all files beside and below a folder."""
    files = sorted(path for path in folder.parent.rglob("*") if path.is_file() and "source" not in path.parts)
    lines = [f"{path.relative_to(folder.parent)} {sha256_of_file(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def ingestion(root: Path) -> Round:
    """Returns the round in which a small recorded corpus is ingested."""
    source = root / "source"
    rows = []
    for number in range(24):
        tone = 0.1 * np.sin(np.arange(30_000) * (0.05 + 0.001 * number)).astype(np.float32)
        write_audio(source / "wavs" / f"c{number}.wav", tone, 22050)
        rows.append(f"c{number}|Sentence number {number}.|Sentence number {number}.")
    (source / "metadata.csv").write_text("\n".join(rows) + "\n", "utf-8")
    config = resolve(overrides={"corpus.format": "ljspeech", "corpus.path": str(source), "corpus.name": "k"}).config
    folder = root / "stage" / "ingested"
    return Round(act=lambda: ingest(config, folder) and None, look=lambda: digest_of(folder))


def splitting(root: Path) -> Round:
    """Returns the round in which a corpus is split."""
    source, folder = root / "source", root / "stage" / "corpus"
    clips = []
    for number in range(40):
        path = source / "audio" / f"c{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 1000)
        clip = Clip(
            id=f"c{number}", audio=f"audio/c{number}.flac", text=f"Sentence number {number}.", language="en",
            speaker="s", seconds=2.0, sample_rate=22050, source_sample_rate=22050,
        )  # fmt: skip
        clips.append(clip)
    write_manifest(source, clips)
    config = resolve(overrides={"split.min_held_out": 3}).config
    return Round(act=lambda: split(source, folder, config) and None, look=lambda: digest_of(folder))


def extraction(corpus: Path, root: Path) -> Round:
    """Returns the round in which features are extracted."""
    config, folder = resolve(None, None, SETTINGS).config, root / "features"

    def look() -> str:
        store = FeatureStore(folder)
        store.verify()
        return str(store.content_hash)

    return Round(act=lambda: build_features(corpus, folder, config, workers=1) and None, look=look)


def training(features: Path, root: Path) -> Round:
    """Returns the round in which an acoustic model is trained, to the same weights as without interruption."""
    config, folder = faults.settings(checkpoint_interval=1, max_steps=12), root / "run"

    def look() -> str:
        newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
        return " ".join(sha256_of_file(newest / f"{name}.safetensors") for name in ("model", "ema"))

    return Round(act=lambda: train(config, features, folder) and None, look=look)


# Measurement


@contextmanager
def mlflow_server(root: Path) -> Iterator[str]:
    """Runs an MLflow server on a new SQLite database and yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root / 'server.db'}", "--artifacts-destination", str(root / "art")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=root)
        try:
            deadline = time.monotonic() + SERVER_SECONDS
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                    break
                except (urllib.error.URLError, OSError):
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError((root / "server.log").read_text()[-2000:]) from None
                    time.sleep(0.3)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def wrong_end_states(make: Callable[[Path], Round], rounds: int, root: Path, moments: random.Random) -> Iterator[str]:
    """Kills an operation in `rounds` rounds; yields '' for each right end state, else what is wrong.

    The first round runs without a kill: it measures the duration of the operation and its result.
    """
    folder = root / "whole"
    folder.mkdir(parents=True)
    whole = make(folder)
    started = time.monotonic()
    answer_of(whole.act)
    seconds = time.monotonic() - started
    after = answer_of(whole.look)[1]
    for number in range(rounds):
        folder = root / f"round-{number}"
        folder.mkdir()
        attempt = make(folder)
        try:
            answer_of(attempt.act, kill_after=moments.uniform(0, seconds))
            if attempt.before is not None and (seen := answer_of(attempt.look)[1]) not in (attempt.before, after):
                yield f"after the kill: {seen}"
                continue
            answer_of(attempt.act)
            seen = answer_of(attempt.look)[1]
            yield "" if seen == after else f"after the second run: {seen} instead of {after}"
        except RuntimeError as error:
            yield f"failed: {error}"
        shutil.rmtree(folder, ignore_errors=True)


@click.command()
@click.option("--only", default="", help="One operation by name.")
@click.option("--share", default=1.0, show_default=True, help="Share of the rounds.")
@click.option("--seed", default=0, show_default=True)
def main(only: str, share: float, seed: int) -> None:
    """Kill every operation and print how many end states are wrong."""
    logging.disable(logging.CRITICAL)
    chosen = {name: max(1, round(share * count)) for name, count in ROUNDS.items() if only in ("", name)}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        features = small_features(root) if {"features", "training"} & chosen.keys() else root
        machines = Machines(root)
        makers: dict[str, Callable[[Path], Round]] = {
            "promote": lambda folder: machines.promotion(),
            "rollback": lambda folder: machines.rollback(),
            "register": machines.registration,
            "first start": first_start,
            "ingest": ingestion,
            "split": splitting,
            "features": lambda folder: extraction(features.parent / "corpus", folder),
            "training": lambda folder: training(features, folder),
        }
        print("| operation | kills | wrong end states | seconds |\n| --- | ---: | ---: | ---: |")
        wrong: list[str] = []
        with mlflow_server(root) if ON_A_SERVER & chosen.keys() else nullcontext("") as address:
            os.environ["MLFLOW_TRACKING_URI"] = address
            for name, rounds in chosen.items():
                started = time.monotonic()
                moments = random.Random(f"{seed} {name}")
                found = list(wrong_end_states(makers[name], rounds, root / name.replace(" ", "-"), moments))
                bad = [item for item in found if item]
                wrong += [f"{name}: {item}" for item in bad]
                print(f"| {name} | {len(found)} | {len(bad)} | {time.monotonic() - started:.0f} |", flush=True)
    for item in wrong:
        print(json.dumps(item)[:1500])
    print(f"\n{sum(chosen.values())} kills: wrong end states {len(wrong)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
