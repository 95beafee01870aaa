"""Workers that are killed at random moments under load, many times on one file: `python -m tests.crash.kills`.

Owns the round: start, wait for a random number of things to happen, kill; and the campaign: so many rounds on each
file, then a drain and the checker's verdict. The same seed makes the same load and the same choices; which moment
of the worker a kill meets is up to the machine. Where a promise was broken, the history and the database stay.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from store.sqlite.check import Check

from ..integration.wire_worker import Worker
from .bots import Shape
from .checker import check
from .load import CONFIGURATION, RULES, SESSION_TIMEOUT_SECONDS, Load
from .nursery import ForkedWorker, shared_nursery
from .recorder import Recorder, read_history
from .verdict import Verdict, Violation

__all__ = ["PAUSES", "ROUNDS_A_FILE", "Outcome", "kill_rounds", "kills", "play_round"]

ROUNDS_A_FILE = 40
"""Kills on one file before it is read to its end: a fault that a later kill could hide is still found."""

_EVENTS_MAX = 300
_ALL_EVENTS = 1_000_000
_LONG_SECONDS = 1.0
_ROUND_SECONDS = 10.0

_MOMENT_SECONDS = 0.03
"""A kill comes at most so much later than what it waited for, so that it meets moments at which nothing is said."""

PAUSES = 0.06
"""How seldom a worker is paused."""
_PAUSE_SECONDS = 1.2 * SESSION_TIMEOUT_SECONDS
"""For how long: until every session would be over."""

_STOPPING_SECONDS = 0.02
"""How long a worker may have been stopping when it is killed."""


class Outcome(msgspec.Struct):
    """What came of a campaign: the sum of the counts, and the folders of what was found wrong."""

    rounds: int = 0
    files: int = 0
    seconds: float = 0.0
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    broken: list[tuple[Path, Verdict]] = []

    def __str__(self) -> str:
        names = ("sent", "acknowledged", "unknown", "recovered", "delivered", "repeated", "confirmed")
        counted = ", ".join(f"{name} {self.counts[name]}" for name in names)
        return f"{self.rounds} kills, {self.files} files, {counted}: broken promises in {len(self.broken)} files"


def kill_rounds(worker: Worker, load: Load, *, rounds: int, chance: random.Random, pauses: float = PAUSES) -> None:
    """Kill a worker so many times, each at a random moment; it does not run afterwards.

    Now and then it is killed before it serves, or is stopped instead. Raises AssertionError where it ends by
    itself.
    """
    for _ in range(rounds):
        load.recorder.mark("started")
        worker.launch()
        way = chance.random()
        if way < 0.1:
            load.wait(_EVENTS_MAX, seconds=chance.uniform(0, 0.2))
        elif way < 0.2:  # long enough for what is only written now and then
            load.wait(_EVENTS_MAX // 3, seconds=_ROUND_SECONDS)
            load.wait(_ALL_EVENTS, seconds=chance.uniform(0.4, _LONG_SECONDS))
        else:
            load.wait(chance.randint(1, _EVENTS_MAX), seconds=_ROUND_SECONDS)
            time.sleep(chance.uniform(0, _MOMENT_SECONDS))
        if chance.random() < pauses:
            _pause(worker, load, chance)
        if worker.has_ended():
            raise AssertionError(f"the worker ended by itself:\n{worker.log_tail()}")
        _end(worker, load.recorder, chance)


def _pause(worker: Worker, load: Load, chance: random.Random) -> None:
    """Stop a worker for longer than a session may be silent, and let it go on for a while."""
    load.recorder.mark("paused")
    worker.signal(signal.SIGSTOP)
    time.sleep(_PAUSE_SECONDS + chance.random())
    load.recorder.mark("continued")
    worker.signal(signal.SIGCONT)
    load.wait(chance.randint(1, _EVENTS_MAX), seconds=_ROUND_SECONDS)


def _end(worker: Worker, recorder: Recorder, chance: random.Random) -> None:
    """Kill a worker, mostly; now and then stop it in order, or kill it while it stops."""
    way = chance.random()
    if way < 0.2:
        worker.signal(signal.SIGTERM)
    if way < 0.1:
        # An end by the signal itself is that of a worker that did not listen to it yet.
        if worker.exit_code() not in (0, -signal.SIGTERM):
            raise AssertionError(f"the worker did not stop in order:\n{worker.log_tail()}")
        recorder.mark("stopped")
        return
    if way < 0.2:
        recorder.mark("stopping")
        time.sleep(chance.uniform(0, _STOPPING_SECONDS))
    worker.kill()
    recorder.mark("killed")


def one_file(
    worker: Worker, directory: Path, *, seed: int, rounds: int, pauses: float = PAUSES, watchers: int = 1
) -> Verdict:
    """Kill a worker on one new file, bring it back, stop it in order, and judge what it did and what it left."""
    with Recorder(directory / "history.jsonl") as recorder:
        with Load(worker.command, recorder=recorder, seed=seed, shape=Shape(packers=1, watchers=watchers)) as load:
            load.start()
            kill_rounds(worker, load, rounds=rounds, chance=random.Random(seed), pauses=pauses)
            recorder.mark("started")
            worker.start()
            final = load.drain()
        worker.signal(signal.SIGTERM)
        if worker.exit_code() != 0:
            raise AssertionError(f"the worker did not stop in order:\n{worker.log_tail()}")
        recorder.mark("stopped")
        (directory / "final.json").write_bytes(msgspec.json.encode(final))
    verdict = check(read_history(recorder.path), final, RULES)
    verdict.counts["freed_bytes"] = load.freed_bytes
    reading = Check(worker.database)
    for _ in reading.run():
        pass
    verdict.violations.extend(Violation("damage", line) for line in reading.damage)
    return verdict


def kills(
    directory: Path,
    *,
    seed: int,
    lie: str | None = None,
    rounds_a_file: int = ROUNDS_A_FILE,
    pauses: float = PAUSES,
    watchers: int = 1,
) -> Iterator[Outcome]:
    """Kill workers for ever, which may tell a lie; give what came of it so far after each file.

    Each file has a folder of its own, which is removed where nothing was broken.
    """
    outcome, chance, began = Outcome(), random.Random(seed), time.monotonic()
    while True:
        folder = directory / f"file-{outcome.files}"
        folder.mkdir()
        with closing(ForkedWorker(folder, CONFIGURATION, shared_nursery(), lie=lie)) as worker:
            own = chance.randrange(2**63)
            verdict = one_file(worker, folder, seed=own, rounds=rounds_a_file, pauses=pauses, watchers=watchers)
        outcome.rounds += rounds_a_file
        outcome.files += 1
        outcome.counts.update(verdict.counts)
        outcome.seconds = time.monotonic() - began
        if verdict.ok:
            shutil.rmtree(folder)
        else:
            outcome.broken.append((folder, verdict))
        yield outcome


# ── As one of the kinds ──────────────────────────────────────────────────────────────────────────────────


def play_round(seed: int) -> Counter[str]:
    """Kill a worker many times on one file; AssertionError where a promise was broken."""
    folder = Path(tempfile.mkdtemp(prefix="posthouse-kills-"))
    with closing(ForkedWorker(folder, CONFIGURATION, shared_nursery())) as worker:
        verdict = one_file(worker, folder, seed=seed, rounds=ROUNDS_A_FILE)
    if not verdict.ok:
        error = AssertionError("\n".join(map(str, verdict.violations)))
        error.add_note(f"what there is to look at lies in {folder}")
        raise error
    shutil.rmtree(folder)
    return Counter(verdict.counts)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.kills", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how many kills  [200]")
    parser.add_argument("--seed", type=int, help="play this load again  [a new one, which is printed]")
    parser.add_argument("--lie", help="break the worker on purpose; see tests/crash/lies.py")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    directory = Path(tempfile.mkdtemp(prefix="posthouse-kills-"))
    print(f"seed {seed}, in {directory}", flush=True)
    for outcome in kills(directory, seed=seed, lie=options.lie):
        print(f"\r{outcome}; {outcome.seconds / outcome.rounds:.2f} s a round ", end="", flush=True)
        if outcome.rounds >= options.rounds:
            break
    print()
    for folder, verdict in outcome.broken:
        print(f"{folder}:\n{verdict}")
    if outcome.broken:
        sys.exit(1)
    directory.rmdir()


if __name__ == "__main__":
    _main()
