"""DVC as a program: the few commands the system needs, run as a subprocess so that DVC's internals stay its own."""

import configparser
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from components.outage import outlast
from components.state import State
from model.errors import MyXTTSError
from model.files import write_text

REMOTE = "storage"
STDERR = 2
AWAY = (
    "could not connect",
    "failed to connect",
    "connection",
    "timed out",
    "slowdown",
    "service unavailable",
    "internal error",
    "an error occurred (500)",
    "an error occurred (503)",
)
"""What DVC's last lines hold when a remote's server is not there or overloaded."""

REFUSED = (
    "forbidden",
    "access denied",
    "accessdenied",
    "signaturedoesnotmatch",
    "invalidaccesskeyid",
    "no credentials",
)
"""What they hold when it does not accept who we say we are."""


class DvcError(MyXTTSError):
    """A DVC command failed; the message carries its last lines and what to do."""


def environment(state: State) -> dict[str, str]:
    """Environment of DVC and of the commands of its stages.

    DVC keeps pickles in its site cache, by default in a folder anyone can write to: here it is private.
    """
    private = state.folder("dvc-site")
    private.chmod(0o700)
    return {
        **os.environ,
        "DVC_SITE_CACHE_DIR": str(private),
        "DVC_NO_ANALYTICS": "1",
        "MYXTTS_STATE": str(state.root),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def run(
    project: Path, state: State, *arguments: str, capture: bool = True, variables: Mapping[str, str] | None = None
) -> str:
    """Run `dvc <arguments>` in `project`.

    Args:
        capture: Return the output; otherwise it goes to the terminal (our stderr: results alone are for stdout) and ''
            is returned.
        variables: Further environment variables.

    Raises:
        DvcError: the command failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env={**environment(state), **(variables or {})},
        text=True,
        stdout=subprocess.PIPE if capture else STDERR,
        stderr=subprocess.STDOUT if capture else None,
        check=False,
    )
    if done.returncode:
        tail = "\n".join((done.stdout or "").strip().splitlines()[-12:])
        where = "" if capture else f"; it says why above, with paths below {project}"
        raise DvcError(
            f"`dvc {' '.join(arguments)}` failed in {project} (exit {done.returncode}){where}\n{tail}".rstrip()
        )
    return done.stdout or ""


def reproduce(project: Path, state: State) -> None:
    """Runs the data stages that are out of date, without DVC's advice to commit its files to git.

    DVC gives this advice in a git repository unless `core.no_scm` is set. It is set in a system-wide configuration of
    this command alone, since `dvc metrics diff` and the like need git.

    Raises:
        DvcError: a stage failed.
    """
    folder = state.folder("dvc-system")
    write_text(folder / "config", "[core]\n    no_scm = true\n")
    run(project, state, "repro", capture=False, variables={"DVC_SYSTEM_CONFIG_DIR": str(folder)})


def push(project: Path, state: State) -> None:
    """Push what the remote lacks; a server that is away for a while is waited for, and what it has is not sent again.

    Raises:
        DvcError: the push failed, or the server stayed away.
    """
    # Not quietly: DVC would keep the reason of a failure to itself.
    outlast(lambda: run(project, state, "push"), is_away, f"pushing to {remote_url(project)}")


def is_away(error: Exception) -> bool:
    """Whether a remote was not reached; what it lacks, or refuses, it will lack in a minute too."""
    return _says(error, AWAY) and not is_refusal(error)  # DVC words a refusal as "failed to connect", too


def is_refusal(error: Exception) -> bool:
    """Whether a remote refused our credentials."""
    return _says(error, REFUSED)


def _says(error: Exception, signs: tuple[str, ...]) -> bool:
    return isinstance(error, DvcError) and any(sign in str(error).lower() for sign in signs)


def write_config(project: Path, settings: Mapping[str, Mapping[str, str]], name: str = "config.local") -> None:
    """Write a DVC configuration file of `project`, leaving it untouched when it already says the same."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(settings)
    path = project / ".dvc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        parser.write(file)
    if path.is_file() and path.read_bytes() == partial.read_bytes():
        partial.unlink()
        return
    os.replace(partial, path)


def read_config(project: Path, *names: str) -> dict[str, dict[str, str]]:
    """The settings in DVC configuration files of `project`, later names over earlier ones; {} where there are none."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read([project / ".dvc" / name for name in names], encoding="utf-8")
    return {section: dict(parser[section]) for section in parser.sections()}


def remote_url(project: Path) -> str:
    """Address of the project's default remote; a local folder as an absolute path.

    Raises:
        DvcError: no default remote is configured.
    """
    settings = read_config(project, "config", "config.local")
    name = settings.get("core", {}).get("remote", "")
    url = settings.get(f"'remote \"{name}\"'", {}).get("url", "")
    if not url:
        raise DvcError(
            f"{project}/.dvc/config names no default remote; set one with `dvc remote add -d {REMOTE} <url>`"
        )
    if "://" in url:
        return url
    return str((project / ".dvc" / url).resolve())


def output_hash(project: Path, path: str) -> str:
    """Content hash (`<md5>.dir`) that `dvc.lock` records for the stage output `path`.

    Raises:
        DvcError: the stages have not been run.
    """
    lock = project / "dvc.lock"
    stages = yaml.safe_load(lock.read_text("utf-8")).get("stages", {}) if lock.is_file() else {}
    for stage in stages.values():
        for output in stage.get("outs", []):
            if output["path"] == path:
                return output["md5"]
    raise DvcError(f"{lock} records no output {path}; `myxtts run` makes it, or `dvc repro && dvc push` in {project}")
