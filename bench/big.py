"""What takes a while: a backlog of a million, ten million stored messages, and ten thousand bots.

Owns these workloads of posthouse, today's and the version before. The log of ten million is made once, and each of
its measurements stands beside one on an empty log, taken just before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
import uuid_utils
import zmq

from .comparison import Comparison
from .filling import fill
from .goals import BACKLOG, CONNECTED, EMPTY, FULL, RESTART
from .holding import hold
from .machine import memory_bytes
from .names import FRAMES
from .processes import DATABASE, QuickClient, data_folder
from .roles import Order, Sender
from .systems import WithFrames
from .wire import Session, WireError
from .workloads import Figures, LostMessages, Scale, drain, one_to_one

__all__ = ["BIG_WORKLOADS", "Big", "measure_big"]

_MAKING = "making the log"
BIG_WORKLOADS = frozenset({CONNECTED, BACKLOG, _MAKING, EMPTY, FULL, RESTART})

_BOTS_A_PROCESS = 5000
_READY_SECONDS = 60.0
_CONNECT_SECONDS = 320.0
_DELIVER_SECONDS = 120.0
_DRAIN_SECONDS = 600.0
_TRAFFIC = Order(count=20_000, window=4000, portion=100)
_MIB = 2**20
_FRAME_MESSAGES = 1000


class Big(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it there is, and how often it is measured."""

    stored: int = 10_000_000
    backlog: int = 1_000_000
    bots: int = 10_000
    rounds: int = 3


def measure_big(comparison: Comparison, big: Big, scale: Scale, systems: Sequence[type[WithFrames]]) -> None:
    """Measure it all in turns; what fails is noted, and the rest goes on."""
    for round_number in range(1, big.rounds + 1):
        for each in systems[:: 1 if round_number % 2 else -1]:
            comparison.note(CONNECTED, each.name, partial(_connect, each, big.bots), round_number)
            comparison.note(BACKLOG, each.name, partial(_drain, each, big.backlog, scale), round_number)
    for each in systems:
        if not each.reads_todays_files:
            comparison.leave_out(f"{each.name}, ten million stored", "its schema is not today's")
    on_log = [each for each in systems if each.reads_todays_files]
    with data_folder() as name:
        folder = Path(name)
        comparison.note(_MAKING, FRAMES, lambda: _fill(folder, big.stored), 1)
        for round_number in range(1, big.rounds + 1):
            for each in on_log[:: 1 if round_number % 2 else -1]:
                comparison.note(EMPTY, each.name, partial(_one_to_one, each, None, scale), round_number)
                comparison.note(FULL, each.name, partial(_one_to_one, each, folder, scale), round_number)
                comparison.note(RESTART, each.name, partial(_restart, each, folder), round_number)


def _drain(kind: type[WithFrames], messages: int, scale: Scale) -> Figures:
    with kind() as system:
        patient = msgspec.structs.replace(scale, seconds=0.0, messages=messages, catch_up_seconds=_DRAIN_SECONDS)
        figures = drain(system, patient)
        return figures | system.finish()


def _fill(folder: Path, messages: int) -> Figures:
    began = time.monotonic()
    fill(folder / DATABASE, messages)
    size = (folder / DATABASE).stat().st_size / _MIB
    return {"rate": messages / (time.monotonic() - began), "stored": messages, "file_mib": size}


def _one_to_one(kind: type[WithFrames], folder: Path | None, scale: Scale) -> Figures:
    with kind(folder=folder) as system:
        return one_to_one(system, scale) | system.finish()


def _restart(kind: type[WithFrames], folder: Path) -> Figures:
    """Kill the worker after traffic, and stop it in order: how long until it serves again, and a bot is welcome."""
    away = f"away-{time.monotonic_ns()}"  # nobody reads what it gets, in later rounds neither
    with kind(folder=folder) as system:
        system.register([away])
        producer = system.produce([Sender(bot="writer", number=1, to=away)])
        producer.ask(_TRAFFIC, seconds=_READY_SECONDS)
        stored = _last_seq(system.worker.url)
        system.worker.end(kill=True)
    killed, stopped = _ready_seconds(kind, folder, stored), _ready_seconds(kind, folder, stored)
    return {"ready_seconds": killed, "ready_in_order_seconds": stopped}


def _ready_seconds(kind: type[WithFrames], folder: Path, stored: int) -> float:
    began = time.monotonic()
    with kind.start(folder=folder) as worker:
        found = _last_seq(worker.url)
        seconds = time.monotonic() - began
    if found < stored:
        raise LostMessages(f"the log ended at {stored}, and ends at {found} after a restart")
    return seconds


def _last_seq(url: str) -> int:
    with zmq.Context() as context, Session(context, url, "observer", credit=0) as session:
        found = int(session.request("status")["last_seq"])
        session.request("goodbye")
    return found


def _connect(kind: type[WithFrames], bots: int) -> Figures:
    """Connect bots that the worker has not seen before, all at once; each then gets one message.

    The one that sends and the one that asks for the status are among the bots: the worker takes no more sessions.
    """
    names = [f"bot-{number}" for number in range(bots - 2)]
    parts = [names[first : first + _BOTS_A_PROCESS] for first in range(0, len(names), _BOTS_A_PROCESS)]
    with kind.start() as worker, ExitStack() as stack:
        before = memory_bytes(worker.pid)
        clients = [stack.enter_context(QuickClient(hold, worker.url, part)) for part in parts]
        for client in clients:
            client.answer(_READY_SECONDS)
        for client in clients:
            client.tell("connect")
        times = [client.answer(_CONNECT_SECONDS) for client in clients]
        connected = max(ended for _, ended in times) - min(began for began, _ in times)
        deadline = time.monotonic_ns() + int(_DELIVER_SECONDS * 1e9)
        for client in clients:
            client.tell("wait", deadline)
        began = time.monotonic()
        _send_each(worker.url, names)
        received = [count for client in clients for count in client.answer(_DELIVER_SECONDS + _READY_SECONDS)]
        delivered = time.monotonic() - began
        memory, sessions = memory_bytes(worker.pid), _sessions(worker.url, _DELIVER_SECONDS)
    if not all(received):
        raise LostMessages(f"{received.count(0)} of {len(names)} bots did not get their message")
    if sessions < len(names):
        raise LostMessages(f"{len(names)} bots were connected, {sessions} sessions are left")
    return {
        "connect_seconds": connected / 1e9,
        "memory_mib": memory / _MIB,
        "memory_before_mib": before / _MIB,
        "deliver_seconds": delivered,
    }


def _send_each(url: str, names: list[str]) -> None:
    with zmq.Context() as context, Session(context, url, "writer", credit=0) as session:
        for first in range(0, len(names), _FRAME_MESSAGES):
            session.publish(
                [
                    {
                        "id": str(uuid_utils.uuid7()),
                        "recipient": {"type": "direct", "bot": name},
                        "body": {"number": 1},
                    }
                    for name in names[first : first + _FRAME_MESSAGES]
                ]
            )
        session.request("goodbye")


def _sessions(url: str, patience_seconds: float) -> int:
    """Count the sessions; with ten thousand bots that ping, a busy worker may take its time to answer."""
    until = time.monotonic() + patience_seconds
    while True:
        try:
            with zmq.Context() as context, Session(context, url, "observer", credit=0) as session:
                found = int(session.request("status")["sessions"])
                session.request("goodbye")
            return found
        except WireError:
            if time.monotonic() > until:
                raise
