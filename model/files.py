"""Files that this program writes: atomic writes, hashes, JSON lines that survive a crash, and reading by a schema.

A file may be damaged, cut short or of another version. `read_record` validates it by a type and raises one error for
all of these, which names the file, the field and the fix.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from model.errors import MyXTTSError

Record = TypeVar("Record")

MAX_CHARACTERS = 200
"""Longest description of an error."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` when the block ends without an exception.

    Readers see the old content or the new, never a part of it. The block writes a file or makes a folder, which
    replaces an existing one. After an exception the temporary path is removed and `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    _remove(partial)
    try:
        yield partial
        if partial.is_dir():
            _remove(path)
        os.replace(partial, path)
    except BaseException:
        _remove(partial)
        raise


def remove_leftovers(path: Path) -> None:
    """Removes temporary files of killed processes of this machine, which `atomic_write` made beside `path`."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        process = partial.name.removesuffix(".partial").split(".")[-2]
        if process.isdecimal() and not Path("/proc", process).exists():
            _remove(partial)


def write_text(path: Path, text: str) -> Path:
    """Writes UTF-8 text atomically and returns `path`."""
    with atomic_write(path) as partial:
        partial.write_text(text, "utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Writes `value` as indented JSON with sorted keys, atomically, and returns `path`."""
    return write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, records: Iterable[Any]) -> Path:
    """Writes one JSON value per line atomically and returns `path`."""
    return write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of_file(path: Path) -> str:
    """Returns the MD5 of a file's bytes, 32 hex digits, by which DVC names it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def stays_inside(name: str) -> bool:
    """Returns whether a relative path stays below its base folder.

    Only the text of the path is checked; a symbolic link may still lead elsewhere.
    """
    parts = name.split("/")
    return all(parts) and not {".", ".."} & set(parts) and not {"\0", "\\"} & set(name)


def trim_incomplete_line(path: Path) -> None:
    """Removes a last line that a crash cut short, so that an appended record starts on a new line."""
    if path.is_file() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_record(path: Path, kind: type[Record], error: type[MyXTTSError], fix: str) -> Record:
    """Returns the content of a JSON file.

    Args:
        path: The file.
        kind: A dataclass, a pydantic model, or another type such as `dict[str, float]`; types are not converted.
        error: Exception to raise if the file is missing or has other content.
        fix: Remedy, the end of the error message.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as missing:
        raise error(f"{path} is missing; {fix}") from missing
    return parse_record(content, kind, str(path), error, fix)


def read_records(path: Path, kind: type[Record], error: type[MyXTTSError], fix: str) -> list[Record]:
    """Returns the records of a file with one JSON value per line; a last line that a crash cut off is left out.

    Args:
        path, kind, error, fix: As in `read_record`; the message names the line, too.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # without a last line that a crash cut off
    except FileNotFoundError as missing:
        raise error(f"{path} is missing; {fix}") from missing
    return [parse_record(line, kind, f"{path}:{number}", error, fix) for number, line in enumerate(lines, 1)]


def parse_record(content: bytes | str, kind: type[Record], where: str, error: type[MyXTTSError], fix: str) -> Record:
    """Returns the value of a JSON text.

    Args:
        content: The text; UTF-8 if it is bytes.
        kind, error, fix: As in `read_record`.
        where: Source of the text, for the error message.
    """
    try:
        return _adapter(cast(Hashable, kind)).validate_json(content, strict=True)
    except ValidationError as invalid:
        raise error(f"{where}: {_reason(invalid)}; {fix}") from invalid
    except RecursionError as invalid:
        raise error(f"{where}: nested too deep; {fix}") from invalid


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _reason(invalid: ValidationError) -> str:
    """Returns the first validation error as a phrase: the field, and what it should be."""
    first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    text = f"`{field}`: {first['msg']}" if field else first["msg"]
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."
