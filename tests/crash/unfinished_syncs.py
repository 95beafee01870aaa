"""A sync that never finished: its message is seen after a restart, acknowledged again, and then the power is cut.

    python -m tests.crash.unfinished_syncs --rounds 20

Owns the order of things. A worker is killed in place of a commit's sync: the kernel has what was committed, and the
disk has not. The next worker finds it, and acknowledges it as a duplicate when its sender tries again. From then
on it has to survive whatever comes, so the power is cut right then.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..integration.wire import Message, to_bot, to_channel
from ..integration.wire_worker import SERVE
from . import disk, tracing
from .disk import Disks
from .player import Gone, Player
from .rounds import command
from .stage import Stage

__all__ = ["SYNCS_MAX", "main", "play_round", "sync_that_never_finished", "why_not"]

SYNCS_MAX = 40
"""The kill comes at most at this sync of a worker that is sent so many messages, one after the other."""

_CONFIGURATION = """
[delivery]
mailbox_flush_seconds = 3600.0

[workflows]
sweep_seconds = 3600.0
"""
"""Nothing is written but what is asked for: any later sync would finish the one that was not."""

_BOT = "writer"


def why_not() -> str | None:
    """Say why this cannot run here."""
    return tracing.why_not() or disk.why_not()


def sync_that_never_finished(sync: int, serve: Sequence[str] = SERVE) -> Counter[str]:
    """Kill a worker at this sync of its publishing, go on with `serve`, and cut the power; judge what is left."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Disks() as disks,
        Stage(Path(folder), disks, configuration=_CONFIGURATION) as stage,
    ):
        _prepare(stage)
        unanswered = _publish_until_killed(stage, sync)
        stage.start(serve)
        writer = Player(stage.worker, stage.recorder, _BOT)
        writer.hello(max_in_flight=0)
        writer.publish(unanswered)
        stage.cut_power()
        counted = stage.judge([_BOT])
    return Counter(rounds=1, cuts=1, acknowledged=counted["acknowledged"])


def _publish_until_killed(stage: Stage, sync: int) -> Message:
    """Publish until the worker is killed at this sync, and give the message that was not answered."""
    fault = f"fdatasync:signal=KILL:when={sync}"
    stage.start(tracing.trace(SERVE, stage.worker.database, stage.folder / "calls", fault=fault))
    writer = Player(stage.worker, stage.recorder, _BOT)
    unanswered: Message = {}
    try:
        writer.hello(max_in_flight=0)
        for number in range(SYNCS_MAX):
            unanswered = to_bot(_BOT, number) if number % 2 else to_channel("news", number)
            writer.publish(unanswered)
    except Gone:
        stage.ended()
        return unanswered
    raise AssertionError(f"the worker did not come to sync {sync}")


def _prepare(stage: Stage) -> None:
    """Make the database and the bot, so that every sync that follows is one of a publish."""
    stage.start()
    Player(stage.worker, stage.recorder, _BOT).hello(max_in_flight=0)
    stage.stop()


def play_round(seed: int) -> Counter[str]:
    """Play it with a sync that the seed draws."""
    return sync_that_never_finished(random.Random(seed).randint(5, SYNCS_MAX))


main = command("unfinished_syncs", play_round, why_not, rounds=20)

if __name__ == "__main__":
    main()
