"""Search space of a study: the values of each searched setting."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from model.config.resolution import batch_range, field_of, flatten, nearest_key, nest, presets
from model.config.study import StudySettings
from model.config.training import TrainSettings
from model.diagnosis.checklist import ChecklistError, checklist, refuse
from model.errors import MyXTTSError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SECTIONS = ("loss", "model", "training")
"""Sections whose settings can be searched."""
BUDGET = ("training.max_steps", "training.evaluation_interval", "training.warmup_steps", "training.keep_top_k")
"""Settings that the budget of a trial determines."""
FRAMES = "training.max_batch_frames"
"""Setting that changes in proportion to a searched batch size, unless it is searched itself."""
CATALOGUE = {
    "loss.mel_loss_weight": "2.5:5",
    "loss.kl_loss_weight": "0.5:2",
    "loss.guided_attention_loss_weight": "0.5:10:log",
    "model.dropout": "0:0.4",
    "model.predictor_dropout": "0:0.6",
    "model.predictor_input_dropout": "0:0.6",
    "training.aligner_learning_rate_scale": "1:5:log",
    "training.gradient_clip_norm": "0.1:5:log",
    "training.weight_decay": "0.001:0.1:log",
    "training.ema_decay": "0.98:0.999",
}
"""Setting -> range in which training is known to work. Loss weights do not scale the objective, which is unweighted."""
LEARNING_RATE_FACTOR = 3.0
"""The learning rate is searched from the study's own divided by this factor to the study's own times it."""


class SpaceError(MyXTTSError):
    """`study.space` names no setting that can be searched, or an impossible range; the message names the fix."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values of one searched setting: an interval, or a choice.

    Attributes:
        low: Smallest value of an interval.
        high: Largest value of an interval.
        log: Search on a logarithmic scale.
        step: Step of a grid of integers; 0 for real numbers.
        choices: Values of a choice; empty for an interval.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: int = 0
    choices: tuple[Any, ...] = ()

    def distribution(self) -> "BaseDistribution":
        """Returns the range as Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.step:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=self.step)
        return FloatDistribution(self.low, self.high, log=self.log)

    def contains(self, value: Any) -> bool:
        """Returns whether a trial can have this value."""
        if self.choices:
            return value in self.choices
        on_grid = not self.step or (value - self.low) % self.step == 0
        return self.low <= value <= self.high and on_grid

    def ends(self) -> tuple[Any, ...]:
        """Returns the values that are most likely to be refused: both ends of an interval, or all choices."""
        kind = int if self.step else float
        return self.choices or (kind(self.low), kind(self.high))

    def __str__(self) -> str:
        """Returns the range in the notation of `study.space`."""
        if self.choices:
            return "|".join(map(str, self.choices))
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.low:g}:{self.high:g}" + (":log" if self.log else "") + step


def search_space(settings: StudySettings) -> dict[str, Range]:
    """Returns the range of each searched setting by dotted key, those of `study.space` or the default ones.

    Raises:
        SpaceError: an entry names no setting that can be searched, or a range that the schema or the checklist refuses.
    """
    entries = settings.study.space or default_entries(settings)
    space: dict[str, Range] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        key = key.strip()
        if key in space:
            raise SpaceError(f"study.space names {key} twice; name each setting once")
        space[key] = _range(key, text.strip(), settings)
    for key, values in space.items():
        for value in values.ends():
            _require_allowed(settings, key, value)
    return space


def default_entries(settings: StudySettings) -> tuple[str, ...]:
    """Returns the settings that are searched by default: loss weights and batch size."""
    latent = ("loss.kl_loss_weight",) if settings.model.use_variational_encoder else ()
    return ("loss.mel_loss_weight", *latent, "training.batch_size")


def baseline(settings: StudySettings, space: Mapping[str, Range]) -> dict[str, Any]:
    """Returns the study's own value of each searched setting that is in its range."""
    values = flatten(settings.model_dump(mode="json"))
    return {key: values[key] for key, interval in space.items() if interval.contains(values[key])}


