"""The command `posthouse events`: what happened lately, as the worker remembers it.

Owns the polling of `--follow`.
"""

from __future__ import annotations

import signal
import sys

import anyio
import rich_click as click

from ..bot import Bot
from ..errors import RequestError
from ..model.event_words import COMES_AND_GOES, words_of
from ..wire.answers import EventList, ListedEvent
from ..wire.codes import Code
from .console import Time, show_json, show_rows
from .ending import Impossible, ask, open_bot, run, until_signal
from .options import Link, asking, limited
from .streams import EXIT_SIGNAL, note, plain, say

__all__ = ["events"]

_LOOK_SECONDS = 1.0
"""The time between two polls of `--follow`."""


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also show bots that came, and that said goodbye.")
@limited
@click.option("--follow", is_flag=True, help="Also show what happens from now on, until Ctrl-C.")
@asking
def events(link: Link, everything: bool, limit: int, follow: bool) -> None:
    """Show what happened lately, oldest first: bots that vanished, dead letters, crashed runs, full mailboxes.

    The worker remembers it since its start, whether anybody listened or not: of each kind the last event about
    each bot or mailbox, and in TIMES how often there was one. A restart of the worker forgets it. What is so now,
    such as approvals that wait, has commands of its own.
    """
    if follow:
        number = run(lambda: until_signal(lambda: _follow(link, everything=everything)))
        if number is not None and number != signal.SIGINT:
            sys.exit(EXIT_SIGNAL + number)
        return
    found = ask(link, _asked)
    shown = [each for each in found.events if everything or each.message_type not in COMES_AND_GOES]
    chosen = shown[-limit:]
    if link.as_json:
        show_json(chosen)
        return
    rows = [(Time(each.at), _words(each), each.times, each.message_type) for each in chosen]
    columns, since = ("time", "what happened", "times", "event"), f"since the worker's start at {found.since}"
    show_rows(columns, rows, nothing=f"nothing happened {since}", minor=("event", "times"))
    if len(shown) > limit:
        note(f"{len(shown) - limit:,} others before these: use a larger --limit")
    if rows:
        note(f"the worker remembers what happened {since}")


async def _asked(bot: Bot, after: int = 0) -> EventList:
    try:
        return await bot.recent_events(after=after)
    except RequestError as error:
        if error.code != Code.BAD_REQUEST:
            raise
        raise Impossible("this worker is of an earlier version, and remembers no events") from error


async def _follow(link: Link, *, everything: bool) -> None:
    async with open_bot(link, max_in_flight=0) as bot:
        found = await _asked(bot)
        since, last = found.since, found.events[-1].number if found.events else 0
        while True:
            found = await _asked(bot, last)
            if found.since != since:
                note("the worker was started anew: what it remembers follows")
                since, last = found.since, 0
                continue
            for each in found.events:
                last = each.number
                if not everything and each.message_type in COMES_AND_GOES:
                    continue
                if link.as_json:
                    show_json(each)
                else:
                    say(_line(each))
            await anyio.sleep(_LOOK_SECONDS)


def _line(each: ListedEvent) -> str:
    times = "" if each.times == 1 else f" (for the {each.times:,}th time)"
    return plain(f"{each.at}  {_words(each)}{times}")


def _words(each: ListedEvent) -> str:
    return words_of(each.message_type, each.body)
