"""Other systems' batches, where a server is installed: an answer means all of a batch, and each message is stored.

Nothing here looks at how long anything took.
"""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from bench.comparison import Comparison, Plan
from bench.names import PUBLISH_100, PUBLISH_1000, PUBLISH_SINGLES
from bench.peers.jetstream import JetStream, JetStreamAtomic, JetStreamFast, JetStreamSyncing
from bench.peers.jetstream_batches import check
from bench.peers.rabbitmq import RabbitMQ
from bench.peers.redis import RedisAlways, RedisEverySecond
from bench.processes import BenchFailed
from bench.results import Report
from bench.systems import System, ThroughBus, WithFrames
from bench.workloads import WORKLOADS, Scale

SYSTEMS: list[type[System]] = [
    ThroughBus,
    JetStreamSyncing,
    JetStreamFast,
    JetStream,
    JetStreamAtomic,
    RedisAlways,
    RedisEverySecond,
    RabbitMQ,
]

PAIRS = [
    pytest.param(workload, system, id=f"{workload}-{system.name}")
    for system in SYSTEMS
    for workload in (PUBLISH_SINGLES, PUBLISH_100, PUBLISH_1000)
    if system.takes(workload)
]

MESSAGES = 1_000
"""Of each sender: a batch of a thousand, or ten of a hundred."""


@pytest.mark.parametrize(("workload", "system"), PAIRS)
def test_as_many_are_stored_as_were_acknowledged(workload: str, system: type[System]) -> None:
    if (why := system.missing()) is not None:
        pytest.skip(why)
    scale = Scale(seconds=0.2, latency_seconds=0.1, deliveries=1_000, messages=MESSAGES)
    report = Report(machine={}, versions={}, promises={})
    plan = Plan(rounds=1, scale=scale, systems=[system], workloads=[])
    figures = Comparison(plan, report, Console(file=StringIO())).measure(workload, system, WORKLOADS[workload], 1)
    assert report.failures == []
    assert figures is not None
    assert 0 < figures["acknowledged"] <= 2 * MESSAGES


def test_batches_of_both_kinds_are_measured_where_they_differ() -> None:
    for system in (JetStreamFast, JetStreamAtomic):
        assert system.takes(PUBLISH_100)
        assert not system.takes(PUBLISH_SINGLES)
    assert all(WithFrames.takes(name) for name in WORKLOADS)
    assert not RedisAlways.takes("one to a hundred")


@pytest.mark.parametrize(
    "answer",
    [
        {"stream": "BENCH", "seq": 99, "batch": "b", "count": 99},
        {"stream": "BENCH", "seq": 100},
        {"error": {"code": 400, "description": "batch publish is incomplete"}, "stream": "BENCH", "count": 100},
        {"type": "err", "seq": 7, "error": {"code": 400}},
        {"type": "gap", "last_seq": 3, "seq": 5},
    ],
)
def test_an_answer_to_less_than_the_batch_is_a_failure(answer: dict[str, Any]) -> None:
    with pytest.raises(BenchFailed, match="a batch of 100 was answered with"):
        check(answer, 100)


def test_an_answer_to_the_whole_batch_is_taken() -> None:
    check({"stream": "BENCH", "seq": 100, "batch": "b", "count": 100}, 100)
