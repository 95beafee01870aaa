"""The command `posthouse audit`: who came and went, what was refused, and who changed what.

Owns the polling of `--follow`.
"""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import rich_click as click
from click.shell_completion import CompletionItem

from ..bot import Bot
from ..model.records import parse_timestamp, timestamp
from ..model.security import SECURITY_EVENTS
from ..wire.answers import ListedSecurityEvent
from ..wire.limits import ANSWER_ITEMS_MAX
from .completing import complete_bots
from .console import Time, show_json, show_rows
from .ending import ask, open_bot, run, until_signal
from .options import Link, asking, limited, name_of
from .streams import EXIT_SIGNAL, note, plain, say
from .times import TimeOption

__all__ = ["audit"]

_LOOK_SECONDS = 1.0
"""The time between two polls of `--follow`; an event is on the worker's disk within a fifth of that."""


class _EventName(click.ParamType[str]):
    """The name of a security event."""

    name = "event"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. Fail with those that are like it if there is none."""
        if value in SECURITY_EVENTS:
            return str(value)
        from difflib import get_close_matches  # only a mistake needs it

        near = get_close_matches(str(value), SECURITY_EVENTS)
        known = f"did you mean {' or '.join(near)}?" if near else f"the names are {', '.join(SECURITY_EVENTS)}"
        return self.fail(f"no event is named {str(value)!r}: {known}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the names that begin so."""
        return [CompletionItem(name) for name in SECURITY_EVENTS if name.startswith(incomplete)]


class _Wanted(msgspec.Struct, frozen=True):
    """Which events to show."""

    since: str | None
    bot: str | None
    event: str | None
    limit: int


@click.command()
@click.option(
    "--since", type=TimeOption(), metavar="TIME", help="Only from a time on: 7d (ago), or 2026-01-31T00:00Z."
)
@click.option(
    "--bot", metavar="NAME", callback=name_of, shell_complete=complete_bots, help="Only those of this bot."
)
@click.option("--event", metavar="EVENT", type=_EventName(), help="Only those with this name, such as forbidden.")
@limited
@click.option("--follow", is_flag=True, help="Also show what is recorded from now on, until Ctrl-C.")
@asking
def audit(link: Link, follow: bool, **wanted: Any) -> None:
    """Show security events, oldest first: who came and went, what was refused, and who changed what.

    The same event of the same bot is recorded once a minute, with TIMES. `--follow` shows each once, when it is
    new, and without `--since` only those from now on.
    """
    asked = _Wanted(**wanted)
    if follow:
        number = run(lambda: until_signal(lambda: _follow(link, asked)))
        if number is not None and number != signal.SIGINT:
            sys.exit(EXIT_SIGNAL + number)
        return
    found = ask(link, lambda bot: _events(bot, asked, after=0))
    if link.as_json:
        show_json(found)
        return
    columns = ("id", "time", "event", "bot", "key", "address", "object", "detail", "times")
    minor = ("key", "address", "id", "object", "detail")
    show_rows(columns, [_row(each) for each in found], nothing="no events", minor=minor)
    if len(found) == asked.limit:
        note("there may be more: use a later --since, or a larger --limit")


async def _events(bot: Bot, wanted: _Wanted, *, after: int) -> list[ListedSecurityEvent]:
    since = None if wanted.since is None else parse_timestamp(wanted.since)
    return await bot.audit(bot=wanted.bot, event=wanted.event, since=since, after=after, limit=wanted.limit)


async def _follow(link: Link, wanted: _Wanted) -> None:
    after = 0
    since = wanted.since or timestamp(datetime.now(UTC))
    portion = msgspec.structs.replace(wanted, since=since, limit=ANSWER_ITEMS_MAX)
    async with open_bot(link, max_in_flight=0) as bot:
        epoch = bot.epoch
        while True:
            found = await _events(bot, portion, after=after)
            if bot.epoch != epoch:  # a restored copy gives ids again
                note("the worker has another log by now: what is in that follows, from the beginning")
                epoch, after = bot.epoch, 0
                continue
            for each in found:
                after = each.id
                if link.as_json:
                    show_json(each)
                else:
                    say(_line(each))
            if len(found) < portion.limit:
                await anyio.sleep(_LOOK_SECONDS)


def _row(each: ListedSecurityEvent) -> tuple[Any, ...]:
    return (
        each.id,
        Time(each.at),
        f"{each.event} (damaged)" if each.damaged else each.event,
        each.bot or each.bot_id or "",
        each.key or "",
        each.address or "",
        each.object or "",
        each.detail or "",
        each.times,
    )


def _line(each: ListedSecurityEvent) -> str:
    """Return an event as a line for people."""
    named = (
        ("bot", each.bot or each.bot_id),
        ("key", each.key),
        ("address", each.address),
        ("object", each.object),
        ("detail", each.detail),
        ("damaged", "yes" if each.damaged else None),
    )
    rest = "".join(f"  {name} {value}" for name, value in named if value is not None)
    return plain(f"{each.at}  {each.event}{rest}")
