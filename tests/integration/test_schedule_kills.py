"""A worker that is killed around the times of its schedules: each time starts one run, and none is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from bus.model.records import parse_timestamp

from .forked_worker import forked_worker
from .wire import Session
from .wire_worker import Worker

CONFIGURATION = """
[workflows]
sweep_seconds = 0.1
"""

KILLS = 12

SECONDS_MAX = 60


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with forked_worker(tmp_path_factory.mktemp("schedules"), CONFIGURATION) as running:
        yield running


def _call(session: Session, call: str, **arguments: Any) -> Any:
    return session.value("workflow", call=call, arguments=arguments)


def _fired(worker: Worker) -> int:
    with Session(worker) as session:
        session.hello("watcher", max_in_flight=0)
        return int(_call(session, "get_schedule", schedule_id="s")["fired"])


def test_each_time_starts_one_run_and_sends_one_message(process: Worker) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    with Session(process) as session:
        session.hello("starter", max_in_flight=0)
        _call(session, "save_definition", definition={"id": "w", "name": "w", "owner": {"type": "global"}})
        times = {"type": "interval", "seconds": 1.0}
        schedule = {"id": "s", "workflow_id": "w", "times": times, "bot": "starter"}
        _call(session, "save_schedule", schedule=schedule | {"catch_up": "all", "overlap": "allow"})
    for _ in range(KILLS):
        before, until = _fired(process), time.monotonic() + SECONDS_MAX
        while _fired(process) == before:
            assert time.monotonic() < until, process.log_tail()
            time.sleep(0.01)
        time.sleep(chance.random())  # somewhere between two times, or at one
        process.kill()
        process.start()
    runs, messages = _found(process)
    began = sorted(run["trigger_payload"]["at"] for run in runs)
    steps = {parse_timestamp(one) - parse_timestamp(other) for other, one in pairwise(began)}
    assert steps == {timedelta(seconds=1)}, "no time is left out, and none comes twice"
    assert len(began) >= KILLS
    assert sorted(body["run_id"] for body in messages) == sorted(run["id"] for run in runs)


def _found(worker: Worker) -> tuple[list[Any], list[Any]]:
    """Return the runs, and what the bot is told of them."""
    with Session(worker) as session:
        session.hello("starter", max_in_flight=1000)
        _call(session, "pause_schedule", schedule_id="s")
        runs = _call(session, "list_runs", workflow_id="w", limit=1000)
        told = session.take(len(runs))
        session.ping()
        return runs, [message["body"] for message in [*told, *session.waiting_deliveries()]]
