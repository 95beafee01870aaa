"""The command `posthouse purge`, and how removals are told.

Owns the wording of what was removed.
"""

from __future__ import annotations

from typing import Any

import msgspec
import rich_click as click

from ..model.removing import Removed
from .console import amount, show_json
from .ending import ask
from .options import Link, linked, mailbox_of
from .streams import plain, say

__all__ = ["dry_run", "in_words", "purge", "referenced", "tell"]

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
        case kind:
            text = f"{kind} {name}"
    return plain(text)


def tell(link: Link, removed: Removed) -> None:
    """Show what was removed, or would be."""
    if link.as_json:
        show_json(msgspec.to_builtins(removed))
    else:
        say(f"{in_words(removed)} {'removed' if removed.done else 'would be removed'}")


@click.command()
@click.argument("mailbox", metavar="NAME", callback=mailbox_of)
@referenced
@dry_run
@linked("console")
def purge(link: Link, mailbox: str, **how: Any) -> None:
    """Pass over all that waits in the mailbox of the bot NAME, or of a group, CHANNEL/GROUP.

    What is in flight is left, and comes again if it is not settled. So are dead letters, and delayed messages that
    are not due. The messages stay in the log: `posthouse history` shows them. The bots are told of a gap.
    """
    tell(link, ask(link, lambda bot: bot.purge(mailbox, **how)))
