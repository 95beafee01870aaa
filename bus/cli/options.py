"""Common options of commands: which worker, as which bot, and the parts of a message.

Owns these options, and the checks that need no worker: a value that fails them is wrong usage, and the error says
how to write it.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
import rich_click as click

from ..bot import DEFAULT_URL
from ..client.credentials import Credentials, read_credentials
from ..client.draft import Draft
from ..client.endpoint import VARIABLE
from ..client.ids import chosen_id
from ..errors import CredentialsError
from ..model.patterns import WILDCARD, channel_pattern_fault
from ..wire.addresses import address_fault, without_password
from ..wire.codec import encode
from ..wire.frames import is_id, is_name
from ..wire.limits import HOPS_MAX
from ..wire.refusals import ID_RULE, NAME_RULE, PATTERN_RULE
from .numbers import WholeNumber, seconds
from .streams import EXIT_DENIED, show_error, stream_fault

__all__ = [
    "ADMIN_FILE",
    "LIMIT",
    "Command",
    "Link",
    "Patience",
    "WithText",
    "address_of",
    "asking",
    "beside",
    "bodied",
    "body_of",
    "budgeted",
    "channels_of",
    "decoded",
    "drafted",
    "id_of",
    "limited",
    "linked",
    "mailbox_of",
    "name_of",
    "not_empty",
    "read_input",
    "shown",
    "waiting",
    "worded",
]

_WORKER_SECONDS, _ANSWER_SECONDS = 2.0, 10.0
"""How long people wait for a worker, and for its answer, before they would rather see an error."""

ADMIN_FILE = "posthouse.db-admin.creds"
"""What a worker writes beside its database at its first start with keys, so that whoever runs it has a key."""

_ADMIN_FILES = (ADMIN_FILE, "posthouse-admin.creds")
"""The second one is a worker's with an engine."""

_INPUT_BYTES_MAX = 64 * 1024 * 1024
"""More than fits into any frame, and an end to endless input."""

_IS_TEXT = "posthouse.text"
"""Where a command's context has whether its body is text in any case."""

_SHOWN_CHARACTERS = 40
"""Of a body that is refused."""

_HIDDEN = "\0"
"""Prefix of a text that begins with a dash; no process argument can contain it."""

_DASHED_TEXT = re.compile(r"-(?!h\Z|-).+|--(?=[^=]*\s).+|---.*", re.DOTALL)
"""What begins with a dash and cannot be an option: options have two dashes and no space, or are `-h`."""

Command = Callable[..., None]


class WithText(click.RichCommand):
    """A command with a text among its arguments, which may begin with a dash if no option looks like it.

    `-5`, `- milk` and `--help me` are texts; `-h` and `--type` are options; `--tipe` is neither, and the error says
    how to write it as a text.
    """

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, with texts hidden from the parsing of options."""
        try:
            return super().parse_args(context, self._hide_texts(context, args))
        except click.NoSuchOption as error:
            hint = f"No such option: {error.option_name}. To write it as a text, put -- before it."
            raise click.UsageError(hint, context) from None
        except click.UsageError as error:
            if _HIDDEN not in error.message:
                raise
            raise click.UsageError(error.message.replace(_HIDDEN, ""), context) from None

    def _hide_texts(self, context: click.Context, args: list[str]) -> list[str]:
        options = [each for each in self.get_params(context) if isinstance(each, click.Option) and not each.is_flag]
        values = {name: option.nargs for option in options for name in option.opts}
        hidden: list[str] = []
        rest = iter(args)
        for argument in rest:
            text = _DASHED_TEXT.fullmatch(argument) is not None
            hidden.append(f"{_HIDDEN}{argument}" if text else argument)
            hidden += islice(rest, len(args) if argument == "--" else values.get(argument, 0))
        return hidden


def shown(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return a text as it was written, even if `WithText` had to hide it."""
    return value if value is None else value.removeprefix(_HIDDEN)


