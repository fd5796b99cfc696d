"""Mutation benchmark: applies one plausible bug at a time to a copy of the tree and runs the tests that should notice.

`python -m benchmarks.mutation` reads every `benchmarks/mutants/<area>.yaml`, a list of entries

    - name: evaluate-key-without-data-hash      # unique among all areas
      file: components/evaluate/run.py
      find: |-                                  # exact text, occurs exactly once in the file
        {"data": data_hash,
      replace: |-
        {
      tests: [tests/components/test_cache_keys.py]   # files or node ids of pytest, at least one of which must fail

and prints which mutants were killed and which survived. Exit status: 0 all killed; 1 a mutant survived or cannot be
applied; 2 not started (unreadable lists, an unknown name, tests that fail without any mutant).
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
import yaml

ROOT = Path(__file__).parents[1]
MUTANTS = Path(__file__).with_name("mutants")
KILLED, TIMED_OUT, SURVIVED, ERROR = "killed", "killed (time limit)", "survived", "error"
PASSED, FAILED, INTERRUPTED, USAGE = 0, 1, 2, 4  # exit statuses of pytest
NOT_FOUND = re.compile(r"^ERROR: (?:file or directory )?not found:", re.MULTILINE)
"""Message of pytest about a test that does not exist; a module that fails to import has the same exit status."""
RUNNING: set[int] = set()
"""Process groups of the running tests; an interrupt of the benchmark kills them."""


class MutantError(ValueError):
    """A mutant is malformed or does not fit the tree; the message names its file and the fix."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One bug and the tests that should detect it.

    Attributes:
        area: Name of the list that it is from.
        name: Unique among all areas.
        file: Source file, relative to the root of the tree.
        find, replace: Text to replace, and its replacement.
        tests: Arguments of pytest.
    """

    area: str
    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Returns the text of the file with the bug.

        Raises:
            MutantError: no such file, or `find` does not occur in it exactly once.
        """
        path = root / self.file
        if not path.is_file():
            raise MutantError(f"{self.area}/{self.name}: there is no {self.file}; correct `file`")
        text = path.read_text("utf-8")
        if (count := text.count(self.find)) != 1:
            raise MutantError(
                f"{self.area}/{self.name}: `find` occurs {count} times in {self.file}; it must occur once"
            )
        return text.replace(self.find, self.replace)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of one mutant.

    Attributes:
        outcome: `KILLED`, `TIMED_OUT`, `SURVIVED` or `ERROR`.
        detail: The first test that failed, or the reason of an error.
        seconds: Duration of the tests.
    """

    mutant: Mutant
    outcome: str
    detail: str = ""
    seconds: float = 0.0


def read_mutants(folder: Path = MUTANTS) -> list[Mutant]:
    """Returns all mutants of a folder, sorted by area.

    Raises:
        MutantError: a list that is not YAML, an entry with missing, unknown, empty or ineffective fields, or a name
            that occurs twice.
    """
    mutants = [_parse(path, entry) for path in sorted(folder.glob("*.yaml")) for entry in _entries(path)]
    for name, count in Counter(mutant.name for mutant in mutants).items():
        if count > 1:
            raise MutantError(f"{folder}: {count} mutants are called {name}; give each a name of its own")
    return mutants


def _entries(path: Path) -> list[object]:
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise MutantError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(entries, list):
        raise MutantError(f"{path}: must be a list of mutants")
    return entries


def _parse(path: Path, entry: object) -> Mutant:
    fields = {"name", "file", "find", "replace", "tests"}
    if not isinstance(entry, dict) or set(entry) != fields:
        raise MutantError(f"{path}: {entry!r} must have exactly the fields {', '.join(sorted(fields))}")
    texts = {key: entry[key] for key in fields - {"tests"}}
    tests = entry["tests"]
    if not all(isinstance(text, str) for text in texts.values()) or not all(
        texts[key] for key in fields - {"tests", "replace"}
    ):
        raise MutantError(f"{path}: {entry['name']}: all fields but `tests` must be texts, only `replace` may be empty")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise MutantError(f"{path}: {entry['name']}: `tests` must be a list of files or node ids, and not empty")
    if texts["find"] == texts["replace"]:
        raise MutantError(f"{path}: {entry['name']}: `replace` is the same as `find`")
    return Mutant(area=path.stem, tests=tuple(tests), **texts)


def choose(mutants: Sequence[Mutant], areas: Sequence[str], names: Sequence[str]) -> list[Mutant]:
    """Returns the mutants of the given areas or names, or all where neither is given.

    Raises:
        MutantError: an area or a name that does not exist.
    """
    for kind, asked, known in (
        ("area", areas, {mutant.area for mutant in mutants}),
        ("mutant", names, {mutant.name for mutant in mutants}),
    ):
        if unknown := sorted(set(asked) - known):
            raise MutantError(f"no {kind} {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    if not areas and not names:
        return list(mutants)
    return [mutant for mutant in mutants if mutant.area in areas or mutant.name in names]


def copy_tracked_files(root: Path, target: Path) -> Path:
    """Copies the files under version control, as they are in the working tree, to `target`."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        source = root / name
        if source.is_file():  # removed but not yet committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def run_pytest(tree: Path, tests: Iterable[str], *options: str, time_limit: float | None) -> tuple[int | None, str]:
    """Runs tests in a tree; returns the exit status of pytest (None after `time_limit` seconds) and its output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MYXTTS_")}
    # A compiled file is matched by size and whole seconds, which a mutant and its original may share.
    environment |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    temporary = tree.with_name(f"{tree.name}-temporary")
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--basetemp", str(temporary)]
    with subprocess.Popen(
        [*command, *options, *tests],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        RUNNING.add(process.pid)
        try:
            output, _ = process.communicate(timeout=time_limit)
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            _kill_group(process.pid)
            RUNNING.discard(process.pid)
            shutil.rmtree(temporary, ignore_errors=True)
    return process.returncode, output


def _kill_group(group: int) -> None:
    """Kills pytest and the processes that its tests started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def try_mutant(mutant: Mutant, tree: Path, time_limit: float) -> Result:
    """Applies a mutant to `tree`, runs its tests, and restores the tree."""
    path = tree / mutant.file
    try:
        mutated = mutant.apply(tree)
    except MutantError as error:
        return Result(mutant=mutant, outcome=ERROR, detail=str(error))
    original = path.read_bytes()
    path.write_text(mutated, "utf-8")
    started = time.monotonic()
    try:
        status, output = run_pytest(tree, mutant.tests, "-x", time_limit=time_limit)
    finally:
        path.write_bytes(original)
    outcome = {None: TIMED_OUT, PASSED: SURVIVED, FAILED: KILLED, INTERRUPTED: KILLED}.get(status, ERROR)
    if status == USAGE and not NOT_FOUND.search(output):
        outcome = KILLED
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    detail = output[-300:] if outcome == ERROR else failed[0] if failed else ""
    return Result(mutant=mutant, outcome=outcome, detail=detail, seconds=time.monotonic() - started)


