"""The voice that a training starts from: found by its name, pinned to a version and to the hash of its weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.registry import CANDIDATE, CHAMPION, Registry, is_registered, parse_uri
from components.state import State, read_json
from model.config.resolution import base_layers
from model.config.training import TrainingConfig
from model.corpus.sentences import shipped_languages
from model.errors import MyXTTSError
from model.files import read_record

NONE = "none"
AUTO = "auto"
"""`training.start_from`: a base voice of the corpus's languages for recordings, none for generated speech."""
PREFIX = "myxtts-base"
LANGUAGES = shipped_languages()
"""Languages that a base voice can speak, in the order in which its name lists them."""
FALLBACK = "en"
"""Language of the base voice for a corpus in other languages."""


class BaseVoiceError(MyXTTSError):
    """A base voice cannot be found or used; the message names it and what to do."""


@dataclass(frozen=True, kw_only=True)
class BaseVoice:
    """A voice that a training starts from.

    Attributes:
        uri: `models:/<name>/<version>`, or the absolute path of a folder.
        folder: Folder of its files on this machine.
        weights_sha256: SHA-256 of its weights.
        languages: Languages that it speaks.
        config: Settings that `voice.json` records: `model_size`, `audio`, `model`, ...
    """

    uri: str
    folder: Path
    weights_sha256: str
    languages: tuple[str, ...]
    config: dict[str, Any]

    def layers(self, languages: Iterable[str], seconds: float) -> dict[str, dict[str, Any]]:
        """Returns the settings that follow from it, as layers for `resolve`.

        Args:
            languages: Languages of the corpus.
            seconds: Training speech in the corpus; 0 where it is not known yet.
        """
        return base_layers(self.config, seconds, reads_corpus=set(languages) <= set(self.languages))


def find_base(start_from: str, state: State) -> BaseVoice | None:
    """Returns the voice that `training.start_from` names, or None for `none`.

    Raises:
        BaseVoiceError: the folder holds no voice, or a damaged one.
        RegistryError: there is no such model or version.
    """
    if start_from == NONE:
        return None
    if not is_registered(start_from):
        folder = Path(start_from).expanduser().resolve()
        return _described(str(folder), folder)
    registry = Registry(state)
    name, which = parse_uri(start_from)
    uri = f"models:/{name}/{registry.version(name, which).number}"
    return _described(uri, registry.voice_folder(uri))


def base_folder(settings: TrainingConfig, state: State) -> Path | None:
    """Returns the folder of a training's base voice, or None where it trains from scratch.

    Raises:
        BaseVoiceError: the voice holds other weights than `training.start_from_sha256` says.
    """
    base = find_base(settings.start_from, state)
    if base is None:
        return None
    if settings.start_from_sha256 and base.weights_sha256 != settings.start_from_sha256:
        raise BaseVoiceError(
            f"training.start_from: {base.uri} holds weights with SHA-256 {base.weights_sha256}, but the run was "
            f"started with {settings.start_from_sha256}; start the run again"
        )
    return base.folder


def base_name(languages: tuple[str, ...], size: str) -> str:
    """Returns the registered name of the base voice for these languages and this model size."""
    return "-".join((PREFIX, *languages, size))


def base_languages(spoken: set[str]) -> tuple[str, ...]:
    """Returns the languages of the base voice for a corpus: those that speech can be generated in, else English."""
    return tuple(language for language in LANGUAGES if language in spoken) or (FALLBACK,)


def find_made_base(state: State, languages: tuple[str, ...], size: str) -> BaseVoice | None:
    """Returns the registered base voice of these languages and this size, or None."""
    registry, name = Registry(state), base_name(languages, size)
    aliases = registry.aliases(name)
    which = aliases.get(CHAMPION) or aliases.get(CANDIDATE)
    return find_base(f"models:/{name}/{which}", state) if which else None


def base_features(base: Path, state: State) -> Path:
    """Returns the folder of the features that a base voice was trained on, found in the state by their hash.

    Args:
        base: Folder of the base voice.
        state: State whose feature stores are searched.

    Raises:
        BaseVoiceError: the voice does not record them, or the state does not hold them.
    """
    wanted = read_json(base / "voice.json").get("trained_with", {}).get("features_hash", "")
    folder = state.folder("features")
    for index in folder.glob("*/index.json"):
        if wanted and read_json(index).get("content_hash") == wanted:
            return index.parent
    raise BaseVoiceError(
        f"training.rehearsal: {folder} lacks the features {wanted or '(not recorded)'} that {base} was trained on; "
        "run the pipeline on the base's data again, which makes them, or set training.rehearsal to 0"
    )


def _described(uri: str, folder: Path) -> BaseVoice:
    path = folder / "voice.json"
    if not path.is_file():
        raise BaseVoiceError(
            f"training.start_from: {folder} holds no voice.json; give the `voice` folder of a finished training, "
            "models:/<name>@<alias>, models:/<name>/<version>, or none"
        )
    fix = "training.start_from needs a whole voice: fetch or export it again"
    described = read_record(path, _Description, BaseVoiceError, fix)
    return BaseVoice(uri=uri, folder=folder, **vars(described))


@dataclass(frozen=True, kw_only=True)
class _Description:
    """Fields of `voice.json` that a training from this voice reads."""

    weights_sha256: str
    languages: tuple[str, ...]
    config: dict[str, Any]
