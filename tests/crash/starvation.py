"""A worker that may open no more files, while everybody wants to connect: `python -m tests.crash.starvation`.

Owns the rounds: the worker's limit is set just above what it has open, more connections come than it can take, and
two bots that were there before go on talking, and ask it everything it can be asked. They are served as ever; when
the others have gone, strangers are served again.
"""

from __future__ import annotations

import random
import resource
from collections import Counter
from pathlib import Path
from typing import Any

from ..integration.wire import Session, to_bot
from ..integration.wire_worker import Worker
from .command import Outcome, Progress, campaign, play
from .connections import CONFIGURATION, descriptors

__all__ = ["play_round", "starvations"]

_SPARE_MAX = 12
_CONNECTIONS = 40


def _limit(worker: Worker, most: int) -> None:
    """Set how many files a worker may have open."""
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (most, hard))


def _converse(one: Session, other: Session, turns: int) -> None:
    """Let two bots talk; each message is stored, delivered and settled."""
    for turn in range(turns):
        one.publish(*(to_bot("other", [turn, number, "x" * 2000]) for number in range(50)))
        other.settle("ack", *(message["seq"] for message in other.take(50)))


def _questions(turn: int) -> list[tuple[str, dict[str, Any]]]:
    """Give questions of every kind."""
    calls = [("save_definition", {"definition": {"id": "d", "name": "d", "owner": {"type": "global"}}}),
             ("list_definitions", {}), ("list_all_runs", {}), ("list_crashed_runs", {})]  # fmt: skip
    return [
        ("status", {}), ("bots", {}), ("channels", {}), ("subscriptions", {}), ("dead_letters", {}),
        ("history", {"between": ["one", "other"], "limit": 1000}), ("subscribe", {"channel": f"c-{turn}"}),
        *(("workflow", {"call": call, "arguments": arguments}) for call, arguments in calls),
    ]  # fmt: skip


def _starve(worker: Worker, one: Session, other: Session, *, spare: int, turn: int) -> list[str]:
    before = descriptors(worker.pid)
    _limit(worker, before + spare)
    crowd = [worker.plain_connection() for _ in range(_CONNECTIONS)]
    try:
        _converse(one, other, 3)
        answers = {op: one.ask(op, **fields) for op, fields in _questions(turn)}
        _converse(one, other, 3)
    finally:
        for each in crowd:
            each.close()
    with Session(worker) as stranger:
        stranger.hello("stranger")
        stranger.goodbye()
    _limit(worker, resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)[1])
    return [f"{op} was answered {frame}" for op, frame in answers.items() if frame["op"] == "error"]


def starvations(directory: Path, rounds: int, seed: int, progress: Progress) -> Outcome:
    """Let a worker run out of descriptors so many times; say whom that harmed."""
    chance, outcome = random.Random(seed), Outcome()
    for number in range(rounds):
        folder = directory / f"round-{number}"
        folder.mkdir()
        with Worker(folder, CONFIGURATION) as worker:
            one, other = worker.session("one"), worker.session("other")
            outcome.faults += _starve(worker, one, other, spare=chance.randint(1, _SPARE_MAX), turn=number)
            if "exception" in worker.log_tail():
                outcome.faults.append(worker.log_tail())
        outcome.counts["starvations"] += 1
        progress(f"{number + 1} starvations")
    return outcome


def play_round(seed: int) -> Counter[str]:
    """Let a worker run out of descriptors; AssertionError where that harmed anybody."""
    return play(starvations, rounds=1, seed=seed)


main = campaign(starvations, rounds=10, explain=__doc__)

if __name__ == "__main__":
    main()
