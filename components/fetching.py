"""Checkpoints from elsewhere: fetched once, checked by their SHA-256, and read from disk ever after."""

import hashlib
import logging
import os
import shutil
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from model.errors import MyXTTSError

logger = logging.getLogger(__name__)

COMPANION = "config.json"
"""Official HiFi-GAN weights have their mel settings in this file beside them."""
WEIGHTS = "generator.safetensors"
"""What a folder of `myxtts vocoder` is told apart by."""
TIMEOUT_SECONDS = 60


class FetchError(MyXTTSError):
    """A file could not be fetched or is not the one that was asked for; the message says which and the cure."""


def open_https(address: str) -> BinaryIO:
    """A file of a web server, to read from."""
    return urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS)


def open_s3(address: str) -> BinaryIO:
    """An object of an S3 store, to read from; credentials and endpoint as boto3 finds them in the environment."""
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
    """Where a checkpoint is on disk: its own path, or the place that it was fetched to.

    Args:
        source: A path, `https://...` or `s3://bucket/key`; a `config.json` beside a fetched file comes along.
        sha256: Of the file, or of a folder's `generator.safetensors`; required where it is fetched.
        folder: Fetched files are kept in it, under their hash.
        openers: Scheme -> how its files are opened.

    Raises:
        FetchError: not there, not to be had, or another file than the hash says; nothing half-fetched is left.
    """
    scheme, found, _ = source.partition("://")
    if not found:
        return _local(Path(source).expanduser(), sha256)
    if scheme not in openers:
        raise FetchError(f"{source}: cannot fetch {scheme}://, only {', '.join(f'{name}://' for name in openers)}")
    if not sha256:
        raise FetchError(f"{source}: give its SHA-256 (vocoder.checkpoint_sha256); what is fetched is checked")
    target = folder / sha256 / Path(urlsplit(source).path).name
    if not target.is_file():
        logger.info("fetching %s", source)
        target.parent.mkdir(parents=True, exist_ok=True)
        companion = source.rpartition("/")[0] + f"/{COMPANION}"
        _download(companion, target.with_name(COMPANION), openers[scheme], required=False)
        _download(source, target, openers[scheme], sha256)
    return target


def local_sha256(source: str) -> str:
    """SHA-256 of the checkpoint at a path of this machine; '' where there is none, or the source is elsewhere."""
    path = Path(source).expanduser()
    file = path / WEIGHTS if path.is_dir() else path
    if not source or not file.is_file():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _local(path: Path, sha256: str) -> Path:
    if not path.exists():
        raise FetchError(f"{path}: no such checkpoint")
    if sha256:
        _compare(local_sha256(str(path)), sha256, str(path))
    return path


def _download(
    source: str, target: Path, opener: Callable[[str], BinaryIO], sha256: str = "", required: bool = True
) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with closing(opener(source)) as stream, partial.open("wb") as file:
            shutil.copyfileobj(stream, file)
        if sha256:
            with partial.open("rb") as file:
                _compare(hashlib.file_digest(file, "sha256").hexdigest(), sha256, source)
        partial.replace(target)
    except OSError as error:
        if required:
            raise FetchError(f"{source}: could not be fetched ({error}); see that the address is right") from error
    finally:
        partial.unlink(missing_ok=True)


def _compare(found: str, wanted: str, source: str) -> None:
    if found != wanted.lower():
        raise FetchError(f"{source}: its SHA-256 is {found}, not {wanted}; it is damaged or another file")
