"""README and docs: what they name exists, and their commands and examples run as they are written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import click.testing
import pytest
from documented import PAGES, REMOTE, ROOT, Checkout, command_lines, groups, python_examples, sections

from model.config.resolution import known_keys
from pipelines.cli.main import program

TAGS = {"features.hash"}
"""Tags of lineage whose names begin like a section of the settings."""
SECTIONS = {key.split(".")[0] for key in known_keys() if "." in key}
PACKAGES = ("model", "components", "pipelines", "benchmarks", "tests", "infra")
PROGRAMS = {"cp", "curl", "docker", "dvc", "export", "for", "kubectl", "make", "myxtts", "pip", "pytest", "python"}
PROGRAMS |= {"mlflow", "torchrun"}
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
QUICK = re.compile(r"myxtts (config|registry list|pipeline list)\b")
"""Commands that need no data and no voice."""
WITHOUT_RUN = {
    "...": "an excerpt of a command",
    "make test": "this test suite",
    "registry listen": "it waits for listeners",
    "mlflow models": "a server, which has tests of its own (test_served_voice)",
    "torchrun": "distributed training has tests of its own",
}
"""Part of a command line -> why it is not run."""


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request) -> Path:
    return request.param


def code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))


def commands(page: Path) -> list[str]:
    """Returns the command lines of a page, those within sentences included."""
    inline = [text for text in code(page) if re.match(rf"({'|'.join(PROGRAMS)}) [\w.<'-]", text)]
    return [part for line in [*command_lines(page), *inline] for part in without_comment(line).split(" && ")]


def without_comment(line: str) -> str:
    return re.sub(r"\s+#.*$", "", line)


def test_every_setting_is_one(page):
    named = [text for text in code(page) if re.fullmatch(rf"({'|'.join(SECTIONS)})\.[a-z_0-9]+", text)]
    assert [key for key in named if key not in {*known_keys(), *TAGS}] == []


def test_every_test_is_one(page):
    sources = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    known = {path.stem for path in sources} | set(re.findall(r"def (test_\w+)", "".join(sources.values())))
    assert [text for text in code(page) if re.fullmatch(r"test_\w+", text) and text not in known] == []


def test_every_source_file_is_one(page):
    """A page may leave out the folders of a file that it has named before."""
    known = [f"/{path.relative_to(ROOT)}" for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    named = [text for text in code(page) if re.fullmatch(r"[\w./-]+\.py", text)]
    assert [text for text in named if not any(path.endswith(f"/{text}") for path in known)] == []


@pytest.mark.parametrize(("flow", "most"), [("one training step", 15), ("one synthesis", 12), ("one pipeline run", 20)])
def test_few_files_have_to_be_read_to_follow_a_flow(flow, most):
    """The last row names eight steps, each of which has a file `run.py`."""
    row = next(line for line in (ROOT / "docs" / "code.md").read_text("utf-8").splitlines() if f"| {flow} |" in line)
    files, _, steps = row.partition("; then `run.py` of ")
    assert 10 < len(re.findall(r"`[\w/]+\.py`", files)) + len(re.findall(r"`[\w/]+`", steps)) <= most


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
    for line in commands(page):
        if not line.startswith("myxtts "):
            continue
        command: click.Command = program
        words = line.split()[1:]
        while words and isinstance(command, click.Group) and re.match(r"\w", words[0]):
            command = command.get_command(click.Context(command), words.pop(0))
            assert command is not None, line
        known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        assert {word.split("=")[0] for word in words if re.match("--[a-z]", word)} <= {*known, "--help"}, line


def test_every_command_line_is_of_a_known_program(page):
    first = {re.sub(r"^\w+=\S+ ", "", line).split()[0] for line in map(without_comment, command_lines(page))}
    assert first <= PROGRAMS


def test_every_make_target_is_one(page):
    for line in commands(page):
        if line.startswith("make "):
            target = line.split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line


def test_every_script_and_its_options_exist(page):
    """This includes the files that `pytest` and `TESTS=` name."""
    for line in commands(page):
        words = line.replace("TESTS=", "").split()
        assert all((ROOT / word).exists() for word in words if re.fullmatch(r"(tests|benchmarks|infra)/[\w./-]+", word))
        if words[0] != "python":
            continue
        name = words[2].replace(".", "/") if words[1] == "-m" else words[1].removesuffix(".py")
        source = (ROOT / name).with_suffix(".py").read_text("utf-8")
        flags = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert all(f'"{flag}"' in source or f'"{flag}/' in source for flag in flags), line


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    return Checkout.create(tmp_path_factory.mktemp("documented") / "checkout")


def runnable(lines: list[str]) -> list[str]:
    lines = [line for line in lines if not REMOTE.search(without_comment(line))]
    return [line for line in lines if not any(part in without_comment(line) for part in WITHOUT_RUN)]


def test_quick_commands_run_on_a_fresh_checkout(checkout, state):
    """Runs the commands of all pages that need neither data nor a voice, in this process."""
    inline = [text for page in PAGES for text in code(page)]
    lines = {line for page in PAGES for line in [*command_lines(page), *inline] if QUICK.match(line)}
    lines = {line for line in lines if "--target" not in line and "..." not in line}
    assert {line.split()[1] for line in lines} == {"config", "registry", "pipeline"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkout.folder)
        for line in sorted(lines):
            words = shlex.split(line, comments=True)[1:]
            done = click.testing.CliRunner().invoke(program, words, catch_exceptions=False, standalone_mode=False)
            assert not done.exception, line


README = sections(PAGES[0])
BEFORE = {"Manage models": "myxtts run --set training.max_steps=3000"}
"""Section of the README -> a command of an earlier one that it needs: a second version of the model."""
OTHER_RUN = " --set seed=2"
"""Added to that command: in the small checkout its steps are as few as those of the first run."""


@pytest.fixture(scope="module")
def trained(checkout) -> Checkout:
    """The checkout after the first command of the README, with a voice that the others can load."""
    first = runnable(README["Start"])[0]
    assert without_comment(first) == "make run"
    checkout.run(first)
    return checkout


def test_what_a_section_needs_is_a_command_of_another():
    earlier = [without_comment(line) for lines in README.values() for line in lines]
    assert set(BEFORE) <= set(README)
    assert set(BEFORE.values()) <= set(earlier)


@pytest.mark.slow
@pytest.mark.parametrize("section", [title for title, lines in README.items() if runnable(lines)])
def test_the_commands_of_the_readme_run_as_written(trained, section):
    lines = runnable(README[section])
    trained.remove_outputs(lines)
    if section in BEFORE:
        trained.run(BEFORE[section] + OTHER_RUN)
    for line in lines:
        trained.run(line)
    if section == "Use a voice":
        assert (trained.folder / "cloned.wav").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for page in PAGES for text in python_examples(page)])
def test_python_examples_run_as_written(trained, text):
    (trained.folder / "cloned.wav").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=trained.folder,
        env=trained.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (trained.folder / "cloned.wav").is_file()


GROUPS = {  # without the measurements of studies, which take a registered base voice and half an hour
    f"{page.relative_to(ROOT)}:{number}": lines
    for page in PAGES[1:]
    if page != ROOT / "docs" / "measurements" / "studies.md"
    for number, lines in enumerate(groups(runnable(command_lines(page))))
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_the_commands_of_a_page_run_as_written(trained, name):
    trained.remove_outputs(GROUPS[name])
    for line in GROUPS[name]:
        trained.run(line)
