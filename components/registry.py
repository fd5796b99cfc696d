"""Model registry: versions, and the aliases `candidate`, `champion` and `previous`.

Every change of the aliases is an operation of the model's journal (`components.journal`). It takes effect when its
entry is written, and is then carried out by its own process, or by the next one that reads the journal.
"""

import logging
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from components.artifacts import verify_files
from components.author import this_author
from components.journal import (
    ABANDONED,
    APPLIED,
    FOLDER,
    JOURNAL_TAG,
    Entry,
    Journal,
    Operation,
    find_journal,
    make_journal,
)
from components.process_identity import ProcessStatus, process_status, this_process
from components.state import State
from components.tracking import artifact_location, client
from model.errors import MyXTTSError

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
PROMOTE, ROLLBACK, REGISTER = "promote", "rollback", "register"
ROLLED_BACK, PROMOTED = "rolled_back", "promoted"
MAX_EARLIER = 50
"""Number of earlier champions that a rollback can return to."""
GRACE_SECONDS = 15.0
"""Time that a process on another machine has to finish an operation; it needs less than a second."""
POLL_SECONDS = 0.2
GATE = "gate"
"""Tag of a version: the checks of its latest gate as JSON, name -> `<result>: <reason>`."""
DECISION = "decision"
"""Tag of a version: address in MLflow of the gate's latest decision."""
METRIC_TAG = "metric."
"""Prefix of the tags that hold metrics."""
SCHEME = "models:/"

logger = logging.getLogger(__name__)


