"""The command `posthouse mcp`: an assistant as a bot, by standard input and output, or by HTTP.

Owns where it listens, what it is called there, and the file of the token. The SDK is loaded when it is needed:
without the extra, the command says how to get it.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
from urllib.parse import urlsplit

import rich_click as click

from ...cli.console import show_json
from ...cli.ending import Impossible, open_bot, run, until_signal
from ...cli.numbers import WholeNumber
from ...cli.options import Link, linked
from ...cli.streams import EXIT_CONFIG, EXIT_SIGNAL, say, show_error
from ...secret_files import NotSecret, read_secret_file, write_secret_file

__all__ = ["mcp"]

_PORT = 7790

_TOKEN_BYTES, _TOKEN_BYTES_MAX = 32, 1024
_TOKEN_BYTES_MIN = 16
"""Shorter ones could be guessed."""

_LOCAL = ("127.0.0.1", "localhost", "::1")


def _origins(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check addresses as browsers write an Origin."""
    for each in value:
        parts = urlsplit(each)
        if parts.scheme not in ("http", "https") or each != f"{parts.scheme}://{parts.netloc}":
            raise click.BadParameter(f"{each!r} is not like https://mcp.example.org")
    return value


@click.command()
@click.option("--http", is_flag=True, help="Serve streamable HTTP instead of standard input and output.")
@click.option(
    "--host", type=click.Choice(_LOCAL), default=_LOCAL[0], show_default=True, help="With --http: where it listens."
)
@click.option(
    "--port",
    type=WholeNumber(0, 65_535),
    default=_PORT,
    show_default=True,
    help="With --http: 0 is any that is free.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="With --http, required: the token that lets in. A file that does not exist is created with a new one.",
)
@click.option(
    "--origin",
    "origins",
    metavar="URL",
    multiple=True,
    callback=_origins,
    help="With --http: what it is called behind a proxy with TLS, as https://mcp.example.org; may be repeated.",
)
@linked()
def mcp(link: Link, *, http: bool, host: str, port: int, token_file: str | None, origins: tuple[str, ...]) -> None:
    """Serve the Model Context Protocol: an assistant that starts this is a bot.

    Its tools send, publish, ask, receive, settle, subscribe, read history, list bots, and answer approvals. Each
    assistant needs a bot of its own, which --as or its credentials name.

    With --http it listens on this machine only. For others, put a proxy with TLS before it, and name that with
    --origin.
    """
    if http and token_file is None:
        raise click.UsageError("--http needs --token-file: it says who may act as this bot")
    if not http and (token_file is not None or origins):
        raise click.UsageError("--token-file and --origin are for --http")
    token = None if token_file is None else _token(token_file, tell=not link.as_json)
    try:
        from .server import server_of
        from .tools import IN_FLIGHT_MAX
    except ImportError:
        show_error("the Model Context Protocol needs more packages: pip install 'posthouse[mcp]'")
        sys.exit(EXIT_CONFIG)
    logging.getLogger("posthouse.client").propagate = False  # commands show its warnings, and the SDK all others
    if token is not None:
        number = run(lambda: until_signal(lambda: _serve_http(link, host, port, token, origins)))
        if number not in (None, signal.SIGINT, signal.SIGTERM):
            sys.exit(EXIT_SIGNAL + number)
        return
    # What reads standard input cannot be interrupted. An assistant ends it by closing that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    async def served() -> None:
        async with open_bot(link, max_in_flight=IN_FLIGHT_MAX) as bot:
            await server_of(bot).run_stdio_async()

    run(served)


async def _serve_http(link: Link, host: str, port: int, token: str, origins: tuple[str, ...]) -> None:
    from .server import PATH, serve_http, server_of
    from .tools import IN_FLIGHT_MAX

    async with open_bot(link, max_in_flight=IN_FLIGHT_MAX) as bot:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family)
        except OSError as error:
            fault = os.strerror(error.errno or 0)
            raise Impossible(f"cannot listen at {host}:{port}: {fault}; choose another --port") from None
        port = listener.getsockname()[1]
        here = [f"http://{f'[{name}]' if ':' in name else name}:{port}" for name in dict.fromkeys([host, *_LOCAL])]
        if link.as_json:
            show_json({"url": f"{here[0]}{PATH}", "bot": bot.name})
        else:
            say(f"posthouse mcp is at {here[0]}{PATH}, as bot {bot.name}")
        await serve_http(server_of(bot), listener, token=token, origins=[*here, *origins])


def _token(file: str, *, tell: bool) -> str:
    """Return the token of a file, which is created if it does not exist; `tell` says so."""
    try:
        try:
            token = read_secret_file(file, _TOKEN_BYTES_MAX).decode("ascii").strip()
        except FileNotFoundError:
            token = secrets.token_urlsafe(_TOKEN_BYTES)
            write_secret_file(file, f"{token}\n".encode())
            if tell:
                say(f"a new token is in {file}")
    except (OSError, NotSecret, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else str(error)
        show_error(f"the token of {file} cannot be used: {fault}")
        sys.exit(EXIT_CONFIG)
    if not _TOKEN_BYTES_MIN <= len(token) <= _TOKEN_BYTES_MAX:
        show_error(
            f"the token of {file} has {len(token)} characters: it needs {_TOKEN_BYTES_MIN} to {_TOKEN_BYTES_MAX}"
        )
        sys.exit(EXIT_CONFIG)
    return token
