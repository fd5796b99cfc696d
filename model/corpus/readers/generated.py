"""The generated corpus: lists of sentences, spoken by a speech synthesizer."""

from __future__ import annotations

from functools import partial

from model.config.data import CorpusConfig
from model.corpus.engines import Engine, choose_engine, log_choice
from model.corpus.sentences import read_sentences
from model.corpus.sources import Source, Utterance
from model.errors import CorpusError


def read(config: CorpusConfig) -> Source:
    """Returns the utterances: each of `generated_voices` speaks `sentences_per_voice` sentences of its language.

    The voices of a language start at different places of the list, so that together they speak as many sentences
    as there are. Speakers are named `<language>_<number>`, whichever engine speaks.

    Raises:
        CorpusError: there are fewer voices or sentences than wanted, or the engine is not installed.
    """
    engines = choose_engines(config)
    utterances: list[Utterance] = []
    for language, engine in engines.items():
        log_choice(language, config.engine, engine)
        sentences = read_sentences(config.path, language)
        if config.sentences_per_voice > len(sentences):
            raise CorpusError(
                f"corpus.sentences_per_voice is {config.sentences_per_voice}, but there are {len(sentences)} sentences "
                f"in language {language!r}; lower it, or add sentences to sentences_{language}.txt in corpus.path"
            )
        voices = engine.voices(language)[: config.generated_voices[language]]
        for number, voice in enumerate(voices):
            first = number * len(sentences) // len(voices)
            speaker = f"{language}_{number + 1}"
            for offset in range(config.sentences_per_voice):
                index = (first + offset) % len(sentences)
                utterances.append(
                    Utterance(
                        id=f"{speaker}_{index + 1:03d}",
                        text=sentences[index],
                        language=language,
                        speaker=speaker,
                        origin=f"voice {voice} of {engine.name}",
                        record=partial(engine.speak, sentences[index], voice, language),
                    )
                )
    return Source(utterances=utterances, engines=engine_versions(config))


def choose_engines(config: CorpusConfig) -> dict[str, Engine]:
    """Returns the engine of each language that has voices.

    Raises:
        CorpusError: no voice is wanted, or an engine is not installed or has fewer voices than wanted.
    """
    counts = [(language, count) for language, count in sorted(config.generated_voices.items()) if count]
    if not counts:
        raise CorpusError("corpus.generated_voices names no voice; give a language and a number, such as {en: 2}")
    return {language: choose_engine(language, config.engine, count) for language, count in counts}


def engine_versions(config: CorpusConfig) -> dict[str, str]:
    """Returns the name and version of the engine of each language: `{"en": "pico 0.3.2"}`.

    Raises:
        CorpusError: as `choose_engines`.
    """
    return {language: f"{engine.name} {engine.version()}" for language, engine in choose_engines(config).items()}
