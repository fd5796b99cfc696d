"""Feeds damaged and hostile inputs to every reader: `python -m benchmarks.fuzz`.

Each input must be read as it is meant, or be refused by an error of this program that names it. The benchmark counts
tracebacks (any other exception), hangs (more than `HANG_SECONDS`), and values that were accepted although they are bad.
Exit status: 0 if there are none, 1 otherwise. The inputs follow from the seed alone.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import soundfile
import yaml

from benchmarks.generated_corpus import small_features
from components import contracts
from components.dvc_objects import DamagedObjectError, read_listing
from components.fetching import fetch_checkpoint
from components.journal import Journal, Operation
from components.registry import GATE, METRIC_TAG, Version, model_name, parse_uri
from components.state import State
from components.tracking import Delivery
from model.audio.io import read_audio
from model.config.data import CorpusConfig
from model.config.resolution import flatten, known_keys, resolve
from model.corpus.manifest import read_manifest
from model.corpus.problems import read_problems
from model.corpus.readers import read_corpus, survey
from model.corpus.recordings import clip_id, corpus_name
from model.corpus.timings import read_alignments
from model.errors import MyXTTSError
from model.features.store import FeatureStore
from model.files import sha256_of_file, stays_inside, write_json
from model.loop.checkpoints import Checkpoint, newest_loadable, save_checkpoint
from model.loop.reporting import read_history
from model.vocoder.folder import read_description
from model.voice import read_voice
from pipelines.local import drop_stale_cache
from pipelines.run_records import RunRecord, all_runs

INPUTS = 10_000
HANG_SECONDS = 20.0
MEMORY = 6 << 30
"""Bytes of address space beyond which an allocation fails."""
VALUES: tuple[Any, ...] = (None, True, -1, 0.5, "", "x", "../../x", [], {}, [None], {"": None}, 10**30, float("nan"))
NAMES = (
    "../../x",
    "/etc/passwd",
    "..",
    "a/../../b",
    "a\0b",
    "a\nb",
    "-",
    "=1+1",
    "x" * 5000,
    "\udc80",
    "ﷺ",
    "C:\\x",
    "",
)
READ, REFUSED, TRACEBACK, HANG, BAD = "read", "refused", "traceback", "hang", "accepted although bad"


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Target:
    """A reader under attack.

    Attributes:
        name: Name of the reader in the table.
        attack: Writes one input with a random generator, reads it and returns '' or why the accepted value is bad.
        cost: Seconds of one input, which decide its share of the inputs.
    """

    name: str
    attack: Callable[[random.Random], str]
    cost: float = 0.001


# Mutations


def noise(data: bytes, rng: random.Random) -> bytes:
    """Returns data with a flipped bit, cut short, with bytes removed or inserted, or other bytes instead."""
    if not data:
        return rng.randbytes(8)
    place = rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + data[place + rng.randrange(1, 64) :]
    if kind == 3:
        return data[:place] + rng.randbytes(rng.randrange(1, 16)) + data[place:]
    return rng.choice([b"", b"{", b"null", b"[" * 100_000, b"\xff\xfe\x00", b"\x00" * 64, data * 2])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path to every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def other_json(value: Any, rng: random.Random) -> tuple[Any, tuple[Any, ...]]:
    """Returns a copy with one value replaced by one of another type, or removed, and the path to it."""
    changed = copy.deepcopy(value)
    path = rng.choice(list(places(changed)))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if isinstance(inner, dict) and rng.random() < 0.3:
        del inner[path[-1]]
        return changed, path
    known = kind_of(inner[path[-1]])
    inner[path[-1]] = rng.choice([item for item in VALUES if kind_of(item) != known])
    return changed, path


def kind_of(value: Any) -> str:
    """Returns the JSON type of a value."""
    if isinstance(value, bool) or value is None:
        return str(type(value))
    return "number" if isinstance(value, int | float) else str(type(value))


@dataclass
class JsonFile:
    """A file of this program with JSON content, or one JSON value per line.

    Attributes:
        path: The file.
        good: A valid content.
        read: Reads it.
        free: First keys below which a value may be anything, and optional keys, as paths; `*` is any key.
        lines: Whether it holds lines.
    """

    path: Path
    good: Any
    read: Callable[[], Any]
    free: tuple[tuple[str, ...], ...] = ()
    lines: bool = False

    def attack(self, rng: random.Random) -> str:
        path: tuple[Any, ...] | None = None
        if rng.random() < 0.5:
            changed, path = other_json(self.good, rng)
            data = self.encode(changed)
        else:
            data = noise(self.encode(self.good), rng)
        self.path.write_bytes(data)
        self.read()
        if path is not None and not any(matches(path, pattern) for pattern in self.free):
            return f"{'.'.join(map(str, path))} of another type"
        return ""

    def encode(self, value: Any) -> bytes:
        if self.lines and isinstance(value, list):
            return "".join(json.dumps(item) + "\n" for item in value).encode()
        return json.dumps(value).encode()


def matches(path: tuple[Any, ...], pattern: tuple[str, ...]) -> bool:
    """Returns whether a path begins with a pattern."""
    return len(path) >= len(pattern) and all(p in ("*", key) for key, p in zip(path, pattern, strict=False))


# Targets


def own_files(root: Path) -> Iterator[Target]:
    """Yields the targets of JSON files that the data stages and the runner write."""
    folder = root / "corpus"
    folder.mkdir()
    clip = {
        "id": "a", "audio": "audio/a.flac", "text": "One.", "language": "en", "speaker": "s", "seconds": 1.5,
        "sample_rate": 22050, "source_sample_rate": 22050, "split": "train",
    }  # fmt: skip
    manifest = JsonFile(folder / "manifest.jsonl", [clip, {**clip, "id": "b"}], lambda: read_manifest(folder), (), True)
    manifest.free = (("*", "split"),)  # may be missing
    yield Target("manifest", manifest.attack)

    def leads_elsewhere(rng: random.Random) -> str:
        """A manifest whose writer names files that are not those of the corpus."""
        key, name = rng.choice(["audio", "id"]), rng.choice(NAMES)
        manifest.path.write_text(json.dumps({**clip, key: name}) + "\n", "utf-8")
        (found,) = read_manifest(folder)
        named = (folder / "inner" / getattr(found, key)).resolve()
        return "" if named.is_relative_to((folder / "inner").resolve()) else f"{key} {name!r}"

    yield Target("paths of a manifest", leads_elsewhere)
    problem = {"id": "a", "file": "f:1", "reason": "silent", "detail": "d", "severity": "bad"}
    problems = JsonFile(folder / "problems.jsonl", [problem], lambda: read_problems(folder), (("*", "severity"),), True)
    yield Target("problems", problems.attack)
    aligned = {"id": "a", "phones": [["h", 0.0, 0.1], ["i", 0.1, 0.25]]}
    yield Target(
        "timings", JsonFile(folder / "alignments.jsonl", [aligned], lambda: read_alignments(folder), (), True).attack
    )
    history = root / "history.jsonl"
    lines = [{"step": step, "loss": 0.5, "skipped": True} for step in range(3)]
    free = (("*", "loss"), ("*", "skipped"))
    yield Target("history", JsonFile(history, lines, lambda: read_history(history), free, True).attack)

    record = contracts.TrainOutput(summary="s", training=folder, voice=folder, weights_sha256="0" * 64, run_id="")
    path = record.write(root / "record.json")
    good = json.loads(path.read_text("utf-8"))
    yield Target("record of a step", JsonFile(path, good, lambda: contracts.TrainOutput.read(path)).attack)


def state_files(root: Path) -> Iterator[Target]:
    """Yields the targets of files of the state, whose damage must never stop another command."""
    state = State(root / "state").prepare()

    def quiet(write: Callable[[random.Random], None], act: Callable[[], None]) -> Callable[[random.Random], str]:
        def attack(rng: random.Random) -> str:
            write(rng)
            try:
                act()
            except MyXTTSError as error:
                return f"stopped by {error}"
            return ""

        return attack

    def damage(path: Path, good: Any) -> Callable[[random.Random], None]:
        def write(rng: random.Random) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(other_json(good, rng)[0]).encode() if rng.random() < 0.5 else json.dumps(good).encode()
            path.write_bytes(noise(content, rng) if rng.random() < 0.5 else content)

        return write

    run = RunRecord(
        id="run-20260101-000000-1", folder=state.folder("runs", "run-20260101-000000-1"), arguments={"a": "b"}
    )
    yield Target("run.json", quiet(damage(run.folder / "run.json", run.plain()), lambda: all_runs(state) and None))
    entry = {"output": {"name": "o", "uri": "/x", "metadata": {"corpus": str(root), "summary": "s"}}}
    damaged = damage(state.folder("kfp-cache") / "k.json", entry)
    yield Target("cache entry", quiet(damaged, lambda: drop_stale_cache(state)))

    spool = state.folder("training", "k", "mlflow")
    header = {"experiment": "e", "run_name": "r", "tags": {}, "params": {}, "parent_run_id": "", "dataset": {}}
    write_json(spool / "header.json", header)
    lines = [
        {"time": 1, "step": 1, "metrics": {"loss": 0.5}},
        {"artifact": "/x", "folder": "f"},
        {"status": "FINISHED"},
    ]

    def write_spool(rng: random.Random) -> None:
        chosen = rng.choice(["run.json", "delivered.json", "records.jsonl"])
        good: Any = (
            {"run_id": "0" * 32} if chosen == "run.json" else {"position": 0} if chosen != "records.jsonl" else 0
        )
        content = json.dumps(good).encode() if good else "".join(json.dumps(line) + "\n" for line in lines).encode()
        (spool / chosen).write_bytes(noise(content, rng))

    def deliver() -> None:
        delivery = Delivery(state, spool)
        delivery.pending()
        list(delivery._batches())

    yield Target("spool of MLflow", quiet(write_spool, deliver))


def checkpoints(root: Path) -> Target:
    """Returns the target of checkpoints: a damaged one must not be resumed from, nor hide an earlier one."""
    import torch

    pristine, folder = root / "pristine", root / "checkpoints"
    for step in (1, 2):
        tensors = {"w": torch.full((4,), float(step))}
        groups: list[dict[str, Any]] = [{"lr": 0.1, "params": [0]}]
        optimizer = {"state": {0: {"m": torch.zeros(4)}}, "param_groups": groups}
        rng = {"torch": torch.zeros(1, 8, dtype=torch.uint8)}
        point = Checkpoint(
            step=step, model=tensors, ema=tensors, optimizer=optimizer, rng=rng, extra={"a": [1, "x"]}, score=0.5
        )
        save_checkpoint(pristine, point, keep_top_k=2)

    def attack(rng: random.Random) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)
        path = rng.choice(sorted((folder / "step-00000002").iterdir()))
        before = path.read_bytes()
        path.write_bytes(noise(before, rng))
        if path.read_bytes() == before:
            return ""
        found = newest_loadable(folder)
        return "" if found and found.name == "step-00000001" else f"{path.name} damaged: resumed from {found}"

    return Target("checkpoint", attack, 0.01)


def voices(root: Path) -> Iterator[Target]:
    """Yields the targets of descriptions of voices and vocoders."""
    import torch

    from model.acoustic.model import AcousticModel, ModelDimensions
    from model.text.symbols import NUM_STRESSES, NUM_SYMBOLS
    from model.voice import Speaker, VoiceDescription, VoiceSettings, write_voice

    config = resolve(overrides={"model_size": "xtiny"}).config
    dimensions = ModelDimensions(
        num_symbols=NUM_SYMBOLS, num_stresses=NUM_STRESSES, num_languages=1, speaker_vector_dim=256, n_mels=80,
        mel_mean=-5.0, mel_std=2.0,
    )  # fmt: skip
    settings = VoiceSettings(
        model_size="xtiny", audio=config.audio, features=config.features, model=config.model, vocoder={}
    )
    description = VoiceDescription(
        config=settings,
        trained_with={"seed": 1},
        dimensions=dimensions,
        speakers={"s": Speaker(vector=[0.1] * 256, log_f0_mean=5.0, log_f0_std=0.2)},
        languages=["en"],
        speaker_languages={"s": "en"},
        energy_std=1.0,
        variance_factors=[1.0] * 80,
        steps=10,
    )
    torch.manual_seed(0)
    folder = write_voice(root / "voice", description, AcousticModel(config.model, dimensions).state_dict())
    good = json.loads((folder / "voice.json").read_text("utf-8"))
    free = (("trained_with",), ("lineage",), ("extractor_hash",), ("config",), ("speakers", "s", "style"))
    voice = JsonFile(folder / "voice.json", good, lambda: read_voice(folder), free)
    yield Target("voice.json", voice.attack, 0.05)

    vocoder = root / "vocoder"
    vocoder.mkdir()
    about = {
        "format": 1, "type": "hifigan", "variant": "v1", "steps": 5, "origin": "o", "generator_sha256": "0" * 64,
        "audio": config.audio.model_dump(mode="json"),
    }  # fmt: skip
    made = JsonFile(vocoder / "vocoder.json", about, lambda: read_description(vocoder), (("audio", "*"),))
    yield Target("vocoder.json", made.attack)


def features(root: Path) -> Target:
    """Returns the target of feature stores: one with a damaged file must be refused before its values are used."""
    pristine = small_features(root)
    folder = root / "damaged-features"

    def attack(rng: random.Random) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)
        path = rng.choice(sorted(item for item in folder.rglob("*") if item.is_file()))
        before = path.read_bytes()
        path.write_bytes(noise(before, rng))
        if path.read_bytes() == before:
            return ""
        store = FeatureStore(folder)
        store.verify()
        return f"{path.name} damaged and not noticed"

    return Target("feature store", attack, 0.03)


def listings(rng: random.Random) -> str:
    """Reads a DVC listing with a correct hash (an attacker may choose it) and names that lead out of the folder."""
    import hashlib

    names = [rng.choice([*NAMES, "audio/a.flac", "manifest.jsonl", "a/../b", "./a", "a//b"]) for _ in range(3)]
    hashes = [rng.choice(["0" * 32, "../" * 8 + "x", "", "g" * 32, "0" * 33]) for _ in range(3)]
    entries = [{"relpath": name, "md5": digest} for name, digest in zip(names, hashes, strict=True)]
    content = json.dumps(entries).encode("utf-8", "surrogatepass")
    content = noise(content, rng) if rng.random() < 0.3 else content
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
    if rng.random() < 0.1:
        digest = "0" * 32 + ".dir"
    try:
        files = read_listing(content, digest, "remote")
    except DamagedObjectError:
        return ""
    outside = [name for name in files if Path("/in", name).resolve().is_relative_to("/in") is False or "\0" in name]
    return f"outside: {outside[0]!r}" if outside else ""


def settings_values(rng: random.Random) -> str:
    """Gives a setting an invalid value."""
    key = rng.choice(known_keys())
    value = rng.choice([*VALUES, *NAMES, True, 1e20, -1e20, float("inf"), "yes", "1e400", b"x", [1, [2]], 1 << 70])
    found = flatten(resolve(overrides={key: value}).config.model_dump())[key]
    if isinstance(value, bool) and not isinstance(found, bool):
        return f"{key}: {value} became {found!r}"
    if isinstance(found, int | float) and not isinstance(found, bool) and not abs(found) < 1e12:
        return f"{key}: {found!r}"
    return ""


def settings_files(root: Path) -> Target:
    """Returns the target of damaged and hostile settings files."""
    path = root / "params.yaml"
    good = yaml.safe_dump(resolve().config.model_dump(mode="json"))
    hostile = [
        "[" * 3000,
        "a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]",
        "? [a]: b",
        "!!python/object:os.system x",
        "training: 3",
    ]

    def attack(rng: random.Random) -> str:
        text = noise(good.encode(), rng) if rng.random() < 0.7 else rng.choice(hostile).encode()
        path.write_bytes(text)
        resolve(path)
        return ""

    return Target("settings file", attack, 0.08)


def recordings(root: Path) -> Target:
    """Returns the target of damaged recordings, and of headers that declare more samples than the file has."""
    folder = root / "recordings"
    folder.mkdir()
    samples = 0.1 * np.sin(np.arange(8000) / 10)
    goods = []
    for name, options in (("a.wav", {}), ("a.flac", {}), ("a.ogg", {}), ("a.mp3", {}), ("f.wav", {"subtype": "FLOAT"})):
        soundfile.write(folder / name, samples, 16000, **options)
        goods.append((name, (folder / name).read_bytes()))

    def attack(rng: random.Random) -> str:
        name, data = rng.choice(goods)
        changed = bytearray(data)
        if name.endswith(".wav") and rng.random() < 0.5:
            place, form = rng.choice([(22, "<H"), (24, "<I"), (28, "<I"), (32, "<H"), (34, "<H"), (40, "<I")])
            value = rng.choice([0, 1, 2, 255, 65535, 2**31, 2**32 - 1, rng.randrange(2**32)]) % 2 ** (
                8 * struct.calcsize(form)
            )
            struct.pack_into(form, changed, place, value)
        else:
            head = noise(bytes(changed[:64]), rng) if rng.random() < 0.5 else bytes(changed[:64])
            changed = bytearray(head + (noise(data[64:], rng) if rng.random() < 0.5 else data[64:]))
        path = folder / f"x-{name}"
        path.write_bytes(bytes(changed))
        found = read_audio(path, 22050)
        if not np.isfinite(found).all():
            return "samples that are no numbers"
        return f"{len(found)} samples of {len(changed)} bytes" if len(found) > 22050 * 60 else ""

    return Target("recording", attack, 0.01)


def corpora(root: Path) -> Target:
    """Returns the target of corpus tables with names that lead out of the folder, damaged bytes, and invalid texts."""
    folder = root / "tables"
    (folder / "wavs").mkdir(parents=True)
    for number in range(4):
        soundfile.write(folder / "wavs" / f"c{number}.wav", np.zeros(800), 16000)
    secret = root / "secret.wav"
    soundfile.write(secret, np.zeros(800), 16000)
    good = "audio|speaker|text\n" + "".join(f"c{number}|s|A sentence of words {number}.\n" for number in range(4))
    config = CorpusConfig(**{**survey_of(folder, good), "name": "fuzz"})

    def attack(rng: random.Random) -> str:
        rows = good.splitlines()
        name, speaker = rng.choice([*NAMES, "../secret.wav", str(secret), "../secret"]), rng.choice(NAMES)
        rows.append(f"{name}|{speaker}|Another sentence of words.")
        data = "\n".join(rows).encode("utf-8", "surrogateescape") + b"\n"
        (folder / "metadata.csv").write_bytes(noise(data, rng) if rng.random() < 0.5 else data)
        source = read_corpus(config)
        for utterance in source.utterances:
            if not stays_inside(utterance.id) or "/" in utterance.id:
                return f"clip id {utterance.id!r}"
            if "secret" in utterance.origin:
                return f"reads {utterance.origin}"
        return ""

    return Target("corpus", attack, 0.01)


def survey_of(folder: Path, table: str) -> dict[str, Any]:
    (folder / "metadata.csv").write_text(table, "utf-8")
    return survey(folder)


def addresses(root: Path) -> Target:
    """Returns the target of addresses and hashes of checkpoints: nothing may be written outside of the folder."""
    folder = root / "fetch" / "inner"
    folder.mkdir(parents=True)

    def attack(rng: random.Random) -> str:
        parts = [
            "https://",
            "s3://",
            "host",
            ":99999",
            "[::1",
            "/",
            "..",
            "/g_1",
            "\n",
            " ",
            "@",
            "?x=1",
            "#",
            "%2e%2e",
            "\0",
        ]
        source = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 8)))
        sha256 = rng.choice(["", "0" * 64, "../../x", "g" * 64, "0" * 63, sha256_of_file(THIS_FILE)])
        opener = {"https": lambda address: io.BytesIO(b"x"), "s3": lambda address: io.BytesIO(b"x")}
        try:
            fetch_checkpoint(source, sha256, folder, opener)
        finally:
            planted = [path for path in (root / "fetch").iterdir() if path != folder]
        return f"wrote {planted[0]}" if planted else ""

    return Target("address", attack)


THIS_FILE = Path(__file__)


def names(rng: random.Random) -> str:
    """Converts hostile names to file names."""
    name = rng.choice(NAMES) if rng.random() < 0.5 else "".join(chr(rng.randrange(1, 0x2000)) for _ in range(9))
    for made in (clip_id(name), corpus_name(name[:60])):
        if not stays_inside(made) or "/" in made or len(made.encode("utf-8", "surrogatepass")) > 250:
            return f"{name!r} became {made!r}"
    made = model_name("m-{corpus}-{size}", name, "tiny")
    return "" if stays_inside(made) else f"model {made!r}"


def model_addresses(rng: random.Random) -> str:
    """Parses hostile addresses of registered models."""
    parts = ["models:", "/", "@", "name", "champion", "3", "..", "", "\0", " "]
    name, which = parse_uri("".join(rng.choice(parts) for _ in range(rng.randrange(1, 8))))
    return "" if name and which else "an empty name"


def registry_tags(rng: random.Random) -> str:
    """Reads tags of versions that users or other programs have changed."""
    value = rng.choice([*NAMES, "nan", "1e400", "0x3", "1_0", "5.25"])
    changed, path = other_json({"mel cepstral distortion": "pass: 5.1, must be at most 8"}, rng)
    text = json.dumps(changed)
    if rng.random() < 0.5:
        text = noise(text.encode(), rng).decode("utf-8", "replace")
    tags = {f"{METRIC_TAG}x": value, GATE: text}
    version = Version(name="m", number="1", tags=tags, aliases=(), source="", run_id="", created=0.0)
    if not all(isinstance(item, float) for item in version.metrics.values()):
        return "a metric that is no number"
    return "" if all(isinstance(item, str) for item in version.checks.values()) else f"gate: {path}"


def journal(rng: random.Random) -> str:
    """Reads hostile entries of the registry's journal."""
    good = {
        "id": "i", "action": "promote", "version": "2", "reason": "r", "time": "t", "writer": "w", "replaced": "1",
        "earlier": ["1"], "metrics": None,
    }  # fmt: skip
    changed, path = other_json(good, rng)
    text = (
        json.dumps(changed) if rng.random() < 0.5 else noise(json.dumps(good).encode(), rng).decode("utf-8", "replace")
    )
    run = SimpleNamespace(data=SimpleNamespace(params={"000001": text}))
    entries = Journal(SimpleNamespace(get_run=lambda run_id: run), "r").entries()
    wrong = [entry for entry in entries if not isinstance(entry.operation, Operation)]
    return f"{path}" if wrong else ""


