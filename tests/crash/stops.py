"""Clients that stand still for longer than a session may be silent, and go on: `python -m tests.crash.stops`.

Owns the rounds: two processes of the project's own client share a bot, and messages come all the time. One of them
is stopped while it has some in its hands, until the worker has ended its session and the other one has everything.
Then it is continued, and the other one is ended, so that it has to go on by itself. Nothing may be lost or given
up.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..integration.wire import TIMEOUT_SECONDS, Session, to_bot
from ..integration.wire_worker import REPOSITORY, Worker
from .command import Outcome, Progress, campaign, play

__all__ = ["Reader", "play_round", "stops"]

_CONFIGURATION = """
[delivery]
session_timeout_seconds = 2.0
heartbeat_seconds = 0.5
"""

_BOT = "pair"
_GLANCE_SECONDS = 0.02


class Reader:
    """A process of `reader`, and what it said."""

    def __init__(self, command: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.reader", command, _BOT], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT_SECONDS)
        self._thread.join(TIMEOUT_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def said(self, what: str) -> list[int]:
        """Give the seqs that it said this of."""
        return [line[what] for line in list(self.lines) if what in line]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait_for(self, what: str, count: int, *, keep_up: Session) -> None:
        """Wait until it said this so often, and keep somebody's session alive meanwhile."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self.said(what)) < count:
            assert self._process.poll() is None, "the client ended"
            assert time.monotonic() < deadline, f"the client said {what} {len(self.said(what))} times of {count}"
            keep_up.ping()
            time.sleep(_GLANCE_SECONDS)


def _status(session: Session) -> Any:
    return session.value("status")


def _wait(session: Session, what: str, wanted: int) -> None:
    """Wait until the worker counts so many sessions, or until so many messages wait for the bot."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (found := _count(session, what)) != wanted:
        assert time.monotonic() < deadline, f"{found} {what}, and not {wanted}"
        time.sleep(_GLANCE_SECONDS)


def _count(session: Session, what: str) -> int:
    if what == "sessions":
        return int(_status(session)["sessions"])
    return sum(int(bot["backlog"]) for bot in session.value("bots")["bots"])


def _one_round(worker: Worker, sender: Session, chance: random.Random) -> list[str]:
    """Stop one of two, and let the other one take over; then the other way round."""
    sent: list[int] = []

    def send(count: int) -> None:
        sent.extend(sender.publish(*(to_bot(_BOT, number) for number in range(count))))

    with Reader(worker.command) as one, Reader(worker.command) as other:
        one.wait_for("ready", 1, keep_up=sender)
        other.wait_for("ready", 1, keep_up=sender)
        send(60)
        one.wait_for("acked", chance.randint(1, 10), keep_up=sender)
        one.signal(signal.SIGSTOP)
        held = len(one.said("acked"))
        send(chance.randint(1, 40))
        _wait(sender, "sessions", 2)
        _wait(sender, "backlog", 0)
        one.signal(signal.SIGCONT)
        _wait(sender, "sessions", 3)
        other.signal(signal.SIGKILL)
        send(20)
        one.wait_for("acked", held + 20, keep_up=sender)
        _wait(sender, "backlog", 0)
    # The worker counts them as settled; so they were handed out, unless somebody forgot them.
    handed = {seq for reader in (one, other) for seq in reader.said("got")}
    faults = [f"{seq} was never handed out" for seq in sent if seq not in handed]
    dead = sender.value("dead_letters", bot=_BOT)["dead_letters"]
    return faults + [f"{letter['seq']} is a dead letter: {letter['reason']}" for letter in dead]


def stops(directory: Path, rounds: int, seed: int, progress: Progress) -> Outcome:
    """Stop clients so many times, and say what was lost."""
    chance, outcome = random.Random(seed), Outcome()
    with Worker(directory, _CONFIGURATION) as worker:
        sender = worker.session("sender", max_in_flight=0)
        for number in range(rounds):
            outcome.faults += _one_round(worker, sender, chance)
            _wait(sender, "sessions", 1)
            outcome.counts = Counter(stops=number + 1, acknowledged=_status(sender)["last_seq"])
            progress(f"{number + 1} stops, {outcome.counts['acknowledged']} messages")
    return outcome


def play_round(seed: int) -> Counter[str]:
    """Stop a client; AssertionError where something was lost."""
    return play(stops, rounds=1, seed=seed)


main = campaign(stops, rounds=10, explain=__doc__)

if __name__ == "__main__":
    main()
