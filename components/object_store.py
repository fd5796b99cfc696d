"""Objects on S3 under one address: the few operations that features and recordings need."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from model.errors import MyXTTSError

SCHEME = "s3://"
ENDPOINT = "AWS_ENDPOINT_URL_S3"


class ObjectStoreError(MyXTTSError):
    """S3 cannot be reached or lacks an object; the message names the address and what to do."""


@dataclass(frozen=True)
class ObjectStore:
    """The objects under `s3://bucket/prefix`. Instances can be pickled; every process opens its own connection.

    Endpoint and credentials come from the environment (`AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`, ...), unless
    `options`, arguments of boto3's client, give them.
    """

    url: str
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.url.startswith(SCHEME) or not self._bucket:
            raise ObjectStoreError(f"`{self.url}` is not an address of the form s3://bucket/prefix")

    def download(self, name: str, path: Path) -> None:
        """Downloads the object `name` to a file."""
        self._call("download_file", name, self._bucket, self._key(name), str(path))

    def upload(self, path: Path, name: str) -> None:
        """Uploads a file as the object `name`; S3 makes this atomic."""
        self._call("upload_file", name, str(path), self._bucket, self._key(name))

    def names(self, prefix: str = "") -> set[str]:
        """Returns the names of the objects that begin with `prefix`."""
        begin = len(self._key(""))
        pages = self._call("get_paginator", prefix, "list_objects_v2")
        found = _guarded(self.url, lambda: list(pages.paginate(Bucket=self._bucket, Prefix=self._key(prefix))))
        return {item["Key"][begin:] for page in found for item in page.get("Contents", ())}

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix(SCHEME).partition("/")[0]

    def _key(self, name: str) -> str:
        prefix = self.url.removeprefix(SCHEME).partition("/")[2].strip("/")
        return f"{prefix}/{name}" if prefix else name

    def _call(self, operation: str, name: str, *arguments: str) -> Any:
        return _guarded(
            f"{self.url}/{name}",
            lambda: getattr(_client(os.environ.get(ENDPOINT), self.options), operation)(*arguments),
        )


def _guarded(address: str, operation: Callable[[], Any]) -> Any:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return operation()
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise ObjectStoreError(
            f"{address}: {error}; check the address, AWS_ENDPOINT_URL_S3 and the credentials, then run again"
        ) from error


@cache
def _client(endpoint: str | None, options: tuple[tuple[str, str], ...]) -> Any:
    import boto3

    given: dict[str, Any] = dict(options)
    return boto3.client("s3", **{"endpoint_url": endpoint, **given})
