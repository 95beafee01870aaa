"""Frames that are nearly right, at a whole worker with its store: `python -m tests.crash.frames`.

Owns the rounds: some hundred frames out of `tests.fuzz.mutations` from two sockets, which say hello again now and
then. What the plays on a core cannot show is shown here: questions, workflow calls and commits meet the database.
No answer is `internal`, nothing is logged as an exception, and a neighbour is served all the time.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

from ..fuzz.mutations import CLIENT_FRAMES, mutated, nonsense
from ..integration.wire import Session, to_bot
from ..integration.wire_worker import Worker
from .command import Outcome, Progress, campaign, play

__all__ = ["frames", "play_round"]

_FRAMES_A_ROUND = 300
_ROUNDS = 20
_AT_ONCE = 20
"""Frames that are sent before their answers are waited for."""


def _hello(session: Session, bot: str) -> None:
    session.send(op="hello", request=0, protocol=1, bot=bot, max_in_flight=20)


def _answers(session: Session) -> list[bytes]:
    """Give all that was said up to the answer of a ping."""
    said: list[bytes] = []
    session.send_raw(b'{"op":"ping"}')
    while True:
        frame = session.receive()
        if frame["op"] == "pong" or frame.get("code") == "unknown_session":
            return said
        said.append(session.raw)


def _pester(session: Session, chance: random.Random, count: int) -> list[str]:
    """Send some frames, and give the answers that nobody should get, with what was sent before them."""
    sent = []
    for _ in range(count):
        frame = chance.choice(CLIENT_FRAMES)
        raw = nonsense(frame, chance) if chance.random() < 0.1 else mutated(frame, chance)
        sent.append(raw)
        session.send_raw(raw)
    wrong = [raw for raw in _answers(session) if json.loads(raw).get("code") == "internal"]
    return [f"{raw!r} came after {sent!r}" for raw in wrong]


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
                outcome.faults += _pester(pest, chance, _AT_ONCE)
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
