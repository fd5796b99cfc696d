"""Runs the few DVC commands that the system needs, as a subprocess: DVC's Python API is not stable."""

import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from configobj import ConfigObj

from components.dvc_objects import DamagedObjectError, object_path, read_listing
from components.outage import retry_during_outage
from components.state import State
from model.addresses import credentials_in, hide_credentials
from model.errors import MyXTTSError
from model.files import atomic_write, write_text

PARAMETERS = "params.yaml"
REMOTE = "storage"
EXPANDED = re.compile(r"%\([^)]*\)s")
STDERR = 2
"""File descriptor."""
OUTAGE = (
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
"""Parts of DVC's last lines when the server of a remote is down or overloaded (in lower case)."""

REFUSED = (
    "forbidden",
    "access denied",
    "accessdenied",
    "signaturedoesnotmatch",
    "invalidaccesskeyid",
    "no credentials",
)
"""Parts of DVC's last lines when the server refuses the credentials (in lower case)."""


logger = logging.getLogger(__name__)


class DvcError(MyXTTSError):
    """A DVC command failed; the message carries its last lines and what to do."""


def environment(state: State) -> dict[str, str]:
    """Returns the environment of DVC and of the commands of its stages.

    DVC keeps pickles in its site cache, by default in a folder that anyone can write to; here it is private.
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
    """Runs `dvc <arguments>` in `project` and returns its output.

    Args:
        capture: Whether to return the output; otherwise it goes to standard error, since standard output is for
            results alone, and '' is returned.
        variables: Further environment variables.

    Raises:
        DvcError: the command failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "components.dvc_main", *arguments],
        cwd=project,
        env={**environment(state), **(variables or {})},
        text=True,
        stdout=subprocess.PIPE if capture else STDERR,
        stderr=subprocess.STDOUT if capture else None,
        check=False,
    )
    if done.returncode:
        tail = "\n".join((done.stdout or "").strip().splitlines()[-12:])
        where = "" if capture else f"; its output above says why (paths are relative to {project})"
        message = f"`dvc {' '.join(arguments)}` failed in {project} (exit {done.returncode}){where}\n{tail}".rstrip()
        raise DvcError(hide_credentials(message))
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
    """Pushes the data that the remote lacks, and retries while its server does not answer.

    Raises:
        DvcError: the push failed, or the outage lasted too long.
    """
    # Without `--quiet`, with which DVC does not print the reason of a failure.
    retry_during_outage(lambda: run(project, state, "push"), is_outage, f"pushing to {remote_url(project)}")


def pull(project: Path, state: State, target: str, data_hash: str) -> None:
    """Fetches the folder with a DVC hash, and retries while the server of the remote does not answer.

    What the remote sends is not trusted: the listing of the folder is hashed, and its paths are checked, before DVC
    reads it, and DVC hashes each file before it keeps it.

    Args:
        project: A DVC project with a default remote.
        state: State whose folder keeps DVC's private files.
        target: Output of a stage, or `.dvc` file, that has the hash.
        data_hash: `<md5>.dir`.

    Raises:
        DvcError: the remote lacks it, or the outage lasted too long.
        DamagedObjectError: the remote holds something else under this hash.
    """
    where = remote_url(project)
    retry_during_outage(lambda: _fetch_listing(project, state, data_hash), is_outage, f"fetching from {where}")
    variables = {"DVC_SYSTEM_CONFIG_DIR": str(state.folder("dvc-verify"))}
    section = f"'remote \"{_remote_name(project)}\"'"
    write_text(state.folder("dvc-verify") / "config", f"[{section}]\n    verify = true\n")
    retry_during_outage(
        lambda: run(project, state, "pull", target, variables=variables), is_outage, f"fetching from {where}"
    )


def _fetch_listing(project: Path, state: State, data_hash: str) -> None:
    """Fetches the listing of a folder into the project's cache, unless the cache holds it undamaged."""
    settings = read_config(project, "config", "config.local").get("cache", {})
    cache = (project / ".dvc" / settings.get("dir", "cache")).resolve()
    path = cache / object_path(data_hash)
    if path.is_file():
        try:
            read_listing(path.read_bytes(), data_hash, str(cache))
            return
        except DamagedObjectError as error:
            logger.warning("%s; fetching it again", error)
    source = f"remote://{_remote_name(project)}/{object_path(data_hash)}"
    with tempfile.TemporaryDirectory() as scratch:
        fetched = Path(scratch) / "listing"
        run(project, state, "get-url", source, str(fetched))
        content = fetched.read_bytes()
    read_listing(content, data_hash, remote_url(project))
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def is_outage(error: BaseException) -> bool:
    """Returns whether the server of a remote did not answer, so that a retry may help."""
    return _mentions(error, OUTAGE) and not is_refusal(error)  # DVC calls a refusal "failed to connect", too


