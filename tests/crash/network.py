"""A worker whose cable is pulled again and again under load: `python -m tests.crash.network`.

Owns the rounds: the load does something, the cable is pulled at one end or the other, for a moment or for longer
than a session may be silent, and put in again. When nobody is there any more who was cut off, every mailbox is read
until it is empty, and the checker judges. The worker runs all the time.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import msgspec

from ..integration.wire import TIMEOUT_SECONDS
from .checker import check
from .command import Outcome, Progress, campaign, play
from .history import PULLED_LONG
from .load import CONFIGURATION, RULES, Load
from .namespace import INSECURE, Namespace, NamespacedWorker, why_not
from .recorder import Recorder, read_history

__all__ = ["play_round", "pulls", "why_not"]

_PULLS_A_ROUND = 25

_EVENTS_MAX = 200
_ROUND_SECONDS = 30.0
_SHORT_SECONDS = 0.4
_LONG_SECONDS = 5.0
"""Longer than a session may be silent, and than the worker needs to see that a connection is dead."""

_LONG_SHARE = 0.04


def pull(namespace: Namespace, load: Load, chance: random.Random) -> None:
    """Let the load do something, pull the cable, and put it in again."""
    load.wait(chance.randint(1, _EVENTS_MAX), seconds=_ROUND_SECONDS)
    far, long = chance.random() < 0.5, chance.random() < _LONG_SHARE
    load.recorder.mark("pulled", f"{'far' if far else 'near'} end, {PULLED_LONG if long else 'short'}")
    namespace.pull(far=far)
    time.sleep(_LONG_SECONDS if long else chance.uniform(0, _SHORT_SECONDS))
    namespace.plug()
    load.recorder.mark("plugged")


def _wait_until_alone(worker: NamespacedWorker) -> None:
    """Wait until nobody who was cut off can be heard any more."""
    auditor = worker.session("auditor", max_in_flight=0)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while auditor.value("status")["sessions"] > 1:
        if time.monotonic() > deadline:
            raise AssertionError("sessions without a client do not end")
        time.sleep(0.2)
    worker.close_clients()


def pulls(directory: Path, rounds: int, seed: int, progress: Progress) -> Outcome:
    """Pull the cable of a new worker so many times under load, and judge what is left."""
    chance = random.Random(seed)
    with (
        Namespace() as namespace,
        NamespacedWorker(directory, INSECURE + CONFIGURATION, namespace) as worker,
        Recorder(directory / "history.jsonl") as recorder,
        Load(worker.command, recorder=recorder, seed=seed) as load,
    ):
        recorder.mark("started")
        load.start()
        for number in range(rounds):
            pull(namespace, load, chance)
            if worker.has_ended():
                raise AssertionError(f"the worker ended by itself:\n{worker.log_tail()}")
            progress(f"{number + 1} pulls, {recorder.events} events")
        load.stop()
        _wait_until_alone(worker)
        final = load.drain()
        (directory / "final.json").write_bytes(msgspec.json.encode(final))
    verdict = check(read_history(recorder.path), final, RULES)
    return Outcome(Counter(verdict.counts) + Counter(pulls=rounds), [str(each) for each in verdict.violations])


def play_round(seed: int) -> Counter[str]:
    """Pull the cable many times; AssertionError where a promise was broken."""
    return play(pulls, rounds=_PULLS_A_ROUND, seed=seed)


main = campaign(pulls, rounds=100, explain=__doc__, why_not=why_not)

if __name__ == "__main__":
    main()
