"""Downloads checkpoints once, checks their SHA-256, and keeps them on disk."""

import logging
import re
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from components.outage import retry_during_outage, storage_errors
from model.addresses import hide_credentials
from model.errors import MyXTTSError
from model.files import atomic_write, sha256_of_file, stays_inside

logger = logging.getLogger(__name__)

COMPANIONS = ("config.json", "config.yaml")
"""Files beside official weights that hold their mel settings: HiFi-GAN's and Vocos's."""
WEIGHTS = "generator.safetensors"
"""Weights in a folder of `myxtts vocoder`; their SHA-256 identifies the folder."""
TIMEOUT_SECONDS = 60
BLOCK = 1 << 20
"""Bytes that are read at once."""
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class FetchError(MyXTTSError):
    """A file could not be fetched or has another SHA-256; the message says which and the fix."""


def open_https(address: str) -> BinaryIO:
    """Opens a file of a web server for reading."""
    return urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS)


def open_s3(address: str) -> BinaryIO:
    """Opens an S3 object for reading; boto3 takes credentials and endpoint from the environment."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    parts = urlsplit(address)
    try:
        return boto3.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"]
    except (BotoCoreError, ClientError) as error:
        raise OSError(str(error)) from error


OPENERS: Mapping[str, Callable[[str], BinaryIO]] = {"https": open_https, "s3": open_s3}


def fetch_checkpoint(
    source: str, sha256: str, folder: Path, openers: Mapping[str, Callable[[str], BinaryIO]] = OPENERS
) -> Path:
    """Returns the path of a checkpoint on disk, and downloads it first if it is remote.

    Args:
        source: A path, `https://...` or `s3://bucket/key`; `config.json` and `config.yaml` beside a remote
            file are downloaded too.
        sha256: SHA-256 of the file, or of a folder's `generator.safetensors`; required for remote files.
        folder: Downloaded files are kept in it, under their hash.
        openers: Scheme -> function that opens its files.

    Raises:
        FetchError: the file is missing, cannot be downloaded, or has another SHA-256; no partial download is left.
    """
    if sha256 and not SHA256.fullmatch(sha256):
        raise FetchError(f"{source}: {sha256!r} is no SHA-256 (64 hex digits), as `sha256sum` prints it")
    scheme, found, _ = source.partition("://")
    if not found:
        return _local(Path(source).expanduser(), sha256)
    if scheme not in openers:
        raise FetchError(f"{source}: cannot fetch {scheme}://, only {', '.join(f'{name}://' for name in openers)}")
    if not sha256:
        raise FetchError(f"{source}: give its SHA-256 (vocoder.checkpoint_sha256), which is required for remote files")
    target = folder / sha256.lower() / _file_name(source)
    if not target.is_file():
        logger.info("fetching %s", hide_credentials(source))
        with atomic_write(target.parent) as partial:
            partial.mkdir()
            _download(source, partial / target.name, openers[scheme])
            _compare(sha256_of_file(partial / target.name), sha256, source)
            for companion in COMPANIONS:
                address = source.rpartition("/")[0] + f"/{companion}"
                _download(address, partial / companion, openers[scheme], required=False)
    return target


def _file_name(source: str) -> str:
    """Returns the name of the file at an address.

    Raises:
        FetchError: the address is malformed, or names no file.
    """
    try:
        parts = urlsplit(source)
        port, name = parts.port, Path(parts.path).name
    except ValueError as error:
        raise FetchError(f"{source!r} is no address ({error}); give https://host/path or s3://bucket/key") from error
    unusable = any(character <= " " or character == "\x7f" for character in source)
    if unusable or not parts.hostname or port == 0 or not stays_inside(name):
        raise FetchError(f"{source!r} names no file on a server; give https://host/path or s3://bucket/key")
    return name


def local_sha256(source: str) -> str:
    """Returns the SHA-256 of a local checkpoint; '' where the file does not exist or the source is remote."""
    path = Path(source).expanduser()
    file = path / WEIGHTS if path.is_dir() else path
    return sha256_of_file(file) if source and file.is_file() else ""


def _local(path: Path, sha256: str) -> Path:
    if not path.exists():
        raise FetchError(f"{path}: no such checkpoint; give the path of an existing file or folder")
    if sha256:
        _compare(local_sha256(str(path)), sha256, str(path))
    return path


def _download(source: str, target: Path, opener: Callable[[str], BinaryIO], required: bool = True) -> None:
    """Downloads a file; a download that breaks off is begun again."""
    try:
        retry_during_outage(
            lambda: _copy(source, target, opener),
            lambda error: isinstance(error, _BrokenOffError),
            f"fetching {source}",
        )
    except (OSError, HTTPException, ValueError) as error:
        target.unlink(missing_ok=True)
        if required:
            raise FetchError(f"{source}: could not be fetched ({error}); check the address") from error


class _BrokenOffError(OSError):
    """The connection ended in the middle of a file."""


def _copy(source: str, target: Path, opener: Callable[[str], BinaryIO]) -> None:
    failures: list[type[Exception]] = [OSError, HTTPException, *storage_errors()]
    with closing(opener(source)) as stream, target.open("wb") as file:
        while True:
            try:
                block = stream.read(BLOCK)
            except tuple(failures) as error:
                raise _BrokenOffError(f"the connection broke off: {error}") from error
            if not block:
                break
            file.write(block)
        if missing := getattr(stream, "length", None):  # HTTP does not say so itself
            raise _BrokenOffError(f"the connection broke off {missing} bytes before the end")


def _compare(found: str, wanted: str, source: str) -> None:
    if found != wanted.lower():
        raise FetchError(
            f"{source}: its SHA-256 is {found}, not {wanted}; the file is damaged or another one: "
            "download it again, or correct the hash"
        )
