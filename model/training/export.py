"""Export of a finished training as a voice."""

from __future__ import annotations

from model.acoustic.conditioning import Reference
from model.acoustic.model import AcousticModel
from model.features.store import FeatureStore
from model.voice import Speaker

MOST_CLIPS = 32
"""Clips of a speaker that its style and our own encoder's embedding are averaged over."""


def describe_speakers(model: AcousticModel, store: FeatureStore) -> dict[str, Speaker]:
    """Name of each speaker of the training clips -> what synthesis needs where it is given no reference clip.

    Held-out speakers are left out: they are cloned, as anybody is whom the model has not met.
    """
    model.eval()
    described = {}
    for name in store.trained_speakers:
        clips = [store.clip(position).mel for position in store.clips_of_speaker[name][:MOST_CLIPS]]
        heard = model.conditioning.encode_reference(Reference.from_recordings(clips))
        vector = store.speaker_centroid(name).tolist() if heard.speaker is None else heard.speaker[0].tolist()
        style = None if heard.token_weights is None else heard.token_weights[0].tolist()
        described[name] = Speaker(vector, *store.statistics.log_f0[name], style)
    return described
