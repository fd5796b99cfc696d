"""Base voices: made of generated speech once, registered, and reused as the start of later trainings.

Any voice can be the base of another training. A base voice is made automatically if none of the languages and the size
is registered yet (docs/base_voices.md).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base_voice import (
    AUTO,
    LANGUAGES,
    NONE,
    PREFIX,
    BaseVoice,
    BaseVoiceError,
    base_languages,
    base_name,
    find_base,
    find_made_base,
)
from components.registry import Registry
from components.state import State
from model.config.resolution import Resolved, with_layers
from model.corpus.manifest import read_manifest
from model.corpus.sentences import shipped_list

if TYPE_CHECKING:
    from model.features.store import FeatureStore

COST = "about eight minutes on two cores for the size tiny"
"""Time that a base voice takes to make (docs/measurements)."""
VOICES = dict.fromkeys(LANGUAGES, 4) | {"fa": 2}
"""Generated voices of a base per language."""
EVALUATION = {"max_seconds": 30.0, "max_training_clips": 0, "texts": 0}
"""Settings of a base voice's evaluation: no user speaks with it, so half a minute of unseen sentences suffices."""
SENTENCES = 150
"""Sentences of each voice, where the shipped list has as many."""


def list_bases(state: State) -> list[dict[str, Any]]:
    """Returns name, version and aliases of every registered base voice."""
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
        "corpus.generated_voices": {language: VOICES[language] for language in languages},
        "corpus.sentences_per_voice": min(SENTENCES, *(len(shipped_list(language)) for language in languages)),
        "model_size": size,
        "registry.name": base_name(languages, "{size}"),
        **{f"evaluation.{key}": value for key, value in EVALUATION.items()},
        "training.start_from": NONE,
        "training.durations": "cached",  # steps without the aligner take less time
        **dict.fromkeys(("training.base_interpolation", "training.rehearsal"), 0.0),  # they need a base
    }


def ensure_base(
    state: State, languages: tuple[str, ...], size: str, make: Callable[[dict[str, Any]], None]
) -> BaseVoice:
    """Returns the base voice of these languages and this size, which is made first if there is none.

    Args:
        state: The state whose registry holds base voices.
        languages: Languages of the base.
        size: Model size.
        make: Runs the whole pipeline with these settings.

    Raises:
        BaseVoiceError: the run that makes it registered no version.
    """
    name = base_name(languages, size)
    with state.lock(name):
        if found := find_made_base(state, languages, size):
            return found
        make(base_settings(languages, size))
        if found := find_made_base(state, languages, size):
            return found
    raise BaseVoiceError(
        f"the run that makes the base voice {name} registered no version; see its log above, "
        "choose a voice with --start-from, or train from scratch with --start-from none"
    )


def spoken_languages(corpus: Path) -> tuple[set[str], float]:
    """Returns the languages of a corpus and the seconds of its training clips."""
    clips = read_manifest(corpus)
    return {clip.language for clip in clips}, sum(clip.seconds for clip in clips if clip.split == "train")


def start_from_base(settings: Resolved, store: "FeatureStore", state: State) -> tuple[Resolved, BaseVoice | None]:
    """Returns the settings of a training on these features, pinned to its base voice, and the base voice.

    `auto` is the base voice of the features' languages if it is registered, for features of recordings.

    Raises:
        BaseVoiceError: `training.start_from` names no voice.
        RegistryError: there is no such model or version.
    """
    config = settings.config
    wanted, base = config.training.start_from, None
    if wanted == AUTO:
        if config.corpus.format != "generated":
            base = find_made_base(state, base_languages(set(store.languages)), config.model_size)
    else:
        base = find_base(wanted, state)
    layers: dict[str, dict[str, Any]] = {}
    if base:
        seconds = sum(store.clips[position].seconds for position in store.split("train"))
        layers = base.layers(store.languages, seconds)
    merged = with_layers(settings, layers)
    pinned = {
        "start_from": base.uri if base else NONE,
        "start_from_sha256": base.weights_sha256 if base else "",
    }
    training = merged.config.training.model_copy(update=pinned)
    return replace(merged, config=merged.config.model_copy(update={"training": training})), base
