"""Similarity of the speakers of a base voice before and after a training that started from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from model.acoustic.conditioning import Style
from model.acoustic.model import AcousticModel
from model.audio.griffin_lim import GriffinLim
from model.features.store import FeatureStore
from model.speaker_encoder import Resemblyzer
from model.voice import Speaker, Voice

TEXTS = 2
"""Number of texts on which a speaker is compared."""
ITERATIONS = 16
"""Griffin-Lim iterations, enough for speaker embeddings."""


@torch.no_grad()
def speaker_similarities(
    base: Voice, model: AcousticModel, languages: Sequence[str], store: FeatureStore
) -> dict[str, float]:
    """Returns, for each speaker of the base, how much the new model's speech resembles the base's.

    Both models synthesize the first validation texts of the corpus. The similarity is the cosine of the Resemblyzer
    embeddings of both versions of a text, averaged over the texts.

    Args:
        base: The base voice.
        model: The trained model, on the CPU.
        languages: Its languages.
        store: Features of the corpus.
    """
    model.eval()
    encoder, vocoder = Resemblyzer.load(), GriffinLim(store.audio, ITERATIONS)
    clips = [store.clip(position) for position in store.split("validation")[:TEXTS]]
    similarities = {}
    for name, speaker in base.speakers.items():
        own = base.speaker_languages[name]
        embeddings = []
        for voice, known in ((base.model, base.languages), (model, languages)):
            spoken = []
            for clip in clips:
                language = store.languages[clip.language]
                spoken.append(vocoder(_speak(voice, clip.ids, speaker, _index(known, language, own))))
            embeddings.append(encoder.embed_many(spoken, store.audio.sample_rate))
        similarities[name] = float(np.mean(np.sum(embeddings[0] * embeddings[1], axis=1)))
    return similarities


def _index(known: Sequence[str], language: str, fallback: str) -> int:
    """Returns the index of a language, or that of `fallback` if the model lacks it."""
    return known.index(language if language in known else fallback if fallback in known else known[0])


def _speak(model: AcousticModel, ids: np.ndarray, speaker: Speaker, language: int) -> np.ndarray:
    """Returns the log-mel (S, M) of tokens (T, 2) spoken by a speaker."""
    weights = None if speaker.style is None else torch.tensor([speaker.style])
    result = model.synthesize(
        torch.from_numpy(ids)[None],
        torch.tensor([len(ids)]),
        torch.tensor([speaker.vector]),
        torch.tensor([language]),
        Style(token_weights=weights),
    )
    return result.mel[0].numpy()
