"""A worker that is killed under a thousand bots, which all come back at once: `python -m tests.crash.herd`.

Owns the round: every bot has a session, and a message that it did not settle; the worker is killed and started; all
bots say hello in one moment. Each is welcomed and handed what waits for it, in a number of frames that grows with
the bots alone, and nobody's message is another one's. A round is one kill.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import zmq

from ..integration.wire import TIMEOUT_SECONDS, Session, to_bot
from ..integration.wire_worker import Worker
from .command import Outcome, Progress, campaign, play

__all__ = ["BOTS", "herds", "play_round"]

BOTS = 1000

_FRAMES_A_BOT = 2
"""A welcome and a deliver."""

Socket = zmq.Socket[bytes]


class Herd:
    """Many bots, each on a socket of its own, in one thread. `frames` counts what the worker sent."""

    def __init__(self, worker: Worker, bots: int) -> None:
        self.names = [f"bot-{number}" for number in range(bots)]
        self.frames = 0
        self._command = worker.command
        self._context: zmq.Context[Socket] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4 * bots)
        self._names: dict[Socket, str] = {}
        self._poller = zmq.Poller()

    def __repr__(self) -> str:
        return f"<Herd bots={len(self.names)} frames={self.frames}>"

    def close(self) -> None:
        self._leave()
        self._context.term()

    def _leave(self) -> None:
        for each in self._names:
            self._poller.unregister(each)
            each.close(0)
        self._names.clear()

    def hello(self) -> None:
        """Let every bot say hello, on a new socket, as clients do: what was sent into a dead one would be lost."""
        self._leave()
        self.frames = 0
        for name in self.names:
            each = self._context.socket(zmq.DEALER)
            self._names[each] = name
            self._poller.register(each, zmq.POLLIN)
            each.connect(self._command)
            frame = {"op": "hello", "request": 1, "protocol": 1, "bot": name, "max_in_flight": 10}
            each.send(json.dumps(frame).encode())

    def hear(self, wanted: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
        """Wait until every bot has got so many frames of each op, and give them, by op."""
        heard: dict[str, list[dict[str, Any]]] = {op: [] for op in wanted}
        deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
        while any(len(heard[op]) < count for op, count in wanted.items()):
            left = deadline - time.monotonic()
            ready = self._poller.poll(int(1000 * max(0.0, left)))
            if not ready and left <= 0:
                counted = {op: len(frames) for op, frames in heard.items()}
                raise AssertionError(f"{counted} frames came, and not {wanted}")
            for each, _ in ready:
                while each.poll(0):
                    frame = json.loads(each.recv())
                    self.frames += 1
                    heard.setdefault(frame["op"], []).append({**frame, "at": self._names[each]})
        return heard


def _return(worker: Worker, herd: Herd, sent: dict[str, str]) -> list[str]:
    """Kill the worker, start it, and let everybody come back at once."""
    worker.kill()
    worker.launch()
    count = len(herd.names)
    herd.hello()
    heard = herd.hear({"welcome": count, "deliver": count})
    faults = [f"{op}: {frames[0]}" for op, frames in heard.items() if op not in ("welcome", "deliver")]
    if {frame["bot"] for frame in heard["welcome"]} != set(herd.names):
        faults.append("not everybody was welcomed")
    for frame in heard["deliver"]:
        ids = [message["id"] for message in frame["messages"]]
        if ids != [sent[frame["at"]]]:
            faults.append(f"{frame['at']} was handed {ids}, and {sent[frame['at']]} waits for it")
    if herd.frames > _FRAMES_A_BOT * count:
        faults.append(f"{count} bots got {herd.frames} frames")
    return faults


def _send(worker: Worker, herd: Herd) -> dict[str, str]:
    """Send every bot a message; give their ids by the bots' names."""
    sent: dict[str, str] = {}
    with Session(worker) as sender:
        sender.hello("sender", max_in_flight=0)
        for start in range(0, len(herd.names), 500):
            messages = [to_bot(name, name) for name in herd.names[start : start + 500]]
            sender.publish(*messages)
            sent |= {message["recipient"]["bot"]: message["id"] for message in messages}
        sender.goodbye()
    return sent


def herds(directory: Path, rounds: int, seed: int, progress: Progress, *, bots: int = BOTS) -> Outcome:
    """Kill a worker under so many bots, so many times; `seed` chooses nothing here but the moment of the kill."""
    chance, outcome = random.Random(seed), Outcome()
    with Worker(directory) as worker:
        herd = Herd(worker, bots)
        try:
            herd.hello()
            herd.hear({"welcome": bots})
            sent = _send(worker, herd)
            herd.hear({"deliver": bots})
            for number in range(rounds):
                time.sleep(chance.uniform(0, 0.3))
                outcome.faults += _return(worker, herd, sent)
                outcome.counts["returns"] += bots
                progress(f"{number + 1} kills, {outcome.counts['returns']} returns, {herd.frames} frames")
        finally:
            herd.close()
    return outcome


def play_round(seed: int) -> Counter[str]:
    """Kill a worker under a thousand bots; AssertionError where one of them did not come back to its mail."""
    return play(herds, rounds=1, seed=seed)


main = campaign(herds, rounds=5, explain=__doc__)

if __name__ == "__main__":
    main()
