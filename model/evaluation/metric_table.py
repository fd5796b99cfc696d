"""Table of all metrics of an evaluation: their names, units and directions in reports, model cards and decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MetricDescription:
    """How a metric is named and read.

    Attributes:
        label: Name on pages and in tables.
        unit: Unit of its values.
        detail: What is compared with what; continues the unit.
        decimals: Number of decimals shown.
        lower_is_better: Whether a lower value is better; None where neither direction is.
    """

    label: str
    unit: str
    detail: str
    decimals: int
    lower_is_better: bool | None

    @property
    def unit_and_direction(self) -> str:
        """The unit, and which direction is better."""
        return _join(self.unit, self.lower_is_better)

    @property
    def explanation(self) -> str:
        """The unit, what is compared, and which direction is better."""
        return _join(f"{self.unit} {self.detail}", self.lower_is_better)

    def worsening(self, change: float) -> float:
        """Returns a change of the value as a change for the worse; negative where it is one for the better."""
        assert self.lower_is_better is not None, f"no direction of {self.label} is better"
        return change if self.lower_is_better else -change


def _join(text: str, lower_is_better: bool | None) -> str:
    return text if lower_is_better is None else f"{text}; {'lower' if lower_is_better else 'higher'} is better"


METRIC_TABLE = {
    "character_error": MetricDescription(
        label="Character error rate",
        unit="edits per letter",
        detail="by the recognizer",
        decimals=3,
        lower_is_better=True,
    ),
    "character_error_increase": MetricDescription(
        label="Character error above the recordings'",
        unit="edits per letter",
        detail="more than in recordings of the same speakers",
        decimals=3,
        lower_is_better=True,
    ),
    "phone_error": MetricDescription(
        label="Phone error rate",
        unit="edits per phone",
        detail="by a recognizer trained on the corpus",
        decimals=3,
        lower_is_better=True,
    ),
    "phone_error_increase": MetricDescription(
        label="Phone error above the recordings'",
        unit="edits per phone",
        detail="more than in recordings, where there is no character error rate",
        decimals=3,
        lower_is_better=True,
    ),
    "mel_cepstral_distortion": MetricDescription(
        label="Mel-cepstral distortion",
        unit="dB",
        detail="between the spectra, time-aligned",
        decimals=2,
        lower_is_better=True,
    ),
    "pitch_error": MetricDescription(
        label="Pitch error",
        unit="cents",
        detail="(100 = a semitone) where both are voiced",
        decimals=0,
        lower_is_better=True,
    ),
    "voicing_error": MetricDescription(
        label="Voicing error",
        unit="share of frames",
        detail="voiced in one only",
        decimals=3,
        lower_is_better=True,
    ),
    "pitch_frame_error": MetricDescription(
        label="Pitch frame error",
        unit="share of frames",
        detail="with wrong voicing or pitch",
        decimals=3,
        lower_is_better=True,
    ),
    "pitch_range": MetricDescription(
        label="Pitch range",
        unit="semitones",
        detail="of deviation; less than the recording's is monotone",
        decimals=2,
        lower_is_better=None,
    ),
    "speaker_similarity": MetricDescription(
        label="Speaker similarity",
        unit="cosine",
        detail="(Resemblyzer) with the speaker's other clips",
        decimals=3,
        lower_is_better=False,
    ),
    "speaker_identified": MetricDescription(
        label="Speaker identified",
        unit="share of sentences",
        detail="that are nearest to the right speaker",
        decimals=3,
        lower_is_better=False,
    ),
    "dnsmos": MetricDescription(
        label="Predicted quality",
        unit="opinion score (1 to 5)",
        detail="by DNSMOS P.808, without a reference",
        decimals=2,
        lower_is_better=False,
    ),
    "duration_error": MetricDescription(
        label="Duration error",
        unit="frames per token",
        detail="against the aligned recording",
        decimals=2,
        lower_is_better=True,
    ),
    "length_error": MetricDescription(
        label="Length error",
        unit="share of the length",
        detail="by which the total differs from the recording's",
        decimals=3,
        lower_is_better=True,
    ),
    "alignment_coverage": MetricDescription(
        label="Alignment coverage",
        unit="share of tokens",
        detail="with 1 to 40 frames",
        decimals=3,
        lower_is_better=False,
    ),
    "alignment_sharpness": MetricDescription(
        label="Alignment sharpness",
        unit="probability",
        detail="of the most likely token, mean over frames",
        decimals=3,
        lower_is_better=False,
    ),
    "alignment_monotonicity": MetricDescription(
        label="Alignment monotonicity",
        unit="share of frames",
        detail="in reading order",
        decimals=3,
        lower_is_better=False,
    ),
    "boundary_error": MetricDescription(
        label="Boundary error",
        unit="frames",
        detail="between aligned and true phone times",
        decimals=2,
        lower_is_better=True,
    ),
}
"""Metric -> its description, in the order of the reports."""
GATE_METRICS = ("mel_cepstral_distortion", "character_error_increase", "phone_error_increase", "alignment_monotonicity")
"""Metrics that the gate compares with a fixed limit of `registry`."""