def targets(root: Path, only: str = "") -> list[Target]:
    """Returns the readers under attack: all, or one by its name."""
    for name in ("own", "state", "checkpoints", "voices"):
        (root / name).mkdir()
    found = [
        *own_files(root / "own"),
        *state_files(root / "state"),
        checkpoints(root / "checkpoints"),
        *voices(root / "voices"),
        *([features(root)] if only in ("", "feature store") else []),
        Target("listing of DVC", listings),
        Target("setting", settings_values, 0.02),
        settings_files(root),
        recordings(root),
        corpora(root),
        addresses(root),
        Target("name", names),
        Target("address of a model", model_addresses),
        Target("tag of a version", registry_tags),
        Target("journal of the registry", journal),
    ]
    return [target for target in found if only in ("", target.name)]


# Measurement


@dataclass
class Tally:
    """Outcomes of one reader: their numbers, and an example of each."""

    outcomes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: str, example: str) -> None:
        self.outcomes[outcome] += 1
        self.examples.setdefault(outcome, example)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `Hang` in the block after `seconds`."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(target: Target, rng: random.Random) -> tuple[str, str]:
    """Attacks a reader once; returns the outcome and a description of it."""
    try:
        with time_limit(HANG_SECONDS):
            bad = target.attack(rng)
    except MyXTTSError as error:
        return REFUSED, str(error)[:200]
    except Hang:
        return HANG, f"more than {HANG_SECONDS:.0f} s"
    except Exception:  # noqa: BLE001 - what is looked for
        return TRACEBACK, traceback.format_exc()[-1500:]
    return (BAD, bad) if bad else (READ, "")


