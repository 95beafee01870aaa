"""The commands `posthouse web token`: access for programs, and ending it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import rich_click as click

from ..cli.console import Time, show_json, show_rows
from ..cli.numbers import seconds
from ..cli.options import name_of
from ..cli.streams import EXIT_REFUSED, note, say, show_error
from ..model.patterns import pattern_fault
from .folder import folder_option, issued, open_folder
from .tickets import Token

__all__ = ["token"]

_ACTIONS = ("send", "publish", "read")


def _rules(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> tuple[str, ...]:
    for rule in value:
        action, colon, pattern = rule.partition(":")
        if action not in _ACTIONS or not colon:
            raise click.BadParameter(f"{rule!r} is not like send:BOTS, publish:CHANNELS or read:CHANNELS")
        if (fault := pattern_fault(pattern)) is not None:
            raise click.BadParameter(f"{rule!r}: {fault}")
    return tuple(value)


@click.group("token")
def token() -> None:
    """Let programs send, publish, request and listen over HTTP."""


@token.command("add")
@click.argument("label", metavar="LABEL", callback=name_of)
@click.option("--bot", metavar="NAME", required=True, callback=name_of, help="The bot as which the program acts.")
@click.option(
    "--allow",
    metavar="RULE",
    multiple=True,
    required=True,
    callback=_rules,
    help="What it may do: send:BOTS (also requests), publish:CHANNELS or read:CHANNELS, with patterns as in the"
    " rights of roles, such as publish:orders.* or read:**. Repeatable.",
)
@click.option(
    "--credentials",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The credentials of that bot, for a worker with keys. The file stays where it is.",
)
@click.option("--expires", type=seconds, metavar="SPAN", help="How long it is valid, such as 90d.")
@folder_option
def add(
    label: str, bot: str, allow: tuple[str, ...], credentials: str | None, expires: float | None, folder: Path
) -> None:
    """Print a new token, once: only its hash is stored.

    The worker's rights for the bot apply as well. The program sends it as `Authorization: Bearer TOKEN`.
    """
    tickets = open_folder(folder)
    if any(each.label == label for _, each in tickets.listed(Token)):
        show_error(f"there is a token {label!r}: end it first, or choose another label")
        sys.exit(EXIT_REFUSED)
    times = tickets.times(None if expires is None else timedelta(seconds=expires))
    path = None if credentials is None else os.path.abspath(credentials)
    say(issued(tickets, Token(label=label, bot=bot, credentials=path, allow=allow, **times)))
    note("this is shown once: give it to the program, and store it nowhere else")


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text, for programs.")
@folder_option
def list_tokens(as_json: bool, folder: Path) -> None:
    """List the tokens that are valid."""
    found = [each for _, each in open_folder(folder).listed(Token)]
    if as_json:
        show_json(found)
        return
    rows = [
        (each.label, each.bot, " ".join(each.allow), Time(each.created_at), Time(each.expires_at or ""))
        for each in found
    ]
    show_rows(("token", "bot", "may", "since", "until"), rows, nothing="no tokens")


@token.command("end")
@click.argument("label", metavar="LABEL", callback=name_of)
@folder_option
def end(label: str, folder: Path) -> None:
    """End a token: it is refused from now on, and streams that use it end within seconds."""
    tickets = open_folder(folder)
    ended = [tickets.end(name) for name, each in tickets.listed(Token) if each.label == label]
    if not any(ended):
        show_error(f"no token {label!r}")
        sys.exit(EXIT_REFUSED)
    say(f"token {label} ended")
