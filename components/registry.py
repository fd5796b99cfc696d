"""Model registry: versions, and the aliases `candidate`, `champion` and `previous`, moved by one process at a time."""

import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.state import State
from components.tracking import client
from model.errors import MyXTTSError

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
REPLACED, ROLLED_BACK, PROMOTED = "replaced", "rolled_back", "promoted"
METRIC_TAG = "metric."
"""Prefix of the tags that hold metrics."""
SCHEME = "models:/"


class RegistryError(MyXTTSError):
    """A registry operation is not possible; the message says why, and which is."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Registered model.
        number: Version number, as MLflow writes it.
        tags: Lineage, metrics (`metric.<name>`) and gate results.
        aliases: Aliases of the version.
        source: URI of its files.
        run_id: MLflow run of its training.
        created: Time of registration, in seconds since the epoch.
    """

    name: str
    number: str
    tags: dict[str, str]
    aliases: tuple[str, ...]
    source: str
    run_id: str
    created: float

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the version's evaluation."""
        found = {key: float(value) for key, value in self.tags.items() if key.startswith(METRIC_TAG)}
        return {key.removeprefix(METRIC_TAG): value for key, value in found.items()}


def model_name(template: str, corpus: str, size: str) -> str:
    """Returns the name of the registered model for a corpus and a size, from the template `registry.name`.

    Raises:
        RegistryError: the template has another placeholder, or results in an invalid name.
    """
    try:
        name = template.format(corpus=corpus, size=size)
    except (KeyError, IndexError, ValueError) as error:
        raise RegistryError(f"registry.name = {template!r}: use no placeholders but {{corpus}} and {{size}}") from error
    if not _is_valid(name):
        raise RegistryError(f"registry.name = {template!r}: {name!r} may hold only letters, digits, `.`, `_` and `-`")
    return name


def _is_valid(name: str) -> bool:
    """Returns whether a model may have this name: letters of all scripts with their marks, digits, `.`, `_` and `-`.

    MLflow accepts others, but its queries cannot find them.
    """
    return bool(name) and all(c in "._-" or c.isalnum() or unicodedata.category(c)[0] == "M" for c in name)


