"""Reading of the program's own files: any violation of the schema is one error with file, field and fix."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from model.errors import MyXTTSError
from model.files import read_record, read_records


class DamagedError(MyXTTSError):
    pass


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float


@dataclass(frozen=True, kw_only=True)
class Content:
    name: str
    count: int
    inner: dict[str, Inner]


GOOD = {"name": "a", "count": 3, "inner": {"x": {"share": 1}}}


def read(path: Path) -> Content:
    return read_record(path, Content, DamagedError, "make it again")


def test_a_good_file_gives_its_values_also_numbers_that_json_lacks(tmp_path):
    path = tmp_path / "f.json"
    path.write_text(json.dumps({**GOOD, "inner": {"x": {"share": math.nan}}, "later": True}))
    found = read(path)
    assert (found.name, found.count) == ("a", 3)
    assert math.isnan(found.inner["x"].share)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"[]", "should be an object"),
        (json.dumps({**GOOD, "count": "3"}).encode(), "`count`: Input should be a valid integer"),
        (json.dumps({**GOOD, "count": True}).encode(), "`count`: Input should be a valid integer"),
        (json.dumps({**GOOD, "inner": {"x": {}}}).encode(), "`inner.x.share`: Field required"),
        (json.dumps({**GOOD, "inner": {"x": None}}).encode(), "`inner.x`: "),
        (json.dumps({key: GOOD[key] for key in ("name", "inner")}).encode(), "`count`: Field required"),
    ],
)
def test_what_does_not_fit_is_one_error_with_file_field_and_fix(tmp_path, content, problem):
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert message.endswith("; make it again")
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DamagedError, match=r"f\.json is missing; make it again"):
        read(tmp_path / "f.json")


def test_lines_are_read_up_to_one_that_a_crash_cut_and_a_bad_one_is_numbered(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(f'{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n{{"na')
    assert len(read_records(path, Content, DamagedError, "remove it")) == 2
    path.write_text(f"{json.dumps(GOOD)}\n{{}}\n")
    with pytest.raises(DamagedError, match=r"f\.jsonl:2: `name`: Field required; remove it"):
        read_records(path, Content, DamagedError, "remove it")
