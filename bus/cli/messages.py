"""The commands for messages: a bot on the command line, briefly or as long as somebody listens.

Owns what each command requests. `ending` runs and ends a command, and `console` formats the output.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import Any, Literal

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import rich_click as click

from ..bot import Bot
from ..client.draft import Draft
from ..client.message import Message
from ..errors import SubscriptionRemoved, WorkerUnavailable
from ..errors.words import amount
from ..model.priorities import PRIORITIES, Priority
from ..model.records import WORKER_ID, WORKER_NAME
from ..wire.answers import ListedChannel, ListedGroup, ListedPattern, ListedSubscription, ListedWill, WorkerStatus
from .completing import complete_bots, complete_channels
from .console import (
    Lines,
    Time,
    json_line,
    local_time,
    message_value,
    show_json,
    show_receipt,
    show_rows,
    show_status,
)
from .ending import ask, open_bot, run, until_signal
from .finding import bot_names
from .numbers import WholeNumber
from .options import Link, WithText, asking, budgeted, channels_of, drafted, id_of, linked, name_of, worded
from .streams import EXIT_SIGNAL, note, say
from .times import TimeOption

__all__ = ["bots", "channels", "history", "listen", "publish", "request", "send", "status", "subscriptions"]

_CREDIT = 100


# ── Sending and receiving ────────────────────────────────────────────────────────────────────────────────

_prioritized = click.option(
    "--priority",
    type=click.Choice([*PRIORITIES]),
    default="normal",
    show_default=True,
    help="Whether it is delivered before or after all else that waits for the bot.",
)


@click.command(cls=WithText)
@click.argument("to", callback=name_of, shell_complete=complete_bots)
@_prioritized
@drafted
@linked()
def send(link: Link, to: str, draft: Draft, priority: Priority) -> None:
    """Send a direct message to the bot TO, by name or id.

    BODY is JSON, or otherwise treated as text; `-` reads it from standard input. The command returns when the
    message is on the worker's disk, and prints its seq in the log.
    """
    _send(link, msgspec.structs.replace(draft, to=to, priority=priority))


@click.command(cls=WithText)
@click.argument("channel", callback=name_of, shell_complete=complete_channels)
@click.option(
    "--retain", is_flag=True, help="Keep it as the last value of the channel; BODY null clears that instead."
)
@drafted
@linked()
def publish(link: Link, channel: str, draft: Draft, retain: bool) -> None:
    """Publish a message on CHANNEL, which is created if it does not exist.

    BODY is JSON, or otherwise treated as text; `-` reads it from standard input. The command returns when the
    message is on the worker's disk, and prints its seq in the log.
    """
    if retain and draft.delay:
        raise click.UsageError("a message that is delayed cannot be retained: leave out --retain or --delay")
    _send(link, msgspec.structs.replace(draft, channel=channel, retain=retain))


def _send(link: Link, draft: Draft) -> None:
    async def sent(bot: Bot) -> None:
        try:
            [receipt] = await bot.send_all([draft])
        except WorkerUnavailable as error:
            again = f"{error}; to be safe, send it again with --id {draft.id}"
            raise WorkerUnavailable(again) from error
        show_receipt(receipt, as_json=link.as_json)

    ask(link, sent)


@click.command(cls=WithText)
@click.argument("to", callback=name_of, shell_complete=complete_bots)
@_prioritized
@worded
@budgeted
@linked("console")
def request(link: Link, to: str, **words: Any) -> None:
    """Send a direct message to the bot TO, by name or id, and print its reply.

    BODY is JSON, or otherwise treated as text; `-` reads it from standard input. `--timeout` is how long to wait
    for the reply. The reply comes ahead of other messages in the mailbox, which are left there. A reply that comes
    too late is an ordinary message in that mailbox.
    """
    reply = ask(link, lambda bot: bot.request(to, timeout=link.patience.for_answer, **words))
    line = _line(reply, Lines(dated=False, details=False), as_json=link.as_json)
    say(line, end="")


class _Listening(msgspec.Struct, frozen=True):
    """What to listen to, and for how long."""

    channels: tuple[str, ...]
    start: Literal["new", "all"]
    group: str | None
    count: int | None
    details: bool


@click.command()
@click.option(
    "--channel",
    "channels",
    metavar="NAME",
    multiple=True,
    callback=channels_of,
    shell_complete=complete_channels,
    help="Subscribe to it, or to all that match a pattern, as orders.* does. Repeatable.",
)
@click.option(
    "--from",
    "start",
    type=click.Choice(["new", "all"]),
    default="new",
    show_default=True,
    help="Where a new subscription starts; an existing one keeps its place.",
)
@click.option(
    "--group", metavar="NAME", callback=name_of, help="Subscribe in this group: each message goes to one member."
)
@click.option("--count", type=WholeNumber(), metavar="N", help="Stop after N messages.")
@click.option("--details", is_flag=True, help="Also show ids, answered messages, and headers.")
@linked()
def listen(link: Link, **options: Any) -> None:
    """Print the messages for a bot, until Ctrl-C.

    These are its direct messages and those on channels to which it is subscribed. `--channel` subscribes it
    permanently: the next `listen` prints what came in the meantime. A pattern such as `orders.*` or `orders.**` (in
    quotes, for the shell) brings all channels that match, later ones too. Each message is acknowledged after it was
    printed. If another program is connected as this bot, a line on standard error says so: each message goes to
    only one of them. Another says so if somebody ends a subscription of `--channel`.

    Exits with 0 after Ctrl-C; with `--count`, 130 means that fewer messages came.
    """
    listening = _Listening(**options)
    number = run(lambda: until_signal(lambda: _listen(link, listening)))
    if number is not None and (number != signal.SIGINT or listening.count is not None):
        sys.exit(EXIT_SIGNAL + number)


async def _listen(link: Link, listening: _Listening) -> None:
    left = listening.count
    lines = Lines(dated=False, details=listening.details)
    async with open_bot(link, max_in_flight=min(left or _CREDIT, _CREDIT)) as bot:
        for channel in listening.channels:
            await bot.subscribe(channel, start=listening.start, group=listening.group)
        while left is None or left > 0:
            try:
                messages = await _receive(bot, left or _CREDIT)
            except SubscriptionRemoved as removed:
                note(
                    f"the subscription to {removed.channel!r} was removed, and nothing more comes of it; to"
                    " subscribe again, end this and start it anew"
                )
                continue
            text = "".join(_line(message, lines, as_json=link.as_json) for message in messages)
            # A slow reader must not keep the session from its heartbeats.
            await anyio.to_thread.run_sync(partial(say, text, end=""), abandon_on_cancel=True)
            for message in messages:
                await message.ack()
            left = None if left is None else left - len(messages)


async def _receive(bot: Bot, messages_max: int) -> list[Message]:
    """Wait for a message, and return it with all others that have arrived."""
    messages = [await bot.receive()]
    while len(messages) < messages_max and (message := bot.receive_nowait()) is not None:
        messages.append(message)
    return messages


def _line(message: Message, lines: Lines, *, as_json: bool) -> str:
    if as_json:
        return json_line(message_value(message.stored, delivered=True))
    return lines.render(message.stored)


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────


@click.command()
@click.option(
    "--between",
    nargs=2,
    metavar="BOT BOT",
    callback=name_of,
    shell_complete=complete_bots,
    help="The direct messages of two bots.",
)
@click.option(
    "--channel",
    metavar="NAME",
    callback=name_of,
    shell_complete=complete_channels,
    help="The messages on a channel.",
)
@click.option(
    "--thread", metavar="ID", callback=id_of, help="A message, what it answers, and all answers to those."
)
@click.option(
    "--sender",
    metavar="BOT",
    callback=name_of,
    shell_complete=complete_bots,
    help="With --thread: who sent it, if several bots used its id.",
)
@click.option(
    "--limit",
    type=WholeNumber(),
    metavar="N",
    default=50,
    show_default=True,
    help="The maximum number of messages to show.",
)
@click.option("--before", type=WholeNumber(), metavar="SEQ", help="Only messages before this seq.")
@click.option(
    "--since", type=TimeOption(), metavar="TIME", help="Only from a time on: 7d (ago), or 2026-01-31T00:00Z."
)
@click.option("--details", is_flag=True, help="Also show ids, answered messages, and headers.")
@asking
def history(link: Link, limit: int, before: int | None, since: str | None, details: bool, **query: Any) -> None:
    """Show a conversation: the newest messages, oldest first."""
    if sum(value is not None for name, value in query.items() if name != "sender") != 1:
        raise click.UsageError("give exactly one of --between, --channel and --thread")
    if query["sender"] is not None and query["thread"] is None:
        raise click.UsageError("--sender is the sender of the message that --thread names")
    newest = ask(link, lambda bot: bot.history(before_seq=before, limit=limit, **query))
    # Timestamps have the order of seqs: none that is left out comes before one that is shown.
    messages = [each for each in reversed(newest) if since is None or each.timestamp >= since]
    if link.as_json:
        show_json([message_value(message, delivered=False) for message in messages])
        return
    lines = Lines(dated=True, details=details)
    for message in messages:
        say(lines.render(message), end="")
    if len(messages) == limit:
        note(f"for earlier messages: --before {messages[0].seq}")
    elif not messages:
        note("no messages")


@click.command()
@asking
def bots(link: Link) -> None:
    """List all bots: their sessions, their waiting messages, and when they were last heard.

    WAITING is the number of unsettled messages in the mailbox, IN FLIGHT those of them held by its sessions. Two
    programs with one name are two sessions that share a mailbox. A command is also a session of the bot that `--as`
    names. LAST WILL is to whom the worker sends what the bot left for when it vanishes, and when, if it is away.
    """
    found = ask(link, lambda bot: bot.bots())
    if link.as_json:
        show_json(found)
        return
    rows = [
        (
            bot.name,
            bot.online,
            "" if bot.backlog is None else bot.backlog,
            "" if bot.in_flight is None else bot.in_flight,
            bot.sessions,
            Time(bot.last_seen_at),
            _will(bot.will),
            Time(bot.created_at),
            bot.id,
        )
        for bot in found
    ]
    columns = ("bot", "online", "waiting", "in flight", "sessions", "last seen", "last will", "first seen", "id")
    show_rows(columns, rows, nothing="no bots", minor=("id", "first seen", "sessions", "online", "last will"))


def _will(will: ListedWill | None) -> str:
    if will is None:
        return ""
    to = f"#{will.recipient['name']}" if "name" in will.recipient else will.recipient["bot"]
    return to if will.due_at is None else f"{to} at {local_time(will.due_at)}"


@click.command()
@asking
def channels(link: Link) -> None:
    """List all channels, with their messages and subscribers."""

    async def listed(bot: Bot) -> tuple[list[ListedChannel], dict[str, str]]:
        found = await bot.channels()
        creators = [] if link.as_json else [each.created_by_bot_id for each in found]
        return found, {WORKER_ID: WORKER_NAME} | await bot_names(bot, creators)

    found, names = ask(link, listed)
    if link.as_json:
        show_json(found)
        return
    rows = [
        (
            channel.name,
            channel.messages,
            channel.subscribers,
            ", ".join(map(_group, channel.groups)),
            Time(channel.created_at),
            names.get(channel.created_by_bot_id, channel.created_by_bot_id),
        )
        for channel in found
    ]
    columns = ("channel", "messages", "subscribers", "groups", "since", "created by")
    show_rows(columns, rows, nothing="no channels", minor=("groups", "created by", "since"))


def _group(group: ListedGroup) -> str:
    return f"{group.group} ({amount(group.members, 'member')}, {group.backlog:,} waiting)"


@click.command()
@click.option(
    "--bot", metavar="NAME", callback=name_of, shell_complete=complete_bots, help="Only those of this bot."
)
@click.option(
    "--channel",
    metavar="NAME",
    callback=name_of,
    shell_complete=complete_channels,
    help="Only those to this channel.",
)
@asking
def subscriptions(link: Link, bot: str | None, channel: str | None) -> None:
    """List subscriptions: all, or those of a bot, with its patterns, or to a channel."""
    if bot is not None and channel is not None:
        raise click.UsageError("give --bot or --channel, not both")

    async def listed(asker: Bot) -> list[ListedSubscription | ListedPattern]:
        if bot is not None:
            return [*await asker.patterns(bot=bot), *await asker.subscriptions(bot=bot)]
        if channel is not None:
            return [*await asker.subscriptions(channel=channel)]
        names = [each.name for each in await asker.channels()]
        return [each for name in names for each in await asker.subscriptions(channel=name)]

    found = ask(link, listed)
    if link.as_json:
        show_json(found)
        return
    rows = [
        (
            each.pattern if isinstance(each, ListedPattern) else each.channel_name,
            each.bot,
            each.group or "",
            f"channels: {each.channels}" if isinstance(each, ListedPattern) else each.pattern or "",
            each.start_seq,
            each.echo,
            Time(each.subscribed_at),
        )
        for each in found
    ]
    columns = ("channel", "bot", "group", "by pattern", "after seq", "own too", "since")
    minor = ("own too", "after seq", "group", "since", "by pattern")
    show_rows(columns, rows, nothing="no subscriptions", minor=minor)


@click.command()
@asking
def status(link: Link) -> None:
    """Show the worker's status: counters, rates, sizes, versions."""

    async def asked(bot: Bot) -> tuple[WorkerStatus, str]:
        return await bot.status(), bot.url

    found, url = ask(link, asked)
    if link.as_json:
        show_json(found)
    else:
        show_status(found, url)
