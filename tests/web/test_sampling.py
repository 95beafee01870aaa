"""The samples of an hour: rates, gaps, and a worker that starts anew."""

from __future__ import annotations

from bus import connect
from bus.web.sampling import Samples
from bus.web.upstream import Upstream
from bus.wire.answers import WorkerStatus

HOUR_SECONDS = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def status(published: int) -> WorkerStatus:
    return WorkerStatus(
        started_at="2026-11-30T00:00:00.000000Z",
        uptime_seconds=2 * HOUR_SECONDS,
        epoch="e",
        last_seq=published,
        log_ahead_seconds=0,
        sessions=1,
        bots=1,
        channels=0,
        counters={"published": published, "delivered": 0, "settled": 0, "dead": 0},
        rates={},
        rate_limited=[],
        sizes={"database_bytes": 4096, "wal_bytes": 0},
        versions={},
    )


def samples(clock: Clock, *found: WorkerStatus | None) -> Samples:
    kept = Samples(Upstream(lambda: connect(bot="web")), clock)
    for each in found:
        kept.add(each)
        clock.now += 5
    return kept


def test_rates_are_those_between_samples() -> None:
    kept = samples(Clock(), status(0), status(10), None, status(30), status(5))
    messages, sessions, disk = kept.plots()
    published = messages.lines[0]
    assert (published.name, published.last, messages.top) == ("published", 1.0, 2)
    assert [len(stretch.split()) for stretch in published.stretches] == [1, 1]  # one gap: none answered, nor before
    assert [len(stretch.split()) for stretch in sessions.lines[0].stretches] == [2, 2]
    assert (disk.lines[0].last, disk.seconds) == (4096, 120)


def test_samples_are_those_of_an_hour() -> None:
    clock = Clock()
    kept = samples(clock, *(status(number) for number in range(2000)))
    assert len(kept.plots()[0].lines[0].stretches[0].split()) == HOUR_SECONDS / 5
    assert kept.plots()[0].seconds == HOUR_SECONDS
