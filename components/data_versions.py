"""Records of pushed corpora on the DVC remote, which a run reads before it fetches the data.

`myxtts/data/<hash>.json` describes one version of a corpus, and `<hash>.html` is the report of its validation.
`myxtts/latest/<corpus>.json` describes the newest version. A run of `latest` reads it when it starts, so that runs of a
schedule uses data that were pushed after the schedule was made.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from components.contracts import StepError
from components.object_store import SCHEME, ObjectStore
from components.state import read_json
from model.corpus.manifest import read_manifest
from model.files import write_json, write_text

LATEST = "latest"
"""In place of a hash: the newest version of the corpus when the run starts."""


@dataclass(frozen=True, kw_only=True)
class DataVersion:
    """A version of a corpus.

    Attributes:
        data_hash: DVC hash of its content (`<md5>.dir`).
        clips: Number of its clips.
        seconds: Speech of its training clips.
        languages: Its languages, sorted.
    """

    data_hash: str
    clips: int
    seconds: float
    languages: tuple[str, ...]

    @classmethod
    def of(cls, data_hash: str, corpus: Path) -> "DataVersion":
        """Describes the corpus in a folder.

        Raises:
            ManifestError: there is no corpus.
        """
        clips = read_manifest(corpus)
        return cls(
            data_hash=data_hash,
            clips=len(clips),
            seconds=round(sum(clip.seconds for clip in clips if clip.split == "train"), 3),
            languages=tuple(sorted({clip.language for clip in clips})),
        )


@dataclass(frozen=True)
class DataRecords:
    """The records on one remote.

    Attributes:
        remote: Address of the DVC remote: an absolute folder or `s3://bucket/prefix`.
        options: Settings of the S3 client that are not in the environment.
    """

    remote: str
    options: tuple[tuple[str, str], ...] = ()

    def write(self, version: DataVersion, latest_of: str = "") -> None:
        """Records a version; with `latest_of`, the name of the corpus, also as the newest one.

        Raises:
            StepError: the remote is neither a folder nor on S3.
            ObjectStoreError: S3 does not answer or refuses the request.
        """
        self._put(_version_name(version.data_hash), asdict(version))
        if latest_of:
            self._put(_latest_name(latest_of), asdict(version))

    def write_report(self, data_hash: str, report: Path) -> None:
        """Stores the report of the stage `validate` on a version."""
        name = _report_name(data_hash)
        if (folder := self._folder()) is not None:
            write_text(folder / name, report.read_text("utf-8"))
        else:
            self._store().upload(report, name)

    def fetch_report(self, data_hash: str, path: Path) -> bool:
        """Copies the report of a version to a file; returns whether there is one."""
        name = _report_name(data_hash)
        if (folder := self._folder()) is not None:
            if found := (folder / name).is_file():
                write_text(path, (folder / name).read_text("utf-8"))
            return found
        if not self.remote.startswith(SCHEME) or name not in self._store().names(name):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store().download(name, path)
        return True

    def find(self, data: str, corpus: str) -> DataVersion:
        """Returns the version with the hash `data`, or the newest one of a corpus for `latest`.

        Raises:
            StepError: nothing is recorded.
        """
        found = self._get(_latest_name(corpus) if data == LATEST else _version_name(data))
        if found is None:
            what = f"no version of the corpus `{corpus}`" if data == LATEST else f"nothing of the data {data}"
            raise StepError(
                f"{self.remote} records {what}; run `myxtts corpus push` in the project that makes the data"
            )
        return DataVersion(**{**found, "languages": tuple(found["languages"])})

    def _put(self, name: str, content: Mapping[str, Any]) -> None:
        if (folder := self._folder()) is not None:
            write_json(folder / name, content)
            return
        with tempfile.TemporaryDirectory() as folder_of_copy:
            self._store().upload(write_json(Path(folder_of_copy) / "record.json", content), name)

    def _get(self, name: str) -> dict[str, Any] | None:
        if (folder := self._folder()) is not None:
            path = folder / name
            found: dict[str, Any] | None = read_json(path) if path.is_file() else None
            return found
        store = self._store()
        if name not in store.names(name):
            return None
        with tempfile.TemporaryDirectory() as folder_of_copy:
            path = Path(folder_of_copy) / "record.json"
            store.download(name, path)
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return content

    def _folder(self) -> Path | None:
        """Returns the remote as a local folder; `None` if it is on S3."""
        if "://" not in self.remote:
            return Path(self.remote)
        return None

    def _store(self) -> ObjectStore:
        if not self.remote.startswith(SCHEME):
            raise StepError(f"{self.remote}: data are recorded only in a folder or on S3; set a remote of one of these")
        return ObjectStore(self.remote, self.options)


def _version_name(data_hash: str) -> str:
    return f"myxtts/data/{data_hash}.json"


def _report_name(data_hash: str) -> str:
    return f"myxtts/data/{data_hash}.html"


def _latest_name(corpus: str) -> str:
    return f"myxtts/latest/{quote(corpus, safe='')}.json"
