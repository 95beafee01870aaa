"""The disk reports an error at one system call of a scenario: the worker stops, and what it acknowledged is there.

    python -m tests.crash.bad_disks --rounds 100

Owns what an error is: one call that fails and after which the disk is as before, or a disk that fails from that
call on. In both cases nothing that was on its way may be acknowledged, and the worker has to end with exit code 74;
then it is started again on a disk that works.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..integration.wire_worker import SERVE
from . import tracing
from .player import Gone
from .rounds import command
from .scenario import ACTS, BOTS, RUN, Scenario
from .stage import Broken, Stage
from .tracing import FILES, LOCK, Point, why_not

__all__ = ["CALLS", "Failure", "every_failure", "fail_at", "main", "play_round", "why_not"]

_EXIT_IO, _EXIT_DATA = 74, 65

CALLS = {
    (0, FILES): {"fdatasync": 36, "pwrite64": 390, "pread64": 88},
    (0, LOCK): {"pwrite64": 6},
    (1, FILES): {"fdatasync": 10, "pwrite64": 82, "pread64": 52},
    (1, LOCK): {"pwrite64": 4},
}
"""How many calls an act makes, at which a disk can report an error."""


class Failure(NamedTuple):
    """Where an error comes: in this act, at this call; `lasting` says that the disk does not work any more then."""

    act: int
    point: Point
    lasting: bool

    def __str__(self) -> str:
        return f"an error in act {self.act}, {self.point}" + (" and all that follow" if self.lasting else "")

    @property
    def codes(self) -> tuple[int, ...]:
        """Give the exit codes that are right. SQLite takes some errors of reading for damage."""
        return (_EXIT_IO, _EXIT_DATA) if self.point.call == "pread64" else (_EXIT_IO,)

    @property
    def fault(self) -> str:
        """Say it in strace's words."""
        return f"{self.point.call}:error=EIO:when={self.point.number}" + ("+" if self.lasting else "")


def every_failure() -> Iterator[Failure]:
    """Give all of them."""
    for (act, place), calls in CALLS.items():
        for call, made in calls.items():
            for number in range(1, made + 1):
                point = Point(call, place, number)
                yield from (Failure(act, point, lasting) for lasting in (False, True))


def fail_at(failure: Failure, *, large: bool = False) -> Counter[str]:
    """Play, let the disk report an error there, and judge; gives what was counted."""
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        scenario = Scenario(stage.worker, stage.recorder, large=large)
        try:
            code, unasked = _play(stage, scenario, failure)
            injected = b"(INJECTED)" in (stage.folder / "calls").read_bytes()
            if injected and code not in failure.codes:
                raise Broken(f"the worker ended with {code} after an error of the disk:\n{stage.worker.log_tail()}")
            counted = stage.judge(BOTS, [RUN], scenario.sent)
        except AssertionError as error:
            error.add_note(str(failure))
            raise
        acknowledged = counted["acknowledged"]
        return Counter(rounds=1, reached=int(injected), unasked=int(unasked), acknowledged=acknowledged)


def _play(stage: Stage, scenario: Scenario, failure: Failure) -> tuple[int, bool]:
    """Play until a worker met the error; give its exit code, and whether it ended without being told to."""
    for act in range(ACTS):
        serve = list(SERVE)
        if act == failure.act:
            record = stage.folder / "calls"
            serve = tracing.trace(
                SERVE, stage.worker.database, record, place=failure.point.place, fault=failure.fault
            )
        unasked = False
        try:
            stage.start(serve)
            scenario.play(act)
            code = stage.stop()
        except Gone:
            code, unasked = stage.ended(), True
        if act == failure.act:
            return code, unasked
        if code != 0:
            raise Broken(f"the worker ended with exit code {code}:\n{stage.worker.log_tail()}")
    raise AssertionError(f"no act {failure.act}")


def play_round(seed: int) -> Counter[str]:
    """Play the seed's own error: neighbouring seeds have different ones, until each was played."""
    failures = list(every_failure())
    random.Random(0).shuffle(failures)
    return fail_at(failures[seed % len(failures)])


main = command("bad_disks", play_round, why_not, rounds=100)

if __name__ == "__main__":
    main()
