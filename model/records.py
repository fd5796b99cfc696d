"""Reads files that this program wrote: JSON whose schema is a type.

A file may be damaged, cut short or of another version. Each of these is one error that names the file, the field and
the fix; none is a traceback.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from model.errors import MyXTTSError
from model.files import complete_lines

Record = TypeVar("Record")

MOST_CHARACTERS = 200
"""Longest description of what is wrong."""


def read_record(path: Path, kind: type[Record], error: type[MyXTTSError], fix: str) -> Record:
    """Returns the content of a JSON file.

    Args:
        path: The file.
        kind: A dataclass, a pydantic model, or another type such as `dict[str, float]`; types are not converted.
        error: Raised if the file is missing or does not hold this.
        fix: What to do then, the end of the message.
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
        lines = complete_lines(path)
    except FileNotFoundError as missing:
        raise error(f"{path} is missing; {fix}") from missing
    return [parse_record(line, kind, f"{path}:{number}", error, fix) for number, line in enumerate(lines, 1)]


def parse_record(content: bytes | str, kind: type[Record], where: str, error: type[MyXTTSError], fix: str) -> Record:
    """Returns the value of a JSON text.

    Args:
        content: The text; UTF-8 if it is bytes.
        kind, error, fix: As in `read_record`.
        where: What is read, for the message.
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
    """Returns the first of the problems in a line: the field, and what it should be."""
    first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    text = f"`{field}`: {first['msg']}" if field else first["msg"]
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..."
