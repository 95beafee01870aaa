"""The turns of the systems: each is started anew, carries out the loads, and is ended.

Owns what is measured beside the process's own clock: the processor time of all of a system's processes, and what
other programs took meanwhile. A turn that others disturbed does not count, and is taken again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from .. import limits, machine
from ..processes import BenchFailed, Client
from ..workloads import Scale
from .contestants import DURABLE, Contestant
from .figures import SHORT, Failure, Figures, Plan, Turn
from .loads import LOADS, Loaded

__all__ = ["counts", "take_turns"]

_START_SECONDS = 120.0
"""Some packages take seconds to load on a machine that has much else to do."""

_ANSWER_SECONDS = 120.0
"""The longest that a load may take: a few seconds do on a quiet machine. A turn that hangs fails then."""

_WARM_SECONDS = 0.3
"""What is done once, such as connecting, is done in a load before those that count."""

_LOOK_SECONDS = 1.0
"""How long it is looked what others do, before a turn."""

_ATTEMPTS_MAX = 3

_PROBE = Scale(seconds=0.1, latency_seconds=0.1, deliveries=1)


def take_turns(
    plan: Plan,
    contestants: Sequence[Contestant],
    versions: dict[str, str],
    *,
    wait_seconds: float,
    profile: Path | None,
    tell: Callable[[Turn, bool], None],
    failed: Callable[[Failure, Sequence[str]], None],
) -> None:
    """Let every system have its turn in every round, and tell of each turn, whether it counts, or why it failed.

    A turn that failed, also one that took too long, is not taken again, and the others go on. What is told of it
    besides are the last lines of its server.

    A turn begins when others have no more than their share. If they do not come to rest within `wait_seconds`, this
    raises machine.Busy.
    """
    for number in range(plan.rounds):
        # Nobody is always first, or always after the same neighbour's dirty pages.
        first = number % len(contestants)
        turned = [*contestants[first:], *contestants[:first]]
        for contestant in turned if number % 2 == 0 else reversed(turned):
            for _ in range(_ATTEMPTS_MAX):
                if plan.others_max is not None:
                    machine.wait_until_quiet(plan.others_max, wait_seconds, look=_others_now)
                try:
                    turn = _turn(plan, contestant, number + 1, versions, profile)
                except BenchFailed as error:
                    failure = Failure(contestant.system.name, number + 1, str(error))
                    failed(failure, getattr(error, "__notes__", ()))
                    break
                tell(turn, counts(plan, turn))
                if counts(plan, turn):
                    break


def counts(plan: Plan, turn: Turn) -> bool:
    """Return whether a turn counts: others had no more than their share."""
    return plan.others_max is None or turn.others_cores <= plan.others_max


def _others_now() -> float:
    """Look how many cores are at work while nothing is measured."""
    began, before = time.monotonic(), machine.busy_seconds()
    time.sleep(_LOOK_SECONDS)
    return round((machine.busy_seconds() - before) / (time.monotonic() - began), 2)


def _turn(plan: Plan, contestant: Contestant, number: int, versions: dict[str, str], profile: Path | None) -> Turn:
    loads: dict[str, Figures] = {}
    others_seconds = seconds = 0.0
    sync_ms = limits.syncs(_PROBE)["p50_ms"]
    with ExitStack() as stack:
        place = stack.enter_context(contestant.place(profile))
        client = stack.enter_context(Client(contestant.work, *place.arguments))
        facts = client.answer(_START_SECONDS)
        versions.update(place.versions | facts.get("versions", {}))
        for said in [*facts.get("durability", ()), *([] if place.durability is None else [place.durability])]:
            if said not in DURABLE:
                raise BenchFailed(f"{contestant.system.name} keeps its checkpoints with {said}")
        warm = LOADS[SHORT if SHORT in contestant.loads else contestant.loads[0]]
        steps = client.ask(warm, _WARM_SECONDS, seconds=_ANSWER_SECONDS).steps
        for name in plan.loads:
            if name not in contestant.loads:
                continue
            busy, ours, server = machine.busy_seconds(), time.process_time(), _seconds(place.pid)
            done: Loaded = client.ask(LOADS[name], plan.seconds, seconds=_ANSWER_SECONDS)
            spent = done.processor_seconds + _seconds(place.pid) - server
            others_seconds += machine.busy_seconds() - busy - spent - (time.process_time() - ours)
            seconds += done.seconds
            steps += done.steps
            loads[name] = _figures(name, done, spent)
        kept = place.count()
    return Turn(
        round=number,
        system=contestant.system.name,
        others_cores=round(max(0.0, others_seconds / seconds), 2) if seconds else 0.0,
        sync_ms=sync_ms,
        loads=loads,
        steps=steps,
        kept=kept,
    )


def _seconds(pid: int | None) -> float:
    return 0.0 if pid is None else machine.tree_seconds(pid)


def _figures(load: str, done: Loaded, spent: float) -> Figures:
    count = done.steps if LOADS[load].steps is None else done.runs
    return Figures(round(count / done.seconds, 1), round(spent / count * 1e3, 4), done.run.p50_ms)
