"""The commands `message`, `mailbox` and `sessions`: what became of a message, what waits, and who is connected."""

from __future__ import annotations

from typing import Any

import msgspec
import rich_click as click

from ..bot import Bot
from ..errors.words import amount
from ..wire.answers import (
    Fate,
    FoundMessage,
    KeptMessage,
    ListedSession,
    ListedWill,
    MailboxContents,
    MessageState,
    WaitingMessage,
)
from ..wire.frames import is_id
from ..wire.limits import NUMBER_MAX
from .completing import complete_bots, complete_mailboxes
from .console import Time, ago, left_of, local_time, shortened, show_facts, show_json, show_rows
from .ending import ask
from .numbers import WholeNumber
from .options import Link, asking, mailbox_of, name_of
from .streams import note, plain, say

__all__ = ["mailbox", "message", "sessions"]

_THREAD_MAX = 1000
"""Messages of a thread that are counted."""


def _id_or_seq(context: click.Context, parameter: click.Parameter, value: str) -> str | int:
    if is_id(value):
        return value
    if value.isdecimal() and 0 < int(value) <= NUMBER_MAX:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a message's id, a UUID in lower case, nor its seq, a number")


@click.command()
@click.argument("message_id", metavar="ID|SEQ", callback=_id_or_seq)
@click.option(
    "--sender",
    metavar="NAME",
    callback=name_of,
    shell_complete=complete_bots,
    help="The bot that sent it, if several used the same id.",
)
@asking
def message(link: Link, message_id: str | int, sender: str | None) -> None:
    """Show a message, and what became of it in every mailbox that it went to.

    STATE is waiting, in_flight, returned (to be delivered again), settled, dead (a dead letter) or expired.
    ATTEMPTS is how often it was delivered, which is not kept of a message that is settled. A message that is not
    due yet is in no mailbox, and neither is a bot's last will before it is sent.
    """
    if sender is not None and isinstance(message_id, int):
        raise click.UsageError("--sender is for an id: a seq names one message")

    async def asked(bot: Bot) -> tuple[FoundMessage, int]:
        found = await bot.find(message_id, sender=sender)
        if link.as_json or found.message.seq is None:
            return found, 1
        thread = await bot.history(thread=found.message.id, sender=found.message.sender_bot_id, limit=_THREAD_MAX)
        return found, len(thread)

    found, thread = ask(link, asked)
    if link.as_json:
        show_json(found)
        return
    show_facts(_facts(found, thread))
    if found.message.seq is None:
        return
    say()
    erased = found.message.erased
    rows = [(fate.mailbox, fate.state, _attempts(fate), _why(fate, erased=erased)) for fate in found.mailboxes]
    nothing = "it is in no mailbox: nobody was to get it, or their mailboxes were removed"
    show_rows(("mailbox", "state", "attempts", "detail"), rows, nothing=nothing)


def _facts(found: FoundMessage, thread: int) -> dict[str, Any]:
    kept = found.message
    together = amount(thread, "message") if thread < _THREAD_MAX else f"{_THREAD_MAX:,} messages or more"
    awaited = "due" if found.will is None else "sent"
    return {
        "seq": f"none before it is {awaited}" if kept.seq is None else str(kept.seq),
        "id": kept.id,
        "sender": kept.sender_bot_name,
        "to": _recipient(found),
        "sent": Time(kept.timestamp or ""),
        "last will": "" if found.will is None else _will(found.will, kept.sender_bot_name),
        "due": Time(found.due_at or ""),
        "expires": Time(found.expires_at or ""),
        "type": kept.message_type,
        "reply to": kept.reply_to or "",
        "thread": f"{together}: posthouse history --thread {kept.id}" if thread > 1 else "",
        "budget": left_of(kept.budget) or "",
        "headers": "  ".join(f"{name}={value}" for name, value in kept.headers.items()),
        "priority": "" if kept.priority == "normal" else kept.priority,
        "tainted": "it comes from outside" if kept.tainted else "",
        "body": "it was erased; 'posthouse removals' shows by whom" if kept.erased else _text(kept.body),
    }


def _recipient(found: FoundMessage) -> str:
    """Return the channel, or the bot by its name if it has a mailbox, and otherwise by its id."""
    bot_id = found.message.recipient.get("bot_id")
    if bot_id is None:
        return _place(found.message)
    return next((fate.mailbox for fate in found.mailboxes if fate.bot_id == bot_id), bot_id)


def _will(will: ListedWill, bot: str) -> str:
    """Return in words when a last will is sent."""
    if will.due_at is None:
        return f"of {bot}: it is sent if {bot} vanishes, and is not back in {will.delay:g} s"
    return f"of {bot}, which is away: it is sent unless {bot} is back by then"


def _place(kept: KeptMessage) -> str:
    return f"#{kept.recipient['name']}" if "name" in kept.recipient else "direct"


