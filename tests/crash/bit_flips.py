"""A bit is flipped in the database or in its WAL: it is found, or it is harmless, and nothing wrong is delivered.

    python -m tests.crash.bit_flips --rounds 500

Owns the original, made by a worker that was killed, and what counts as found: the start is refused, `posthouse
check` names damage, a read is answered with an error, a bot is told of a gap, or the worker says so in its log or
stops.
"""

from __future__ import annotations

import atexit
import random
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bus.errors import DatabaseDamaged, DatabaseNewer
from store.sqlite.check import Check

from ..integration.wire import Message, Session, to_bot, to_channel
from .player import Gone
from .rounds import command
from .stage import Broken, Stage

__all__ = ["Flip", "flip_at", "in_mailbox", "in_schema", "main", "play_round", "why_not"]

_CHANNEL = "news"
_READER, _WRITER = "reader", "writer"
_FRAMES, _MESSAGES_A_FRAME = 12, 10
_SETTLED = 40

_PAGE_BYTES = 4096
_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_PATIENCE_SECONDS = 30.0
"""How long nothing may come until it is missing, where nobody found anything yet."""

_PATIENCE_AFTER_SECONDS = 0.5
_FOUND_CODES = (65, 74)
_SIGNS = (b"message_damaged", b"StoreFailed", b"RecordDamaged")


class Flip(NamedTuple):
    """One bit of one file."""

    suffix: str
    offset: int
    bit: int

    def __str__(self) -> str:
        return f"bit {self.bit} of byte {self.offset} in posthouse.db{self.suffix}"


class _Original(msgspec.Struct):
    """An undamaged database, what was sent, and what its reader is still owed."""

    folder: Path
    sent: dict[str, tuple[Any, ...]]
    owed: set[int]


class _Seen(msgspec.Struct):
    """What a worker on a damaged copy gave: whether it says that something is wrong, and all the messages."""

    signs: list[str] = []
    listed: list[Message] = []
    delivered: list[Message] = []


def why_not() -> str | None:
    """Say why this cannot run here: it can."""
    return None


# ── The original ─────────────────────────────────────────────────────────────────────────────────────────


@cache
def _original() -> _Original:
    """Make the database of this process: a part of it copied back, a part in the WAL."""
    folder = Path(tempfile.mkdtemp(prefix="posthouse-flips-"))
    atexit.register(shutil.rmtree, folder)
    with Stage(folder) as stage:
        sent: dict[str, tuple[Any, ...]] = {}
        stage.start()
        writer, reader = stage.worker.session(_WRITER), stage.worker.session(_READER, max_in_flight=1000)
        reader.subscribe(_CHANNEL)
        _publish(writer, sent, reader.bot_id)
        seqs = sorted(content[0] for content in sent.values())
        reader.take(len(seqs))
        reader.settle("ack", *seqs[:_SETTLED])
        assert stage.stop() == 0
        stage.start()
        _publish(stage.worker.session(_WRITER), sent, reader.bot_id)
        stage.kill()
    return _Original(folder, sent, {content[0] for content in sent.values()} - set(seqs[:_SETTLED]))


def _publish(writer: Session, sent: dict[str, tuple[Any, ...]], reader_id: str) -> None:
    for frame in range(_FRAMES):
        messages = [_message(frame * _MESSAGES_A_FRAME + number) for number in range(_MESSAGES_A_FRAME)]
        for message, seq in zip(messages, writer.publish(*messages), strict=True):
            recipient = message["recipient"]
            if recipient["type"] == "direct":
                recipient = {"type": "direct", "bot_id": reader_id}
            sent[message["id"]] = _content({**message, "seq": seq, "recipient": recipient}, writer.bot_id)


def _message(number: int) -> Message:
    fields = {"headers": {"number": str(number)}, "message_type": f"type-{number % 7}"}
    body = {"number": number, "text": f"{number} " * (number % 40)}
    return to_bot(_READER, body, **fields) if number % 3 else to_channel(_CHANNEL, body, **fields)


def _content(message: Message, sender_bot_id: str) -> tuple[Any, ...]:
    """Give all of a message that its sender, or the answer to him, determined."""
    names = ("seq", "recipient", "body", "headers", "message_type")
    return (*(message[name] for name in names), message.get("reply_to"), sender_bot_id)


# ── One flip ─────────────────────────────────────────────────────────────────────────────────────────────


def flip_at(flip: random.Random | Callable[[bytes], Flip]) -> Counter[str]:
    """Flip a bit in a copy, and judge what a check and a worker make of it.

    It is drawn from all files, or found in the database; then that has all there is, and no WAL hides it.
    """
    original = _original()
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        for suffix in ("", "-wal", "-lock"):
            shutil.copy2(original.folder / f"posthouse.db{suffix}", folder)
        if isinstance(flip, random.Random):
            chosen = _draw(Path(folder), flip)
        else:
            with closing(sqlite3.connect(Path(folder) / "posthouse.db")) as connection:
                connection.execute("VACUUM")  # what was written before is in no free space either
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            chosen = flip((Path(folder) / "posthouse.db").read_bytes())
        _flip(Path(folder), chosen)
        try:
            checked = _check(stage.worker.database)
            seen = _serve(stage, _PATIENCE_AFTER_SECONDS if checked else _PATIENCE_SECONDS)
            return _judge(original, seen, checked)
        except AssertionError as error:
            error.add_note(str(chosen))
            raise


