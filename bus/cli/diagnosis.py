"""What may be wrong with a worker's machine and files, and with what a worker says of itself.

Owns the findings of `posthouse doctor`, each with its remedy, and their bounds. Nothing here changes anything.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import msgspec

from ..bot import Bot
from ..errors import KeyFileUnusable, UnknownBot
from ..errors.words import amount
from ..model.records import RunStatus, parse_timestamp
from ..model.room import Room, RoomLevel
from ..settings import Settings
from ..wire.addresses import is_local
from ..worker_key import find_key_file, open_worker_key

__all__ = ["Finding", "file_findings", "machine_findings", "worker_findings"]

_OTHER_DESCRIPTORS = 100
"""Descriptors for other things than bots' connections."""

_AHEAD_SECONDS = 60.0

_AWAY = timedelta(days=7)
"""How long a bot with waiting messages may be away before a person should know."""

_UNCLAIMED = timedelta(minutes=5)
"""How long a run may wait for its program."""

_MAILBOXES_MAX = 1000
"""Of how many mailboxes the dead letters are asked for."""

_NAMED_MAX = 3

_MAKE_ROOM = "make room, or limit the log (posthouse prune, [retention]) and compact it (posthouse compact)"

_TIMEX_BYTES = 512
"""More than the `struct timex` of any Linux."""

_TIME_ERROR = 5
"""What adjtimex(2) returns if nothing keeps the clock right."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: `ok`, a `warning`, or a `fault` that keeps a worker from serving."""

    level: str
    about: str
    text: str


def _ok(about: str, text: str) -> Finding:
    return Finding("ok", about, text)


def _warning(about: str, text: str) -> Finding:
    return Finding("warning", about, text)


def _fault(about: str, text: str) -> Finding:
    return Finding("fault", about, text)


def machine_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what was found about the limits and the clock of this machine."""
    yield _descriptors(settings.limits.sessions_max)
    kept = _is_clock_kept()
    if kept is not None:
        yield (
            _ok("clock", "kept right")
            if kept
            else _warning("clock", "nothing keeps it right: run chrony, ntpd or systemd-timesyncd on this machine")
        )
    for name in ("command", "tap"):
        address = getattr(settings.listen, name)
        if not is_local(address) and not settings.security.has_keys:
            yield _warning(
                "keys", f"whoever reaches {address} can act as any bot: set security.mode to keys, or use a tunnel"
            )


def _descriptors(sessions_max: int) -> Finding:
    wanted = sessions_max + _OTHER_DESCRIPTORS
    try:
        import resource
    except ImportError:  # on Windows, where no worker runs
        return _fault("descriptors", "the worker does not run on Windows: run it on Linux or macOS")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return _ok("descriptors", f"enough for {amount(sessions_max, 'session')}")
    return _warning(
        "descriptors",
        f"a process may open {hard:,} files, but limits.sessions_max is {sessions_max:,}: raise the limit"
        " (LimitNOFILE, ulimit -Hn), or lower sessions_max",
    )


def _is_clock_kept() -> bool | None:
    """Return whether the kernel's clock is kept right; None where that is unknown."""
    if sys.platform != "linux":
        return None
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR


def file_findings(database: Path, settings: Settings) -> Iterator[Finding]:
    """Yield what was found about the disk of a database, and the worker's key beside it."""
    free = shutil.disk_usage(database.parent).free
    size = database.stat().st_size if database.exists() else 0
    level = settings.store.room.level(Room(size, free))
    shown = f"{free / 1024**3:,.1f} GiB free beside {database}"
    if level is RoomLevel.VERY_LOW:
        yield _fault("disk", f"{shown}: bots get storage_full when it is used up; make room")
    elif level is RoomLevel.LOW:
        yield _warning("disk", f"{shown}, which has {size / 1024**3:,.1f} GiB: {_MAKE_ROOM}")
    else:
        yield _ok("disk", shown)
    if not settings.security.has_keys:
        return
    path = find_key_file(database, settings.security.key_file)
    if not path.exists():
        yield (
            _warning(
                "keys",
                f"there is no {path}: if there was one, put it back. Otherwise the worker makes another pair at its"
                " start, and bots that have credentials need new ones",
            )
            if database.exists()
            else _ok("keys", f"{path} will be made when the worker starts")
        )
        return
    try:
        key = open_worker_key(path)
    except KeyFileUnusable as error:
        yield _fault("keys", str(error))
    else:
        yield _ok("keys", f"{path} has the worker's key {key.public}")


