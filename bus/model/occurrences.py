"""When a schedule's times are: cron lines in their time zones, and intervals.

Owns the reading of cron lines, for which it needs the package cronsim (docs/decisions/0060-schedules.md). Its rules
for daylight saving, which are those of Debian's cron:

- A line for fixed times of the day comes once a day: at the hour that is left out, right after it, and at the hour
  that comes twice, the first time.
- A line with `*` or steps for its hours or minutes follows the time that really passes.

Pure: times are arguments, as text in the stored form.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from ..errors import InvalidValue
from .records import Record, parse_timestamp, timestamp

try:
    from cronsim import CronSim, CronSimError
except ImportError:  # it comes with the extra posthouse[schedules]
    CronSim = None  # type: ignore[assignment,misc]

__all__ = [
    "CRON_MISSING",
    "CronTimes",
    "IntervalTimes",
    "can_read_cron",
    "check_times",
    "latest_times",
    "next_time",
    "next_times",
]

CRON_MISSING = (
    "cron lines need the package cronsim where the worker runs, and it is not installed there:"
    " pip install 'posthouse[schedules]', and start the worker again"
)

_INTERVAL_SECONDS_MIN, _INTERVAL_SECONDS_MAX = 1.0, 100 * 365 * 86_400.0
"""A second, because the worker looks several times in one; and a hundred years, which is in the calendar."""


_CRON_FIELDS = 5

_CHANGE_HOURS_MAX = timedelta(hours=3)
"""More than any zone changes its time by."""


class CronTimes(Record, frozen=True, tag_field="type", tag="cron"):
    """The times of a cron line (minute, hour, day of the month, month, day of the week) in an IANA time zone."""

    line: str
    timezone: str = "UTC"


class IntervalTimes(Record, frozen=True, tag_field="type", tag="interval"):
    """Every so many seconds, beginning so many seconds after the schedule was saved."""

    seconds: float


def can_read_cron() -> bool:
    """Return True if cron lines can be read here."""
    return CronSim is not None


def check_times(times: CronTimes | IntervalTimes) -> None:
    """Raise InvalidValue, which says what is wrong, for times that never come."""
    if isinstance(times, IntervalTimes):
        if not _INTERVAL_SECONDS_MIN <= times.seconds <= _INTERVAL_SECONDS_MAX:
            text = f"an interval must be {_INTERVAL_SECONDS_MIN:g} to {_INTERVAL_SECONDS_MAX:g} s, not"
            raise InvalidValue("times", f"{text} {times.seconds:g}")
    elif next(_cron(times, datetime(2000, 1, 1, tzinfo=UTC)), None) is None:
        raise InvalidValue("times", f"the cron line {times.line!r} never comes")


def next_time(times: CronTimes | IntervalTimes, anchor: str, after: str) -> str | None:
    """Return the first time after another one; None if there is none in the next fifty years."""
    return next(next_times(times, anchor, after), None)


def next_times(times: CronTimes | IntervalTimes, anchor: str, after: str) -> Iterator[str]:
    """Yield the times after another one, in order."""
    start = parse_timestamp(after)
    found = _interval(times, start, anchor) if isinstance(times, IntervalTimes) else _one_by_one(times, start)
    return (timestamp(moment) for moment in found)


def latest_times(times: CronTimes | IntervalTimes, anchor: str, first: str, last: str, most: int) -> list[str]:
    """Return the times from `first` to `last`, both included, in order; of more than `most` the latest."""
    start, end = parse_timestamp(first), parse_timestamp(last)
    if isinstance(times, IntervalTimes):
        begun, step = parse_timestamp(anchor), _step(times)
        number, through = max(-((begun - start) // step), 1), (end - begun) // step
        return [timestamp(begun + step * each) for each in range(max(number, through - most + 1), through + 1)]
    # Backwards to where the latest ones begin, about; then forwards, because times are fired in that direction, and
    # around a change of the clock the two directions differ.
    backwards = (moment for moment in _cron(times, end + _CHANGE_HOURS_MAX, reverse=True) if moment <= end)
    nearly = list(islice(takewhile(lambda moment: moment >= start, backwards), most))
    begin = max(start, nearly[-1] - _CHANGE_HOURS_MAX) if len(nearly) == most else start
    found = takewhile(lambda moment: moment <= end, _one_by_one(times, begin - timedelta(microseconds=1)))
    return [timestamp(moment) for moment in found][-most:]


def _one_by_one(times: CronTimes, start: datetime) -> Iterator[datetime]:
    """Yield the times after another one, each as if it were asked for alone: that is how they are fired."""
    last: datetime | None = start
    while last is not None:
        # In an hour that comes twice, the first one found may be that of the first time.
        last = next((moment for moment in _cron(times, last) if moment > last), None)
        if last is not None:
            yield last


def _interval(times: IntervalTimes, after: datetime, anchor: str) -> Iterator[datetime]:
    begun, step = parse_timestamp(anchor), _step(times)
    number = max((after - begun) // step, 0)
    while True:
        number += 1
        try:
            yield begun + step * number
        except OverflowError:  # the end of the calendar
            return


def _step(times: IntervalTimes) -> timedelta:
    return timedelta(microseconds=round(times.seconds * 1_000_000))


def _cron(times: CronTimes, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Yield the times after another one, or before it if `reverse` is set."""
    if CronSim is None:
        raise InvalidValue("times", CRON_MISSING)
    try:
        zone = ZoneInfo(times.timezone)
    except (OSError, ValueError, KeyError):  # how zoneinfo reports names that are none
        text = f"{times.timezone!r} is not a time zone; use an IANA name such as Europe/Berlin, or UTC"
        raise InvalidValue("times", text) from None
    try:
        if len(times.line.split()) != _CRON_FIELDS:
            raise CronSimError(f"it has {len(times.line.split())} fields, and not {_CRON_FIELDS}")
        found = CronSim(times.line, start.astimezone(zone), reverse=reverse)
    except CronSimError as error:
        form = "minute, hour, day, month and weekday, such as 30 8 * * MON-FRI"
        raise InvalidValue("times", f"{times.line!r} is not a cron line ({error}); write {form}") from None
    return _in_the_calendar(found)


def _in_the_calendar(found: Iterator[datetime]) -> Iterator[datetime]:
    """Yield times in UTC, up to the end of the calendar."""
    with suppress(OverflowError):
        for moment in found:
            yield moment.astimezone(UTC)
