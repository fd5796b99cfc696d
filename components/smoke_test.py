"""The smoke test of a registered voice, before it becomes the champion."""

import numpy as np

from components.registry import SCHEME, RegistryError, Version, find_voice, registered_speaker_encoder
from model.synthesis import Synthesizer


def smoke_test(version: Version) -> None:
    """Loads the voice of a version, without executing code of its artifacts, and synthesizes one sentence.

    Raises:
        ArtifactError: the files are not those that were registered.
        RegistryError: the result is not audible speech.
    """
    voice = find_voice(f"{SCHEME}{version.name}/{version.number}")
    speech = Synthesizer(voice, registered_speaker_encoder(voice)).synthesize("One two three.")
    samples, sample_rate = speech.samples, speech.sample_rate
    if len(samples) < sample_rate // 10 or not np.isfinite(samples).all() or float(np.abs(samples).max()) < 1e-3:
        raise RegistryError(
            f"{version.name} version {version.number} synthesized {len(samples) / sample_rate:.2f} s of "
            f"{'silence' if len(samples) else 'nothing'} in its smoke test; it was not promoted"
        )
