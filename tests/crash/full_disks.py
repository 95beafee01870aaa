"""The disk is full: publishes are refused, the rest goes on as far as it can, and there is room again.

    python -m tests.crash.full_disks --rounds 20

Owns how a disk is filled: with a file beside the database, and by the worker itself. Nothing that was refused may
be there later, and nothing that was acknowledged may be gone, also where the worker is killed while it is full.
"""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

from ..integration.wire import Message, to_bot, to_channel
from .disk import Disks, why_not
from .player import Gone, Player, Refused
from .rounds import command
from .stage import Broken, Stage

__all__ = ["fill", "main", "play_round", "why_not"]

_SIZE_MEBIBYTES = 12

_ROOM_BYTES_MAX = 400_000
"""So much is left free at most, for the worker to fill."""

_BODY_BYTES_MAX = 100_000
_PUBLISHES_MAX = 100

_EXIT_FULL = 74

_WRITER, _READER = "writer", "reader"
_CHANNEL = "news"


def fill(seed: int) -> Counter[str]:
    """Play it by a seed, and judge."""
    chance = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        Disks() as disks,
        Stage(Path(folder), disks, size_mebibytes=_SIZE_MEBIBYTES) as stage,
    ):
        stage.start()
        writer, reader = _say_hello(stage)
        reader.subscribe(_CHANNEL)
        writer.publish(*(_message(chance, 1000) for _ in range(10)))
        taken = [message["seq"] for message in reader.take(10)]
        filler = stage.worker.database.with_name("filler")
        _occupy(filler, chance.randrange(_ROOM_BYTES_MAX))
        refused = _publish_until_refused(writer, chance)
        _go_on(stage, reader, taken)
        killed = chance.random() < 0.5
        if killed:
            _kill_and_start(stage, filler)
            writer, reader = _say_hello(stage)
        filler.unlink(missing_ok=True)
        writer.publish(*refused)
        if stage.stop() != 0:
            raise Broken(f"the worker does not stop in order:\n{stage.worker.log_tail()}")
        counted = stage.judge([_WRITER, _READER])
    acknowledged = counted["acknowledged"]
    return Counter(rounds=1, kills=int(killed), refused=len(refused), acknowledged=acknowledged)


def _say_hello(stage: Stage) -> tuple[Player, Player]:
    writer, reader = (Player(stage.worker, stage.recorder, name) for name in (_WRITER, _READER))
    writer.hello(max_in_flight=0)
    reader.hello(max_in_flight=20)
    return writer, reader


def _message(chance: random.Random, size_bytes: int) -> Message:
    body = {"fill": chance.randbytes(size_bytes // 2).hex()}
    return to_bot(_READER, body) if chance.random() < 0.5 else to_channel(_CHANNEL, body)


def _occupy(filler: Path, room_bytes: int) -> None:
    """Leave not more than so much room on a disk."""
    free = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - room_bytes))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _publish_until_refused(writer: Player, chance: random.Random) -> list[Message]:
    """Publish until the disk is full, and give what was refused."""
    for _ in range(_PUBLISHES_MAX):
        messages = [_message(chance, chance.randrange(100, _BODY_BYTES_MAX)) for _ in range(chance.randint(1, 3))]
        try:
            writer.publish(*messages)
        except Refused as refusal:
            if refusal.code != "storage_full":
                raise Broken(f"a publish on a full disk was refused with {refusal}") from refusal
            return messages
    raise AssertionError("the disk was never full")


def _go_on(stage: Stage, reader: Player, taken: list[int]) -> None:
    """See that there are answers on a full disk: to what needs no room, and to what may need some."""
    for seq in taken:
        try:
            reader.settle("ack", seq)
        except Refused as refusal:
            if refusal.code != "storage_full":
                raise Broken(f"an ack on a full disk was refused with {refusal}") from refusal
    if not reader.history(_CHANNEL):
        raise Broken("nothing can be read on a full disk")


def _kill_and_start(stage: Stage, filler: Path) -> None:
    """Kill the worker and start it on the full disk, which it may refuse, and with room."""
    stage.kill()
    try:
        stage.start()
    except Gone:
        code = stage.ended()
        if code != _EXIT_FULL:
            raise Broken(f"on a full disk the worker ended with {code}:\n{stage.worker.log_tail()}") from None
        filler.unlink()
        stage.start()


def play_round(seed: int) -> Counter[str]:
    """Play the round of a seed."""
    return fill(seed)


main = command("full_disks", play_round, why_not, rounds=20)

if __name__ == "__main__":
    main()
