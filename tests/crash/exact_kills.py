"""The worker is killed at one system call of a scenario, any one: what it acknowledged is there afterwards.

    python -m tests.crash.exact_kills --rounds 1102    # each call, without and with a power cut

Owns which calls there are. A run without a fault counts them; then one is tried by killing the worker in place of
it. In every other round the power is cut as well, so that what was not synced is gone too.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..integration.wire_worker import SERVE
from . import disk, tracing
from .disk import Disks
from .player import Gone
from .rounds import command
from .scenario import ACTS, BOTS, RUN, Scenario
from .stage import Broken, Stage
from .tracing import COPY, DATABASE, LOCK, Place, Point

__all__ = ["CALLS", "Kill", "count", "every_kill", "kill_at", "main", "play_round", "why_not"]

CALLS = {
    (0, DATABASE): {"fdatasync": 36, "pwrite64": 500, "ftruncate": 3, "unlink": 3},
    (0, LOCK): {"pwrite64": 6},
    (1, DATABASE): {"fdatasync": 12, "pwrite64": 95, "ftruncate": 2, "unlink": 1},
    (1, LOCK): {"pwrite64": 4},
}
"""How many calls an act makes, so that a seed draws the same one each time. `count` tells whether that is so still;
some calls depend on when the mailboxes are saved, so that it is a few more or fewer."""


COPYING = {"pwrite64": (1, 2, 10, 100, 1000, 2000, 3000, 3900, 3930, 4000, 4700), "fdatasync": (1, 2)}
"""Some of the calls by which a large second act is copied back from the WAL: under load first, then at its end."""


Counts = Mapping[tuple[int, Place], Mapping[str, int]]


class Kill(NamedTuple):
    """Where the worker is killed: in this act, at this call."""

    act: int
    point: Point

    def __str__(self) -> str:
        return f"act {self.act}, {self.point}"


def why_not() -> str | None:
    """Say why this cannot run here."""
    return tracing.why_not() or disk.why_not()


def count(*places: Place) -> Counts:
    """Play without a fault, and count the calls of each act."""
    counts: dict[tuple[int, Place], Counter[str]] = {}
    for place in places:
        with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
            scenario = Scenario(stage.worker, stage.recorder)
            for act in range(ACTS):
                record = stage.folder / f"calls-{act}"
                stage.start(tracing.trace(SERVE, stage.worker.database, record, place=place))
                scenario.play(act)
                pid = stage.worker.pid
                assert stage.stop() == 0
                counts[act, place] = tracing.count_calls(record, pid)
    return counts


def every_kill() -> Iterator[Kill]:
    """Give every call at which the worker can be killed."""
    for (act, place), calls in CALLS.items():
        for call, made in calls.items():
            yield from (Kill(act, Point(call, place, number)) for number in range(1, made + 1))
    for call, numbers in COPYING.items():
        yield from (Kill(1, Point(call, COPY, number)) for number in numbers)


def kill_at(kill: Kill, disks: Disks | None, chance: random.Random | None = None) -> Counter[str]:
    """Play, kill there, and judge; with `disks` the power is cut after the kill. Gives what was counted."""
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder), disks) as stage:
        scenario = Scenario(stage.worker, stage.recorder, large=kill.point.place == COPY)
        reached = _play(stage, scenario, kill)
        if disks is not None:
            stage.cut_power(chance)
        try:
            counted = stage.judge(BOTS, [RUN], scenario.sent)
        except AssertionError as error:
            error.add_note(f"killed at {kill}" + (", and the power cut" if disks is not None else ""))
            raise
        return Counter(
            rounds=1,
            reached=int(reached),
            cuts=int(disks is not None),
            acknowledged=counted["acknowledged"],
        )


def _play(stage: Stage, scenario: Scenario, kill: Kill) -> bool:
    """Play until the kill; tell whether it came to that."""
    for act in range(ACTS):
        serve = list(SERVE)
        if act == kill.act:
            point = kill.point
            fault = f"{point.call}:signal=KILL:when={point.number}"
            record = stage.folder / "calls"
            serve = tracing.trace(SERVE, stage.worker.database, record, place=point.place, fault=fault)
        try:
            stage.start(serve)
            scenario.play(act)
            code = stage.stop()
        except Gone:
            code = stage.ended()
        if act == kill.act and code == -9:
            return True
        if code != 0:
            raise Broken(f"the worker ended with exit code {code}:\n{stage.worker.log_tail()}")
    return False


def play_round(seed: int) -> Counter[str]:
    """Play the seed's own kill: neighbouring seeds have different ones, until each was played in both ways."""
    kills = list(every_kill())
    random.Random(0).shuffle(kills)
    turn, number = divmod(seed, len(kills))
    if (turn + number) % 2:
        return kill_at(kills[number], None)
    with Disks() as disks:
        return kill_at(kills[number], disks, random.Random(seed))


main = command("exact_kills", play_round, why_not, rounds=100)

if __name__ == "__main__":
    main()
