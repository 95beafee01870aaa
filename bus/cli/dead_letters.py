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
from ..client.ids import chosen_id
from ..errors import UnknownBot
from ..errors.words import amount
from ..model.records import parse_timestamp
from ..wire.answers import ListedDeadLetter
from ..wire.limits import ANSWER_ITEMS_MAX
from .completing import complete_channels, complete_mailboxes
from .confirming import asks_first, confirm, yes
from .console import Time, show_dead_letter, show_json, show_rows
from .ending import Impossible, ask
from .listing import list_alone
from .numbers import WholeNumber, seconds
from .options import Link, asking, linked, mailbox_of, name_of, not_empty
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

_seq = WholeNumber()

_NAMED_MAX = 10


_LIST_MAX = 50


@click.group("dead-letters", invoke_without_command=True)
@asking
@click.pass_context
def dead_letters(context: click.Context, link: Link) -> None:
    """List what mailboxes gave up on, and retry or discard it.

    A message that failed too often, or that its bot ended with `term`, is a dead letter of that bot, or of its
    group: it is stored, but not delivered any more. Without a subcommand: the same as `dead-letters list`.
    """
    list_alone(context, _list, link, None, _LIST_MAX)


@dead_letters.command("list")
@_of_bot
@click.option(
    "--limit",
    type=WholeNumber(1, ANSWER_ITEMS_MAX),
    metavar="N",
    default=_LIST_MAX,
    show_default=True,
    help="The maximum number to show for each bot: the newest.",
)
@asking
def list_dead_letters(link: Link, bot: str | None, limit: int) -> None:
    """List dead letters, by bot, the newest first."""
    _list(link, bot, limit)


def _list(link: Link, bot: str | None, limit: int) -> None:
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
        _tell_missing([seq], bot)
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
    one of SEQ is no dead letter, and names it.
    """
    if bool(seqs) == everything:
        raise click.UsageError("give either SEQ, once or more, or --all")
    if len(set(seqs)) > ANSWER_ITEMS_MAX:
        raise click.UsageError(f"at most {ANSWER_ITEMS_MAX} at once")

    async def retried(asker: Bot) -> tuple[int, set[int]]:
        if everything:
            return sum([await _retry_all(asker, name) for name in await _names(asker, bot)]), set()
        found = await _chosen(asker, bot, _Chosen(frozenset(seqs)))
        count = sum([await asker.retry_dead_letters(theirs, bot=name) for name, theirs in found])
        return count, {seq for _, theirs in found for seq in theirs}

    count, known = ask(link, retried)
    missing = sorted({*seqs} - known)
    if link.as_json:
        show_json({"retried": count, "missing": missing})
    elif known or not seqs:
        say(f"{amount(count, 'dead letter')} put back")
    _tell_missing(missing, bot)


class _Chosen(msgspec.Struct, frozen=True):
    """Which dead letters are meant: those that have all of this."""

    seqs: frozenset[int]
    channel: str | None = None
    reason: str | None = None
    given_up_before: datetime | None = None

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
@yes
@linked("console")
def discard(
    link: Link,
    seqs: tuple[int, ...],
    everything: bool,
    bot: str | None,
    channel: str | None,
    reason: str | None,
    older_than: float | None,
    yes: bool,
    **how: Any,
) -> None:
    """Remove the dead letters SEQ for good, or those that an option chooses, or --all.

    Their messages stay in the log. Several options choose what has all of it. Exits with 1 if one of SEQ is no
    dead letter, and names it, or if nobody has the name of --bot or --channel.
    """
    options = (channel, reason, older_than)
    if everything == (bool(seqs) or any(option is not None for option in options)):
        raise click.UsageError("say which: SEQ, --channel, --reason or --older-than, or --all")
    before = None if older_than is None else datetime.now(UTC) - timedelta(seconds=older_than)
    chosen = _Chosen(frozenset(seqs), channel, reason, before)
    is_named = not everything and all(option is None for option in options)
    asks = asks_first(consented=is_named or yes or how["dry_run"])

    async def find(asker: Bot) -> list[tuple[str, list[int]]]:
        found = await _chosen(asker, bot, chosen)
        if channel is not None and not found:
            await _require_channel(asker, channel)
        return found

    async def discarded(asker: Bot) -> int:
        command = chosen_id(None)
        return sum([await _discard(asker, name, theirs, command, how) for name, theirs in found])

    found = ask(link, find)
    if asks and found:
        some = [f"{amount(len(theirs), 'dead letter')} of {name}" for name, theirs in found]
        confirm(f"Discard {amount(sum(len(theirs) for _, theirs in found), 'dead letter')}?", some)
    count = ask(link, discarded)
    missing = sorted({*seqs} - {seq for _, theirs in found for seq in theirs})
    if link.as_json:
        show_json({"discarded": count, "missing": missing, "dry_run": how["dry_run"]})
    elif found or not seqs:
        say(f"{amount(count, 'dead letter')} {'would be discarded' if how['dry_run'] else 'discarded'}")
    _tell_missing(missing, bot)


def _tell_missing(missing: Sequence[int], bot: str | None) -> None:
    """Name those that were asked for and are none, and exit with 1."""
    if missing:
        which = ", ".join(map(str, missing[:_NAMED_MAX])) + (", …" if len(missing) > _NAMED_MAX else "")
        of_bot = "of any mailbox" if bot is None else f"of {bot}"
        show_error(f"not a dead letter {of_bot}: {which}; 'posthouse dead-letters list' shows them")
        sys.exit(EXIT_REFUSED)


async def _require_channel(asker: Bot, name: str) -> None:
    """Raise Impossible if there is no such channel. Dead letters of one that was removed stay."""
    if all(channel.name != name for channel in await asker.channels()):
        raise Impossible(f"no channel named {name!r}, and no dead letter of one; see 'posthouse channels'")


async def _chosen(asker: Bot, bot: str | None, chosen: _Chosen) -> list[tuple[str, list[int]]]:
    """Return the seqs of the chosen dead letters, by the mailboxes that have any."""
    if bot is not None:
        found = [(bot, await _choose(asker, bot, chosen))]
    else:
        found = [(name, await _readable(asker, name, chosen)) for name in await _names(asker, None)]
    return [(name, theirs) for name, theirs in found if theirs]


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


async def _discard(asker: Bot, name: str, seqs: Sequence[int], command: str, how: Mapping[str, Any]) -> int:
    """Discard dead letters of a mailbox in portions, and return how many there were."""
    portions = [seqs[start : start + ANSWER_ITEMS_MAX] for start in range(0, len(seqs), ANSWER_ITEMS_MAX)]
    removed = [await asker.discard_dead_letters(portion, bot=name, part_of=command, **how) for portion in portions]
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
