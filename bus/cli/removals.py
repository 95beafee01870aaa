"""The command `removals`: who erased or removed what, and when. The page shows the same.

Owns how much of the records is read for that, and how they are told.
"""

from __future__ import annotations

import sys
from collections.abc import Sized

import msgspec
import rich_click as click

from ..bot import Bot
from ..errors.words import amount
from ..model.erasing import Erased, Removal, joined
from .console import Time, show_json, show_rows
from .ending import ask
from .numbers import WholeNumber
from .options import Link, asking
from .removing import in_words

__all__ = ["erased_in_words", "newest_removals", "removal_in_words", "removals"]

_PORTION = 200
"""Records that are read at once. The parts of a command are made one after the other: between two of them are fewer
removals of others than this."""


async def newest_removals(bot: Bot, limit: int, *, after: int = 0, before: int = sys.maxsize) -> list[Removal]:
    """Return one record for each of the newest commands that removed something, in their order.

    They are those whose numbers lie between `after` and `before`. Records are read backwards in portions, until
    none of these commands has a part in the last one.
    """
    commands: dict[tuple[str, str], list[Removal]] = {}  # the parts of each, the newest first
    end = await _end(bot)
    if before <= end:
        end = await _end_of_those_before(bot, before)
    found: list[list[Removal]] = []
    while end > 0:
        begin = max(end - _PORTION, 0)
        portion = [each for each in await bot.removals(after=begin, limit=_PORTION) if each.number <= end]
        for each in reversed(portion):
            commands.setdefault(each.command, []).append(each)
        end = begin
        if len(commands) < limit and begin > after:
            continue
        found = [parts for parts in commands.values() if after < parts[-1].number < before]
        found = sorted(found, key=lambda parts: parts[-1].number)[-limit:]
        going_on = {each.command for each in portion if each.part_of is not None}
        if (len(found) == limit or begin <= after) and not any(parts[0].command in going_on for parts in found):
            break
    return joined(part for parts in found for part in reversed(parts))


async def _end(bot: Bot) -> int:
    """Return a number after which there is no record, nearly the last one: they can only be read forwards."""
    low, high = 0, _PORTION
    while await bot.removals(after=high, limit=1):
        low, high = high, 2 * high
    while high - low > _PORTION:
        middle = (low + high) // 2
        if await bot.removals(after=middle, limit=1):
            low = middle
        else:
            high = middle
    return high


async def _end_of_those_before(bot: Bot, before: int) -> int:
    """Return a number after which no command that began before another number has a part."""
    going_on: set[tuple[str, str]] | None = None
    end = before
    while going_on is None or going_on:
        portion = await bot.removals(after=end, limit=_PORTION)
        parts = {each.command for each in portion if each.part_of is not None}
        going_on = parts if going_on is None else going_on & parts
        end = portion[-1].number if portion else end
    return end


def removal_in_words(record: Removal) -> str:
    """Return what was removed, for people."""
    if record.removed is not None:
        return in_words(record.removed)
    return f"{erased_in_words(record.erased) or 'nothing'} erased"


def erased_in_words(erased: Erased) -> str:
    """Return what is or was erased, without what there is none of; an empty text for nothing."""
    counts: tuple[tuple[str, Sized], ...] = (
        ("message", erased.seqs),
        ("delayed message", erased.delayed),
        ("run", erased.runs),
        ("keyed value", erased.values),
    )
    return ", ".join(amount(len(found), thing) for thing, found in counts if found)


@click.command()
@click.option("--after", type=WholeNumber(0), metavar="N", default=0, help="Only those after a number.")
@click.option(
    "--limit", type=WholeNumber(1), metavar="N", default=100, show_default=True, help="The maximum number to show."
)
@asking
def removals(link: Link, after: int, limit: int) -> None:
    """Show who erased or removed what, and when: the newest at the end, one row for each command.

    SCRUBBED is since when nothing of it is left in the files of the database. `--json` also names the messages and
    runs.
    """
    found = ask(link, lambda bot: newest_removals(bot, limit, after=after))
    if link.as_json:
        show_json([msgspec.to_builtins(each) for each in found])
        return
    rows = [
        (
            each.number,
            Time(each.at),
            f"{each.bot_name} (damaged)" if each.damaged else each.bot_name,
            removal_in_words(each),
            each.reference or "",
            Time(each.scrubbed_at) if each.scrubbed_at else "",
        )
        for each in found
    ]
    columns = ("number", "time", "bot", "removed", "reference", "scrubbed")
    show_rows(columns, rows, nothing="nothing was removed", minor=("scrubbed", "reference"))
