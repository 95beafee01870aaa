"""The command `top`: what a worker does now, redrawn until a key or a signal ends it, or printed once.

Owns what is read, and its layout. A worker that is away is waited for: the screen says so.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import anyio.abc
import msgspec
import rich_click as click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..bot import Bot
from ..errors import WorkerUnavailable
from ..errors.words import amount
from ..wire.answers import ListedBot, ListedChannel, ListedGroup, ListedSession, WorkerStatus
from .console import ago, show_json, show_rows, table, terminal
from .ending import ask, open_bot, run, until_signal
from .numbers import seconds
from .options import Link, asking
from .streams import EXIT_SIGNAL, say

__all__ = ["top"]

_SECONDS = 2.0

_RATES = ("published", "delivered", "settled", "dead", "refused", "duplicates")

_MAILBOX_COLUMNS = ("mailbox", "waiting", "in flight", "dead", "taken by")
_MAILBOX_MINOR = ("taken by", "in flight")
_SESSION_COLUMNS = ("bot", "in flight", "heard", "program", "address")
_SESSION_MINOR = ("address", "program")

_LINES_BESIDES = 15
"""Lines of the screen beside the rows of mailboxes and sessions."""

_ROWS_PRINTED = 20
"""Rows of each table where there is no screen."""


class _Seen(msgspec.Struct, frozen=True):
    """What was read at one time."""

    status: WorkerStatus
    bots: list[ListedBot]
    channels: list[ListedChannel]
    sessions: list[ListedSession]


@click.command()
@click.option("--every", type=seconds, default=f"{_SECONDS:g}s", show_default=True, help="How often to look.")
@asking
def top(link: Link, every: float) -> None:
    """Show what the worker does now: rates, the fullest mailboxes, dead letters, and who is connected.

    On a terminal it is redrawn until q or Ctrl-C; otherwise it is printed once. WAITING is what a mailbox has not
    settled, and IN FLIGHT what sessions hold of it; it is TAKEN BY so many sessions.
    """
    console = None if link.as_json else terminal()
    if console is not None:
        number = run(lambda: until_signal(lambda: _redraw(link, console, every)))
        if number is not None and number != signal.SIGINT:
            sys.exit(EXIT_SIGNAL + number)
        return
    seen = ask(link, _look)
    if link.as_json:
        show_json(seen)
        return
    say(_heading(seen.status).plain)
    rows = [(name, seen.status.rates[name], seen.status.counters[name]) for name in _RATES]
    show_rows(("messages", "a second", "since its start"), rows, nothing="")
    say()
    show_rows(_MAILBOX_COLUMNS, _mailboxes(seen)[:_ROWS_PRINTED], nothing="no mailbox has anything")
    say()
    show_rows(_SESSION_COLUMNS, _sessions(seen)[:_ROWS_PRINTED], nothing="nobody is connected")


async def _look(bot: Bot) -> _Seen:
    return _Seen(await bot.status(), await bot.bots(), await bot.channels(), await bot.sessions())


# ── On a terminal ────────────────────────────────────────────────────────────────────────────────────────


async def _redraw(link: Link, console: Console, every: float) -> None:
    async with open_bot(link, max_in_flight=0) as bot, _key("q") as pressed:
        bot.timeout = max(every, _SECONDS)
        seen: _Seen | None = None
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while not pressed.is_set():
                lost = False
                with anyio.CancelScope() as looking:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_cancel_when, pressed, looking)
                        try:
                            seen = await _look(bot)
                        except WorkerUnavailable:
                            lost = True
                        tasks.cancel_scope.cancel()
                if seen is not None:
                    live.update(_screen(console, seen, bot.url, lost=lost), refresh=True)
                with anyio.move_on_after(every):
                    await pressed.wait()


async def _cancel_when(pressed: anyio.Event, scope: anyio.CancelScope) -> None:
    await pressed.wait()
    scope.cancel()


@asynccontextmanager
async def _key(key: str) -> AsyncIterator[anyio.Event]:
    """Set an event when a key is pressed, if standard input is a terminal whose keys can be read one by one."""
    pressed = anyio.Event()
    try:
        import termios  # which Windows lacks
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError, termios.error):
        yield pressed
        return

    async def listen() -> None:
        while not pressed.is_set():
            await anyio.wait_readable(descriptor)
            typed = os.read(descriptor, 1)
            if not typed or typed.decode("ascii", "replace").lower() == key:
                pressed.set()

    tty.setcbreak(descriptor)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            yield pressed
            tasks.cancel_scope.cancel()
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _screen(console: Console, seen: _Seen, url: str, *, lost: bool) -> RenderableType:
    """Return the screen: as many rows as there is room for."""
    away = Text("\nno worker answers; this is from before", "bold red") if lost else Text()
    room = max(2, console.height - _LINES_BESIDES)
    sessions, mailboxes = _sessions(seen), _mailboxes(seen)
    for_sessions = max(room // 2, room - len(mailboxes))
    rates = Text("   ").join(
        Text.assemble((f"{seen.status.rates[name]:,.1f}", "bold"), f" {name}/s") for name in _RATES
    )
    parts: list[RenderableType] = [
        Text.assemble((f"{url}  ", "bold"), _heading(seen.status), away),
        rates,
        table(console, _MAILBOX_COLUMNS, mailboxes[: room - min(for_sessions, len(sessions))], minor=_MAILBOX_MINOR)
        if mailboxes
        else Text("\nno mailbox has anything\n", "dim"),
        table(console, _SESSION_COLUMNS, sessions[:for_sessions], minor=_SESSION_MINOR),
        Text("q ends it", "dim"),
    ]
    return Group(*parts)


# ── What is shown ────────────────────────────────────────────────────────────────────────────────────────


def _heading(status: WorkerStatus) -> Text:
    up = timedelta(seconds=round(status.uptime_seconds))
    known = (amount(status.sessions, "session"), amount(status.bots, "bot"), amount(status.channels, "channel"))
    version = status.versions.get("posthouse", "")
    return Text(f"posthouse {version}, up {up}, {', '.join(known)}, last seq {status.last_seq:,}")


def _mailboxes(seen: _Seen) -> list[tuple[Any, ...]]:
    """Return a row for each mailbox that has something, the fullest first."""
    rows: list[tuple[Any, ...]] = [
        (bot.name, bot.backlog or 0, bot.in_flight or 0, bot.dead or 0, bot.sessions)
        for bot in seen.bots
        if bot.backlog or bot.dead
    ]
    rows += [
        (f"{channel.name}/{group.group}", group.backlog, group.in_flight or 0, group.dead or 0, _taken_by(group))
        for channel in seen.channels
        for group in channel.groups
        if group.backlog or group.dead
    ]
    return sorted(rows, key=lambda row: (-row[1], -row[3], row[0]))


def _taken_by(group: ListedGroup) -> int | str:
    return "" if group.sessions is None else group.sessions


def _sessions(seen: _Seen) -> Sequence[tuple[Any, ...]]:
    """Return a row for each session, those that hold most first."""
    found = sorted(seen.sessions, key=lambda session: (-session.in_flight, session.bot, session.id))
    return [
        (
            each.bot,
            f"{each.in_flight}/{each.credit}",
            ago(each.last_heard_at),
            each.client or "",
            each.address or "",
        )
        for each in found
    ]
