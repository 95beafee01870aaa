"""Phases with and without a stalled subscriber, in turn, on one worker.

Owns the order of a phase: the stall begins, messages are published on time, every healthy bot is waited for, the
stall ends, and the bot that was stalled catches up before the next phase begins. The phases differ in the stall and
in nothing else: the same processes, connections, bots and times of publication.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from . import machine
from .clients import Received, publish, subscribe
from .figures import Account, Latency, account, latency, total
from .processes import BenchFailed, Client, Worker
from .wire import Session

__all__ = ["Phase", "Plan", "Stage", "Stall"]

_CHANNEL = "news"
_ODD = "odd-one-out"

_CATCH_UP_SECONDS = 60.0
"""How long what is still on its way is waited for: a message that comes later counts as lost."""

_READY_SECONDS = 60.0
"""How long a client may take beyond what it was told to do."""

_LEAD_NANOSECONDS = 200_000_000
"""From the order to publish until the first message is due."""

_FILL_MESSAGES, _FILL_BYTES = 64, 64 * 1024
"""What a bot that does not read is sent at the beginning: more than the kernel keeps for a connection, so that the
rest waits in the worker, and half of what a session may have in flight."""


class Stall(StrEnum):
    """What one bot of all does not do."""

    ACKS = "never acks"
    READS = "never reads"
    STOPPED = "is stopped"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. `warm_seconds` are at the beginning of each phase, and do not count."""

    bots: int
    processes: int
    rate: float
    phase_seconds: float
    warm_seconds: float
    rounds: int
    seed: int = 1

    @property
    def warm_messages(self) -> int:
        """How many messages of a phase do not count."""
        return round(self.rate * self.warm_seconds)

    def due(self) -> list[float]:
        """Give the seconds at which messages are due: one in each interval, at a random place in it.

        Evenly spaced they would fall in and out of step with what the worker does on a timer. The places are the
        same in every phase.
        """
        chance = random.Random(self.seed)
        count = self.warm_messages + max(1, round(self.rate * self.phase_seconds))
        return [(index + chance.random()) / self.rate for index in range(count)]


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What one phase found. `latency` is of the bots that are never stalled, the same ones in every phase."""

    round: int
    stall: Stall | None
    load_before: float
    latency: Latency
    stored: Latency
    """How long after a message was due the publisher knew that it is on disk."""
    late: Latency
    """How long after a message was due the publisher sent it: the benchmark's own error."""
    delivered_per_second: float
    """From the moment at which the first message was due to the last receipt."""
    account: Account
    backlog: int
    """Messages that the worker owed the stalled bot at the end."""
    unsent_bytes: int | None
    """What the worker's kernel held then for the connection that took least."""
    caught_up_seconds: float
    """How long the stalled bot then took until it had everything."""
    odd_account: Account
    """Of the bot that may be stalled, after it has caught up."""


class Stage:
    """The worker and its clients: a context, in which phases are run one after another."""

    def __init__(self, plan: Plan, worker: Worker) -> None:
        self._plan = plan
        self._worker = worker
        self._published = 0
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<Stage on {self._worker!r} published={self._published}>"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # The bot that will stall subscribes first: each message is for it before it is for the others.
            self._odd = self._subscribers(stack, [_ODD], narrow=True)
            healthy = [f"bot-{number}" for number in range(1, self._plan.bots)]
            parts = [healthy[start :: self._plan.processes] for start in range(self._plan.processes)]
            self._healthy = [self._subscribers(stack, part, narrow=False) for part in parts]
            self._publisher = stack.enter_context(Client(publish, self._worker.url, _CHANNEL))
            self._publisher.answer(_READY_SECONDS)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _subscribers(self, stack: ExitStack, bots: Sequence[str], *, narrow: bool) -> Client:
        client = stack.enter_context(Client(subscribe, self._worker.url, _CHANNEL, bots, narrow))
        client.answer(_READY_SECONDS)
        return client

    def versions(self) -> dict[str, str]:
        """Give the versions that the worker names."""
        versions: dict[str, str] = self._ask("status")["versions"]
        return versions

    def run(self, round_number: int, stall: Stall | None) -> Phase:
        """Run one phase; raises BenchFailed where nothing at all arrives."""
        load_before = machine.load()
        first, warm = self._published + 1, self._plan.warm_messages
        with self._stalled(stall):
            due, late, stored = self._publish(first)
            taken = self._take(self._healthy)
            unsent_bytes = machine.unsent_bytes(self._worker.port)
            backlog = next(bot["backlog"] for bot in self._ask("bots")["bots"] if bot["name"] == _ODD)
        going_on = time.monotonic()
        [(_, odd_numbers, _)] = self._take([self._odd])
        caught_up_seconds = round(time.monotonic() - going_on, 3)
        counted = [
            (number - first, elapsed)
            for _, numbers, latencies in taken
            for number, elapsed in zip(numbers, latencies, strict=True)
            if number >= first + warm
        ]
        if not counted:
            raise BenchFailed(f"no message of a phase arrived at any healthy bot within {_CATCH_UP_SECONDS:g} s")
        ended = max(due[index] + elapsed for index, elapsed in counted)
        return Phase(
            round=round_number,
            stall=stall,
            load_before=load_before,
            latency=latency(elapsed for _, elapsed in counted),
            stored=latency(stored[warm:]),
            late=latency(late[warm:]),
            delivered_per_second=round(len(counted) / (ended - due[warm]) * 1e9, 1),
            account=total(account(numbers, first, self._published) for _, numbers, _ in taken),
            backlog=backlog,
            unsent_bytes=unsent_bytes,
            caught_up_seconds=caught_up_seconds,
            odd_account=account(odd_numbers, first, self._published),
        )

    def _publish(self, first: int) -> tuple[list[int], array[int], array[int]]:
        begin = time.monotonic_ns() + _LEAD_NANOSECONDS
        due = [begin + int(each * 1e9) for each in self._plan.due()]
        seconds = (due[-1] - begin) / 1e9 + _READY_SECONDS
        late, stored = self._publisher.ask("publish", first, due, seconds=seconds)
        self._published += len(due)
        return due, late, stored

    def _take(self, clients: Sequence[Client]) -> list[Received]:
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        for client in clients:
            client.tell("take", self._published, deadline)
        seconds = _CATCH_UP_SECONDS + _READY_SECONDS
        return [received for client in clients for received in client.answer(seconds)]

    @contextmanager
    def _stalled(self, stall: Stall | None) -> Iterator[None]:
        if stall is None:
            yield
            return
        if stall is Stall.STOPPED:
            self._odd.stop()
        else:
            self._odd.ask("stall", "acks" if stall is Stall.ACKS else "reads")
        if stall is not Stall.ACKS:
            self._publisher.ask("fill", _ODD, _FILL_MESSAGES, _FILL_BYTES)
        yield
        if stall is Stall.STOPPED:
            self._odd.go_on()
        else:
            self._odd.ask("resume")

    def _ask(self, op: str) -> Any:
        with zmq.Context() as context, Session(context, self._worker.url, "observer", credit=0) as session:
            value = session.request(op)
            session.request("goodbye")
        return value
