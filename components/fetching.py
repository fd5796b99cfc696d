"""Downloads checkpoints once, checks their SHA-256, and keeps them on disk."""

import logging
import shutil
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from model.addresses import hide_credentials
from model.errors import MyXTTSError
from model.files import atomic_write, sha256_of_file

logger = logging.getLogger(__name__)

COMPANIONS = ("config.json", "config.yaml")
"""Files beside official weights that hold their mel settings: HiFi-GAN's and Vocos's."""
WEIGHTS = "generator.safetensors"
"""Weights in a folder of `myxtts vocoder`; their SHA-256 identifies the folder."""
TIMEOUT_SECONDS = 60


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
    scheme, found, _ = source.partition("://")
    if not found:
        return _local(Path(source).expanduser(), sha256)
    if scheme not in openers:
        raise FetchError(f"{source}: cannot fetch {scheme}://, only {', '.join(f'{name}://' for name in openers)}")
    if not sha256:
        raise FetchError(f"{source}: give its SHA-256 (vocoder.checkpoint_sha256), which is required for remote files")
    target = folder / sha256 / Path(urlsplit(source).path).name
    if not target.is_file():
        logger.info("fetching %s", hide_credentials(source))
        for companion in COMPANIONS:
            address = source.rpartition("/")[0] + f"/{companion}"
            _download(address, target.with_name(companion), openers[scheme], required=False)
        _download(source, target, openers[scheme], sha256)
    return target


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


def _download(
    source: str, target: Path, opener: Callable[[str], BinaryIO], sha256: str = "", required: bool = True
) -> None:
    try:
        with atomic_write(target) as partial:
            with closing(opener(source)) as stream, partial.open("wb") as file:
                shutil.copyfileobj(stream, file)
            if sha256:
                _compare(sha256_of_file(partial), sha256, source)
    except OSError as error:
        if required:
            raise FetchError(f"{source}: could not be fetched ({error}); check the address") from error


def _compare(found: str, wanted: str, source: str) -> None:
    if found != wanted.lower():
        raise FetchError(
            f"{source}: its SHA-256 is {found}, not {wanted}; the file is damaged or another one: "
            "download it again, or correct the hash"
        )
