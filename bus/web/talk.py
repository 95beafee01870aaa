"""The page *Conversations*, and one message: what was said, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ..errors import BusError, UnknownBot
from ..wire.frames import StoredMessage
from ..wire.message_answers import FoundMessage, KeptMessage
from . import shown
from .site import Look, Shown, Website, page
from .statuses import http_status, in_words
from .tree import tree

__all__ = ["ROUTES"]

_MESSAGES = 50
_THREAD_MESSAGES = 500
_ROWS = 100

_SUGGESTED = 100
"""Names of bots that are suggested in a field."""

_SUGGESTED_SECONDS = 30.0


async def _conversations(look: Look) -> Shown:
    part, after = look.asked("find"), look.asked("after")
    channels = await look.bot.channels(part=part, after=after, limit=_ROWS + 1)
    more = None
    if len(channels) > _ROWS:
        more = shown.link("/conversations", find=part, after=channels[_ROWS - 1].name)
    values = {
        "find": part or "",
        "channels": channels[:_ROWS],
        "more": more,
        "names": await look.site.shared.get("names", lambda: _suggested(look), seconds=_SUGGESTED_SECONDS),
    }
    return Shown("conversations.html", values)


async def _suggested(look: Look) -> list[str]:
    return [each.name for each in await look.bot.bots(limit=_SUGGESTED)]


async def _conversation(look: Look) -> Shown:
    channel, thread = look.asked("channel"), look.asked("thread")
    one, other = look.asked("one"), look.asked("other")
    before = look.asked_number("before")
    asked: dict[str, Any]
    if thread is not None:
        found = await look.bot.history(thread=thread, limit=_THREAD_MESSAGES)
        values = {"what": f"Thread {thread}", "branches": tree(found), "limit": _THREAD_MESSAGES}
        return Shown("thread.html", values | {"names": await _recipients(look, found)})
    if channel is not None:
        asked, what = {"channel": channel}, f"Channel {channel}"
    elif one is not None and other is not None:
        asked, what = {"between": (one, other)}, f"{one} and {other}"
    else:
        raise UnknownBot("unknown_bot", "name two bots, a channel, or a message of a thread")
    found = await look.bot.history(**asked, before_seq=before, limit=_MESSAGES)
    older = None
    if len(found) == _MESSAGES:
        older = shown.link("/conversation", channel=channel, one=one, other=other, before=found[-1].seq)
    values = {"what": what, "messages": found, "older": older, "is_newest": before is None}
    return Shown("conversation.html", values | {"names": await _recipients(look, found)})


async def _recipients(look: Look, messages: Iterable[StoredMessage | KeptMessage]) -> dict[str, str]:
    """Return the names of the bots to which messages were sent directly."""
    return await look.names(each.recipient["bot_id"] for each in messages if "bot_id" in each.recipient)


async def _find(look: Look) -> FoundMessage:
    seq = look.asked_number("seq")
    if seq is not None:
        return await look.bot.find(seq)
    return await look.bot.find(look.asked("id") or "", sender=look.asked("sender"))


async def _message(look: Look) -> Shown:
    found = await _find(look)
    names = await _recipients(look, [found.message])
    return Shown("message.html", {"found": found, "message": found.message, "names": names})


async def _body(request: Request) -> Response:
    """Return the whole body of a message as a text, which a browser shows as such."""
    site: Website = request.app.state.site
    if await site.visit(request) is None:
        return RedirectResponse("/login", 303)
    try:
        look = Look(site, await site.upstream.bot(), request.query_params.multi_items())
        message = (await _find(look)).message
    except BusError as error:
        return PlainTextResponse(f"{in_words(error)}\n", http_status(error))
    return PlainTextResponse(shown.visible(shown.whole(message.body), lines=True))


ROUTES: list[Route] = [
    page("/conversations", _conversations),
    page("/conversation", _conversation),
    page("/message", _message),
    Route("/message/body", _body, methods=["GET"]),
]
