"""Fetches the corpus by its content hash into the state folder, where the other steps read it."""

import hashlib
import html
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from components import dvc
from components.contracts import ResolveDataOutput, StepError
from components.data_versions import DataRecords
from components.dvc_objects import is_folder_hash
from components.object_store import ObjectStoreError
from components.results import Results
from components.state import State
from model.corpus.manifest import read_manifest
from model.files import md5_of_file, write_text

MISSING = "missing"
"""Name of the page that replaces a missing report."""
NAME = "corpus"
"""Name of the folder in the temporary DVC project."""


def run(data_hash: str, remote: str, evaluation_data: str = "") -> ResolveDataOutput:
    """Fetches the corpora of training and of evaluation.

    Args:
        data_hash: `<md5>.dir`, as `dvc.lock` records it.
        remote: Address of the DVC remote: an absolute folder or a URL such as `s3://bucket/prefix`.
        evaluation_data: Hash of the corpus that voices are evaluated on, as `myxtts corpus pin` prints it; '' for the
            same one.

    Raises:
        StepError: the hash is malformed or not in the remote, or the data that came has another hash.
    """
    corpus = fetch(data_hash, remote)
    examination = fetch(evaluation_data, remote) if evaluation_data else corpus
    clips = sum(1 for _ in (corpus / "manifest.jsonl").open("rb"))
    return ResolveDataOutput(
        summary=f"{clips} clips, {data_hash[:8]}",
        corpus=corpus,
        data_hash=data_hash,
        examination=examination,
        examination_hash=evaluation_data or data_hash,
    )


def fetch(data_hash: str, remote: str) -> Path:
    """Fetches the folder with the DVC hash `data_hash` from `remote` or the shared cache, verifies and returns it.

    Raises:
        StepError: the hash is malformed or not in the remote, or the data that came has another hash.
    """
    digest = data_hash.removesuffix(".dir")
    if not is_folder_hash(data_hash):
        raise StepError(f"`{data_hash}` is not the hash of a DVC folder (32 hex digits and `.dir`); see dvc.lock")
    state = State.locate().prepare()
    folder = state.data(data_hash)
    with state.lock(f"data-{digest}"):
        if not folder.is_dir():
            _fetch(state, data_hash, remote, folder)
        _fetch_report(state, data_hash, remote)
    return folder


def pin(corpus: Path, remote: str) -> str:
    """Pushes a corpus to the remote, and returns the hash by which runs are evaluated on it (`evaluation.corpus`).

    Raises:
        ManifestError: the folder holds no corpus.
        DvcError: the push failed.
    """
    read_manifest(corpus)
    state = State.locate().prepare()
    with _temporary_project(state, remote, state.folder("data")) as project:
        shutil.copytree(corpus, project / NAME)
        dvc.run(project, state, "add", "--quiet", NAME)
        dvc.push(project, state)
        return str(yaml.safe_load((project / f"{NAME}.dvc").read_text("utf-8"))["outs"][0]["md5"])


@contextmanager
def _temporary_project(state: State, remote: str, parent: Path) -> Iterator[Path]:
    """Yields a DVC project without git history and stages, which is deleted afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    project = Path(tempfile.mkdtemp(prefix=".fetch-", dir=parent))
    settings = {
        "core": {"no_scm": "true", "remote": dvc.REMOTE, "analytics": "false"},
        "cache": {"dir": str(state.dvc_cache), "type": "hardlink,symlink,copy"},
        f"'remote \"{dvc.REMOTE}\"'": {"url": remote},
    }
    try:
        dvc.write_config(project, settings, "config")
        yield project
    finally:
        shutil.rmtree(project, ignore_errors=True)


def results(output: ResolveDataOutput) -> Results:
    """Returns the report of the stage `validate` on these data, or a page that says why there is none."""
    state = State.locate()
    report = state.data_report(output.data_hash)
    return Results(html=report if report.is_file() else state.data_report(MISSING))


def _fetch_report(state: State, data_hash: str, remote: str) -> None:
    """Fetches the report of the stage `validate`; a run continues without it, since no step reads it."""
    path = state.data_report(data_hash)
    if path.is_file():
        return
    reason = "it has none; `myxtts corpus push` adds it"
    try:
        if DataRecords(remote).fetch_report(data_hash, path):
            return
    except ObjectStoreError as error:
        reason = str(error)
    page = f"<p>No validation report of {data_hash} from {html.escape(remote)}: {html.escape(reason)}</p>"
    write_text(state.data_report(MISSING), page)


def _fetch(state: State, data_hash: str, remote: str, folder: Path) -> None:
    """Fetches through a temporary DVC project that holds nothing but the hash."""
    with _temporary_project(state, remote, folder.parent) as project:
        entry = {"outs": [{"md5": data_hash, "hash": "md5", "path": NAME}]}
        (project / f"{NAME}.dvc").write_text(yaml.safe_dump(entry), "utf-8")
        try:
            dvc.pull(project, state, f"{NAME}.dvc", data_hash)
        except dvc.DvcError as error:
            if dvc.is_outage(error):
                fix = "its server does not answer; check it, then run the pipeline again"
            elif dvc.is_refusal(error):
                fix = "its server refuses the credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            else:
                fix = "push it first (`dvc push` in the project that made it), then run the pipeline again"
            raise StepError(f"data {data_hash} cannot be fetched from {remote}: {fix}\n{error}") from error
        found = folder_hash(project / NAME)
        if found != data_hash:
            raise StepError(
                f"data from {remote} has the hash {found} instead of {data_hash}; "
                f"the cache {state.dvc_cache} or the remote is damaged: delete the entry and push again"
            )
        (project / NAME).rename(folder)


def folder_hash(folder: Path) -> str:
    """Returns DVC's content hash of a folder: MD5 of the sorted JSON list of its files' md5s and relative paths."""
    entries = [
        {"md5": md5_of_file(path), "relpath": relative}
        for relative, path in sorted(
            (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
        )
    ]
    listing = json.dumps(entries, sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"
