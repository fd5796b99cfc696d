"""Schedules are parsed as the scheduler of Kubeflow Pipelines does."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.cron import CronError, next_times, parse_cron

SUNDAY = datetime(2026, 11, 29, 18, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "times"),
    [
        ("0 0 3 * * *", ["11-30 03:00:00", "12-01 03:00:00", "12-02 03:00:00"]),
        ("@daily", ["11-30 00:00:00", "12-01 00:00:00", "12-02 00:00:00"]),
        ("@hourly", ["11-29 19:00:00", "11-29 20:00:00", "11-29 21:00:00"]),
        ("@weekly", ["12-06 00:00:00", "12-13 00:00:00", "12-20 00:00:00"]),
        ("@every 1h30m", ["11-29 20:00:15", "11-29 21:30:15", "11-29 23:00:15"]),
        ("*/20 30 18 * * *", ["11-29 18:30:20", "11-29 18:30:40", "11-30 18:30:00"]),
        ("0 0 22 ? * MON-FRI", ["11-30 22:00:00", "12-01 22:00:00", "12-02 22:00:00"]),
        ("0 0 0 15 * 1", ["11-30 00:00:00", "12-07 00:00:00", "12-14 00:00:00"]),  # either day suffices
        ("0 0 0 */2 * 1", ["12-07 00:00:00", "12-21 00:00:00", "01-11 00:00:00"]),  # with a star, both must match
        ("0 30 18,20 29/1 NOV sun", ["11-29 20:30:00", "11-30 18:30:00", "11-30 20:30:00"]),
    ],
)
def test_the_next_times_are_those_of_the_server(cron, times):
    assert [f"{at:%m-%d %H:%M:%S}" for at in next_times(parse_cron(cron), SUNDAY)] == times


def test_times_keep_their_time_zone_and_come_after_the_moment_itself():
    at = datetime(2026, 11, 30, 3, tzinfo=UTC)
    (first,) = next_times(parse_cron("0 0 3 * * *"), at, 1)
    assert first == at + timedelta(days=1)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 3 * * *", "5 fields.*did you mean '0 0 3 "),
        ("0 3 * *", "4 fields"),
        ("0 0 0 3 * * 2026", "7 fields"),
        ("60 0 3 * * *", "second '60' is not within 0 to 59"),
        ("0 0 3 * * 7", "day of week '7' is not within 0 to 6"),
        ("0 0 9-5 * * *", "hour '9-5' is not within"),
        ("0 0 */0 * * *", "hour '\\*/0'"),
        ("0 0 noon * * *", "hour 'noon' is not a number"),
        ("@nightly", "@nightly' is unknown"),
        ("@every day", "unknown"),
        ("", "0 fields"),
    ],
)
def test_a_schedule_that_the_server_refuses_or_misreads_is_named_with_its_fix(cron, said):
    with pytest.raises(CronError, match=said):
        parse_cron(cron)


def test_a_day_that_never_comes_is_an_error():
    with pytest.raises(CronError, match="never starts a run"):
        next_times(parse_cron("0 0 3 31 feb ?"), SUNDAY)
