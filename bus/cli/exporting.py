"""The command `export`: messages of the log as JSON lines, while a worker may be serving it.

Owns that no file which is not whole has the name that was asked for.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
import msgspec
import rich_click as click

from ..configuration import read_settings
from ..errors import DatabaseUnusable, StoreFailed
from ..errors.words import amount
from ..model.databases import LogReader, Tell
from ..model.exporting import FORM, ExportFilter, ExportLines, Header, export_of, is_export
from ..model.records import timestamp
from ..model.repository import FindRequest
from ..settings import SettingsError
from .checking import progress
from .console import show_json
from .databases import of_a_store
from .exit_codes import exit_codes
from .joined import databases
from .options import id_of, name_of
from .streams import EXIT_DATA, note, say
from .times import TimeOption

__all__ = ["export"]

_BEGINNING_BYTES = 64
"""More than it takes to see whether a file is an export."""


class _Query(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked for, with names as they were given."""

    channel: str | None = None
    between: tuple[str, str] | None = None
    thread: str | None = None
    sender: str | None = None
    since: str | None = None
    until: str | None = None


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--channel", metavar="NAME", callback=name_of, help="Only the messages on a channel.")
@click.option(
    "--between", nargs=2, metavar="BOT BOT", callback=name_of, help="Only the direct messages of two bots."
)
@click.option(
    "--thread", metavar="ID", callback=id_of, help="Only a message, what it answers, and all answers to those."
)
@click.option(
    "--sender",
    metavar="BOT",
    callback=name_of,
    help="With --thread: who sent it, if several bots used its id.",
)
@click.option(
    "--since", type=TimeOption(), metavar="TIME", help="Only from a time on: 7d (ago), or 2026-01-31T00:00Z."
)
@click.option("--until", type=TimeOption(), metavar="TIME", help="Only before a time.")
@of_a_store
def export(
    file: Path, config: Path | None, database: str | None, engine: str | None, as_json: bool, **query: Any
) -> None:
    """Write messages to FILE as JSON lines, or to standard output (`-`), while the worker goes on.

    The first line says which log it is, and the last one how many messages there are, with a checksum; each line
    between them is a message, in the order of the log. FILE has everything that was acknowledged before this
    began, and gets its name once it is whole and on the disk; until then an earlier file there stays.

    Several options narrow it together. Mailboxes, delayed messages, runs, keyed values and keys are not in it:
    `posthouse backup` copies everything, and `posthouse move` takes it elsewhere.
    """
    wanted = _Query(**query)
    if wanted.sender is not None and wanted.thread is None:
        raise click.UsageError("--sender is the sender of the message that --thread names")
    with exit_codes():
        settings = read_settings(config, store={"database": database, "engine": engine}).store
        try:
            source = databases().described(settings.url)
            with _output(file) as write, progress() as tell:
                lines = anyio.run(_export, settings.url, wanted, write, tell)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        _show(lines, source, file, as_json=as_json)


def _show(lines: ExportLines, source: str, file: Path, *, as_json: bool) -> None:
    is_output = str(file) == "-"
    if as_json and not is_output:
        show_json({"file": str(file), "messages": lines.messages, "damaged": lines.damaged})
    else:
        (note if is_output else say)(f"exported {amount(lines.messages, 'message')} of {source} to {file}")
    if lines.damaged:
        left_out = f"{amount(len(lines.damaged), 'damaged message')} left out"
        note(f"warning: {left_out}: seq {', '.join(map(str, lines.damaged[:10]))}; see `posthouse check`")
        sys.exit(EXIT_DATA)


async def _export(url: str, query: _Query, write: Callable[[bytes], object], tell: Tell) -> ExportLines:
    lines = ExportLines()
    async with databases().open_log(url) as log:
        end = await log.end()
        names = await log.names()
        ids = {name: id for id, name in names.items()}
        wanted = ExportFilter(
            channel=query.channel,
            between=None if query.between is None else (_id(ids, query.between[0]), _id(ids, query.between[1])),
            since=query.since,
            until=query.until,
        )
        thread: set[int] | None = None
        if query.thread is not None:
            sender = None if query.sender is None else _id(ids, query.sender)
            thread = set(await log.thread(FindRequest(query.thread, sender_bot_id=sender), end.last_seq))
            if not thread:
                raise DatabaseUnusable(
                    f"no message {query.thread!r} is in the log: look at its id, and at --sender"
                )
        header = Header(
            posthouse_export=FORM,
            version=metadata.version("posthouse"),
            epoch=end.epoch,
            last_seq=end.last_seq,
            exported_at=timestamp(datetime.now(UTC)),
            wanted=msgspec.to_builtins(query),
        )
        write(lines.header(header))
        async for seq, message in _messages(log, end.last_seq, tell):
            if thread is not None and seq not in thread:
                continue
            if message is None:
                lines.damaged.append(seq)
            elif wanted.has(message):
                write(lines.message(export_of(message, names)))
        write(lines.footer())
    return lines


async def _messages(log: LogReader, last_seq: int, tell: Tell) -> AsyncIterator[tuple[int, Any]]:
    after = 0
    while portion := await log.portion(after, last_seq):
        for each in portion:
            yield each
        after = portion[-1][0]
        tell(("exporting", after, last_seq))


def _id(ids: dict[str, str], bot: str) -> str:
    """Return the id of a bot that is named by its name or its id."""
    if bot not in ids and bot not in ids.values():
        raise DatabaseUnusable(f"there is no bot {bot!r} in this database: `posthouse bots` lists them")
    return ids.get(bot, bot)


@contextmanager
def _output(file: Path) -> Iterator[Callable[[bytes], object]]:
    """Write to a file beside the one that is named, for this user alone, and put it in its place at the end."""
    if str(file) == "-":
        yield sys.stdout.buffer.write
        sys.stdout.flush()
        return
    try:
        file = file.resolve()
        if file.exists() and not _may_be_replaced(file):
            raise DatabaseUnusable(f"{file} exists, and is not an export: name another file, or remove it")
        part = file.with_name(f"{file.name}.posthouse.part")
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "wb") as output:
            try:
                fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DatabaseUnusable(f"another export to {file} is being written: wait for it") from None
            output.truncate()
            try:
                yield output.write
                output.flush()
                os.fsync(output.fileno())
                part.replace(file)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        _sync(file.parent)
    except OSError as error:
        raise StoreFailed(
            f"{file} cannot be written: {error.strerror}; choose another place, or make room"
        ) from error


def _may_be_replaced(file: Path) -> bool:
    """Return True for an earlier export, and for an empty file: a database, or a device, is not to be lost."""
    if not file.is_file():
        return False
    with file.open("rb") as earlier:
        return is_export(earlier.readline(_BEGINNING_BYTES))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
