"""The command `posthouse mcp`: an assistant as a bot, by standard input and output, or by HTTP.

Owns where it listens, and what it is called there. The SDK is loaded when it is needed:
without the extra, the command says how to get it.
"""

from __future__ import annotations

import logging
import signal
import sys

import rich_click as click

from ...cli.console import show_json
from ...cli.ending import open_bot, run, until_signal
from ...cli.numbers import WholeNumber
from ...cli.options import Link, linked
from ...cli.streams import EXIT_CONFIG, EXIT_SIGNAL, say, show_error
from ..listening import LOCAL, checked_origins, listen_at, token_of

__all__ = ["mcp"]

_PORT = 7790


@click.command()
@click.option("--http", is_flag=True, help="Serve streamable HTTP instead of standard input and output.")
@click.option(
    "--host",
    type=click.Choice(LOCAL),
    metavar="HOST",
    default=LOCAL[0],
    show_default=True,
    help=f"With --http: where it listens: {', '.join(LOCAL)}.",
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
    callback=checked_origins,
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
    token = None if token_file is None else token_of(token_file, tell=not link.as_json)
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
        listener = listen_at(host, port)
        port = listener.getsockname()[1]
        here = [f"http://{f'[{name}]' if ':' in name else name}:{port}" for name in dict.fromkeys([host, *LOCAL])]
        if link.as_json:
            show_json({"url": f"{here[0]}{PATH}", "bot": bot.name})
        else:
            say(f"posthouse mcp is at {here[0]}{PATH}, as bot {bot.name}")
        await serve_http(server_of(bot), listener, token=token, origins=[*here, *origins])
