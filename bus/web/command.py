"""The command `posthouse web`: the page, links to log in, and tokens for programs.

Owns where the page listens and what it is called there. The server's packages are loaded when they are needed:
without the extra, the command says how to get them.
"""

from __future__ import annotations

import getpass
import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

import anyio
import rich_click as click

from ..bot import Bot, connect
from ..cli.console import show_json
from ..cli.ending import open_bot, serve
from ..cli.numbers import WholeNumber, seconds
from ..cli.options import Link, address_of, linked, name_of
from ..cli.streams import EXIT_CONFIG, EXIT_REFUSED, say, show_error
from .folder import folder_option, issued, open_folder
from .tickets import LoginLink, Tickets, Token
from .token_commands import token

__all__ = ["web"]

_PORT = 7780
_LINK_SECONDS = 600.0
_LOCAL = ("127.0.0.1", "::1", "localhost")


def _origin(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check addresses as browsers write an Origin."""
    for each in value:
        parts = urlsplit(each)
        if parts.scheme not in ("http", "https") or not parts.netloc or each != f"{parts.scheme}://{parts.netloc}":
            raise click.BadParameter(f"{each!r} is not like https://posthouse.example.org")
    return tuple(each.lower() for each in value)


@click.group(invoke_without_command=True)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", type=WholeNumber(0, 65_535), default=_PORT, show_default=True, help="0: any that is free.")
@click.option(
    "--origin",
    "origins",
    metavar="URL",
    multiple=True,
    callback=_origin,
    help="Its address for browsers, if a proxy is in front: https://posthouse.example.org. Repeatable.",
)
@click.option(
    "--tap", metavar="ADDRESS", callback=address_of, help="The worker's tap, if it is not at the default."
)
@folder_option
@linked("web")
@click.pass_context
def web(
    context: click.Context,
    link: Link,
    *,
    host: str,
    port: int,
    origins: tuple[str, ...],
    tap: str | None,
    folder: Path,
) -> None:
    """Serve a page that shows and operates a worker, and HTTP for programs without ZeroMQ.

    It is a client of the worker like any other, as the bot `web`. People log in with a link that works once:
    `posthouse web link NAME` prints one. Programs use tokens: `posthouse web token add`.

    It listens on this machine only. For others, put a proxy with TLS in front, and name its address with --origin.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        from .app import bound, serving
    except ImportError:
        show_error("the page needs more packages: pip install 'posthouse[web]'")
        sys.exit(EXIT_CONFIG)
    if host not in _LOCAL and not any(each.startswith("https:") for each in origins):
        raise click.UsageError(
            f"--host {host} would show everything to a network without TLS: let it listen on 127.0.0.1, put a proxy"
            " with TLS in front, and name its address with --origin https://…"
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    tickets = open_folder(folder)

    async def served() -> None:
        listener = bound(host, port)
        names = _origins(listener.getsockname()[1], host, origins)
        tickets.note_origin(names[0])
        own = partial(open_bot, link, max_in_flight=0, tap_url=tap)
        async with serving(listener, tickets, names, own=own, of_token=partial(_bot_of, link, tap)):
            _tell(link, tickets, names[0])
            await anyio.sleep_forever()

    serve(served)


def _bot_of(link: Link, tap: str | None, token: Token) -> Bot:
    """Return the bot of a token, at the same worker."""
    return connect(
        link.urls,
        bot=token.bot,
        credentials=token.credentials,
        max_in_flight=0,
        timeout=link.patience.for_answer,
        wait=link.patience.for_worker,
        tap_url=tap,
    )


def _origins(port: int, host: str, given: Sequence[str]) -> list[str]:
    """Return what browsers may call the page, the best name first."""
    here = [f"http://{f'[{name}]' if ':' in name else name}:{port}" for name in dict.fromkeys([host, *_LOCAL])]
    return [*given, *here] if host in _LOCAL else list(given)


def _tell(link: Link, tickets: Tickets, origin: str) -> None:
    if link.as_json:
        show_json({"url": origin})
        return
    say(f"posthouse web is at {origin}")
    if sys.stdout.isatty():
        secret = tickets.issue(_invitation(tickets, getpass.getuser(), _LINK_SECONDS, read_only=False))
        say(f"log in once, within ten minutes: {_address(origin, secret)}")
    else:
        say("to log in, print a link: posthouse web link NAME")


def _invitation(tickets: Tickets, person: str, lasts: float, *, read_only: bool) -> LoginLink:
    return LoginLink(person=person, read_only=read_only, **tickets.times(timedelta(seconds=lasts)))


def _address(origin: str, secret: str) -> str:
    return f"{origin}/login?link={quote(secret)}"


@web.command("link")
@click.argument("person", metavar="NAME", callback=name_of)
@click.option("--read-only", is_flag=True, help="NAME can look, and change nothing.")
@click.option("--ttl", type=seconds, default="10m", show_default=True, help="How long it is valid.")
@folder_option
def link_command(person: str, read_only: bool, ttl: float, folder: Path) -> None:
    """Print a link with which NAME can log in, once.

    What is done with that log-in is recorded under NAME. It ends after twelve hours, or in Settings.
    """
    tickets = open_folder(folder)
    origin = tickets.origin()
    if origin is None:
        show_error(
            f"no page was started with the folder {tickets.folder}: name the one of posthouse web with --folder,"
            " or wait until it has started"
        )
        sys.exit(EXIT_REFUSED)
    say(_address(origin, issued(tickets, _invitation(tickets, person, ttl, read_only=read_only))))


web.add_command(token)
