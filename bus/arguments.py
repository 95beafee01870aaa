"""What the people's commands take: which worker, as whom, and what a message is made of.

Owns the options that commands have in common, and the checks that need no worker: what fails them is wrong usage,
and says how to write it.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import rich_click as click
import uuid_utils

from .addresses import address_fault, without_password
from .client import DEFAULT_URL
from .draft import Draft
from .protocol import encode, is_id, is_name

__all__ = ["Link", "drafted", "id_of", "linked", "mailbox_of", "name_of", "worded"]

_TIMEOUT_SECONDS = 10.0
"""How long people wait for an answer before they would rather be told."""

Command = Callable[..., None]


class _Seconds(click.FloatRange):
    """Seconds from above 0 to ten years. NaN is refused here, because it is outside of no range."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        seconds = float(super().convert(value, parameter, context))
        if math.isnan(seconds):
            self.fail("NaN is no number of seconds.", parameter, context)
        return seconds


_seconds = _Seconds(min=0, min_open=True, max=86_400 * 3660)


class Link(msgspec.Struct, frozen=True):
    """Which worker to ask, as whom, and how to show the answer."""

    url: str
    name: str
    timeout_seconds: float
    as_json: bool


def _url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    fault = "nobody else is in this process" if value.startswith("inproc:") else address_fault(value)
    if fault is not None:
        shown = without_password(value)
        raise click.BadParameter(f"{shown!r} is no address: {fault}; write tcp://HOST:PORT or ipc://PATH")
    return value


def name_of(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Check one name, or several, of bots or channels."""
    for name in value if isinstance(value, tuple) else () if value is None else (value,):
        if not is_name(name):
            raise click.BadParameter(
                f"{name!r} is no name: up to 128 of A-Z a-z 0-9 . _ -, a letter or digit first"
            )
    return value


def mailbox_of(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check the name of a mailbox: a bot's, or that of a group with its channel."""
    parts = () if value is None else value.split("/", 1)
    if not all(is_name(part) for part in parts):
        raise click.BadParameter(f"{value!r} is no mailbox; write the name of a bot, or CHANNEL/GROUP")
    return value


def id_of(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check the id of a message."""
    if value is not None and not is_id(value):
        raise click.BadParameter(f"{value!r} is no message id: a UUID in lower case with hyphens")
    return value


def _headers(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for pair in value:
        name, separator, text = pair.partition("=")
        if not name or not separator:
            raise click.BadParameter(f"{pair!r} is no header; write NAME=VALUE")
        headers[name] = text
    return headers


def _body(context: click.Context, parameter: click.Parameter, value: str) -> msgspec.Raw:
    """Give the JSON that a text is, byte for byte, or the text itself as JSON."""
    text = value
    if value == "-":
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise click.BadParameter(f"standard input is not UTF-8: {error}") from error
    try:
        encoded = text.strip().encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("the text is not UTF-8") from error
    try:
        msgspec.json.decode(encoded)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(encode(text.removesuffix("\n") if value == "-" else text))
    return msgspec.Raw(encoded)


def linked(bot: str | None = None) -> Callable[[Command], Command]:
    """Give a command its link to a worker, as `bot` unless it says as whom."""
    if bot is None:
        name = click.option("--as", "name", metavar="NAME", required=True, callback=name_of, help="The bot to be.")
    else:
        asking = "The bot to be. A session belongs to a bot: asking registers one of that name."
        name = click.option(
            "--as", "name", metavar="NAME", default=bot, show_default=True, callback=name_of, help=asking
        )

    def decorate(command: Command) -> Command:
        @name
        @click.option(
            "--url",
            metavar="ADDRESS",
            envvar="POSTHOUSE_URL",
            show_envvar=True,
            default=DEFAULT_URL,
            show_default=True,
            callback=_url,
            help="Where the worker listens.",
        )
        @click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=_TIMEOUT_SECONDS,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for an answer.",
        )
        @click.option("--json", "as_json", is_flag=True, help="JSON instead of text, for programs.")
        @functools.wraps(command)
        def connecting(*, url: str, name: str, timeout: float, as_json: bool, **rest: Any) -> None:
            command(Link(url, name, timeout, as_json), **rest)

        return connecting

    return decorate


def worded(command: Command) -> Command:
    """Give a command what a message says: its body, type and headers."""
    for part in (
        click.option(
            "--header", "headers", metavar="NAME=VALUE", multiple=True, callback=_headers, help="Repeatable."
        ),
        click.option(
            "--type", "message_type", default="message", show_default=True, help="What kind of message it is."
        ),
        click.argument("body", callback=_body),
    ):
        command = part(command)
    return command


def drafted(command: Command) -> Command:
    """Give a command a message, and everything that may go with it."""

    @worded
    @click.option("--reply-to", metavar="ID", callback=id_of, help="The message that it answers.")
    @click.option(
        "--ttl",
        type=_seconds,
        metavar="SECONDS",
        help="How long it lives: then it is not delivered any more.",
    )
    @click.option(
        "--delay", type=_seconds, metavar="SECONDS", help="How long it waits, safe on disk, before it is sent."
    )
    @click.option(
        "--id", metavar="ID", callback=id_of, help="Its id: sent again with the same one, it is stored once."
    )
    @functools.wraps(command)
    def drafting(**rest: Any) -> None:
        names = ("body", "message_type", "reply_to", "headers", "ttl", "delay", "id")
        fields = {name: rest.pop(name) for name in names}
        fields["id"] = fields["id"] or str(uuid_utils.uuid7())
        command(draft=Draft(**fields), **rest)

    return drafting
