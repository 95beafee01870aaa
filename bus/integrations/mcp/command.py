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
from ...cli.ending import open_bot, run, serve
from ...cli.options import Link, linked
from ...cli.streams import EXIT_CONFIG, say, show_error
from ..listening import LOCAL, HttpPlace, listens, origin_at, token_of

__all__ = ["mcp"]

_PORT = 7790


@click.command()
@click.option("--http", is_flag=True, help="Serve streamable HTTP instead of standard input and output.")
@listens(_PORT, origin="https://mcp.example.org; may be repeated.", only="--http")
@linked()
def mcp(link: Link, *, http: bool, place: HttpPlace) -> None:
    """Serve the Model Context Protocol: an assistant that starts this is a bot.

    Its tools send, publish, ask, receive, settle, subscribe, read history, list bots, and answer approvals. Each
    assistant needs a bot of its own, which --as or its credentials name.

    With --http it listens on this machine only. For others, put a proxy with TLS before it, and name that with
    --origin.
    """
    if http and place.token_file is None:
        raise click.UsageError("--http needs --token-file: it says who may act as this bot")
    if not http and (place.token_file is not None or place.origins):
        raise click.UsageError("--token-file and --origin are for --http")
    token = None if place.token_file is None else token_of(place.token_file, tell=not link.as_json)
    try:
        from .server import server_of
        from .tools import IN_FLIGHT_MAX
    except ImportError:
        show_error("the Model Context Protocol needs more packages: pip install 'posthouse[mcp]'")
        sys.exit(EXIT_CONFIG)
    logging.getLogger("posthouse.client").propagate = False  # commands show its warnings, and the SDK all others
    if token is not None:
        serve(lambda: _serve_http(link, place, token))
        return
    # What reads standard input cannot be interrupted. An assistant ends it by closing that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    async def served() -> None:
        async with open_bot(link, max_in_flight=IN_FLIGHT_MAX) as bot:
            await server_of(bot).run_stdio_async()

    run(served)


async def _serve_http(link: Link, place: HttpPlace, token: str) -> None:
    from .server import PATH, serve_http, server_of
    from .tools import IN_FLIGHT_MAX

    async with open_bot(link, max_in_flight=IN_FLIGHT_MAX) as bot:
        listener = place.listen()
        port = listener.getsockname()[1]
        here = [origin_at(name, port) for name in dict.fromkeys([place.host, *LOCAL])]
        if link.as_json:
            show_json({"url": f"{here[0]}{PATH}", "bot": bot.name})
        else:
            say(f"posthouse mcp is at {here[0]}{PATH}, as bot {bot.name}")
        await serve_http(server_of(bot), listener, token=token, origins=[*here, *place.origins])
