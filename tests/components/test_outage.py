"""A short outage of a server delays a step; a long one fails it."""

import pytest

from components.dvc import DvcError, is_outage
from components.outage import PAUSE_SECONDS, retry_during_outage


class Clock:
    """Clock that advances only in `sleep`."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def away_until(clock: Clock, back: float):
    def action() -> str:
        if clock.now < back:
            raise ConnectionError("away")
        return f"answered at {clock.now}"

    return action


def test_half_a_minute_is_outlasted():
    clock = Clock()
    answer = retry_during_outage(away_until(clock, 30), lambda _: True, "s3", 120, clock.sleep, lambda: clock.now)
    assert answer == "answered at 30.0"


def test_what_stays_away_fails_in_the_end():
    clock = Clock()
    with pytest.raises(ConnectionError):
        retry_during_outage(away_until(clock, 1e9), lambda _: True, "s3", 120, clock.sleep, lambda: clock.now)
    assert 120 - PAUSE_SECONDS <= clock.now <= 120


def test_another_error_passes_at_once():
    clock = Clock()
    with pytest.raises(ConnectionError):
        retry_during_outage(away_until(clock, 30), lambda _: False, "s3", 120, clock.sleep, lambda: clock.now)
    assert clock.now == 0


@pytest.mark.parametrize(
    ("text", "away"),
    [
        ('ERROR: failed to connect to s3 (data/dvc) - Could not connect to the endpoint URL: "http://s3/data"', True),
        ("ERROR: unexpected error - An error occurred (503) when calling HeadObject: Service Unavailable", True),
        ("WARNING: Some of the cache files do not exist neither locally nor on remote.", False),
        ("ERROR: failed to pull data from the cloud - An error occurred (403): Forbidden", False),
        (
            "ERROR: failed to connect to s3 (data/dvc) - Forbidden: An error occurred (403) when calling HeadObject",
            False,
        ),
    ],
)
def test_only_outages_among_dvcs_errors_are_retried(text, away):
    assert is_outage(DvcError(text)) == away
