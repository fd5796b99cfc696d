"""Base voices: made of generated speech once, registered, and reused as the start of later trainings.

Starting from another voice is worth more than any setting: see docs/base_voices.md. Any voice can be the base of the
next one; these are the ones that are made where there is none yet.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.registry import CANDIDATE, CHAMPION, Registry, is_registered, parse_uri
from components.state import State
from model.corpus.manifest import read_manifest
from model.errors import MyXTTSError

AUTO, NONE = "auto", "none"
PREFIX = "myxtts-base"
LANGUAGES = ("en", "fa")
"""Languages with a shipped list of sentences; a base for a corpus in other languages speaks English."""
VOICES = {"en": 4, "fa": 2}
"""Generated voices of a base per language."""


class BaseVoiceError(MyXTTSError):
    """A base voice cannot be found or used; the message names it and what to do."""


@dataclass(frozen=True, kw_only=True)
class BaseVoice:
    """A voice that a training starts from, resolved to the version and the weights that it is.

    Attributes:
        uri: `models:/<name>/<version>`, or the absolute path of a folder.
        folder: Where its files are on this machine.
        weights_sha256: Hash of its weights, part of the training's key.
        config: Settings that it was made with, as `voice.json` records them.
    """

    uri: str
    folder: Path
    weights_sha256: str
    config: dict[str, Any]

    def argument(self) -> str:
        """Returns what the pipeline is given: the resolved version and the hash that its files must have."""
        return json.dumps({"uri": self.uri, "weights_sha256": self.weights_sha256}, sort_keys=True)


def resolve_base(start_from: str, state: State) -> BaseVoice | None:
    """Returns the voice that `training.start_from` names, or None for `none`.

    Raises:
        BaseVoiceError: there is no voice in the folder.
        RegistryError: no such model or version.
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


def base_name(languages: tuple[str, ...], size: str) -> str:
    """Returns the registered name of the base voice for these languages and this model size."""
    return "-".join((PREFIX, *languages, size))


def base_languages(spoken: set[str]) -> tuple[str, ...]:
    """Returns the languages of the base voice for a corpus: those that speech can be generated in, else English."""
    return tuple(language for language in LANGUAGES if language in spoken) or LANGUAGES[:1]


def find_base(state: State, languages: tuple[str, ...], size: str) -> BaseVoice | None:
    """Returns the registered base voice of these languages and this size, or None."""
    registry, name = Registry(state), base_name(languages, size)
    aliases = registry.aliases(name)
    which = aliases.get(CHAMPION) or aliases.get(CANDIDATE)
    return resolve_base(f"models:/{name}/{which}", state) if which else None


def list_bases(state: State) -> list[dict[str, Any]]:
    """Returns name, version, size, languages and steps of every registered base voice."""
    registry, found = Registry(state), []
    for name in registry.names():
        if not name.startswith(f"{PREFIX}-"):
            continue
        for version in registry.versions(name):
            found.append({"name": name, "version": version.number, "aliases": list(version.aliases)})
    return found


def base_settings(languages: tuple[str, ...], size: str) -> dict[str, Any]:
    """Returns the settings, by dotted key, of the run that makes a base voice."""
    return {
        "corpus.format": "generated",
        "corpus.name": "-".join(("base", *languages)),
        "corpus.path": "model/corpus",
        "corpus.english_voices": VOICES["en"] if "en" in languages else 0,
        "corpus.persian_voices": VOICES["fa"] if "fa" in languages else 0,
        "model_size": size,
        "registry.name": base_name(languages, "{size}"),
        "training.start_from": NONE,
    }


def ensure_base(
    state: State, languages: tuple[str, ...], size: str, make: Callable[[dict[str, Any]], None]
) -> BaseVoice:
    """Returns the base voice of these languages and this size, made now where there is none.

    Args:
        state: The state whose registry holds base voices.
        languages: Languages of the base.
        size: Model size.
        make: Runs the whole pipeline with these settings.

    Raises:
        BaseVoiceError: the run that makes it left no registered version.
    """
    with state.lock(f"{base_name(languages, size)}"):
        if found := find_base(state, languages, size):
            return found
        make(base_settings(languages, size))
        if found := find_base(state, languages, size):
            return found
    raise BaseVoiceError(
        f"no base voice {base_name(languages, size)} came out of its run; see its log above, choose a voice with "
        "--start-from, or train from scratch with --start-from none"
    )


def spoken_languages(corpus: Path) -> tuple[set[str], float]:
    """Returns the languages of a corpus and the seconds of its training clips."""
    clips = read_manifest(corpus)
    return {clip.language for clip in clips}, sum(clip.seconds for clip in clips if clip.split == "train")


def _described(uri: str, folder: Path) -> BaseVoice:
    try:
        description = json.loads((folder / "voice.json").read_text("utf-8"))
        return BaseVoice(
            uri=uri, folder=folder, weights_sha256=description["weights_sha256"], config=description["config"]
        )
    except FileNotFoundError as error:
        raise BaseVoiceError(
            f"training.start_from: {folder} holds no voice.json; give the `voice` folder of a finished training, "
            "models:/<name>@<alias>, or none"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BaseVoiceError(
            f"training.start_from: {folder / 'voice.json'} is damaged ({error}); fetch it again"
        ) from error
