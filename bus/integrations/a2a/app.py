"""The ASGI application of an agent: its card, and JSON-RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

import anyio
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH, PROTOCOL_VERSION_CURRENT, TransportProtocol
from starlette.applications import Starlette

from ...bot import Bot
from .endpoint import AgentEndpoint
from .tasks import Tasks

__all__ = ["CARD_PATH", "a2a_app"]

CARD_PATH = AGENT_CARD_WELL_KNOWN_PATH
"""Where the card is."""

_KEEP_SECONDS = 30 * 86_400.0


def a2a_app(
    bot: Bot,
    to: str,
    *,
    url: str,
    description: str = "",
    card: AgentCard | None = None,
    message_type: str = "message",
    client_approves: bool = False,
    keep_seconds: float = _KEEP_SECONDS,
    store: str = "a2a",
    needs_token: bool = False,
) -> Starlette:
    """Return the ASGI application by which the bot with the name `to` is an agent of A2A, at `url` for its clients.

    `bot` is another bot, of the application alone: it sends what clients ask as direct messages of `message_type`,
    and takes the replies. The application's lifespan connects it, if it is not connected, and serves it. Several
    processes may serve the same agent, each with a Bot of the same name; one alone takes replies in order.

    A `card` is served as it is, but for the address if it has none; otherwise one is made of the bot's name and the
    `description`. With `client_approves`, a client may answer the approvals of the run that its message began;
    otherwise only people do, and the client is told that the task waits for one. Tasks that have ended are kept for
    `keep_seconds`, in the keyed store `store`.

    It lets everybody in. Put what checks credentials before it; if that is Starlette's AuthenticationMiddleware,
    each of its users has tasks of their own. With `needs_token`, the card says that a bearer token is needed.
    """
    tasks = Tasks(bot, to, store, keep_seconds)
    endpoint = AgentEndpoint(bot, to, tasks, message_type=message_type, client_approves=client_approves)
    served = AgentCard()
    served.CopyFrom(_card(to, description) if card is None else card)
    if needs_token:
        scheme = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer"))
        served.security_schemes["token"].CopyFrom(scheme)
        served.security_requirements.append(SecurityRequirement(schemes={"token": StringList()}))
    if not served.supported_interfaces:
        served.supported_interfaces.append(
            AgentInterface(
                url=url, protocol_binding=TransportProtocol.JSONRPC, protocol_version=PROTOCOL_VERSION_CURRENT
            )
        )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            # One handler: replies to one task are taken in their order.
            await group.start(partial(bot.serve, concurrency=1))
            try:
                yield
            finally:
                bot.stop()

    routes = [*create_agent_card_routes(served), *create_jsonrpc_routes(endpoint, "/")]
    return Starlette(routes=routes, lifespan=lifespan)


def _card(name: str, description: str) -> AgentCard:
    says = description or f"The bot {name} on a message bus."
    return AgentCard(
        name=name,
        description=says,
        version=version("posthouse"),
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain", "application/json"],
        skills=[AgentSkill(id="message", name=name, description=says, tags=["posthouse"])],
    )
