"""The docs name what there is: settings, tests, files, commands and each other."""

import re
from pathlib import Path

import pytest

from model.config.resolution import known_keys
from pipelines.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS = {key.split(".")[0] for key in known_keys() if "." in key}


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request) -> Path:
    return request.param


def code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))


def test_every_setting_is_one(page):
    named = [text for text in code(page) if re.fullmatch(rf"({'|'.join(SECTIONS)})\.[a-z_0-9]+", text)]
    assert [key for key in named if key not in known_keys()] == []


def test_every_test_is_one(page):
    sources = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    known = {path.stem for path in sources} | set(re.findall(r"def (test_\w+)", "".join(sources.values())))
    assert [text for text in code(page) if re.fullmatch(r"test_\w+", text) and text not in known] == []


def test_every_link_leads_somewhere(page):
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#?)([^)\s]*)\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        found = page.parent / target if target else page
        assert found.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]


def test_every_command_is_one(page):
    asked = re.findall(r"^(?:\S+ )?myxtts ([a-z]+)", page.read_text("utf-8"), re.MULTILINE)
    assert set(asked) <= set(COMMANDS)
