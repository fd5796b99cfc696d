"""Parses schedules as the scheduler of Kubeflow Pipelines does (robfig/cron 1.2, seconds first).

The server accepts a crontab line of five fields but reads it differently, because it treats the weekday as optional:
`0 3 * * *` starts a run in the third minute of every hour. This module requires six fields or a descriptor.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from model.errors import MyXTTSError

DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NAMES: tuple[dict[str, int], ...] = (
    {},
    {},
    {},
    {},
    {name: place + 1 for place, name in enumerate(MONTHS)},
    {name: place for place, name in enumerate(DAYS)},
)
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
EVERY = re.compile(r"@every ((?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+)")
YEARS = 5
"""Horizon of the scheduler: a schedule without a time within it never runs."""


class CronError(MyXTTSError):
    """A schedule that the server would refuse or misread; the message says what to write instead."""


@dataclass(frozen=True)
class Schedule:
    """Times at which runs start.

    Attributes:
        text: Schedule as written and as sent to the server.
        fields: Allowed values of second, minute, hour, day of month, month, day of week; empty with `every`.
        any_day: Whether day of month or day of week is a star: then both must match, else one of them suffices.
        every: Interval between runs; zero for a schedule of fields.
    """

    text: str
    fields: tuple[frozenset[int], ...] = ()
    any_day: bool = True
    every: timedelta = timedelta()

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yields the times after `after` in its time zone, up to five years ahead."""
        if self.every:
            while True:
                after = after.replace(microsecond=0) + self.every
                yield after
        seconds, minutes, hours, _, _, _ = self.fields
        day = after.replace(hour=0, minute=0, second=0, microsecond=0)
        last = day.replace(year=day.year + YEARS, day=1)
        while day < last:
            if self._on(day):
                for hour in sorted(hours):
                    for minute in sorted(minutes):
                        for second in sorted(seconds):
                            if (at := day.replace(hour=hour, minute=minute, second=second)) > after:
                                yield at
            day += timedelta(days=1)

    def _on(self, day: datetime) -> bool:
        *_, days, months, weekdays = self.fields
        matches = (day.day in days, (day.weekday() + 1) % 7 in weekdays)
        return day.month in months and (all(matches) if self.any_day else any(matches))


def parse_cron(text: str) -> Schedule:
    """Parses a schedule of six fields or a descriptor.

    Raises:
        CronError: the number of fields or a value is not valid.
    """
    if found := EVERY.fullmatch(text):
        amounts = re.findall(r"([\d.]+)([a-z]+)", found[1])
        seconds = sum(float(amount) * UNITS[unit] for amount, unit in amounts)
        return Schedule(text, every=timedelta(seconds=max(1, int(seconds))))
    parts = DESCRIPTORS.get(text, text).split()
    if text.startswith("@") and text not in DESCRIPTORS:
        raise CronError(f"--cron '{text}' is unknown: use {', '.join(DESCRIPTORS)} or '@every 12h'")
    if len(parts) != len(FIELDS):
        hint = f"; did you mean '0 {text}'?" if len(parts) == 5 else ""
        raise CronError(
            f"--cron '{text}' has {len(parts)} fields; Kubeflow Pipelines reads six, seconds first "
            f"({', '.join(FIELDS)}){hint}"
        )
    fields = tuple(_field(part, place) for place, part in enumerate(parts))
    if not all(fields):
        raise CronError(f"--cron '{text}' has a field without any value")
    return Schedule(text, fields, any_day=any(_starred(part) for part in (parts[3], parts[5])))


def next_times(schedule: Schedule, after: datetime, count: int = 3) -> list[datetime]:
    """Returns the next `count` times.

    Raises:
        CronError: there is none in the next five years.
    """
    found = [at for at, _ in zip(schedule.times(after), range(count), strict=False)]
    if not found:
        raise CronError(f"--cron '{schedule.text}' never starts a run: there is no such day in the next {YEARS} years")
    return found


def _field(text: str, place: int) -> frozenset[int]:
    """Returns the values that a field allows, such as `1-5`, `*/10` or `mon,wed`."""
    low, high = BOUNDS[place]
    allowed: set[int] = set()
    for item in filter(None, text.split(",")):
        reach, _, step = item.partition("/")
        first, dash, last = reach.partition("-")
        if first in ("*", "?") and not dash:
            begin, end = low, high
        else:
            begin = _number(first, place, item)
            end = _number(last, place, item) if dash else high if step else begin
        stride = _number(step, 0, item, named=False) if "/" in item else 1
        if not (low <= begin <= end <= high and stride):
            raise CronError(f"--cron: {FIELDS[place]} '{item}' is not within {low} to {high}")
        allowed.update(range(begin, end + 1, stride))
    return frozenset(allowed)


def _number(text: str, place: int, item: str, named: bool = True) -> int:
    if named and text.lower() in NAMES[place]:
        return NAMES[place][text.lower()]
    if not re.fullmatch(r"\d+", text):
        raise CronError(f"--cron: {FIELDS[place]} '{item}' is not a number, a range or a star")
    return int(text)


def _starred(part: str) -> bool:
    return any(item[:1] in ("*", "?") for item in part.split(","))
