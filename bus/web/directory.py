"""The pages *Now* and *Channels and bots*, and one bot or channel: who is there, and how the worker is."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from starlette.routing import Route

from ..client.asking import Asking
from ..errors import UnknownBot, UnknownChannel
from ..wire.answers import ListedBot, ListedChannel, WorkerStatus
from . import shown
from .site import Shown, Visit, link, page

__all__ = ["ROUTES"]

_ROWS_MAX = 200
"""Rows of a table: more are found by a part of their name."""

_APPROVALS = 100
"""Approvals that are counted."""

_BACKLOG = 1000
"""Messages that wait for a bot, from which on *Now* tells of it."""


class _Alarm(NamedTuple):
    """What a person should look at, and where."""

    text: str
    to: str


async def _now(visit: Visit) -> Shown:
    bot, samples = visit.bot, visit.site.samples
    status = await bot.status()
    bots = await bot.bots()
    sessions = await bot.sessions()
    waiting = await bot.workflows.list_waiting_approvals(limit=_APPROVALS)
    counts: Counter[str] = Counter()
    for each in (await bot.workflows.count_runs()).counts:
        counts[each.status] += each.runs
    values = {
        "status": status,
        "sessions": sessions[:_ROWS_MAX],
        "more_sessions": len(sessions) - len(sessions[:_ROWS_MAX]),
        "backlog": sum(each.backlog or 0 for each in bots),
        "counts": counts,
        "alarms": _alarms(visit, status, bots, len(waiting), counts),
        "plots": samples.plots(),
        "began_at": visit.site.began_at,
    }
    return Shown("now.html", values)


def _alarms(
    visit: Visit, status: WorkerStatus, bots: list[ListedBot], waiting: int, counts: Counter[str]
) -> list[_Alarm]:
    found: list[_Alarm] = []
    dead = visit.site.samples.grown("dead")
    if dead:
        found.append(_Alarm(f"Dead letters within the hour: {shown.amount(dead)}", "/dead-letters"))
    if waiting:
        more = " or more" if waiting == _APPROVALS else ""
        found.append(_Alarm(f"Approvals that wait for a person: {waiting}{more}", "/approvals"))
    found += [
        _Alarm(f"Runs that {state}: {shown.amount(counts[state])}", link("/runs", status=state))
        for state in ("crashed", "failed")
        if counts[state]
    ]
    found += [
        _Alarm(f"Messages that wait for {bot.name}: {shown.amount(bot.backlog)}", link("/mailbox", name=bot.name))
        for bot in bots
        if (bot.backlog or 0) >= _BACKLOG
    ]
    found += [
        _Alarm(f"Messages of {each.sender} that were too fast: {shown.amount(each.times)}", "/bots")
        for each in status.rate_limited
    ]
    if status.counters.get("damaged"):
        found.append(_Alarm("Messages with a wrong checksum are not delivered: run posthouse check", "/settings"))
    if status.log_ahead_seconds:
        found.append(_Alarm(f"The clock is {shown.span(status.log_ahead_seconds)} behind the log", "/settings"))
    return found


async def _directory(visit: Visit) -> Shown:
    part = visit.asked("find")
    bots = [each for each in await visit.bot.bots() if part is None or part in each.name]
    channels = [each for each in await visit.bot.channels() if part is None or part in each.name]
    values = {
        "find": part or "",
        "bots": bots[:_ROWS_MAX],
        "more_bots": len(bots) - len(bots[:_ROWS_MAX]),
        "channels": channels[:_ROWS_MAX],
        "more_channels": len(channels) - len(channels[:_ROWS_MAX]),
    }
    return Shown("directory.html", values)


async def _bot(visit: Visit) -> Shown:
    found = await _known_bot(visit.bot, visit.asked("name") or "")
    values = {
        "bot": found,
        "subscriptions": await visit.bot.subscriptions(bot=found.name),
        "patterns": await visit.bot.patterns(bot=found.name),
        "dead": await visit.bot.dead_letters(bot=found.name, limit=10),
    }
    return Shown("bot.html", values)


async def _channel(visit: Visit) -> Shown:
    found = await _known_channel(visit.bot, visit.asked("name") or "")
    return Shown(
        "channel.html", {"channel": found, "subscriptions": await visit.bot.subscriptions(channel=found.name)}
    )


async def _known_bot(asking: Asking, name: str) -> ListedBot:
    """Return a bot by its name. Raise UnknownBot."""
    for each in await asking.bots():
        if each.name == name:
            return each
    raise UnknownBot("unknown_bot", f"there is no bot {name!r}")


async def _known_channel(asking: Asking, name: str) -> ListedChannel:
    """Return a channel by its name. Raise UnknownChannel."""
    for each in await asking.channels():
        if each.name == name:
            return each
    raise UnknownChannel("unknown_channel", f"there is no channel {name!r}")


ROUTES: list[Route] = [
    page("/", _now),
    page("/bots", _directory),
    page("/bot", _bot),
    page("/channel", _channel),
]