class RegistryError(MyXTTSError):
    """A registry operation is not possible; the message says why, and what is possible."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Registered model.
        number: Version number, as MLflow writes it.
        tags: Lineage, metrics (`metric.<name>`), the gate's checks and decision.
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
    def checks(self) -> dict[str, str]:
        """Checks of the version's latest gate, name -> `<result>: <reason>`; empty if no gate has judged it.

        A damaged tag counts as no checks, with a warning, so that the version is promoted only by force.
        """
        try:
            return TypeAdapter(dict[str, str]).validate_json(self.tags.get(GATE, "{}"))
        except ValidationError:
            logger.warning(
                "%s version %s: its tag `%s` is damaged; delete it, or run the gate again", self.name, self.number, GATE
            )
            return {}

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the version's evaluation; a tag that is no number is left out, with a warning."""
        found = {key.removeprefix(METRIC_TAG): value for key, value in self.tags.items() if key.startswith(METRIC_TAG)}
        metrics: dict[str, float] = {}
        for key, value in found.items():
            try:
                metrics[key] = float(value)
            except ValueError:
                logger.warning("%s version %s: its metric %s is no number: %r", self.name, self.number, key, value)
        return metrics


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
        self._journals: dict[tuple[str, int], Journal] = {}

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
        """Returns the version number of each alias of a model, after any change that a process left unfinished.

        The change is finished first; without write permission, the aliases are returned as they will be after it.
        """
        from mlflow.exceptions import MlflowException

        model = self._model(name)
        if model is None:
            return {}
        journal = self._journal(model)
        entries = journal.entries() if journal else []
        if journal is None or not entries or entries[-1].outcome:
            return _aliases_of(model)
        try:
            self._settle(name, journal)
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
            logger.warning("%s: %s is under way; this user may not finish it", name, entries[-1].operation.action)
            aliases = {**_aliases_of(model), **self._targets(name, entries[-1].operation)}
            return {alias: number for alias, number in aliases.items() if number}
        return _aliases_of(self._model(name))

    def history(self, name: str) -> list[Entry]:
        """Returns all changes of a model's aliases, oldest first, after any that a process left unfinished.

        Raises:
            RegistryError: the model is unknown.
        """
        self.aliases(name)
        model = self._model(name)
        if model is None:
            raise self.unknown(name)
        journal = self._journal(model)
        return journal.entries() if journal else []

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
        *,
        forced: bool = False,
        evidence: Mapping[str, str] | None = None,
        best_in: Iterable[str] = (),
    ) -> None:
        """Makes a version the champion; the old champion gets the alias `previous`.

        Args:
            name: Registered model.
            number: Version to promote.
            expected_champion: Champion that the version was compared with ('' for none, `None` for any).
            reason: Stored as a tag, and in the history.
            check: Called with the version before anything changes; if it raises, nothing does.
            forced: Whether something speaks against the promotion.
            evidence: What the promotion rests on, for the history: name -> address or numbers.
            best_in: Metrics in which the version becomes the reference of later candidates.

        Raises:
            RegistryError: the champion is no longer the expected one.
        """
        target = self.version(name, number)

        def plan(now: ModelState) -> Operation | None:
            if now.champion == number:  # perhaps by an equal run in parallel
                return None
            if expected_champion is not None and now.champion != expected_champion:
                raise RegistryError(
                    f"{name}: the champion is now version {now.champion or '(none)'}, but the comparison was with "
                    f"{expected_champion or '(none)'}; compare again"
                )
            if number not in now.versions:
                raise RegistryError(f"{name}: version {number} was deleted meanwhile; promote another one")
            earlier = tuple(item for item in (now.champion, *now.earlier) if item not in ("", number))
            return _operation(
                PROMOTE,
                version=number,
                replaced=now.champion,
                earlier=earlier[:MAX_EARLIER],
                reason=reason,
                forced=forced,
                evidence=dict(evidence or {}),
                best_in=tuple(best_in),
            )

        if plan(self._model_state(name, self._settle(name, self.journal(name)))) is None:
            return
        if check is not None:
            check(target)
        self._commit(name, plan)

    def rollback(self, name: str, reason: str) -> tuple[str, str]:
        """Makes the previous champion the champion again; the gate does not promote the replaced version again.

        A rollback that another process left unfinished is finished instead, since it was meant for the same champion.

        Returns:
            (old champion, new champion), as version numbers; the old one is '' if the alias had been deleted.

        Raises:
            RegistryError: the model does not exist, has no previous champion, or got another champion meanwhile.
        """
        if not self._versions(name):
            raise self.unknown(name)
        journal = self.journal(name)
        before = journal.entries()
        entries = self._settle(name, journal)
        if before and not before[-1].outcome and before[-1].operation.action == ROLLBACK:
            finished = entries[len(before) - 1]
            if finished.counts:
                return finished.operation.replaced, finished.operation.version
        champion = self._model_state(name, entries).champion

        def plan(now: ModelState) -> Operation:
            if now.champion != champion:
                raise RegistryError(
                    f"{name}: the champion is now version {now.champion or '(none)'}, it was {champion or '(none)'} "
                    "when this rollback began; `myxtts registry list` shows what happened"
                )
            earlier = [item for item in now.earlier if item in now.versions]
            if not earlier:
                raise RegistryError(
                    f"{name} has no previous champion to roll back to; `myxtts registry list` shows its versions"
                )
            return _operation(
                ROLLBACK, version=earlier[0], replaced=champion, earlier=tuple(earlier[1:]), reason=reason
            )

        done = self._commit(name, plan)
        assert done is not None  # `plan` always has one
        return done.replaced, done.version

    def make_candidate(self, name: str, number: str, metrics: Mapping[str, str]) -> None:
        """Makes a version the candidate, with the metrics of its latest evaluation in place of earlier ones.

        Args:
            name: Registered model.
            number: A version of it.
            metrics: Name -> value.
        """

        def plan(now: ModelState) -> Operation:
            if number not in now.versions:
                raise RegistryError(f"{name}: version {number} was deleted meanwhile; register the voice again")
            return _operation(REGISTER, version=number, metrics=dict(metrics), reason="")

        self._commit(name, plan)

    def voice_folder(self, uri: str) -> Path:
        """Downloads the voice of `models:/<name>@<alias>` or `models:/<name>/<number>` and returns its folder.

        Raises:
            RegistryError: the URI is malformed, or the version does not exist or has lost its files.
            ArtifactError: the files are not those that were registered.
        """
        name, which = parse_uri(uri)
        version = self.version(name, which)
        if not self.has_files(version):
            raise RegistryError(
                f"{uri} (version {version.number}): MLflow no longer has its files ({version.source}), which "
                "`mlflow gc` removes once they are deleted; promote another version (`myxtts registry list`), or run "
                "the pipeline again, which registers the voice anew"
            )
        folder = self.verified_files(version) / "artifacts"
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

    def verified_files(self, version: Version) -> Path:
        """Downloads the files of a version and compares them with their recorded hash; none is executed.

        Raises:
            ArtifactError: they are not those that were registered.
        """
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(version.source))
        verify_files(folder, f"{version.name} version {version.number}", version.tags)
        return folder

    def _commit(self, name: str, plan: Callable[["ModelState"], Operation | None]) -> Operation | None:
        """Writes an operation into the journal, carries it out and returns it; None if nothing was to be done.

        Args:
            name: Registered model.
            plan: Returns the operation for the aliases as they are, or None if nothing is to be done. Called again if
                another process changed them meanwhile.

        Raises:
            RegistryError: `plan` raised it, or the operation turned out to be impossible.
        """
        journal = self.journal(name)
        while True:
            entries = self._settle(name, journal)
            operation = plan(self._model_state(name, entries))
            if operation is None:
                return None
            number = len(entries) + 1
            if journal.append(number, operation):
                break
        entry = Entry(number=number, operation=operation, outcome="")
        self._finish(name, journal, entry)
        outcome = journal.entries()[number - 1].outcome
        if outcome.startswith(ABANDONED):
            raise RegistryError(f"{name}: {operation.action} of version {operation.version} was {outcome}")
        return operation

    def _settle(self, name: str, journal: Journal) -> list[Entry]:
        """Returns the entries of the journal once the last operation is finished, by its own process or by this one."""
        while True:
            entries = journal.entries()
            if not entries or entries[-1].outcome:
                return entries
            if _may_be_finished(journal, entries[-1]):
                what = entries[-1].operation
                logger.warning("%s: finishing an interrupted %s of version %s", name, what.action, what.version)
                self._finish(name, journal, entries[-1])

    def _finish(self, name: str, journal: Journal, entry: Entry) -> None:
        """Carries out an operation and closes its entry; several processes may do so at once, and repeatedly."""
        while True:
            outcome = APPLIED
            if entry.operation.version in self._versions(name):
                self._apply(name, entry.operation)
            else:
                outcome = f"{ABANDONED}: version {entry.operation.version} of {name} no longer exists"
            journal.close(entry.number, outcome)
            # While this process was slow, others may have finished the operation and carried out later ones, whose
            # aliases it has just overwritten.
            newest = [
                item
                for item in journal.entries()
                if item.counts and (item.operation.action == REGISTER) == (entry.operation.action == REGISTER)
            ][-1:]
            if not newest or newest[0].number <= entry.number:
                return
            entry = newest[0]

    def _apply(self, name: str, operation: Operation) -> None:
        """Sets aliases and tags as an operation demands."""
        if operation.action == REGISTER:
            self._set_metrics(name, operation.version, operation.metrics or {})
        for alias, number in self._targets(name, operation).items():
            self._set(name, alias, number)
        said = f"{operation.time} {operation.reason}"
        if operation.action == PROMOTE:
            self.client.set_model_version_tag(name, operation.version, PROMOTED, said)
            if ROLLED_BACK in self.client.get_model_version(name, operation.version).tags:
                self.client.delete_model_version_tag(name, operation.version, ROLLED_BACK)
        elif operation.action == ROLLBACK and operation.replaced in self._versions(name):
            self.client.set_model_version_tag(name, operation.replaced, ROLLED_BACK, said)

    def _targets(self, name: str, operation: Operation) -> dict[str, str]:
        """Returns the version number that each alias gets by an operation; '' removes it."""
        if operation.action == REGISTER:
            return {CANDIDATE: operation.version}
        known = self._versions(name)
        return {
            CHAMPION: operation.version,
            PREVIOUS: next((item for item in operation.earlier if item in known), ""),
        }

    def _set_metrics(self, name: str, number: str, metrics: Mapping[str, str]) -> None:
        tags = {f"{METRIC_TAG}{key}": value for key, value in metrics.items()}
        for key in self.client.get_model_version(name, number).tags:
            if key.startswith(METRIC_TAG) and key not in tags:  # of an earlier evaluation; does not apply to this one
                self.client.delete_model_version_tag(name, number, key)
        for key, value in tags.items():
            self.client.set_model_version_tag(name, number, key, value)

    def _set(self, name: str, alias: str, number: str) -> None:
        if number:
            self.client.set_registered_model_alias(name, alias, number)
        elif alias in _aliases_of(self._model(name)):
            self.client.delete_registered_model_alias(name, alias)

    def _model_state(self, name: str, entries: list[Entry]) -> "ModelState":
        """Returns the champion by its alias, and the earlier champions by the journal.

        If the alias was moved or deleted in MLflow itself, the journal's last champion is an earlier one.
        """
        aliases = _aliases_of(self._model(name))
        champion = aliases.get(CHAMPION, "")
        moves = [entry.operation for entry in entries if entry.counts and entry.operation.action != REGISTER]
        known = (moves[-1].version, *moves[-1].earlier) if moves else (aliases.get(PREVIOUS, ""),)
        return ModelState(
            champion=champion,
            earlier=tuple(item for item in known if item not in ("", champion)),
            versions=frozenset(self._versions(name)),
        )

    def _model(self, name: str) -> Any:
        """Returns MLflow's `RegisteredModel`, or None if there is none of this name."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _versions(self, name: str) -> set[str]:
        """Returns the numbers of the versions of a model."""
        if not _is_valid(name):
            return set()
        return {str(item.version) for item in self.client.search_model_versions(f"name = '{name}'")}

    def _journal(self, model: Any) -> Journal | None:
        """Returns the journal of a registered model, or None if it has none yet."""
        known = (model.name, model.creation_timestamp)
        if known not in self._journals and (found := find_journal(self.client, model)):
            self._journals[known] = found
        return self._journals.get(known)

    def journal(self, name: str) -> Journal:
        """Returns the journal of a registered model, which is made if it has none.

        Raises:
            RegistryError: the model is unknown.
        """
        model = self._model(name)
        if model is None:
            raise self.unknown(name)
        found = self._journal(model)
        if found is None:
            found = make_journal(self.client, model, artifact_location(self.state, FOLDER))
        if model.tags.get(JOURNAL_TAG) != found.run_id:  # found faster, and after the model was renamed
            self.client.set_registered_model_tag(name, JOURNAL_TAG, found.run_id)
        return found


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """State of a registered model before an operation.

    Attributes:
        champion: Version number; '' for none.
        earlier: Champions before it, newest first; some may have been deleted.
        versions: Numbers of all versions.
    """

    champion: str
    earlier: tuple[str, ...]
    versions: frozenset[str]


def _operation(action: str, **values: Any) -> Operation:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Operation(
        id=uuid.uuid4().hex, action=action, time=now, writer=this_process(), author=this_author(), **values
    )


def _aliases_of(model: Any) -> dict[str, str]:
    return {alias: str(number) for alias, number in model.aliases.items()}


def _may_be_finished(journal: Journal, entry: Entry) -> bool:
    """Waits while the process that wrote an entry works on it; returns False if it has finished it.

    A process on another machine, and one that makes no progress, has `GRACE_SECONDS` to finish.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    if entry.operation.writer != this_process() and process_status(entry.operation.writer) is not ProcessStatus.ENDED:
        logger.warning("waiting for another process that works on the registry")
    while (
        entry.operation.writer != this_process() and process_status(entry.operation.writer) is not ProcessStatus.ENDED
    ):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
        if journal.entries()[entry.number - 1].outcome:
            return False
    return True


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