def is_refusal(error: BaseException) -> bool:
    """Returns whether a remote refused the credentials."""
    return _mentions(error, REFUSED)


def _mentions(error: BaseException, parts: tuple[str, ...]) -> bool:
    return isinstance(error, DvcError) and any(part in str(error).lower() for part in parts)


def write_config(project: Path, settings: Mapping[str, Mapping[str, str]], name: str = "config.local") -> None:
    """Writes a DVC configuration file of `project`, unless the file holds the same settings already.

    Values are quoted where DVC would read them otherwise: `#` begins a comment, and commas separate a list.

    Raises:
        DvcError: a value contains `%(name)s`, which DVC replaces and which cannot be escaped.
    """
    for value in (value for section in settings.values() for value in section.values()):
        if EXPANDED.search(value):
            raise DvcError(f"{value}: DVC expands `%(...)s` in a path; move the folder to a path without it")
    parser = ConfigObj(interpolation=False)
    parser.update({section.strip("'"): dict(values) for section, values in settings.items()})
    path = project / ".dvc" / name
    text = "\n".join(parser.write()) + "\n"
    if not path.is_file() or path.read_text("utf-8") != text:
        write_text(path, text)


def read_config(project: Path, *names: str) -> dict[str, dict[str, str]]:
    """Returns the settings in DVC configuration files of `project`; later files override earlier ones."""
    settings: dict[str, dict[str, str]] = {}
    for path in (project / ".dvc" / name for name in names):
        if not path.is_file():
            continue
        for section, values in ConfigObj(path.read_text("utf-8").splitlines(), interpolation=False).items():
            key = f"'{section}'" if '"' in section else section
            plain = {name: value if isinstance(value, str) else ",".join(value) for name, value in values.items()}
            settings[key] = settings.get(key, {}) | plain
    return settings


def remote_url(project: Path) -> str:
    """Returns the address of the project's default remote; a local folder as an absolute path.

    Raises:
        DvcError: no default remote is configured, or its address contains credentials, which would be an argument of
            every run.
    """
    settings = read_config(project, "config", "config.local")
    name = _remote_name(project)
    url = settings.get(f"'remote \"{name}\"'", {}).get("url", "")
    if not url:
        raise DvcError(
            f"{project}/.dvc/config names no default remote; set one with `dvc remote add -d {REMOTE} <url>`"
        )
    if found := credentials_in(url):
        raise DvcError(
            f"the DVC remote {hide_credentials(url)} contains {found}, which would be stored in every run; set its "
            f"address without it (`dvc remote modify {name} url ...`), and give the credentials to this machine with "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and to pods with the secret of cluster.s3_secret"
        )
    if "://" in url:
        return url
    return str((project / ".dvc" / url).resolve())


S3_OPTIONS = {
    "endpointurl": "endpoint_url",
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "region": "region_name",
}
"""Setting of a DVC remote -> argument of boto3's client."""


def s3_options(project: Path) -> tuple[tuple[str, str], ...]:
    """Returns the settings of the project's default remote for boto3; those of the environment are not among them."""
    settings = read_config(project, "config", "config.local")
    remote = settings.get(f"'remote \"{settings.get('core', {}).get('remote', '')}\"'", {})
    return tuple((S3_OPTIONS[name], value) for name, value in remote.items() if name in S3_OPTIONS)


def _remote_name(project: Path) -> str:
    """Returns the name of the project's default remote; '' if none is set."""
    return read_config(project, "config", "config.local").get("core", {}).get("remote", "")


def recorded_parameters(project: Path) -> dict[str, Any]:
    """Returns the parameters by dotted key that `dvc.lock` records for the data of `project`; {} without a lock.

    Stages that the lock lacks are left out.
    """
    lock = project / "dvc.lock"
    stages = yaml.safe_load(lock.read_text("utf-8")).get("stages", {}) if lock.is_file() else {}
    return {
        key: value for stage in stages.values() for key, value in stage.get("params", {}).get(PARAMETERS, {}).items()
    }


def output_hash(project: Path, path: str) -> str:
    """Returns the content hash (`<md5>.dir`) that `dvc.lock` records for the stage output `path`.

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
