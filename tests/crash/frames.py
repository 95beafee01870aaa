"""Frames that are nearly right, at a whole worker with its store: `python -m tests.crash.frames`.

Owns the rounds: some hundred frames out of `tests.fuzz.mutations` from two sockets, which say hello again now and
then. What the plays on a core cannot show is shown here: questions, workflow calls and commits meet the database.
No answer is `internal`, nothing is logged as an exception, and a neighbour is served all the time.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

from ..fuzz.mutations import CLIENT_FRAMES, mutated, nonsense
from ..integration.wire import FRAME_BYTES_MAX, TIMEOUT_SECONDS, Session, to_bot
from ..integration.wire_worker import Worker
from .command import Outcome, Progress, campaign, play

__all__ = ["frames", "pester", "play_round"]

_FRAMES_A_ROUND = 300
_ROUNDS = 20
_AT_ONCE = 20
"""Frames that are sent before their answers are waited for."""

_READ_BYTES_MAX = FRAME_BYTES_MAX + 16 * 1024
"""ZeroMQ drops the connection of whoever sends more in a frame, and with it what was sent behind that frame."""

_REPEAT_SECONDS = 1.0


def _hello(session: Session, bot: str) -> None:
    session.send(op="hello", request=0, protocol=1, bot=bot, max_in_flight=20)


def _answers(session: Session, *, dropped: bool) -> list[bytes]:
    """Return what was said up to the answer of a ping. A connection that is `dropped` may take pings with it."""
    said: list[bytes] = []
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        session.send_raw(b'{"op":"ping"}')
        while (frame := session.poll(_REPEAT_SECONDS if dropped else TIMEOUT_SECONDS)) is not None:
            if frame["op"] == "pong" or frame.get("code") == "unknown_session":
                return said
            said.append(session.raw)
        if time.monotonic() > deadline:
            raise AssertionError(f"nothing came for {TIMEOUT_SECONDS} s")


def _chosen(chance: random.Random, count: int) -> list[bytes]:
    """Choose frames that are nearly right, or nonsense."""
    frames = [chance.choice(CLIENT_FRAMES) for _ in range(count)]
    return [nonsense(frame, chance) if chance.random() < 0.1 else mutated(frame, chance) for frame in frames]


def pester(session: Session, sent: list[bytes]) -> list[str]:
    """Send frames, and return the answers that nobody should get, with what was sent before them."""
    for raw in sent:
        session.send_raw(raw)
    said = _answers(session, dropped=any(len(raw) > _READ_BYTES_MAX for raw in sent))
    return [f"{raw!r} came after {sent!r}" for raw in said if json.loads(raw).get("code") == "internal"]


def frames(directory: Path, rounds: int, seed: int, progress: Progress) -> Outcome:
    """Send a worker so many rounds of bad frames, and say what came of them that should not."""
    chance, outcome = random.Random(seed), Outcome()
    with Worker(directory) as worker:
        neighbour = worker.session("neighbour")
        for number in range(rounds):
            pests = [worker.session(), worker.session()]
            for bot, pest in zip("ab", pests, strict=True):
                _hello(pest, bot)
            for _ in range(_FRAMES_A_ROUND // _AT_ONCE):
                pest = chance.choice(pests)
                outcome.faults += pester(pest, _chosen(chance, _AT_ONCE))
                if chance.random() < 0.3:
                    _hello(pest, chance.choice("abc"))
                neighbour.publish(to_bot("neighbour", number))
                neighbour.settle("ack", *(message["seq"] for message in neighbour.take(1)))
            for pest in pests:
                pest.close()
            outcome.counts["frames"] += _FRAMES_A_ROUND
            progress(f"{outcome.counts['frames']} frames, {len(outcome.faults)} faults")
        logged = (directory / "worker.log").read_text(encoding="utf-8")
        outcome.faults += [line for line in logged.splitlines() if '"exception"' in line]
    return outcome


def play_round(seed: int) -> Counter[str]:
    """Send a worker bad frames; AssertionError where one of them is too much for it."""
    return play(frames, rounds=_ROUNDS, seed=seed)


main = campaign(frames, rounds=20, explain=__doc__)

if __name__ == "__main__":
    main()
