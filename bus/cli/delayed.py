"""The command `posthouse delayed`: messages that are not due yet, and cancelling them.

Owns which messages are meant: an id is its sender's, so each is looked up.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import rich_click as click

from ..bot import Bot
from ..client.ids import chosen_id
from ..errors import NotFound
from ..errors.words import amount
from ..wire.answers import ListedDelayed
from ..wire.limits import ANSWER_ITEMS_MAX
from .completing import complete_bots
from .confirming import asks_first, confirm, yes
from .console import Time, show_json, show_rows
from .ending import ask
from .listing import list_alone
from .options import LIMIT, Link, asking, id_of, limited, linked, name_of
from .removing import dry_run, referenced
from .streams import EXIT_REFUSED, note, say

__all__ = ["delayed"]

_of_sender = click.option(
    "--sender", metavar="NAME", callback=name_of, shell_complete=complete_bots, help="Only those of this bot."
)


def _ids_of(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str]:
    return [id for value in dict.fromkeys(values) if (id := id_of(context, parameter, value)) is not None]


@click.group(invoke_without_command=True)
@asking
@click.pass_context
def delayed(context: click.Context, link: Link) -> None:
    """List messages that are not due yet, and cancel them.

    Without a subcommand: the same as `delayed list`.
    """
    list_alone(context, _list, link, None, LIMIT)


@delayed.command("list")
@_of_sender
@limited
@asking
def list_delayed(link: Link, sender: str | None, limit: int) -> None:
    """List messages that are not due yet, the first ones first."""
    _list(link, sender, limit)


def _list(link: Link, sender: str | None, limit: int) -> None:
    async def listed(bot: Bot) -> tuple[list[ListedDelayed], dict[str, str]]:
        found = await bot.delayed(sender=sender, limit=limit)
        return found, {each.id: each.name for each in await bot.bots()} if found else {}

    found, names = ask(link, listed)
    if link.as_json:
        show_json(found)
        return
    rows = [
        (
            Time(each.due_at),
            each.message.sender_bot_name,
            _recipient(each.message.recipient, names),
            each.message.message_type,
            each.message.id,
        )
        for each in found
    ]
    show_rows(("due", "sender", "to", "type", "id"), rows, nothing="no delayed messages")


def _recipient(recipient: Mapping[str, str], names: Mapping[str, str]) -> str:
    if "name" in recipient:
        return f"#{recipient['name']}"
    return names.get(recipient["bot_id"], recipient["bot_id"])


@delayed.command("cancel")
@click.argument("ids", metavar="[ID]...", nargs=-1, callback=_ids_of)
@click.option("--all", "everything", is_flag=True, help="All current ones, of --sender or of all bots.")
@_of_sender
@referenced
@dry_run
@yes
@linked("console")
def cancel_delayed(link: Link, ids: list[str], everything: bool, sender: str | None, yes: bool, **how: Any) -> None:
    """Cancel the messages ID, or --all: they are never sent, and their ids can be used again.

    Exits with 1 if one of ID is not waiting any more, and names it.
    """
    if bool(ids) == everything:
        raise click.UsageError("give either ID, once or more, or --all")

    asks = asks_first(consented=not everything or yes or how["dry_run"])

    async def find(bot: Bot) -> dict[str, list[str]]:
        return await _all(bot, sender) if everything else await _senders(bot, ids, sender)

    theirs = ask(link, find)
    if asks and theirs:
        count = sum(map(len, theirs.values()))
        confirm(f"Cancel {amount(count, 'delayed message')} of {amount(len(theirs), 'bot')}?")

    async def cancelled(bot: Bot) -> list[str]:
        command, done = chosen_id(None), list[str]()
        for bot_id, waiting in theirs.items():
            for start in range(0, len(waiting), ANSWER_ITEMS_MAX):
                portion = waiting[start : start + ANSWER_ITEMS_MAX]
                done += (await bot.cancel_delayed(portion, bot=bot_id, part_of=command, **how)).ids
        return done

    done = ask(link, cancelled)
    if link.as_json:
        show_json({"cancelled": done, "dry_run": how["dry_run"]})
    else:
        say(f"{amount(len(done), 'delayed message')} {'would be cancelled' if how['dry_run'] else 'cancelled'}")
    left = [id for id in ids if id not in done]
    for id in left:
        note(f"{id} is not waiting: it was sent, cancelled, or never there")
    if left:
        sys.exit(EXIT_REFUSED)


async def _all(bot: Bot, sender: str | None) -> dict[str, list[str]]:
    """Return the ids of all delayed messages, by the ids of their senders."""
    theirs: dict[str, list[str]] = {}
    for each in await bot.delayed(sender=sender, limit=sys.maxsize):
        theirs.setdefault(each.message.sender_bot_id, []).append(each.message.id)
    return theirs


async def _senders(bot: Bot, ids: list[str], sender: str | None) -> dict[str, list[str]]:
    """Return those of the ids that are found, by the ids of their senders."""
    theirs: dict[str, list[str]] = {}
    for id in ids:
        try:
            found = await bot.find(id, sender=sender)
        except NotFound:
            continue
        theirs.setdefault(found.message.sender_bot_id, []).append(id)
    return theirs