class Registry:
    """Registered models, versions and aliases in MLflow.

    Args:
        state: State whose tracking server holds the registry.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.client: Any = client(state)

    def names(self) -> list[str]:
        """Returns the names of all registered models."""
        found: list[str] = []
        token: str | None = None
        while token != "":
            page = self.client.search_registered_models(page_token=token)
            found += [model.name for model in page]
            token = page.token or ""
        return sorted(found)

    def versions(self, name: str) -> list[Version]:
        """Returns the versions of a model, newest first; none if the model is unknown."""
        if not _is_valid(name):
            return []
        aliases = self.aliases(name)
        found = [
            Version(
                name=name,
                number=str(item.version),
                tags=dict(item.tags),
                aliases=tuple(sorted(alias for alias, number in aliases.items() if number == str(item.version))),
                source=item.source,
                run_id=item.run_id or "",
                created=item.creation_timestamp / 1000,
            )
            for item in self.client.search_model_versions(f"name = '{name}'")
        ]
        return sorted(found, key=lambda version: int(version.number), reverse=True)

    def aliases(self, name: str) -> dict[str, str]:
        """Returns the version number of each alias of a model."""
        from mlflow.exceptions import MlflowException

        try:
            model = self.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {alias: str(number) for alias, number in model.aliases.items()}

    def version(self, name: str, which: str) -> Version:
        """Returns a version by number or alias.

        Raises:
            RegistryError: it does not exist.
        """
        versions = self.versions(name)
        for item in versions:
            if which == item.number or which in item.aliases:
                return item
        if not versions:
            raise self.unknown(name)
        known = ", ".join(f"{item.number}{''.join(f' @{alias}' for alias in item.aliases)}" for item in versions)
        raise RegistryError(f"{name} has no version `{which}`; it has: {known}")

    def unknown(self, name: str) -> RegistryError:
        """Returns the error for an unknown model, which lists the known ones."""
        return RegistryError(f"no model is named {name!r}; registered models: {', '.join(self.names()) or 'none yet'}")

    def promote(
        self,
        name: str,
        number: str,
        expected_champion: str | None,
        reason: str,
        check: Callable[[Version], None] | None = None,
    ) -> None:
        """Makes a version the champion; the old champion gets the alias `previous`.

        Args:
            name: Registered model.
            number: Version to promote.
            expected_champion: Champion that the version was compared with ('' for none, `None` for any).
            reason: Stored as a tag.
            check: Called with the new champion after the aliases moved; if it raises, they are restored.

        Raises:
            RegistryError: the champion is no longer the expected one.
        """
        with self.state.lock(f"registry-{name}"):
            target = self.version(name, number)
            champion = self.aliases(name).get(CHAMPION, "")
            if champion == number:  # perhaps by an equal run in parallel
                return
            if expected_champion is not None and champion != expected_champion:
                raise RegistryError(
                    f"{name}: the champion is now version {champion or '(none)'}, but the comparison was with "
                    f"{expected_champion or '(none)'}; compare again"
                )
            with self._moved(name, number, champion):
                if check is not None:
                    check(self.version(name, number))
            self._tag(target, REPLACED, champion)
            self._tag(target, PROMOTED, f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {reason}")
            if ROLLED_BACK in target.tags:
                self.client.delete_model_version_tag(name, number, ROLLED_BACK)

    def rollback(self, name: str, reason: str) -> tuple[str, str]:
        """Makes `previous` the champion again; the gate does not promote the version that was rolled back.

        Returns:
            (old champion, new champion), as version numbers.

        Raises:
            RegistryError: the model does not exist, or has no previous champion.
        """
        if not self.versions(name):
            raise self.unknown(name)
        with self.state.lock(f"registry-{name}"):
            aliases = self.aliases(name)
            if CHAMPION not in aliases or PREVIOUS not in aliases:
                raise RegistryError(
                    f"{name} has no previous champion to roll back to; `myxtts registry list` shows its versions"
                )
            old = self.version(name, CHAMPION)
            restored = self.version(name, PREVIOUS)
            known = {item.number for item in self.versions(name)}
            before = restored.tags.get(REPLACED, "")
            with self._moved(name, restored.number, before if before in known else ""):
                self._tag(old, ROLLED_BACK, f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {reason}")
            return old.number, restored.number

    def voice_folder(self, uri: str) -> Path:
        """Downloads the voice of `models:/<name>@<alias>` or `models:/<name>/<number>` and returns its folder.

        Raises:
            RegistryError: the URI is malformed, or the version does not exist or has lost its files.
        """
        name, which = parse_uri(uri)
        version = self.version(name, which)
        import mlflow

        if not self.has_files(version):
            raise RegistryError(
                f"{uri} (version {version.number}): MLflow no longer has its files ({version.source}), which "
                "`mlflow gc` removes once they are deleted; promote another version (`myxtts registry list`), or run "
                "the pipeline again, which registers the voice anew"
            )
        folder = Path(mlflow.artifacts.download_artifacts(version.source)) / "artifacts"
        for voice in sorted(folder.rglob("voice.json")):
            return voice.parent
        raise RegistryError(f"{uri} (version {version.number}) has no voice.json in {folder}; register it again")

    def has_files(self, version: Version) -> bool:
        """Returns whether MLflow still has the files of a version: those of deleted models can be removed for good."""
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            return bool(mlflow.artifacts.list_artifacts(artifact_uri=version.source))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    @contextmanager
    def _moved(self, name: str, champion: str, previous: str) -> Iterator[None]:
        """Moves both aliases ('' removes one), and restores them if that or the block fails."""
        before = self.aliases(name)
        try:
            self._set(name, CHAMPION, champion)
            self._set(name, PREVIOUS, previous)
            yield
        except BaseException:
            self._set(name, CHAMPION, before.get(CHAMPION, ""))
            self._set(name, PREVIOUS, before.get(PREVIOUS, ""))
            raise

    def _set(self, name: str, alias: str, number: str) -> None:
        if number:
            self.client.set_registered_model_alias(name, alias, number)
        elif alias in self.aliases(name):
            self.client.delete_registered_model_alias(name, alias)

    def _tag(self, version: Version, key: str, value: str) -> None:
        self.client.set_model_version_tag(version.name, version.number, key, value)


def is_registered(model: str) -> bool:
    """Returns whether `model` is the URI of a registered model rather than a folder."""
    return model.startswith(SCHEME)


def parse_uri(uri: str) -> tuple[str, str]:
    """Splits `models:/name@alias` or `models:/name/number` into the name and the alias or number.

    Raises:
        RegistryError: the URI has neither form.
    """
    path = uri.removeprefix(SCHEME)
    for separator in ("@", "/"):
        name, found, which = path.rpartition(separator)
        if path != uri and found and name and which:
            return name, which
    raise RegistryError(f"{uri!r} is not a registered model; write models:/<name>@champion or models:/<name>/<version>")


def find_voice(model: str) -> Path:
    """Returns the folder of a voice, given as a path or as `models:/...` in the current project's registry."""
    return Registry(State.locate()).voice_folder(model) if is_registered(model) else Path(model)


def registered_speaker_encoder(voice: Path) -> Path | None:
    """Returns the speaker encoder's weights that `register` stored beside a voice; `None` where there are none."""
    return next(voice.parent.glob("*.safetensors"), None)


def smoke_test(version: Version) -> None:
    """Loads a version as MLflow serves it and synthesizes one sentence.

    Raises:
        RegistryError: the result is not audible speech.
    """
    import io

    import mlflow
    import numpy as np
    import pandas as pd
    import soundfile

    loaded = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.number}")
    result = loaded.predict(pd.DataFrame({"text": ["One two three."]}))
    samples, sample_rate = soundfile.read(io.BytesIO(result["audio"].iloc[0]), dtype="float32")
    if len(samples) < sample_rate // 10 or not np.isfinite(samples).all() or float(np.abs(samples).max()) < 1e-3:
        raise RegistryError(
            f"{version.name} version {version.number} synthesized {len(samples) / sample_rate:.2f} s of "
            f"{'silence' if len(samples) else 'nothing'} in its smoke test; it was not promoted"
        )