async def worker_findings(bot: Bot) -> AsyncIterator[Finding]:
    """Yield what a running worker tells: its clock, backlogs, dead letters, and runs that wait."""
    status = await bot.status()
    ours, theirs = metadata.version("posthouse"), status.versions["posthouse"]
    yield _ok("worker", f"{theirs} answers at {bot.url}, since {status.started_at}")
    if ours != theirs:
        yield _warning("worker", f"this command is of version {ours}: install the same where both run")
    if status.log_ahead_seconds > _AHEAD_SECONDS:
        ahead = timedelta(seconds=round(status.log_ahead_seconds))
        yield _warning("clock", f"behind the log's last message by {ahead}: it is, or was, set wrong")
    if status.storage is not RoomLevel.ENOUGH:
        told = _fault if status.storage is RoomLevel.VERY_LOW else _warning
        yield told("storage", f"the worker's room is {status.storage.in_words}: {_MAKE_ROOM}")
    elif "postgresql" in status.versions:
        unknown = "how much PostgreSQL's disks have free is not known here: watch them there"
        yield _ok("storage", f"{unknown}; store.size_warning_bytes is for the size of the database")
    if status.undefined_roles:
        yield _warning(
            "roles",
            f"keys have roles that are not defined and allow nothing: {', '.join(status.undefined_roles)}; define"
            " them in [security.roles] and run posthouse reload, or give the bots other keys (posthouse keys list)",
        )
    yield await _backlogs(bot)
    yield await _dead_letters(bot)
    async for finding in _runs(bot):
        yield finding


async def _backlogs(bot: Bot) -> Finding:
    now = datetime.now(UTC)
    away = [
        each.name
        for each in await bot.bots()
        if each.backlog and not each.online and now - parse_timestamp(each.last_seen_at) > _AWAY
    ]
    if not away:
        return _ok("backlog", "nothing waits for a bot that has been away for long")
    return _warning(
        "backlog",
        f"messages wait for {amount(len(away), 'bot')} away for more than {_AWAY.days} days, and stay"
        f" ({_named(away)}): start them, or run posthouse remove bot (docs/operations.md, Watching)",
    )


async def _dead_letters(bot: Bot) -> Finding:
    groups = [f"{channel.name}/{group.group}" for channel in await bot.channels() for group in channel.groups]
    names = [*(each.name for each in await bot.bots()), *groups]
    having: list[str] = []
    for name in names[:_MAILBOXES_MAX]:
        try:
            if await bot.dead_letters(bot=name, limit=1):
                having.append(name)
        except UnknownBot:
            continue  # it is not seen with this key
    if having:
        return _warning(
            "dead letters",
            f"of {_named(having)}: posthouse dead-letters list says why; mend the bots, then posthouse dead-letters"
            " retry",
        )
    if len(names) > _MAILBOXES_MAX:
        return _ok("dead letters", f"none of the first {_MAILBOXES_MAX:,} mailboxes has any")
    return _ok("dead letters", "none")


async def _runs(bot: Bot) -> AsyncIterator[Finding]:
    counts = (await bot.workflows.count_runs()).counts
    crashed = sum(each.runs for each in counts if each.status is RunStatus.CRASHED)
    if crashed:
        yield _warning(
            "runs",
            f"{amount(crashed, 'run')} crashed: posthouse runs --status crashed lists them, and their bots go on"
            " with them if they are started; posthouse retry lets those go on that crashed too often",
        )
    before = datetime.now(UTC) - _UNCLAIMED
    left = [
        run
        for status in (RunStatus.PENDING, RunStatus.PAUSED)
        for run in await bot.workflows.list_all_runs(status)
        if not run.stopped and parse_timestamp(run.not_before or run.started_at) < before
        if run.not_before is not None or status is RunStatus.PENDING
    ]
    if left:
        yield _warning(
            "runs",
            f"{amount(len(left), 'run')} of {_named(sorted({run.workflow_name for run in left}))} could go on since"
            " more than five minutes, and no bot opened them: start the bots that execute these workflows",
        )
    if not crashed and not left:
        yield _ok("runs", "none crashed, and none waits for a bot that is away")


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more:,} more" if more > 0 else "")