def table(results: Sequence[Result]) -> str:
    """Returns a table of the killed and survived mutants of each area and in all."""
    rows = [("area", "mutants", "killed", "survived", "error")]
    for area in [*dict.fromkeys(result.mutant.area for result in results), "total"]:
        counts = Counter(result.outcome for result in results if area in (result.mutant.area, "total"))
        killed = counts[KILLED] + counts[TIMED_OUT]
        rows.append((area, *map(str, (counts.total(), killed, counts[SURVIVED], counts[ERROR]))))
    return "\n".join("| " + " | ".join(f"{cell:<12}" for cell in row) + " |" for row in rows)


def _refuse(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)


@click.command()
@click.option("--area", "areas", multiple=True, help="Only mutants of this area; may be given several times.")
@click.option("--name", "names", multiple=True, help="Only this mutant; may be given several times.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Mutants at the same time.")
@click.option("--time-limit", default=300.0, show_default=True, help="Seconds for the tests of one mutant.")
@click.option("--skip-check", is_flag=True, help="Do not run the tests without a mutant first.")
@click.option("--mutants", "folder", default=MUTANTS, type=click.Path(exists=True, path_type=Path), help="The lists.")
@click.option("--root", default=ROOT, type=click.Path(exists=True, path_type=Path), help="The tree to mutate.")
def main(
    areas: tuple[str, ...],
    names: tuple[str, ...],
    jobs: int,
    time_limit: float,
    skip_check: bool,
    folder: Path,
    root: Path,
) -> None:
    """Apply every mutant to a copy of the tree and report which of them the tests notice."""
    try:
        mutants = choose(read_mutants(folder), areas, names)
    except MutantError as error:
        _refuse(str(error))
    jobs = min(jobs, len(mutants) or 1)
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(jobs):
            trees.put(copy_tracked_files(root, Path(temporary) / f"tree-{number}"))
        if not skip_check:
            _check_unmutated(trees, mutants, jobs)

        def work(mutant: Mutant) -> Result:
            tree = trees.get()
            try:
                return try_mutant(mutant, tree, time_limit)
            finally:
                trees.put(tree)

        results = []
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for result in pool.map(work, mutants):
                    results.append(result)
                    name = f"{result.mutant.area}/{result.mutant.name}"
                    click.echo(f"{result.outcome:<20} {result.seconds:6.1f} s  {name}  {result.detail}")
            except KeyboardInterrupt:
                for group in tuple(RUNNING):
                    _kill_group(group)
                pool.shutdown(cancel_futures=True)
                raise
    click.echo(table(results))
    if any(result.outcome in (SURVIVED, ERROR) for result in results):
        sys.exit(1)


def _check_unmutated(trees: queue.SimpleQueue[Path], mutants: Sequence[Mutant], jobs: int) -> None:
    """Checks that the tests of all mutants pass without a mutant."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    if not tests:
        return
    tree = trees.get()
    status, output = run_pytest(tree, tests, *(["-n", str(jobs)] if jobs > 1 else []), time_limit=None)
    trees.put(tree)
    if status != PASSED:
        _refuse(f"the tests do not pass without a mutant (pytest ended with {status}):\n{output[-3000:]}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
