"""Settings of the vocoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.config.schema.base import Positive, Section


class VocoderConfig(Section):
    """Mel to waveform."""

    type: Literal["griffin_lim"] = "griffin_lim"
    griffin_lim_iterations: Positive = 60
    griffin_lim_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
