"""The docs name what there is: settings, tests, files, commands and each other."""

import re
from pathlib import Path

import click
import pytest

from model.config.resolution import known_keys
from pipelines.cli.main import program

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TAGS = {"features.hash"}
"""Tags of lineage whose names begin like a section of the settings."""
SECTIONS = {key.split(".")[0] for key in known_keys() if "." in key}


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request) -> Path:
    return request.param


def code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))


def test_every_setting_is_one(page):
    named = [text for text in code(page) if re.fullmatch(rf"({'|'.join(SECTIONS)})\.[a-z_0-9]+", text)]
    assert [key for key in named if key not in {*known_keys(), *TAGS}] == []


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


def test_every_command_and_flag_is_one(page):
    """Of command lines (`myxtts train --find-lr ...`), in blocks and within sentences."""
    text = re.sub(r"\\\n\s*", " ", page.read_text("utf-8"))
    lines = re.findall(r"^(?:\S+ )?(myxtts [^#`\n]+)", text, re.MULTILINE) + re.findall(r"`(myxtts [^`\n]+)`", text)
    for line in lines:
        command: click.Command = program
        words = line.split(" && ")[0].split()[1:]
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            command = command.get_command(click.Context(command), words.pop(0))
            assert command is not None, line
        known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        known |= {"--help"}
        assert {word.split("=")[0] for word in words if re.match("--[a-z]", word)} <= known, line