def not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty text: a variable of a script that is not set."""
    if value == "":
        raise click.BadParameter("it is empty")
    return value


class Patience(msgspec.Struct, frozen=True):
    """How many seconds a command waits."""

    for_worker: float = _WORKER_SECONDS
    for_answer: float = _ANSWER_SECONDS


LIMIT = 1000
"""How many a list shows, unless told otherwise."""

limited = click.option(
    "--limit",
    type=WholeNumber(),
    metavar="N",
    default=LIMIT,
    show_default=True,
    help="The maximum number to show: the first ones.",
)


class Link(msgspec.Struct, frozen=True):
    """Which worker to connect to, as which bot, with which credentials, and how to show the answer."""

    urls: Sequence[str]
    """Its address, or those of several that stand in for each other; none are those of the credentials."""
    name: str
    """The bot that the command acts as; empty for one that asks as no bot."""
    patience: Patience
    as_json: bool
    read_only: bool = False
    """Whether the command only asks, and does so as no bot."""
    file: str | None = None
    """The file of the credentials."""
    credentials: Credentials | None = None


class _Addresses(click.ParamType[str]):
    """Addresses that may be given several times; in an environment variable, commas divide them."""

    name = "address"
    envvar_list_splitter = ","


def address_of(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Check one address of a worker, or several."""
    for address in value if isinstance(value, tuple) else () if value is None else (value,):
        fault = "no worker runs in this process" if address.startswith("inproc:") else address_fault(address)
        if fault is not None:
            shown = without_password(address)
            raise click.BadParameter(
                f"{shown!r} is not a valid address: {fault}; use tcp://HOST:PORT or ipc://PATH"
            )
    return value


