"""The command `posthouse a2a`: a bot as an agent of A2A, by HTTP.

Owns where it listens, and what its card says of that. It is outside of the extra's package, whose import needs the
SDK: without that, the command says how to get it.
"""

from __future__ import annotations

import logging
import sys

import rich_click as click

from ..cli.console import show_json
from ..cli.ending import open_bot, serve
from ..cli.options import Link, linked
from ..cli.streams import EXIT_CONFIG, say, show_error
from .listening import HttpPlace, listens, origin_at, token_of

__all__ = ["a2a"]

_PORT = 7791


@click.command()
@click.argument("agent", metavar="BOT")
@listens(_PORT, origin="https://agents.example.org: its card says this address.")
@click.option("--description", metavar="TEXT", default="", help="What the agent can do, for its card.")
@click.option("--type", "message_type", default="message", show_default=True, help="The type of messages to BOT.")
@click.option(
    "--client-approves", is_flag=True, help="Let clients answer the approvals of the runs that they began."
)
@linked()
def a2a(
    link: Link,
    *,
    agent: str,
    place: HttpPlace,
    description: str,
    message_type: str,
    client_approves: bool,
) -> None:
    """Serve the Agent2Agent protocol (A2A): BOT is an agent for its clients.

    The command needs a bot of its own, which --as or its credentials name: that one sends what clients ask to BOT,
    and takes the replies. Tasks are kept by the worker, and go on when this command, BOT or the worker is started
    again.

    It listens on this machine only. For others, put a proxy with TLS before it, and name that with --origin.
    """
    if len(place.origins) > 1:
        raise click.UsageError("--origin can be given once: the card has one address")
    assert place.token_file is not None, "the option is required"
    token = token_of(place.token_file, tell=not link.as_json)
    try:
        from sse_starlette.sse import AppStatus

        from .a2a.app import CARD_PATH, a2a_app
        from .http_server import serve_http
    except ImportError:
        show_error("the Agent2Agent protocol needs more packages: pip install 'posthouse[a2a]'")
        sys.exit(EXIT_CONFIG)
    logging.getLogger("posthouse.client").propagate = False  # commands show its warnings

    def end_streams() -> None:
        AppStatus.should_exit = True  # of this process, which ends

    async def served() -> None:
        async with open_bot(link, max_in_flight=0) as bot:
            listener = place.listen()
            here = origin_at(place.host, listener.getsockname()[1])
            url = place.origins[0] if place.origins else here
            app = a2a_app(
                bot,
                agent,
                url=f"{url}/",
                description=description,
                message_type=message_type,
                client_approves=client_approves,
                needs_token=True,
            )
            if link.as_json:
                show_json({"url": f"{here}/", "agent": agent, "bot": bot.name})
            else:
                say(f"posthouse a2a serves {agent} at {here}, as bot {bot.name}")
            await serve_http(
                app,
                listener,
                token=token,
                command="posthouse a2a",
                public=(CARD_PATH,),
                end_streams=end_streams,
            )

    serve(served)
