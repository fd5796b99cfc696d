"""Settings of evaluation, registry and gate."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from model.addresses import without_credentials
from model.config import Positive, Section, Share, StepSettings
from model.config.data import AudioConfig

Margin = Annotated[float, Field(gt=0)]


def _check_hook(hook: str) -> str:
    """Refuses what is neither an address that can be posted to nor a command."""
    if re.match(r"\w+://", hook) and not re.match(r"https?://[^/?#\s]+[^\s]*$", hook):
        raise ValueError("is no address of a webhook; write https://HOST/PATH")
    try:
        shlex.split(hook)
    except ValueError as error:
        raise ValueError(f"is no command: {error}") from error
    return hook


Hook = Annotated[
    str,
    AfterValidator(_check_hook),
    AfterValidator(without_credentials("put a token into the environment variable MYXTTS_ON_PROMOTE_TOKEN")),
]


class EvaluationConfig(Section):
    """Amount of speech that is evaluated after training."""

    corpus: Annotated[str, Field(pattern=r"^([0-9a-f]{32}\.dir)?$")] = ""
    """Hash of the corpus that voices are evaluated on, as `myxtts corpus pin` prints it; by default the sentences that
    the corpus of the training holds out."""
    max_clips: Positive = 18
    """Largest number of held-out clips to evaluate."""
    max_training_clips: Annotated[int, Field(ge=0)] = 6
    """Largest number of training clips to evaluate, to measure overfitting."""
    max_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest total duration of each of the two groups of clips; recognition takes about as long as the speech."""
    min_sentences: Annotated[int, Field(ge=0)] = 8
    """Number of unseen sentences below which more texts without recordings are synthesized, so that the character
    error rate is not that of one or two held-out clips."""
    texts: Annotated[int, Field(ge=0)] = 12
    """Number of English texts without recordings that are synthesized too, to measure intelligibility."""
    recognizer: Literal["pocketsphinx", "none"] = "pocketsphinx"
    """Offline recognizer for the character error rate (English only)."""
    max_recording_error: Annotated[float, Field(gt=0)] = 0.4
    """Character error rate of the recordings above which the recognizer is not reliable for them, so that the gate does
    not check the character error of the voice. Read speech has 0.05 to 0.2, espeak-ng's English about 0.6."""


class RegistryConfig(Section):
    """Name of the registered model, and thresholds of the gate before promotion."""

    name: str = "myxtts-{corpus}-{size}"
    max_mel_cepstral_distortion: Annotated[float, Field(gt=0)] = 12.0
    """Gate: MCD (dB, DTW-aligned) on held-out sentences."""
    max_character_error_increase: Annotated[float, Field(gt=0)] = 0.35
    """Gate: CER of synthesized held-out sentences minus CER of their recordings."""
    max_phone_error_increase: Annotated[float, Field(gt=0)] = 0.2
    """Gate: phone error rate of synthesized held-out sentences minus that of their recordings, of sentences without
    CER."""
    min_alignment_monotonicity: Share = 0.8
    """Gate: fraction of frames whose most likely token is that of the previous frame or one of the next two."""
    min_sentences: Annotated[int, Field(ge=2)] = 8
    """Gate: fewest sentences on which a candidate is compared with the champion; neither has seen them in training."""
    character_error_margin: Margin = 0.1
    """Gate: largest accepted increase of the CER over that of the best champion so far; so are the margins below."""
    phone_error_margin: Margin = 0.06
    """Gate: largest accepted increase of the phone error rate, on sentences without CER."""
    mel_cepstral_distortion_margin: Margin = 0.3
    """Gate: largest accepted increase of the mel-cepstral distortion, in dB."""
    pitch_error_margin: Margin = 60.0
    """Gate: largest accepted increase of the pitch error, in cents."""
    voicing_error_margin: Margin = 0.04
    """Gate: largest accepted increase of the voicing error, as a share of the frames."""
    length_error_margin: Margin = 0.05
    """Gate: largest accepted increase of the length error, as a share of the length of a sentence."""
    speaker_similarity_margin: Margin = 0.05
    """Gate: largest accepted decrease of the speaker similarity (cosine)."""
    dnsmos_margin: Margin = 0.15
    """Gate: largest accepted decrease of the predicted opinion score (DNSMOS P.808), in points."""
    require_listening: Annotated[int, Field(ge=0)] = 0
    """Gate: number of listeners who must have taken a blind listening test against the champion; 0 requires no test."""
    listening_margin: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Gate: the lower end of the 95 % interval of the share of answers that prefer the candidate must be at least 0.5
    minus this."""
    on_promote: Hook = ""
    """Command, or address of a webhook, that is called with a JSON description after a promotion or a rollback."""


class EvaluateSettings(StepSettings):
    """Settings of the `evaluate` step."""

    audio: AudioConfig
    evaluation: EvaluationConfig


class GateSettings(StepSettings):
    """Settings of the `gate` step."""

    registry: RegistryConfig