def _text(body: Any) -> str:
    return plain(msgspec.json.encode(body).decode())


def _attempts(state: MessageState) -> int | str:
    return "not kept" if state.state == "settled" else state.attempts


def _why(state: MessageState, *, erased: bool) -> str:
    """Return in words who has a message, since when, or what it waits for."""
    if erased and state.state in ("waiting", "returned"):
        return "erased: it is not delivered any more"
    if state.held_by is not None and state.since is not None:
        return f"with {state.held_by} since {local_time(state.since)}{', parked' if state.parked else ''}"
    if isinstance(state, Fate) and state.reason is not None:
        return f"{state.reason}, since {local_time(state.given_up_at or '')}"
    if state.due_at is not None:
        return f"again at {local_time(state.due_at)}"
    return ""


@click.command()
@click.argument("mailbox_name", metavar="NAME", callback=mailbox_of, shell_complete=complete_mailboxes)
@click.option("--after", type=WholeNumber(0), default=0, metavar="SEQ", help="Only later ones.")
@click.option(
    "--limit",
    type=WholeNumber(),
    metavar="N",
    default=20,
    show_default=True,
    help="The maximum number to show.",
)
@asking
def mailbox(link: Link, mailbox_name: str, after: int, limit: int) -> None:
    """Show what is in the mailbox of the bot, or of the group CHANNEL/GROUP, without taking it.

    That is what waits, what is in flight, and what is to be delivered again, in the order of delivery: by priority,
    and oldest first. Dead letters are counted; `posthouse dead-letters list` shows them.
    """
    found = ask(link, lambda bot: bot.mailbox(mailbox_name, after_seq=after, limit=limit))
    if link.as_json:
        show_json(found)
        return
    show_facts(_summary(found))
    if found.messages:
        say()
        show_rows(
            ("seq", "priority", "state", "attempts", "sender", "to", "type", "detail", "body"),
            list(map(_row, found.messages)),
            nothing="",
            minor=("type", "attempts", "to", "sender", "detail", "priority"),
        )
    if found.more:
        note(f"for later messages: --after {found.messages[-1].message.seq}")


def _row(each: WaitingMessage[KeptMessage]) -> tuple[Any, ...]:
    kept = each.message
    body = "(erased)" if kept.erased else shortened(kept.body)
    return (
        kept.seq,
        "" if kept.priority == "normal" else kept.priority,
        each.state,
        _attempts(each),
        kept.sender_bot_name,
        _place(kept),
        kept.message_type,
        _why(each, erased=kept.erased),
        body,
    )


def _summary(found: MailboxContents) -> dict[str, str]:
    counts = found.counts
    if not found.sessions:
        takes = "nobody: no session of it is open that takes messages"
    elif not found.free:
        takes = f"{amount(found.sessions, 'session')}, whose credit is used up"
    else:
        takes = f"{amount(found.sessions, 'session')}, with credit for {found.free:,} more"
    return {
        "mailbox": found.name,
        "waiting": amount(counts.waiting, "message"),
        "in flight": _some(counts.in_flight, "message", counts.parked, "parked"),
        "returned": _some(counts.returned, "message", counts.delayed, "not due"),
        "dead": _some(counts.dead, "dead letter"),
        "oldest": "" if found.oldest_at is None else f"{local_time(found.oldest_at)}, {ago(found.oldest_at)}",
        "taken by": takes,
        "paused": ", ".join(found.paused),
    }


def _some(count: int, thing: str, of_them: int = 0, what: str = "") -> str:
    """Return a number of things in words, with how many of them are special; nothing for none."""
    return "" if not count else amount(count, thing) + (f", {of_them:,} {what}" if of_them else "")


@click.command()
@click.option(
    "--bot", metavar="NAME", callback=name_of, shell_complete=complete_bots, help="Only those of this bot."
)
@asking
def sessions(link: Link, bot: str | None) -> None:
    """Show who is connected: since when, when last heard, and with how many messages in flight.

    IN FLIGHT is of the session's credit, the most that it takes at a time; parked messages are beyond it. PROGRAM
    is what the client says it is; KEY and ADDRESS are what it comes with.
    """
    found = ask(link, lambda asker: asker.sessions(bot=bot))
    if link.as_json:
        show_json(found)
        return
    columns = ("bot", "in flight", "since", "heard", "program", "address", "key", "session")
    minor = ("session", "key", "program", "address")
    show_rows(columns, list(map(_session_row, found)), nothing="nobody is connected", minor=minor)


def _session_row(each: ListedSession) -> tuple[Any, ...]:
    parked = f" +{each.parked} parked" if each.parked else ""
    return (
        each.bot,
        f"{each.in_flight - each.parked}/{each.credit}{parked}",
        Time(each.since),
        ago(each.last_heard_at),
        each.client or "",
        each.address or "",
        each.key or "",
        each.id,
    )
