"""Commands of the documentation: extracts them from pages, and runs them in a small checkout.

A small checkout is a project folder with this tree's stages and Makefile, the settings of `toy_run`, and a program
`myxtts` that adds options to expensive commands: commands run as they are written, but end within seconds.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import soundfile
import yaml
from toy_run import SETTINGS

from components.state import State
from model.audio.io import write_audio
from model.config.data import AudioConfig
from model.config.resolution import nest
from model.corpus.manifest import read_manifest
from model.text.espeak import speak
from model.vocoder.architectures import build_generator
from model.vocoder.official import VocoderWeights, write_official
from model.vocoder.weights import official_state

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

REMOTE = re.compile(
    r"--target (cluster|docker)|\bkubectl\b|\bdocker\b|\bcurl\b|s3://|make (voice-image|images)|^export |^cp infra"
)
"""Commands that need a server, a container engine or credentials; only their options and paths are checked."""

SMALL_VOCODER = ["--vocoder-variant", "xtiny", "--vocoder-max-steps", "2", "--vocoder-finetune-steps", "2"]
SMALL = {
    ("run",): ["--set", "training.max_steps=9"],
    ("train",): ["--model-size", "xtiny", "--set", "training.max_steps=4"],
    ("study", "run"): ["--trials", "2", "--set", "study.max_steps=3", "--set", "study.min_alignment_sharpness=0"],
    ("diagnose", "gpu"): ["--model-size", "xtiny", "--profile-steps", "2"],
    ("vocoder", "train"): [*SMALL_VOCODER, "--set", "vocoder.evaluation_interval=2"],
    ("vocoder", "finetune"): [*SMALL_VOCODER, "--set", "vocoder.evaluation_interval=2"],
}
"""Command -> options that make it small."""

PIPELINE = re.compile(r"\b(make run|myxtts run|myxtts base make)\b")
"""Commands that run the whole pipeline."""
PIPELINES_AT_ONCE = 2
"""Largest number of them in one test, so that it takes a few minutes at most."""

FINDINGS = "myxtts diagnose "
"""Beginning of the commands whose exit status 1 reports a finding."""

PROGRAM = """#!{python}
import sys
from pipelines.cli.main import main
arguments = sys.argv[1:]
for command, options in {small!r}.items():
    if tuple(arguments[: len(command)]) == command:
        arguments += options
main(arguments)
"""


def blocks(text: str, language: str) -> list[str]:
    """Returns the fenced blocks of Markdown in a language; '' for blocks without one."""
    found = re.findall(r"^ *```(\w*) *\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def command_lines(page: Path) -> list[str]:
    """Returns the command lines of a page's blocks without a language, continued lines joined."""
    return _lines(page.read_text("utf-8"))