def _range(key: str, text: str, settings: StudySettings) -> Range:
    """Returns the range of an entry of `study.space`."""
    field = _searchable(key)
    kind, choices = _kind(field.annotation)
    if choices:
        return _choice(key, text, choices)
    if kind not in (int, float):
        raise SpaceError(f"study.space: {key} is neither a number nor a choice, so that it cannot be searched")
    if not text and key == "training.batch_size":
        return _batch_range(settings)
    if not text and key == "training.learning_rate":
        own = settings.training.learning_rate
        return Range(low=own / LEARNING_RATE_FACTOR, high=own * LEARNING_RATE_FACTOR, log=True)
    parts = (text or CATALOGUE.get(key) or _schema_bounds(key)).split(":")
    try:
        low, high = (kind(part) for part in parts[:2])
    except ValueError as error:
        raise SpaceError(
            f"study.space: {key}={text} is no range; write it as {key}=LOW:HIGH or LOW:HIGH:log"
        ) from error
    if low >= high or parts[2:] not in ([], ["log"]) or (parts[2:] and low <= 0):
        raise SpaceError(
            f"study.space: {key}={text} is no range; write it as {key}=LOW:HIGH with LOW below HIGH, or as "
            "LOW:HIGH:log with LOW above 0"
        )
    return Range(low=low, high=high, log=bool(parts[2:]), step=int(kind is int))


def _searchable(key: str) -> Any:
    """Returns the schema's field of a setting that can be searched."""
    field = field_of(key)
    if field is None:
        near = nearest_key(key)
        raise SpaceError(f"study.space: unknown setting `{key}`" + (f"; did you mean `{near}`?" if near else ""))
    if key.partition(".")[0] not in SECTIONS or key in BUDGET:
        why = "the budget of a trial determines it" if key in BUDGET else "trials do not depend on it"
        raise SpaceError(f"study.space: {key} cannot be searched: {why}; name settings of {', '.join(SECTIONS)}")
    return field


def _kind(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Returns the type of a setting, and its values if it is a choice."""
    if get_origin(annotation) is Literal:
        return None, get_args(annotation)
    if annotation is bool:
        return bool, (False, True)
    return annotation, ()


def _choice(key: str, text: str, known: tuple[Any, ...]) -> Range:
    names = {str(value).lower(): value for value in known}
    wanted = [part.strip().lower() for part in text.split("|")] if text else list(names)
    if len(wanted) < 2 or not set(wanted) <= set(names):
        raise SpaceError(f"study.space: {key}={text} is no choice; name at least two of {'|'.join(names)}")
    return Range(choices=tuple(names[name] for name in wanted))


def _batch_range(settings: StudySettings) -> Range:
    """Returns the batch sizes that are recommended for the model size, on a grid that contains the preset's."""
    low, high = batch_range(settings.model_size)
    preset = presets()[0][settings.model_size]["training"]["batch_size"]
    return Range(low=low, high=high, step=math.gcd((high - low) // 2, preset - low))


def _schema_bounds(key: str) -> str:
    """Returns the range that the schema allows a setting.

    Raises:
        SpaceError: it is not bounded on both sides.
    """
    bounds: dict[str, float] = {}
    for constraint in _searchable(key).metadata:
        for name, side in (("ge", "low"), ("le", "high")):
            if (value := getattr(constraint, name, None)) is not None:
                bounds[side] = value
    if len(bounds) < 2:
        raise SpaceError(f"study.space: {key} has no range of its own; give one: {key}=LOW:HIGH")
    return f"{bounds['low']}:{bounds['high']}"


def _require_allowed(settings: StudySettings, key: str, value: Any) -> None:
    """Refuses a value that the schema or the checklist refuses."""
    try:
        refuse(checklist(with_values(settings, {key: value})))
    except (ValueError, ChecklistError) as error:
        reason = "; ".join(_reasons(error))
        raise SpaceError(f"study.space: {key} must not be {value}: {reason}; give a narrower range") from error


def _reasons(error: Exception) -> Iterator[str]:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        yield from (problem["msg"] for problem in error.errors())
    else:
        yield str(error)


def with_values(settings: StudySettings, values: Mapping[str, Any]) -> TrainSettings:
    """Returns the settings of a training of the study with other values of some settings, by dotted key.

    Raises:
        ValueError: the schema refuses a value.
    """
    plain = settings.model_dump(mode="json", include=set(TrainSettings.model_fields))
    return TrainSettings.model_validate(nest({**flatten(plain), **batch_frames(settings, values), **values}))


def batch_frames(settings: StudySettings, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the bound on the frames of a batch that belongs to the batch size among values; {} if there is none.

    A bound that stayed the same would leave batches of long clips as they are, whatever their size.
    """
    own, size = settings.training, values.get("training.batch_size")
    if size is None or not own.max_batch_frames or FRAMES in values:
        return {}
    return {FRAMES: math.ceil(own.max_batch_frames * size / own.batch_size)}
