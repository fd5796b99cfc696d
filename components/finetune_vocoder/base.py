"""The vocoder of the voice that a training started from."""

from pathlib import Path

from components.base_voice import BaseVoiceError, find_base
from components.registry import RegistryError
from components.state import State, read_json
from model.config.vocoder import VocoderConfig
from model.voice_folder import DESCRIPTION, VOCODER_DESCRIPTION, vocoder_of


def base_vocoder_folder(voice: Path, settings: VocoderConfig, state: State) -> Path | None:
    """Returns the vocoder of the voice that a training started from, of the type and variant of the settings.

    Args:
        voice: Folder of the trained voice, which names its base.
        settings: Settings of the vocoder.
        state: State whose registry holds the base.

    Returns:
        None where the voice has no base, the base has no such vocoder, or the settings start from something else.

    Raises:
        BaseVoiceError: the base is gone, or holds other weights than those that the training started from.
    """
    lineage = read_json(voice / DESCRIPTION).get("lineage", [])
    if settings.type == "griffin_lim" or settings.checkpoint or not settings.start_from_base or not lineage:
        return None
    from model.vocoder.architectures import variant_of  # imports torch, which Griffin-Lim does without

    uri, fix = lineage[0]["uri"], "set vocoder.start_from_base to false to train the vocoder from scratch"
    try:
        base = find_base(uri, state)
    except (BaseVoiceError, RegistryError) as error:
        raise BaseVoiceError(
            f"vocoder.start_from_base: the base {uri} of this voice is gone ({error}); {fix}"
        ) from error
    if base is None or base.weights_sha256 != lineage[0]["weights_sha256"]:
        raise BaseVoiceError(
            f"vocoder.start_from_base: {uri} is no longer the base that this voice started from; {fix}"
        )
    folder = vocoder_of(base.folder)
    if folder is None:
        return None
    described = read_json(folder / VOCODER_DESCRIPTION)
    fits = (described["type"], described["variant"]) == (settings.type, variant_of(settings))
    return folder if fits else None