def _lines(text: str) -> list[str]:
    lines = re.sub(r"\\\n\s*", " ", "".join(blocks(text, ""))).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def sections(page: Path) -> dict[str, list[str]]:
    """Returns the command lines of a page by the title of their section ('' before the first)."""
    parts = re.split(r"^## (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], map(_lines, parts[::2]), strict=True))


def groups(lines: Iterable[str]) -> list[list[str]]:
    """Returns consecutive command lines in groups of at most `PIPELINES_AT_ONCE` pipelines."""
    found: list[list[str]] = [[]]
    pipelines = 0
    for line in lines:
        pipelines += bool(PIPELINE.search(line))
        if pipelines > PIPELINES_AT_ONCE:
            found.append([])
            pipelines = 1
        found[-1].append(line)
    return [group for group in found if group]


def python_examples(page: Path) -> list[str]:
    """Returns the Python examples of a page."""
    return blocks(page.read_text("utf-8"), "python")


def _small_vocoder() -> VocoderWeights:
    """Returns an untrained vocoder, whose official file has the name of the published one."""
    audio = AudioConfig()
    generator = official_state(build_generator("hifigan", "xtiny", audio))
    return VocoderWeights(
        kind="hifigan",
        variant="xtiny",
        audio=audio,
        steps=2_500_000,
        generator=generator,
        discriminators={},
        origin="test",
    )


def read_aloud(folder: Path) -> None:
    """Writes synthesized recordings of the prompts in a folder."""
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="|"):
            samples, rate, _ = speak(row["text"], row["language"])
            write_audio(folder / f"{row['audio']}.wav", samples, rate)


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A small checkout.

    Attributes:
        folder: Project folder.
        environment: Environment variables of its commands.
    """

    folder: Path
    environment: dict[str, str]

    @classmethod
    def create(cls, folder: Path) -> "Checkout":
        """Makes the files of a checkout in `folder`."""
        installation = ("Makefile", "pyproject.toml", "constraints.txt", "infra/requirements.py")
        for name in (*installation, "dvc.yaml", ".dvc/config", ".dvcignore"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        (folder / "model" / "corpus").mkdir(parents=True)
        for path in (ROOT / "model" / "corpus").glob("sentences_*.txt"):
            shutil.copy(path, folder / "model" / "corpus")
        settings = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
        small = {
            **SETTINGS,
            # A second version is compared on two sentences with a pitch, which nearly untrained speech may lack.
            **{"corpus.sentences_per_voice": 8, "split.min_held_out": 3, "evaluation.max_clips": 6},
            "corpus.name": "generated",
            "registry.name": "myxtts-{corpus}-tiny",
            "training.log_interval": 2,
        }
        for section, values in nest(small).items():
            settings[section] = {**settings.get(section, {}), **values} if isinstance(values, dict) else values
        (folder / "params.yaml").write_text(yaml.safe_dump(settings), "utf-8")
        spoken, rate, _ = speak("Good morning. This is the voice that I would like to hear.", "en-us")
        write_audio(folder / "me.wav", spoken, rate)
        write_official(folder, _small_vocoder())
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(sys.executable)
        (programs / "myxtts").write_text(PROGRAM.format(python=sys.executable, small=SMALL))
        (programs / "myxtts").chmod(0o755)
        (programs.parent / "installed").touch()  # so that make installs nothing
        dropped = ("MLFLOW_", "KUBERNETES_", "MYXTTS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        return cls(folder=folder, environment={**kept, "PATH": path, "PYTHONPATH": str(ROOT)})

    def remove_outputs(self, lines: Iterable[str]) -> None:
        """Removes what command lines write with `--output`, so that commands of another page do not find it."""
        for name in re.findall(r"--output (\S+)", "\n".join(lines)):
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def run(self, line: str) -> str:
        """Runs a command line in a shell and returns its output.

        The test fails unless the exit status is 0, or reports findings.
        """
        command = ["bash", "-c", self.filled(line)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        # A voice of a few steps may be worse than the champion, so that the gate fails.
        failed_gate = line.startswith("myxtts run ") and "NOT PROMOTED" in done.stdout
        finding = line.startswith(FINDINGS) or failed_gate
        expected = (0, 1) if finding else (0,)
        assert done.returncode in expected, f"{line}\nexit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        if prompts := re.search(r"corpus prompts .*--output (\w+)", line):
            read_aloud(self.folder / prompts[1])
        return done.stdout

    def filled(self, line: str) -> str:
        """Replaces the placeholders of a command line."""
        for name, value in self.placeholders().items():
            line = line.replace(name, str(value)) if name in line else line
        assert not re.search(r"<[a-z]", line), f"{line}: no value for this placeholder; add it to Checkout.placeholders"
        return line

    def placeholders(self) -> dict[str, Path]:
        """Returns the values of the placeholders, made by the first run in this checkout."""
        state = State(self.folder / ".myxtts")
        if not state.root.is_dir():
            return {}
        stores, runs = (
            sorted(state.root.glob(pattern), key=lambda path: path.stat().st_mtime)
            for pattern in ("features/*/index.json", "training/*/history.jsonl")
        )
        corpus = self.folder / "data" / "corpus"
        values = {"<folder>": self._recordings(), "<corpus>": corpus, "<place>": self.folder / "imported"}
        if stores and runs:
            values |= dict.fromkeys(("<store>", "<features>"), stores[0].parent)
            values |= {"<run>": runs[0].parent, "<voice>": runs[0].parent / "voice"}
        return values

    def _recordings(self) -> Path:
        """Returns a folder in the layout of LJSpeech with the English recordings of the generated corpus."""
        folder = self.folder.parent / "recordings"
        if not folder.is_dir():
            (folder / "wavs").mkdir(parents=True)
            source = self.folder / "data" / "ingested"
            rows = []
            for clip in read_manifest(source):
                if clip.language == "en":
                    name = clip.id.replace("/", "-")
                    soundfile.write(folder / "wavs" / f"{name}.wav", *soundfile.read(source / clip.audio))
                    rows.append(f"{name}|{clip.text}|{clip.text}")
            (folder / "metadata.csv").write_text("\n".join(rows) + "\n", "utf-8")
        return folder
