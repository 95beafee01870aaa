"""Connections that come and go, in every way there is: `python -m tests.crash.connections`.

Owns the rounds: some bots say hello and goodbye, some vanish after their hello, some never say hello, some speak no
ZeroMQ and are half open, some listen at the tap to a topic of their own. When all are gone, the worker has as many
descriptors as before and no more memory, but for what grows to its size once. A round is a hundred connections.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import zmq

from ..integration.wire import TIMEOUT_SECONDS, Session, to_bot
from ..integration.wire_worker import Worker
from .command import Outcome, Progress, campaign, play

__all__ = ["CONFIGURATION", "connections", "descriptors", "memory_bytes", "play_round"]

_ROUNDS = 20

CONFIGURATION = """
[delivery]
session_timeout_seconds = 6.0
heartbeat_seconds = 1.0
"""
"""A bot that waits says `ping` every four seconds, and may wait as long as one that vanished counts as there."""

A_KIND = 20
"""Connections of each of the five kinds in a round."""

_BOTS = 40
"""They have names in common: a bot is kept for ever, and a connection is not."""

_LEAK_BYTES = 300
"""What a connection that is gone may leave behind on average: less than any record of it would take."""

_SLACK_BYTES = 6 * 1024 * 1024
"""How much memory comes and goes by itself."""


def descriptors(pid: int) -> int:
    """Give how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_bytes(pid: int) -> int:
    """Give what a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _one_round(worker: Worker, auditor: Session, chance: random.Random) -> None:
    """Open a hundred connections, use them a little, and end each in its way."""
    names = [f"bot-{chance.randrange(_BOTS)}" for _ in range(2 * A_KIND)]
    polite, rude = names[:A_KIND], names[A_KIND:]
    for name in polite:
        with Session(worker) as session:
            session.hello(name)
            session.subscribe("news")
            session.publish(to_bot(name, "to myself"))
            session.settle("ack", *[message["seq"] for message in session.take(1)])
            session.goodbye()
    for name in rude:
        with Session(worker) as session:
            session.hello(name)
    strangers = [Session(worker) for _ in range(A_KIND)]
    for stranger in strangers:
        stranger.send(op="ping")
    half_open = [worker.plain_connection() for _ in range(A_KIND)]
    for number, connection in enumerate(half_open):
        connection.sendall((b"\xff" + b"\0" * 8 + b"\x01\x7f")[: number % 12])
    topics = [f"channel/c-{chance.randrange(10**9)}\0head/x"[: chance.randint(3, 40)] for _ in range(A_KIND)]
    listeners = [worker.socket(zmq.SUB) for _ in topics]
    for listener, topic in zip(listeners, topics, strict=True):
        listener.connect(worker.tap)
        listener.subscribe(topic.encode())
    auditor.ping()
    for stranger in strangers:
        stranger.close()
    for connection in half_open:
        connection.close()
    for listener in listeners:
        listener.close()


def _wait_until_gone(worker: Worker, auditor: Session, before: int) -> int:
    """Wait until nobody else is connected; give the descriptors that are open then, or at the end of the time."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if auditor.value("status")["sessions"] == 1 and descriptors(worker.pid) <= before:
            break
        time.sleep(0.1)
    return descriptors(worker.pid)


def connections(directory: Path, rounds: int, seed: int, progress: Progress) -> Outcome:
    """Let connections come and go for so many rounds; say what of them stays."""
    chance = random.Random(seed)
    with Worker(directory, CONFIGURATION) as worker:
        auditor = worker.session("auditor")
        auditor.value("status")
        before = descriptors(worker.pid)
        warm = rounds // 3
        memory = 0
        for number in range(rounds):
            if number == warm:
                _wait_until_gone(worker, auditor, before)
                memory = memory_bytes(worker.pid)
            _one_round(worker, auditor, chance)
            now = descriptors(worker.pid), memory_bytes(worker.pid) / 2**20
            progress(f"{100 * (number + 1)} connections, {now[0]} descriptors, {now[1]:.1f} MiB")
        after = _wait_until_gone(worker, auditor, before)
        grown = memory_bytes(worker.pid) - memory
    faults: list[str] = []
    if after > before:
        faults.append(f"{after} descriptors are open, and {before} were")
    allowed = _SLACK_BYTES + _LEAK_BYTES * 100 * (rounds - warm)
    if grown > allowed:
        faults.append(f"{100 * (rounds - warm)} connections left {grown} bytes behind")
    return Outcome(Counter(connections=100 * rounds), faults)


def play_round(seed: int) -> Counter[str]:
    """Let connections come and go; AssertionError where something of them stays."""
    return play(connections, rounds=_ROUNDS, seed=seed)


main = campaign(connections, rounds=100, explain=__doc__)

if __name__ == "__main__":
    main()
