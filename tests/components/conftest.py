"""Edited sources, and an S3 server in this process."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model import code_hash as hashing


def add_statement(content: bytes) -> bytes:
    return content + b"\nEDITED = True\n"


@pytest.fixture
def edit(monkeypatch) -> Iterator[Callable[..., None]]:
    """Returns a function that edits a file of this checkout, for readers in this process alone.

    It takes the path and a function that changes the content [default: adds a statement].
    """
    root = Path(hashing.__file__).parents[1]
    changes: dict[Path, Callable[[bytes], bytes]] = {}
    read_bytes = Path.read_bytes

    def edit(name: str, change: Callable[[bytes], bytes] = add_statement) -> None:
        assert (root / name).is_file(), name
        changes[root / name] = change
        hashing.code_hash.cache_clear()

    def read(path: Path) -> bytes:
        content = read_bytes(path)
        return changes[path](content) if path in changes else content

    monkeypatch.setattr(Path, "read_bytes", read)
    yield edit
    hashing.code_hash.cache_clear()


class S3Server:
    """An S3 server in this process (moto) at `url`, which can drop connections after a number of writes.

    Attributes:
        writes_left: PUT requests that still succeed; None for no limit. Beyond it connections break off.
        gets: Paths that were read.
    """

    def __init__(self) -> None:
        self.writes_left: int | None = None
        self.gets: list[str] = []
        from moto.core.base_backend import BackendDict
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        BackendDict.reset()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, environ, start_response):
        method = environ["REQUEST_METHOD"]
        with self._lock:
            if method == "GET":
                self.gets.append(environ["PATH_INFO"])
            if method == "PUT" and self.writes_left is not None:
                self.writes_left -= 1
            broken = self.writes_left is not None and self.writes_left < 0
        if broken:
            environ["werkzeug.socket"].shutdown(2)
            raise ConnectionAbortedError
        return self._app(environ, start_response)

    def keys(self) -> set[str]:
        """Returns the names of all objects; connections are not dropped meanwhile."""
        left, self.writes_left = self.writes_left, None
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="speech")
        names = {item["Key"] for page in pages for item in page.get("Contents", ())}
        self.writes_left = left
        return names

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def s3(monkeypatch):
    """An empty S3 with the bucket `speech`, which this process and those it starts find through the environment."""
    import boto3

    server = S3Server()
    settings = {
        "AWS_ENDPOINT_URL_S3": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    server.client = boto3.client("s3")
    server.client.create_bucket(Bucket="speech")
    yield server
    server.stop()