def shares(found: list[Target], inputs: int, seconds: float) -> list[int]:
    """Returns how many inputs each reader gets: equally many, but no more than its part of the time allows."""
    equal = -(-inputs // len(found))
    numbers = [min(equal, max(1, int(seconds / len(found) / target.cost))) for target in found]
    cheap = [index for index, target in enumerate(found) if target.cost <= 0.001]
    missing = inputs - sum(numbers)
    return [
        number + (-(-missing // len(cheap)) if missing > 0 and index in cheap else 0)
        for index, number in enumerate(numbers)
    ]


@click.command()
@click.option("--inputs", default=INPUTS, show_default=True, help="Number of inputs in all.")
@click.option("--seed", default=0, show_default=True)
@click.option("--seconds", default=600.0, show_default=True, help="Time that the slow readers share.")
@click.option("--only", default="", help="One reader by name.")
def main(inputs: int, seed: int, seconds: float, only: str) -> None:
    """Attack every reader and print the outcomes."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    started = time.monotonic()
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as place, redirect_stderr(io.StringIO()):
        found = targets(Path(place), only)
        for target, number in zip(found, shares(found, inputs, seconds), strict=True):
            rng = random.Random(f"{seed} {target.name}")
            tally = tallies.setdefault(target.name, Tally())
            for _ in range(number):
                tally.add(*outcome_of(target, rng))
    print("| reader | inputs | read | refused | tracebacks | hangs | bad values accepted |\n| --- |" + " ---: |" * 6)
    for name, tally in tallies.items():
        row = [tally.outcomes.total(), *(tally.outcomes[kind] for kind in (READ, REFUSED, TRACEBACK, HANG, BAD))]
        print(f"| {name} | {' | '.join(map(str, row))} |")
    totals = sum((tally.outcomes for tally in tallies.values()), Counter())
    for name, tally in tallies.items():
        for kind in (TRACEBACK, HANG, BAD):
            if kind in tally.examples:
                print(f"\n{name}: {kind}\n{tally.examples[kind].rstrip()}")
    print(
        f"\n{totals.total()} inputs in {time.monotonic() - started:.0f} s: tracebacks {totals[TRACEBACK]}, hangs "
        f"{totals[HANG]}, silently accepted bad values {totals[BAD]}"
    )
    sys.exit(1 if totals[TRACEBACK] + totals[HANG] + totals[BAD] else 0)


if __name__ == "__main__":
    main()
