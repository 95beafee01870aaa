"""A wall clock that is set while the worker runs: what waits is neither early nor late, the log's time goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bus.core.effects import Moment
from bus.core.steady import LogTime
from bus.model.records import parse_timestamp, timestamp
from bus.settings import RetentionSettings, Settings
from bus.wire.frames import Ping, ToBot, ToChannel

from .worker import Worker, delivered, published

HOUR = timedelta(hours=1)
YEARS = timedelta(days=24 * 365)


class Clocked(Worker):
    """A worker whose wall clock somebody may set."""

    set_by = timedelta()

    @property
    def moment(self) -> Moment:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        return Moment(self.now, timestamp(start + timedelta(seconds=self.now - 100) + self.set_by))


@pytest.mark.parametrize("set_by", [timedelta(), HOUR, -HOUR, YEARS, timedelta(seconds=-0.2)], ids=str)
def test_a_delay_is_neither_early_nor_late(set_by: timedelta) -> None:
    worker = Clocked()
    worker.hello("a")
    worker.say(b"a", published(ToBot(bot="a"), delay=5.0))
    worker.commit()
    worker.tick(1)
    worker.set_by = set_by
    assert delivered(worker.settle(3)) == []
    assert [message["seq"] for message in delivered(worker.settle(1))] == [1]


def test_a_delay_is_not_over_because_the_log_is_ahead_of_the_clock() -> None:
    worker = Clocked()
    worker.hello("a")
    worker.set_by = HOUR
    worker.say(b"a", published(ToBot(bot="a")))
    worker.commit()
    worker.set_by = timedelta()
    worker.restart()
    worker.hello("a")
    worker.say(b"a", published(ToBot(bot="a"), delay=2.0))
    worker.say(b"a", published(ToBot(bot="a"), delay=10.0))
    worker.commit()
    assert [message["seq"] for message in delivered(worker.settle(2))] == [2]
    assert delivered(worker.settle(7)) == []
    assert [message["seq"] for message in delivered(worker.settle(1))] == [3]


def test_the_logs_time_never_goes_back_and_never_stands_still() -> None:
    worker = Clocked()
    worker.hello("a", max_in_flight=0)
    for set_by in (timedelta(), YEARS, timedelta(), -HOUR, HOUR):
        worker.set_by = set_by
        for _ in range(3):
            worker.now += 10
            worker.say(b"a", published(ToChannel("news")))
            worker.commit()
    stamps = [message.timestamp for message in worker.log.messages.values()]
    assert stamps == sorted(set(stamps))
    assert worker.core.log_ahead(worker.moment.wall) > YEARS.total_seconds() / 2
    assert parse_timestamp(stamps[-1]) - parse_timestamp(stamps[4]) == timedelta(seconds=100)


def test_the_clock_catches_up_with_a_log_that_is_a_little_ahead() -> None:
    time = LogTime("2026-01-01T01:00:00.000000Z")
    assert time.at(0, "2026-01-01T00:00:00.000000Z") == "2026-01-01T01:00:00.000000Z"
    assert time.ahead("2026-01-01T00:00:00.000000Z") == 3600
    assert time.at(3600, "2026-01-01T01:00:00.000000Z") == "2026-01-01T01:00:00.000000Z"
    time.stamped("2026-01-01T01:00:00.000000Z", 1800)
    assert time.at(3000, "2026-01-01T00:50:00.000000Z") == "2026-01-01T01:10:00.000000Z"
    assert time.at(9000, "2026-01-01T02:30:00.000000Z") == "2026-01-01T02:30:00.000000Z"


def aging() -> Clocked:
    worker = Clocked(Settings(retention=RetentionSettings(sweep_seconds=1.0, age_seconds=100.0)))
    worker.hello("a")
    return worker


def send(worker: Clocked, count: int = 2) -> None:
    worker.say(b"a", published(*[ToChannel("news")] * count))
    worker.commit()


def pass_time(worker: Clocked, seconds: int) -> None:
    for _ in range(seconds // 5):
        worker.say(b"a", Ping())
        worker.settle(5)


@pytest.mark.parametrize("set_by", [HOUR, YEARS, -HOUR, -YEARS], ids=str)
def test_messages_age_as_time_passes_whatever_the_clock_is_set_to(set_by: timedelta) -> None:
    worker = aging()
    send(worker)
    pass_time(worker, 20)
    worker.set_by = set_by
    send(worker)
    pass_time(worker, 70)
    assert list(worker.log.messages) == [1, 2, 3, 4], "none is older than 100 s"
    pass_time(worker, 15)
    assert list(worker.log.messages) == [3, 4]


def test_one_message_from_the_far_future_does_not_keep_the_others() -> None:
    worker = aging()
    send(worker)
    worker.set_by = YEARS
    send(worker)
    worker.set_by = timedelta()
    worker.restart()
    worker.hello("a")
    pass_time(worker, 50)
    send(worker)
    assert list(worker.log.messages) == [1, 2, 3, 4, 5, 6]
    pass_time(worker, 65)
    assert list(worker.log.messages) == [5, 6]
    pass_time(worker, 50)
    assert list(worker.log.messages) == [6], "the last one stays"
