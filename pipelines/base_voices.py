"""Base voices: made of generated speech once, registered, and reused as the start of later trainings.

Any voice can be the base of another training. A base voice is made automatically if none of the languages and the size
is registered yet (docs/base_voices.md). On request it is trained further with random speakers, to clone speakers from a
recording without training.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base_voice import (
    AUTO,
    CLONING_PREFIX,
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
from model.config.resolution import Resolved, presets, with_layers
from model.corpus.manifest import read_manifest
from model.corpus.sentences import shipped_list

if TYPE_CHECKING:
    from model.features.store import FeatureStore

COST = "about eight minutes on two cores for the size tiny"
"""Time that a base voice takes to make (docs/measurements)."""
CLONING_COST = "about six minutes on two cores for the size tiny"
"""Time that the further training with random speakers takes."""
VOICES = dict.fromkeys(LANGUAGES, 4) | {"fa": 2}
"""Generated voices of a base per language."""
EVALUATION = {"max_seconds": 30.0, "max_training_clips": 0, "texts": 0}
"""Settings of a base voice's evaluation: no user speaks with it, so half a minute of unseen sentences suffices."""
CLONING = {
    "model.use_speaker_consistency_loss": True,
    "training.random_speakers": 0.5,
    "training.base_interpolation": 0.0,
    "loss.speaker_consistency_loss_weight": 4.0,
}
"""Settings of the further training with random speakers (docs/measurements/base_voices.md)."""
CLONING_STEPS = 0.769
"""Steps of the further training as a share of those of the model size."""
SENTENCES = 150
"""Sentences of each voice, where the shipped list has as many."""


def list_bases(state: State) -> list[dict[str, Any]]:
    """Returns name, version and aliases of every registered base voice, also of those that clone."""
    registry, found = Registry(state), []
    for name in registry.names():
        if not name.startswith((f"{PREFIX}-", f"{CLONING_PREFIX}-")):
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


def cloning_settings(base: BaseVoice, languages: tuple[str, ...], size: str) -> dict[str, Any]:
    """Returns the settings, by dotted key, of the run that trains a base voice further to clone speakers."""
    return {
        **base_settings(languages, size),
        **CLONING,
        "registry.name": base_name(languages, "{size}", CLONING_PREFIX),
        "training.start_from": base.uri,
        "training.max_steps": round(CLONING_STEPS * presets()[0][size]["training"]["max_steps"]),
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
    return _ensure(state, languages, size, PREFIX, lambda: make(base_settings(languages, size)))


def ensure_cloning_voice(
    state: State, languages: tuple[str, ...], size: str, make: Callable[[dict[str, Any]], None]
) -> BaseVoice:
    """Returns the base voice that clones speakers, which is made from the base voice first if there is none.

    Arguments and errors are those of `ensure_base`.
    """
    base = ensure_base(state, languages, size, make)
    return _ensure(state, languages, size, CLONING_PREFIX, lambda: make(cloning_settings(base, languages, size)))


def _ensure(state: State, languages: tuple[str, ...], size: str, prefix: str, make: Callable[[], None]) -> BaseVoice:
    name = base_name(languages, size, prefix)
    with state.lock(name):
        if found := find_made_base(state, languages, size, prefix):
            return found
        make()
        if found := find_made_base(state, languages, size, prefix):
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
