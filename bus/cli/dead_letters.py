"""The command `posthouse dead-letters`: listing what mailboxes gave up on, and retrying it.

Owns which mailboxes are asked: one bot's or group's, or all. A channel's message may be a dead letter in several.
"""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from ..bot import Bot
from ..errors import UnknownBot
from ..wire.answers import ListedDeadLetter
from ..wire.limits import ANSWER_ITEMS_MAX, NUMBER_MAX
from .console import Time, show_dead_letter, show_json, show_rows
from .ending import ask
from .options import Link, asking, linked, mailbox_of
from .streams import EXIT_REFUSED, say, show_error

__all__ = ["dead_letters"]


_of_bot = click.option(
    "--bot",
    metavar="NAME",
    callback=mailbox_of,
    help="Those of a bot, or of a group as CHANNEL/GROUP; by default, of all.",
)

_seq = click.IntRange(min=1, max=NUMBER_MAX)


@click.group("dead-letters")
def dead_letters() -> None:
    """List what mailboxes gave up on, and retry it.

    A message that failed too often, or that its bot ended with `term`, is a dead letter of that bot, or of its
    group: it is stored, but not delivered any more.
    """


@dead_letters.command("list")
@_of_bot
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=ANSWER_ITEMS_MAX),
    metavar="N",
    default=50,
    show_default=True,
    help="The maximum number to show for each bot: the newest.",
)
@asking
def list_dead_letters(link: Link, bot: str | None, limit: int) -> None:
    """List dead letters, by bot, the newest first."""
    found = ask(link, lambda asker: _found(asker, bot, limit))
    if link.as_json:
        show_json([_value(mailbox, dead) for mailbox, dead in found])
        return
    rows = [
        (
            dead.seq,
            mailbox,
            dead.message.sender_bot_name if dead.message is not None else "",
            dead.message.message_type if dead.message is not None else "",
            dead.attempts,
            Time(dead.at),
            dead.reason,
        )
        for mailbox, dead in found
    ]
    columns = ("seq", "bot", "sender", "type", "attempts", "given up", "reason")
    show_rows(columns, rows, nothing="no dead letters", minor=("type", "attempts", "sender"))


@dead_letters.command("show")
@click.argument("seq", type=_seq)
@_of_bot
@asking
def show(link: Link, seq: int, bot: str | None) -> None:
    """Show the dead letter SEQ: the reason, and the whole message.

    With `--json`, one object a line for each bot that has it among its 1,000 newest.
    """
    found = ask(link, lambda asker: _found(asker, bot, ANSWER_ITEMS_MAX))
    chosen = [(mailbox, dead) for mailbox, dead in found if dead.seq == seq]
    if not chosen:
        _refuse(f"no dead letter {seq}", bot)
    for place, (mailbox, dead) in enumerate(chosen):
        if link.as_json:
            show_json(_value(mailbox, dead))
            continue
        if place:
            say()
        show_dead_letter(mailbox, dead)


@dead_letters.command("retry")
@click.argument("seqs", metavar="[SEQ]...", type=_seq, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All current ones.")
@_of_bot
@linked("console")
def retry(link: Link, seqs: tuple[int, ...], everything: bool, bot: str | None) -> None:
    """Put the dead letters SEQ, or --all, back into the mailboxes that gave up on them.

    They are redelivered, with the full number of attempts; an expired message only expires again. Exits with 1 if
    there was none.
    """
    if bool(seqs) == everything:
        raise click.UsageError("give either SEQ, once or more, or --all")
    if len(set(seqs)) > ANSWER_ITEMS_MAX:
        raise click.UsageError(f"at most {ANSWER_ITEMS_MAX} at once")

    async def retried(asker: Bot) -> int:
        names = await _names(asker, bot)
        if everything:
            return sum([await _retry_all(asker, name) for name in names])
        return sum([await asker.retry_dead_letters(sorted(set(seqs)), bot=name) for name in names])

    count = ask(link, retried)
    if seqs and not count:
        _refuse("no such dead letter", bot)
    if link.as_json:
        show_json({"retried": count})
    else:
        say(f"{count:,} dead letter{'' if count == 1 else 's'} put back")


async def _names(asker: Bot, bot: str | None) -> list[str]:
    if bot is not None:
        return [bot]
    groups = [f"{channel.name}/{group.group}" for channel in await asker.channels() for group in channel.groups]
    return [*(each.name for each in await asker.bots()), *groups]


async def _found(asker: Bot, bot: str | None, limit: int) -> list[tuple[str, ListedDeadLetter]]:
    """Return dead letters, each with the name of its mailbox; of all mailboxes, those that may be read."""
    found: list[tuple[str, ListedDeadLetter]] = []
    for name in await _names(asker, bot):
        try:
            found += [(name, dead) for dead in await asker.dead_letters(bot=name, limit=limit)]
        except UnknownBot:
            if bot is not None:
                raise
    return found


def _value(mailbox: str, dead: ListedDeadLetter) -> dict[str, Any]:
    return {"bot": mailbox, **dead}


async def _retry_all(asker: Bot, name: str) -> int:
    """Put back all dead letters of a bot; one that dies again meanwhile is not put back a second time."""
    seen: set[int] = set()
    count = 0
    while True:
        page = {dead.seq for dead in await asker.dead_letters(bot=name, limit=ANSWER_ITEMS_MAX)} - seen
        if not page:
            return count
        seen |= page
        count += await asker.retry_dead_letters(sorted(page), bot=name)


def _refuse(text: str, bot: str | None) -> None:
    show_error(text if bot is None else f"{text} of {bot}")
    sys.exit(EXIT_REFUSED)
