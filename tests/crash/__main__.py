"""Everything that may go wrong, for as long as there is time: `python -m tests.crash`, or `make crash`.

Owns the turns that the kinds take, and the table of what came of it, as it stands in docs/reliability.md. A round
that breaks a promise is named with its seed, and the others go on; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import random
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor

from .kinds import KINDS_OF_FAULTS, Kind
from .verdict import KINDS

__all__ = ["Row", "table"]

_HEAD = ("kind", "rounds", "faults", "acknowledged", "lost", "duplicated", "out of order", "command")


class Row:
    """What came of one kind so far."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.rounds = 0
        self.broken: list[str] = []
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0

    def took(self, seconds: float) -> None:
        """Note how long a round took: the kind with the least time has the next turn."""
        self.rounds += 1
        self.seconds += seconds

    def broke(self, seed: int, error: BaseException) -> None:
        """Note what a round said of a broken promise."""
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        self.broken.append(f"{self.kind.module}, seed {seed}: {text}")
        found = [line.split(":")[0] for line in str(error).splitlines()]
        self.counts.update(kind for kind in found if kind in KINDS)

    def cells(self) -> tuple[str, ...]:
        """Give the row of the table."""
        numbers = (self.counts[name] for name in (self.kind.faults, "acknowledged", *KINDS_SHOWN))
        return (
            self.kind.says,
            f"{self.rounds:,}",
            *(f"{number:,}" for number in numbers),
            f"`python -m {self.kind.module}`",
        )

    def parts(self) -> str:
        """Give the faults of which a kind has several, one by one."""
        return ", ".join(f"{part} {self.counts[part]:,}" for part in self.kind.parts())


KINDS_SHOWN = ("lost", "duplicated", "out_of_order")


def table(rows: list[Row]) -> str:
    """Give what came of it, in Markdown."""
    lines = [_HEAD, ("---",) * len(_HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _playable(rows: list[Row]) -> list[Row]:
    found = []
    for row in rows:
        reason = row.kind.why_not()
        if reason is None:
            found.append(row)
        else:
            print(f"{row.kind.module} is left out: {reason}", flush=True)
    return found


def _run(rows: list[Row], *, seconds: float, seed: int, jobs: int) -> None:
    """Let the kinds take turns until the time is over."""
    chance, deadline = random.Random(seed), time.monotonic() + seconds
    running: dict[Future[tuple[float, Counter[str]]], tuple[Row, int, float]] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(running) < jobs and time.monotonic() < deadline:
                waiting = Counter(row.kind.module for row, _, _ in running.values())
                row = min(rows, key=lambda row: (waiting[row.kind.module], row.seconds))
                own = chance.randrange(2**32)
                running[pool.submit(row.kind.play_timed, own)] = (row, own, time.monotonic())
            if not running:
                return
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                row, own, began = running.pop(future)
                try:
                    took, counted = future.result()
                    row.counts.update(counted)
                except Exception as error:
                    took = time.monotonic() - began
                    row.broke(own, error)
                    print(f"\n{row.broken[-1]}", flush=True)
                row.took(took)
            _progress(rows, deadline - time.monotonic())


def _progress(rows: list[Row], left: float) -> None:
    told = [
        f"{row.kind.module.rpartition('.')[2]}: {row.rounds} rounds, {row.counts[row.kind.faults]} faults"
        for row in rows
    ]
    broken = sum(len(row.broken) for row in rows)
    print(f"\r{'; '.join(told)}; {broken} broken; {max(0, left):.0f} s left ", end="", flush=True)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long, in all  [3600]")
    parser.add_argument("--seed", type=int, help="play these rounds again  [a new one, which is printed]")
    parser.add_argument("--jobs", type=int, default=1, help="rounds side by side  [1]")
    parser.add_argument("--kind", action="append", help="only modules whose name ends like this; may be repeated")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    wanted = tuple(options.kind or ("",))
    rows = _playable([Row(kind) for kind in KINDS_OF_FAULTS if kind.module.endswith(wanted)])
    if not rows:
        parser.error("there is no such kind that can be played here")
    print(f"seed {seed}, {options.seconds:.0f} s, {len(rows)} kinds", flush=True)
    _run(rows, seconds=options.seconds, seed=seed, jobs=options.jobs)
    print(f"\n\n{table(rows)}")
    for row in rows:
        if parts := row.parts():
            print(f"\n{row.kind.module}: {parts}")
    broken = [text for row in rows for text in row.broken]
    print("\n".join(["", f"broken promises in {len(broken)} rounds", *broken]))
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    _main()
