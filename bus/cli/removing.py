"""The command `posthouse purge`, and how removals are told.

Owns the wording of what was removed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import rich_click as click

from ..errors.words import amount
from ..model.removing import Removed, counted
from .completing import (
    complete_bots,
    complete_channels,
    complete_groups,
    complete_mailboxes,
    complete_subscriptions,
)
from .confirming import asks_first, confirm, yes
from .console import show_json
from .ending import ask
from .options import Link, channels_of, linked, mailbox_of, name_of
from .streams import EXIT_REFUSED, plain, say, show_error

__all__ = ["dry_run", "in_words", "purge", "referenced", "remove", "tell"]

referenced = click.option("--reference", metavar="TEXT", help="Kept with the record: a ticket, but nobody's name.")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be removed.")


def in_words(removed: Removed) -> str:
    """Return what was removed, for people; a kind that this version does not know has no words."""
    counts, name = removed.counts, removed.name
    match removed.kind:
        case "dead_letters":
            text = f"{amount(counts['dead_letters'], 'dead letter')} of {name}"
        case "delayed":
            text = f"{amount(counts['delayed'], 'delayed message')} of {name}"
        case "backlog":
            text = f"{amount(counts['waiting'], 'message')} that waited for {name}"
        case "subscription":
            bot, _, channel = name.partition(" ")
            text = f"the subscription of {bot} to {channel}, with {amount(counts['waiting'], 'waiting message')}"
        case "bot":
            text = f"the bot {name}{_with(counts)}"
        case "channel":
            text = f"the channel {name}{_with(counts)}"
        case "group":
            text = f"the group {name}{_with(counts)}"
        case kind:
            text = f"{kind} {name}"
    return plain(text)


def _with(counts: Mapping[str, int]) -> str:
    """Return what was removed together with something."""
    named = counted(counts)
    return f", with {named}" if named else ""


def tell(link: Link, removed: Removed, *, force: bool = True) -> None:
    """Show what was removed, or would be. Exit with 1 if it would be refused."""
    refused = removed.is_refused(force=force) and not removed.done
    if link.as_json:
        show_json(msgspec.to_builtins(removed))
    elif refused:
        show_error(plain(removed.refusal()))
    else:
        say(f"{in_words(removed)} {'removed' if removed.done else 'would be removed'}")
    if refused:
        sys.exit(EXIT_REFUSED)


@click.command()
@click.argument("mailbox", metavar="NAME", callback=mailbox_of, shell_complete=complete_mailboxes)
@referenced
@dry_run
@yes
@linked("console")
def purge(link: Link, mailbox: str, yes: bool, **how: Any) -> None:
    """Pass over all that waits in the mailbox of the bot NAME, or of a group, CHANNEL/GROUP.

    What is in flight is left, and comes again if it is not settled. So are dead letters, and delayed messages that
    are not due. The messages stay in the log: `posthouse history` shows them. The bots are told of a gap.
    """
    if asks_first(consented=yes or how["dry_run"]):
        found = ask(link, lambda bot: bot.purge(mailbox, dry_run=True))
        if found.counts["waiting"]:
            confirm(f"Remove {in_words(found)}?")
    removed = ask(link, lambda bot: bot.purge(mailbox, **how))
    if link.as_json or removed.counts["waiting"]:
        tell(link, removed)
    else:
        say(plain(f"nothing waits for {removed.name}"))


_force = click.option("--force", is_flag=True, help="Remove also what is in the way.")


@click.group()
def remove() -> None:
    """Remove bots, channels, groups and subscriptions, with what waits for them.

    Their messages stay in the log: `posthouse history` shows them.
    """


@remove.command("subscription")
@click.argument("bot", metavar="BOT", callback=name_of, shell_complete=complete_bots)
@click.argument("channel", metavar="CHANNEL", callback=channels_of, shell_complete=complete_subscriptions)
@referenced
@dry_run
@linked("console")
def remove_subscription(link: Link, bot: str, channel: str, **how: Any) -> None:
    """End the subscription of BOT to CHANNEL, or to a pattern of channels, as if the bot had unsubscribed.

    What waits for it is dropped, but a group keeps what it has. A program that runs may subscribe again.
    """
    removed = ask(link, lambda asker: asker.remove_subscription(bot, channel, **how))
    if not removed.counts["subscriptions"]:
        show_error(f"{bot} is not subscribed to {channel}; see 'posthouse subscriptions --bot {bot}'")
        sys.exit(EXIT_REFUSED)
    tell(link, removed)


@remove.command("group")
@click.argument("channel", metavar="CHANNEL", callback=name_of, shell_complete=complete_channels)
@click.argument("group", metavar="GROUP", callback=name_of, shell_complete=complete_groups)
@_force
@referenced
@dry_run
@linked("console")
def remove_group(link: Link, channel: str, group: str, **how: Any) -> None:
    """Remove the GROUP of CHANNEL, with its mailbox.

    It is refused, and exits with 1, if the group has members, messages that wait or are in flight, or dead letters:
    then --force removes these, too. A group of that name that is opened later is a new one.
    """
    tell(link, ask(link, lambda asker: asker.remove_group(channel, group, **how)), force=how["force"])


@remove.command("bot")
@click.argument("bot", metavar="BOT", callback=name_of, shell_complete=complete_bots)
@_force
@referenced
@dry_run
@linked("console")
def remove_bot(link: Link, bot: str, **how: Any) -> None:
    """Remove BOT with its mailbox, its subscriptions, its keys and its last will, which is not sent.

    It is refused, and exits with 1, if the bot is connected, holds runs that have not ended, owns workflows, or if
    delayed messages are from it or for it; and without --force if it has subscriptions, messages that wait, dead
    letters, keys or a last will. A bot of that name that comes later is a new one.
    """
    tell(link, ask(link, lambda asker: asker.remove_bot(bot, **how)), force=how["force"])


@remove.command("channel")
@click.argument("channel", metavar="CHANNEL", callback=name_of, shell_complete=complete_channels)
@_force
@referenced
@dry_run
@linked("console")
def remove_channel(link: Link, channel: str, **how: Any) -> None:
    """Remove CHANNEL with its subscriptions and groups. Whoever publishes on it creates it again.

    Its messages stay in the log, and a channel of that name that comes later has them. It is refused, and exits
    with 1, if delayed messages are for it; and without --force if it has subscriptions or groups.
    """
    tell(link, ask(link, lambda asker: asker.remove_channel(channel, **how)), force=how["force"])