def name_of(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Check one name, or several, of bots or channels."""
    for name in value if isinstance(value, tuple) else () if value is None else (value,):
        if WILDCARD in name and channel_pattern_fault(name) is None:
            raise click.BadParameter(
                f"{name!r} is a pattern, and this takes one name: 'posthouse channels' lists those of channels"
            )
        if not is_name(name):
            raise click.BadParameter(f"{name.removeprefix(_HIDDEN)!r} is not a valid name: {NAME_RULE}")
    return value


def channels_of(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Check the name of a channel or a pattern of such names, or several."""
    for name in value if isinstance(value, tuple) else (value,):
        if WILDCARD not in name:
            name_of(context, parameter, name)
        elif (fault := channel_pattern_fault(name)) is not None:
            raise click.BadParameter(f"{name!r} is not a valid pattern: {fault}; {PATTERN_RULE}")
    return value


def mailbox_of(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check the name of a mailbox: a bot's, or a group's with its channel."""
    parts = () if value is None else value.split("/", 1)
    if not all(is_name(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a valid mailbox; use the name of a bot, or CHANNEL/GROUP")
    return value


def id_of(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check the id of a message."""
    if value is not None and not is_id(value):
        raise click.BadParameter(f"{value!r} is not a valid message id: {ID_RULE}")
    return value


def _headers(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for pair in value:
        name, separator, text = pair.partition("=")
        if not name or not separator:
            raise click.BadParameter(f"{pair!r} is not a header; use NAME=VALUE")
        headers[name] = text
    return headers


def body_of(context: click.Context, parameter: click.Parameter, value: str) -> msgspec.Raw:
    """Return a text that is JSON byte for byte, or else the text as a JSON string.

    A text that begins like JSON and is not valid is refused: mostly the shell has taken its quotes.
    """
    value = value.removeprefix(_HIDDEN)
    try:
        text = read_input() if value == "-" else _as_written(value)
        encoded = text.strip().encode()
    except UnicodeError as error:
        raise click.BadParameter("the text is not UTF-8") from error
    is_text = context.meta.get(_IS_TEXT)
    try:
        if not is_text:
            msgspec.json.decode(encoded)
            return msgspec.Raw(encoded)
    except (msgspec.DecodeError, RecursionError) as error:
        if encoded[:1] in (b"{", b"[", b'"'):
            way_out = ", or say --text to send it as text" if _IS_TEXT in context.meta else ""
            raise click.BadParameter(
                f"{text.strip()[:_SHOWN_CHARACTERS]!r} begins like JSON, but is not valid: {error}. Put it into"
                f" single quotes, so that the shell leaves it as it is{way_out}"
            ) from None
    return msgspec.Raw(encode(text.removesuffix("\n") if value == "-" else text))


def _note_text(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.meta[_IS_TEXT] = value


def read_input() -> str:
    """Return the contents of standard input, without a byte order mark."""
    try:
        data = sys.stdin.buffer.read(_INPUT_BYTES_MAX + 1)
    except (OSError, ValueError, AttributeError) as error:
        why = stream_fault(error) if isinstance(error, OSError) else "it is closed"
        raise click.BadParameter(f"standard input cannot be read: {why}") from error
    if len(data) > _INPUT_BYTES_MAX:
        raise click.BadParameter(f"standard input has more than {_INPUT_BYTES_MAX:,} bytes")
    return decoded(data, "standard input")


def decoded(data: bytes, what: str) -> str:
    """Decode bytes, without a byte order mark. Raises BadParameter if they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{what} is not UTF-8: byte {error.start} cannot be decoded") from error


def asking(command: Command) -> Command:
    """Add the options of a link to a worker to a command that only asks: as no bot, unless one is named."""
    return _linked(
        "The bot to ask as; by default that of the credentials, or none. A new name is registered.", asks=True
    )(command)


def linked(bot: str | None = None) -> Callable[[Command], Command]:
    """Add the options of a link to a worker to a command, as `bot` by default; without one, `--as` is required."""
    default = "that of the credentials" if bot is None else f"that of the credentials, or {bot}"
    acting = f"The bot to act as; by default {default}."
    return _linked(
        acting if bot is None else f"{acting} What is done is done by a bot; a new name is registered.", bot
    )


def _linked(help_of_name: str, bot: str | None = None, *, asks: bool = False) -> Callable[[Command], Command]:
    name = click.option("--as", "name", metavar="NAME", callback=name_of, help=help_of_name)

    def decorate(command: Command) -> Command:
        @name
        @click.option(
            "--credentials",
            metavar="FILE",
            envvar=VARIABLE,
            show_envvar=True,
            help=f"The bot's credentials, for a worker with keys; by default {ADMIN_FILE}, if it is here.",
        )
        @click.option(
            "--url",
            "urls",
            type=_Addresses(),
            metavar="ADDRESS",
            multiple=True,
            envvar="POSTHOUSE_URL",
            show_envvar=True,
            callback=address_of,
            help=f"The worker's address; by default that of the credentials, or {DEFAULT_URL}. If several workers"
            " stand in for each other, give it for each.",
        )
        @waiting
        @functools.wraps(command)
        def connecting(
            *,
            name: str | None,
            credentials: str | None,
            urls: tuple[str, ...],
            patience: Patience,
            as_json: bool,
            **rest: Any,
        ) -> None:
            mine = _credentials(credentials, urls)
            if mine is None and name is None and bot is None and not asks:
                raise click.UsageError("Missing option '--as NAME': the bot to act as. A new name is registered.")
            link = Link(
                urls=urls,
                name=_name(name, mine) or bot or "",
                patience=patience,
                as_json=as_json,
                read_only=asks and (mine is not None or name is None),
                file=None if mine is None else mine[0],
                credentials=None if mine is None else mine[1],
            )
            command(link, **_all_as_written(rest))

        return connecting

    return decorate


def waiting(command: Command) -> Command:
    """Add to a command how long it waits, and the form of its answer: `patience` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON instead of text, for programs."),
        click.option(
            "--timeout",
            "patience",
            type=seconds,
            callback=_patience,
            envvar="POSTHOUSE_TIMEOUT",
            show_envvar=True,
            help=f"How long to wait for a worker, and for its answer; by default {_WORKER_SECONDS:g} s for a worker"
            f" and {_ANSWER_SECONDS:g} s for its answer.",
        ),
    ):
        command = option(command)
    return command


def _patience(context: click.Context, parameter: click.Parameter, value: float | None) -> Patience:
    return Patience() if value is None else Patience(value, value)


def beside() -> str | None:
    """Return the file that a worker with keys wrote beside its database, if that is in this folder."""
    return next(filter(os.path.lexists, _ADMIN_FILES), None)


def _credentials(file: str | None, urls: Sequence[str]) -> tuple[str, Credentials] | None:
    """Return the credentials to use: the named ones, or those beside a database, if they are for this worker.

    Exits if they cannot be used.
    """
    found = file or beside()
    if found is None:
        return None
    try:
        mine = read_credentials(found)
    except CredentialsError as error:
        show_error(str(error))
        sys.exit(EXIT_DENIED)
    return (found, mine) if file or not urls or mine.url in urls else None


def _name(name: str | None, mine: tuple[str, Credentials] | None) -> str | None:
    if mine is None:
        return name
    file, credentials = mine
    if name not in (None, credentials.bot):
        raise click.UsageError(
            f"The credentials {file} are of the bot {credentials.bot!r}: leave out '--as', or name those of"
            f" {name!r} with '--credentials'."
        )
    return credentials.bot


def _all_as_written(values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {name: _as_written(value) for name, value in values.items()}
    except UnicodeError:
        raise click.UsageError("an argument is not UTF-8") from None


def _as_written(value: Any) -> Any:
    """Return texts as they were written if the locale's encoding could not decode them. Raises UnicodeError."""
    match value:
        case str():
            return os.fsencode(value).decode() if _is_undecoded(value) else value
        case tuple():
            return tuple(map(_as_written, value))
        case dict():
            return {_as_written(name): _as_written(item) for name, item in value.items()}
        case _:
            return value


def _is_undecoded(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


def worded(command: Command) -> Command:
    """Add a message's body, type and headers to a command."""
    for part in (
        click.option(
            "--header", "headers", metavar="NAME=VALUE", multiple=True, callback=_headers, help="Repeatable."
        ),
        click.option("--type", "message_type", default="message", show_default=True, help="The kind of message."),
    ):
        command = part(command)
    return bodied(command)


def bodied(command: Command) -> Command:
    """Add a body, which is JSON or a text, to a command."""
    for part in (
        click.option(
            "--text",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_note_text,
            help="BODY is text, even if it is JSON or begins like it.",
        ),
        click.argument("body", callback=body_of),
    ):
        command = part(command)
    return command


def budgeted(command: Command) -> Command:
    """Add the budget of a message's thread to a command."""
    hops = "How many answers may follow one another."
    command = click.option("--deadline", type=seconds, help="When its thread ends.")(command)
    return click.option("--hops", type=WholeNumber(0, HOPS_MAX), metavar="N", help=hops)(command)


def drafted(command: Command) -> Command:
    """Add a message with all its options to a command."""

    @worded
    @click.option("--reply-to", metavar="ID", callback=id_of, help="The message that this one answers.")
    @click.option(
        "--ttl",
        type=seconds,
        help="When it expires: it is not delivered after that.",
    )
    @click.option("--delay", type=seconds, help="How long it waits on disk before it is sent.")
    @click.option(
        "--id", metavar="ID", callback=id_of, help="Its id; a message sent twice with the same id is stored once."
    )
    @budgeted
    @functools.wraps(command)
    def drafting(**rest: Any) -> None:
        names = ("body", "message_type", "reply_to", "headers", "ttl", "delay", "id", "hops", "deadline")
        fields = _all_as_written({name: rest.pop(name) for name in names})
        fields["id"] = chosen_id(fields["id"])
        command(draft=Draft(**fields), **rest)

    return drafting
