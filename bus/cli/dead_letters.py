"""The command `posthouse dead-letters`: listing what mailboxes gave up on, retrying and discarding it.

Owns which mailboxes are asked: one bot's or group's, or all. A channel's message may be a dead letter in several.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import rich_click as click

from ..bot import Bot
from ..errors import UnknownBot
from ..errors.words import amount
from ..model.records import parse_timestamp
from ..wire.answers import ListedDeadLetter
from ..wire.limits import ANSWER_ITEMS_MAX, NUMBER_MAX
from .completing import complete_channels, complete_mailboxes
from .console import Time, show_dead_letter, show_json, show_rows
from .ending import Impossible, ask
from .options import Link, asking, linked, mailbox_of, name_of, not_empty, seconds
from .removing import dry_run, referenced
from .streams import EXIT_REFUSED, say, show_error

__all__ = ["dead_letters"]


_of_bot = click.option(
    "--bot",
    metavar="NAME",
    callback=mailbox_of,
    shell_complete=complete_mailboxes,
    help="Those of a bot, or of a group as CHANNEL/GROUP; by default, of all.",
)

_seq = click.IntRange(min=1, max=NUMBER_MAX)


@click.group("dead-letters")
def dead_letters() -> None:
    """List what mailboxes gave up on, and retry or discard it.

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


class _Chosen(msgspec.Struct, frozen=True):
    """Which dead letters to discard: those that have all of this."""

    seqs: frozenset[int]
    channel: str | None
    reason: str | None
    given_up_before: datetime | None

    def has(self, dead: ListedDeadLetter) -> bool:
        """Return True if this is one of them."""
        return (
            (not self.seqs or dead.seq in self.seqs)
            and (
                self.channel is None
                or (dead.message is not None and dead.message.recipient.get("name") == self.channel)
            )
            and (self.reason is None or self.reason in dead.reason)
            and (self.given_up_before is None or parse_timestamp(dead.at) < self.given_up_before)
        )


@dead_letters.command("discard")
@click.argument("seqs", metavar="[SEQ]...", type=_seq, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All current ones, of --bot or of all mailboxes.")
@_of_bot
@click.option(
    "--channel",
    metavar="NAME",
    callback=name_of,
    shell_complete=complete_channels,
    help="Only messages of this channel.",
)
@click.option("--reason", metavar="TEXT", callback=not_empty, help="Only those whose reason contains a text.")
@click.option("--older-than", metavar="SPAN", type=seconds, help="Only those given up so long ago: 30m, 1h or 7d.")
@referenced
@dry_run
@linked("console")
def discard(
    link: Link,
    seqs: tuple[int, ...],
    everything: bool,
    bot: str | None,
    channel: str | None,
    reason: str | None,
    older_than: float | None,
    **how: Any,
) -> None:
    """Remove the dead letters SEQ for good, or those that an option chooses, or --all.

    Their messages stay in the log. Several options choose what has all of it. Exits with 1 if SEQ is none, or
    nobody has the name of --bot or --channel.
    """
    options = (channel, reason, older_than)
    if everything == (bool(seqs) or any(option is not None for option in options)):
        raise click.UsageError("say which: SEQ, --channel, --reason or --older-than, or --all")
    before = None if older_than is None else datetime.now(UTC) - timedelta(seconds=older_than)
    chosen = _Chosen(frozenset(seqs), channel, reason, before)

    async def discarded(asker: Bot) -> int:
        if bot is not None:
            found = [(bot, await _choose(asker, bot, chosen))]
        else:
            found = [(name, await _readable(asker, name, chosen)) for name in await _names(asker, None)]
        if channel is not None and not any(theirs for _, theirs in found):
            await _require_channel(asker, channel)
        return sum([await _discard(asker, name, theirs, how) for name, theirs in found])

    count = ask(link, discarded)
    if seqs and not count:
        _refuse("no such dead letter", bot)
    if link.as_json:
        show_json({"discarded": count, "dry_run": how["dry_run"]})
    else:
        say(f"{amount(count, 'dead letter')} {'would be discarded' if how['dry_run'] else 'discarded'}")


async def _require_channel(asker: Bot, name: str) -> None:
    """Raise Impossible if there is no such channel. Dead letters of one that was removed stay."""
    if all(channel.name != name for channel in await asker.channels()):
        raise Impossible(f"no channel named {name!r}, and no dead letter of one; see 'posthouse channels'")


async def _readable(asker: Bot, name: str, chosen: _Chosen) -> list[int]:
    """Return the seqs of the chosen dead letters of a mailbox; none if it is gone, or may not be read."""
    try:
        return await _choose(asker, name, chosen)
    except UnknownBot:
        return []


async def _choose(asker: Bot, name: str, chosen: _Chosen) -> list[int]:
    """Return the seqs of the chosen dead letters of a mailbox."""
    found: list[int] = []
    offset = 0
    while True:
        page = await asker.dead_letters(bot=name, limit=ANSWER_ITEMS_MAX, offset=offset)
        found += [dead.seq for dead in page if chosen.has(dead)]
        offset += len(page)
        if len(page) < ANSWER_ITEMS_MAX:
            return found


async def _discard(asker: Bot, name: str, seqs: Sequence[int], how: Mapping[str, Any]) -> int:
    """Discard dead letters of a mailbox in portions, and return how many there were."""
    portions = [seqs[start : start + ANSWER_ITEMS_MAX] for start in range(0, len(seqs), ANSWER_ITEMS_MAX)]
    removed = [await asker.discard_dead_letters(portion, bot=name, **how) for portion in portions]
    return sum(each.counts["dead_letters"] for each in removed)


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
