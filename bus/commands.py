"""The people's commands: a bot on the command line, for a moment or for as long as somebody listens.

Owns the arguments, the exit codes and how a command ends: 0 when it did what was asked, 1 when the worker refused,
2 for wrong usage, 69 (sysexits) when no worker answered, and 128 and the signal's number when a signal ended it
before. How things look is in `console`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import rich_click as click

from .arguments import Link, drafted, id_of, linked, name_of
from .client import Bot, Draft, connect
from .console import (
    Lines,
    Time,
    message_value,
    show_error,
    show_json,
    show_receipt,
    show_rows,
    show_status,
)
from .errors import BusError, WorkerUnavailable
from .message import Message
from .protocol import StoredMessage, encode

__all__ = ["COMMANDS", "EXIT_SIGNAL", "run", "until_signal"]

EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_SIGNAL = 1, 69, 128

_HISTORY_MESSAGES_MAX = 1000
"""The protocol's most messages in one answer."""

_CREDIT = 100

T = TypeVar("T")


# ── Running ──────────────────────────────────────────────────────────────────────────────────────────────


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a command's work; an error that ends it becomes one line and an exit code."""
    try:
        return anyio.run(work)
    except* BusError as errors:
        error = _first(errors)
        show_error(str(error))
        sys.exit(EXIT_UNAVAILABLE if isinstance(error, WorkerUnavailable) else EXIT_REFUSED)
    except* BrokenPipeError:
        # Whoever read this has had enough. What Python has left to write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except* KeyboardInterrupt:
        sys.exit(EXIT_SIGNAL + signal.SIGINT)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def until_signal(work: Callable[[], Awaitable[None]]) -> int | None:
    """Work until that is done, or until SIGINT, SIGTERM or SIGHUP: then it is cancelled, and the number given."""
    received: int | None = None

    async def watch(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        nonlocal received
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                received = number
                tasks.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        await tasks.start(watch)
        await work()
        tasks.cancel_scope.cancel()
    return received


def _ask(link: Link, question: Callable[[Bot], Awaitable[T]]) -> T:
    """Connect, and have a question answered. The session takes no messages from the bot's mailbox."""

    async def ask() -> T:
        async with _connect(link, max_in_flight=0) as bot:
            return await question(bot)

    return run(ask)


def _connect(link: Link, *, max_in_flight: int) -> Bot:
    return connect(link.url, bot=link.name, max_in_flight=max_in_flight, timeout=link.timeout_seconds)


# ── Sending and receiving ────────────────────────────────────────────────────────────────────────────────


@click.command()
@click.argument("to", callback=name_of)
@drafted
@linked()
def send(link: Link, to: str, draft: Draft) -> None:
    """Send a direct message to the bot TO, by name or id.

    BODY is JSON, or else taken as text; `-` reads it from standard input. The command returns when the message is
    on the worker's disk, and prints its place in the log.
    """
    _send(link, msgspec.structs.replace(draft, to=to))


@click.command()
@click.argument("channel", callback=name_of)
@drafted
@linked()
def publish(link: Link, channel: str, draft: Draft) -> None:
    """Publish a message on CHANNEL, which comes into being by that.

    BODY is JSON, or else taken as text; `-` reads it from standard input. The command returns when the message is
    on the worker's disk, and prints its place in the log.
    """
    _send(link, msgspec.structs.replace(draft, channel=channel))


def _send(link: Link, draft: Draft) -> None:
    async def ask(bot: Bot) -> None:
        try:
            [receipt] = await bot.send_all([draft])
        except WorkerUnavailable as error:
            again = f"{error}; to be safe, send it again with --id {draft.id}"
            raise WorkerUnavailable(again) from error
        show_receipt(receipt, as_json=link.as_json)

    _ask(link, ask)


class _Listening(msgspec.Struct, frozen=True):
    """What to listen to, and for how long."""

    channels: tuple[str, ...]
    start: Literal["new", "all"]
    count: int | None
    details: bool


@click.command()
@click.option(
    "--channel", "channels", metavar="NAME", multiple=True, callback=name_of, help="Subscribe to it. Repeatable."
)
@click.option(
    "--from",
    "start",
    type=click.Choice(["new", "all"]),
    default="new",
    show_default=True,
    help="Where a subscription that is made now begins; one that stands keeps its place.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N messages.")
@click.option("--details", is_flag=True, help="Show ids, what is answered, and headers, too.")
@linked()
def listen(link: Link, **options: Any) -> None:
    """Print the messages that come for a bot, until Ctrl-C.

    Those are its direct messages and those on the channels that it is subscribed to. `--channel` subscribes it, for
    good: the next `listen` finds what came in the meantime. Each message is acknowledged after it was printed.

    Exits with 0 after Ctrl-C; with `--count`, 130 says that fewer came.
    """
    listening = _Listening(**options)
    number = run(lambda: until_signal(lambda: _listen(link, listening)))
    if number is not None and (number != signal.SIGINT or listening.count is not None):
        sys.exit(EXIT_SIGNAL + number)


async def _listen(link: Link, listening: _Listening) -> None:
    left = listening.count
    lines = Lines(dated=False, details=listening.details)
    async with _connect(link, max_in_flight=min(left or _CREDIT, _CREDIT)) as bot:
        for channel in listening.channels:
            await bot.subscribe(channel, start=listening.start)
        while left is None or left > 0:
            messages = await _receive(bot, left or _CREDIT)
            text = "".join(_line(message, lines, as_json=link.as_json) for message in messages)
            # A reader that is slow must not keep the session from its heartbeats.
            await anyio.to_thread.run_sync(_write, text, abandon_on_cancel=True)
            for message in messages:
                await message.ack()
            left = None if left is None else left - len(messages)


async def _receive(bot: Bot, messages_max: int) -> list[Message]:
    """Wait for a message, and take with it what else has come."""
    messages = [await bot.receive()]
    while len(messages) < messages_max and (message := bot.receive_nowait()) is not None:
        messages.append(message)
    return messages


def _line(message: Message, lines: Lines, *, as_json: bool) -> str:
    if as_json:
        return encode(message_value(message.stored, delivered=True)).decode() + "\n"
    return lines.render(message.stored)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────


@click.command()
@click.option("--between", nargs=2, metavar="BOT BOT", callback=name_of, help="The direct messages of two bots.")
@click.option("--channel", metavar="NAME", callback=name_of, help="The messages on a channel.")
@click.option("--thread", metavar="ID", callback=id_of, help="A message, what it answers, and all answers to that.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=50,
    show_default=True,
    help="The most messages to show.",
)
@click.option("--before", type=click.IntRange(min=1), metavar="SEQ", help="Only messages before this place.")
@click.option("--details", is_flag=True, help="Show ids, what is answered, and headers, too.")
@linked("console")
def history(link: Link, limit: int, before: int | None, details: bool, **query: Any) -> None:
    """Read a conversation back: the newest messages, in the order in which they were sent."""
    if sum(value is not None for value in query.values()) != 1:
        raise click.UsageError("give exactly one of --between, --channel and --thread")
    messages = _ask(link, lambda bot: _history(bot, limit, before, query))
    if link.as_json:
        show_json([message_value(message, delivered=False) for message in messages])
        return
    lines = Lines(dated=True, details=details)
    for message in messages:
        click.echo(lines.render(message), nl=False)
    if len(messages) == limit:
        click.echo(f"for what came earlier: --before {messages[0].seq}", err=True)
    elif not messages:
        click.echo("no messages", err=True)


async def _history(bot: Bot, limit: int, before: int | None, query: dict[str, Any]) -> list[StoredMessage]:
    messages: list[StoredMessage] = []
    while len(messages) < limit:
        wanted = min(limit - len(messages), _HISTORY_MESSAGES_MAX)
        page = await bot.history(before_seq=before, limit=wanted, **query)
        messages += page
        if len(page) < wanted:
            break
        before = page[-1].seq
    return messages[::-1]


@click.command()
@linked("console")
def bots(link: Link) -> None:
    """List all bots: whether each is connected, what waits for it, and when it was last heard."""
    found = _ask(link, lambda bot: bot.bots())
    if link.as_json:
        show_json(found)
        return
    rows = [
        (bot["name"], bot["online"], bot["backlog"], Time(bot["last_seen_at"]), Time(bot["created_at"]), bot["id"])
        for bot in found
    ]
    show_rows(("bot", "online", "waiting", "last seen", "first seen", "id"), rows, nothing="no bots")


@click.command()
@linked("console")
def channels(link: Link) -> None:
    """List all channels, with their messages and subscribers."""

    async def ask(bot: Bot) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return await bot.channels(), {bot["id"]: bot["name"] for bot in await bot.bots()}

    found, names = _ask(link, ask)
    if link.as_json:
        show_json(found)
        return
    rows = [
        (
            channel["name"],
            channel["messages"],
            channel["subscribers"],
            Time(channel["created_at"]),
            names.get(channel["created_by_bot_id"], channel["created_by_bot_id"]),
        )
        for channel in found
    ]
    show_rows(("channel", "messages", "subscribers", "since", "created by"), rows, nothing="no channels")


@click.command()
@click.option("--bot", metavar="NAME", callback=name_of, help="Those of a bot.")
@click.option("--channel", metavar="NAME", callback=name_of, help="Those to a channel.")
@linked("console")
def subscriptions(link: Link, bot: str | None, channel: str | None) -> None:
    """List subscriptions: all, or those of a bot or to a channel."""
    if bot is not None and channel is not None:
        raise click.UsageError("give --bot or --channel, not both")

    async def ask(asker: Bot) -> list[dict[str, Any]]:
        if bot is not None or channel is not None:
            return await asker.subscriptions(bot=bot, channel=channel)
        names = [each["name"] for each in await asker.channels()]
        return [each for name in names for each in await asker.subscriptions(channel=name)]

    found = _ask(link, ask)
    if link.as_json:
        show_json(found)
        return
    rows = [
        (each["channel_name"], each["bot"], each["start_seq"], each["echo"], Time(each["subscribed_at"]))
        for each in found
    ]
    show_rows(("channel", "bot", "after seq", "own too", "since"), rows, nothing="no subscriptions")


@click.command()
@linked("console")
def status(link: Link) -> None:
    """Ask the worker how it is: counters, rates, sizes, versions."""
    found = _ask(link, lambda bot: bot.status())
    if link.as_json:
        show_json(found)
    else:
        show_status(found, link.url)


COMMANDS: list[click.Command] = [send, publish, listen, history, bots, channels, subscriptions, status]
"""What `posthouse` offers beside the worker itself."""