def _draw(folder: Path, chance: random.Random) -> Flip:
    """Draw a page, and one of its bytes that is not a zero: much of a small database is room."""
    suffix = "-wal" if chance.random() < 0.4 else ""
    content = (folder / f"posthouse.db{suffix}").read_bytes()
    header_bytes = _WAL_HEADER_BYTES if suffix else 0
    size_bytes = _PAGE_BYTES + (_FRAME_HEADER_BYTES if suffix else 0)
    start = header_bytes + chance.randrange((len(content) - header_bytes) // size_bytes) * size_bytes
    if suffix and chance.random() < 0.02:
        start, size_bytes = 0, header_bytes
    used = [offset for offset in range(start, start + size_bytes) if content[offset]]
    return Flip(suffix, chance.choice(used or [start]), chance.randrange(8))


def in_mailbox(content: bytes) -> Flip:
    """Draw a bit of what the reader's mailbox says of the messages that are not settled."""
    chance = random.Random(1)
    unsettled = msgspec.json.encode([[seq, 1, 0] for seq in range(_SETTLED + 1, _FRAMES * _MESSAGES_A_FRAME + 1)])
    return Flip("", content.index(unsettled) + chance.randrange(len(unsettled)), chance.randrange(8))


def in_schema(content: bytes) -> Flip:
    """Draw a letter of a table's text, and make of it what is no UTF-8.

    A page of the schema may have a part of a text twice: SQLite moves texts, and leaves the room as it was.
    """
    chance = random.Random(1)
    texts = re.findall(rb"CREATE TABLE \w+ ", content)
    text = next(each for each in texts if texts.count(each) == 1)
    return Flip("", content.index(text) + chance.randrange(len(text)), 7)


def _flip(folder: Path, flip: Flip) -> None:
    with (folder / f"posthouse.db{flip.suffix}").open("r+b") as file:
        file.seek(flip.offset)
        [byte] = file.read(1)
        file.seek(flip.offset)
        file.write(bytes([byte ^ 1 << flip.bit]))


def _check(database: Path) -> list[str]:
    """Give what `posthouse check` says."""
    check = Check(database)
    try:
        for _ in check.run():
            pass
    except (DatabaseDamaged, DatabaseNewer) as error:
        return [str(error)]
    finally:
        database.with_name(f"{database.name}-shm").unlink(missing_ok=True)
    return check.damage


def _serve(stage: Stage, patience_seconds: float) -> _Seen:
    """Serve the copy and read everything from it."""
    seen = _Seen()
    try:
        stage.start()
        _read(stage.worker.session(), seen, patience_seconds)
        code = stage.stop()
    except Gone:
        code = stage.ended()
    except AssertionError:
        if not stage.worker.has_ended():
            raise
        code = stage.ended()
    if code in _FOUND_CODES:
        seen.signs.append(f"exit code {code}")
    elif code != 0:
        raise Broken(f"the worker ended with exit code {code}:\n{stage.worker.log_tail()}")
    log = (stage.folder / "worker.log").read_bytes()
    seen.signs += [sign.decode() for sign in _SIGNS if sign in log]
    return seen


def _read(session: Session, seen: _Seen, patience_seconds: float) -> None:
    expected = len(_original().owed)
    welcome = session.ask("hello", answer="welcome", protocol=1, bot=_READER, max_in_flight=1000)
    if welcome["op"] == "error":
        seen.signs.append(f"hello: {welcome['code']}")
        return
    while len(seen.delivered) < expected and (frame := session.poll(patience_seconds)) is not None:
        if frame["op"] == "deliver":
            seen.delivered += frame["messages"]
        else:
            seen.signs.append(f"told of {frame['op']}")
            patience_seconds = _PATIENCE_AFTER_SECONDS
    seen.delivered += session.waiting_deliveries()
    for fields in ({"channel": _CHANNEL}, {"between": [_READER, _WRITER]}):
        answer = session.ask("history", limit=1000, **fields)
        if answer["op"] == "error":
            seen.signs.append(f"history: {answer['code']}")
        else:
            seen.listed += answer["value"]["messages"]
    seen.signs += [f"told of {frame['op']}" for frame in session.others]


def _judge(original: _Original, seen: _Seen, checked: list[str]) -> Counter[str]:
    for message in (*seen.delivered, *seen.listed):
        if original.sent.get(message["id"]) != _content(message, message["sender_bot_id"]):
            raise Broken(f"{message} was never sent like that; the check says {checked}")
    found = bool(seen.signs or checked)
    delivered = Counter(message["seq"] for message in seen.delivered)
    listed = {message["seq"] for message in seen.listed}
    if not found:
        missing = sorted(original.owed - delivered.keys())
        surplus = sorted(delivered.keys() - original.owed) + [seq for seq in delivered if delivered[seq] > 1]
        unlisted = sorted({content[0] for content in original.sent.values()} - listed)
        if missing or surplus or unlisted:
            text = f"delivered too little {missing}, too much {surplus}; not listed {unlisted}"
            raise Broken(f"{text}; and nobody says that anything is wrong")
    return Counter(
        rounds=1,
        refused=int("exit code 65" in seen.signs),
        reported=int(bool(seen.signs) and "exit code 65" not in seen.signs),
        checked=int(bool(checked)),
        harmless=int(not found),
    )


def play_round(seed: int) -> Counter[str]:
    """Flip the seed's own bit."""
    return flip_at(random.Random(seed))


main = command("bit_flips", play_round, why_not, rounds=500)

if __name__ == "__main__":
    main()
