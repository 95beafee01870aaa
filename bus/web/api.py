"""HTTP for programs without ZeroMQ: sending, publishing, requesting, and listening to a channel.

Owns what a token may do. Each token acts as one bot, with a session of its own at the worker, so that the worker's
rights and rates hold for it too. The id of a message is its sender's choice: whoever repeats one after a lost
answer stores it once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..bot import Bot
from ..client.ids import chosen_id
from ..errors import BusError, Forbidden, LimitReached, Portable, ReplyTimeout, RequestError
from ..model.patterns import Pattern
from ..wire.frames import is_name
from ..wire.refusals import NAME_RULE, refusal
from .api_shapes import (
    ErrorAnswer,
    MessagePage,
    Problem,
    PublishOrder,
    Replied,
    RequestOrder,
    SendOrder,
    Stored,
    as_read,
)
from .openapi import document
from .site import BodyTooLarge, Website, read_body
from .statuses import http_status
from .tickets import Token

__all__ = ["ROUTES"]

_BODY_BYTES_MAX = 1024 * 1024
"""As a frame of the protocol. The worker's own limits are lower."""

_STREAMS_MAX = 200
_PAGE_MESSAGES = 50
_PAGE_MESSAGES_MAX = 500

_BEAT_SECONDS = 10.0
"""How often a silent stream says that it lives, and looks whether its token still does."""

T = TypeVar("T")


class _Failure(Portable):
    """A request that is answered with an error of HTTP's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.fault = Problem(code=code, message=message)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _refused(error: BusError, sent: str | None = None) -> Response:
    """Answer with an error; `sent` is the id of a message that may be stored if the worker refused nothing."""
    unknown = None if isinstance(error, RequestError) else sent
    retry_after = error.retry_after if isinstance(error, RequestError) else None
    fault = Problem(
        code=error.code if isinstance(error, RequestError) else "no_reply" if _is_late(error) else "unavailable",
        message=str(error),
        retry=error.retry if isinstance(error, RequestError) else True,
        retry_after=retry_after,
        id=error.message_id if isinstance(error, ReplyTimeout) else unknown,
        state=error.state if isinstance(error, ReplyTimeout) else "unknown" if unknown else None,
    )
    status = http_status(error)
    headers = {"retry-after": str(int(retry_after or 0) + 1)} if status in (429, 503) else None
    return _json(ErrorAnswer(fault), status, headers)


def _is_late(error: BusError) -> bool:
    return isinstance(error, ReplyTimeout)


def _endpoint(path: str, method: str, answer: Callable[[_Call], Awaitable[Response]]) -> Route:
    """Return a route for programs with a token; whatever goes wrong is answered in JSON."""

    async def endpoint(request: Request) -> Response:
        try:
            return await answer(_Call(request))
        except _Failure as failure:
            headers = {"www-authenticate": "Bearer"} if failure.status == 401 else None
            return _json(ErrorAnswer(failure.fault), failure.status, headers)
        except BusError as error:
            return _refused(error)

    return Route(path, endpoint, methods=[method])


class _Call:
    """A request of a program. Raises _Failure without a valid token."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.site: Website = request.app.state.site
        kind, _, self._secret = request.headers.get("authorization", "").partition(" ")
        token = self.site.tickets.find(self._secret.strip(), Token) if kind.lower() == "bearer" else None
        if token is None:
            raise _Failure(401, "unauthorized", "send `Authorization: Bearer TOKEN`; posthouse web token makes one")
        self.token = token

    @property
    def is_valid(self) -> bool:
        """Whether the token is still valid."""
        return self.site.tickets.find(self._secret.strip(), Token) is not None

    async def bot(self) -> Bot:
        """Return the bot as which it acts. Raise the error why there is none."""
        return await self.site.upstreams.bot(self.token)

    async def order(self, shape: type[T]) -> T:
        """Return what was sent. Raise _Failure."""
        try:
            data = await read_body(self.request, _BODY_BYTES_MAX)
            return msgspec.json.decode(data, type=shape)
        except BodyTooLarge:
            raise _Failure(413, "too_large", f"a request has at most {_BODY_BYTES_MAX} bytes") from None
        except TimeoutError:
            raise _Failure(408, "timeout", "the request came too slowly") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _Failure(400, "bad_request", refusal(error)) from None

    def require(self, action: str, name: str) -> None:
        """Raise Forbidden if the token may not do something, and _Failure if the name is none."""
        if not is_name(name):
            raise _Failure(400, "bad_request", f"{name[:200]!r} is not a name: {NAME_RULE}")
        for entry in self.token.allow:
            allowed, _, pattern = entry.partition(":")
            if allowed == action and Pattern(pattern).matches(name, self.token.bot):
                return
        raise Forbidden("forbidden", f"the token {self.token.label!r} may not {action} {name!r}")


async def _send(call: _Call) -> Response:
    order = await call.order(SendOrder)
    call.require("send", order.to)
    return await _stored((await call.bot()).send, order, "to")


async def _publish(call: _Call) -> Response:
    order = await call.order(PublishOrder)
    call.require("publish", order.channel)
    return await _stored((await call.bot()).publish, order, "channel")


async def _stored(give: Callable[..., Awaitable[Any]], order: SendOrder | PublishOrder, where: str) -> Response:
    fields = msgspec.structs.asdict(order)
    place, body = fields.pop(where), fields.pop("body")
    try:
        fields["id"] = message_id = chosen_id(order.id)
        receipt = await give(place, body, **fields)
    except (TypeError, ValueError) as error:
        raise _Failure(400, "bad_request", str(error)) from None
    except BusError as error:
        return _refused(error, message_id)
    seq = None if receipt.scheduled else receipt.seq
    return _json(Stored(id=receipt.id, seq=seq, duplicate=receipt.duplicate, scheduled=receipt.scheduled))


async def _request(call: _Call) -> Response:
    order = await call.order(RequestOrder)
    call.require("send", order.to)
    bot = await call.bot()
    try:
        message_id = chosen_id(order.id)
        reply = await bot.request(
            order.to,
            order.body,
            timeout=order.timeout,
            message_type=order.message_type,
            headers=order.headers,
            id=message_id,
        )
    except (TypeError, ValueError) as error:
        raise _Failure(400, "bad_request", str(error)) from None
    except BusError as error:
        return _refused(error, message_id)
    return _json(Replied(id=message_id, reply=as_read(reply.stored)))


async def _channel(call: _Call) -> Response:
    channel = call.request.path_params["channel"]
    call.require("read", channel)
    bot = await call.bot()
    if "text/event-stream" not in call.request.headers.get("accept", ""):
        limit = min(_number(call, "limit") or _PAGE_MESSAGES, _PAGE_MESSAGES_MAX)
        found = await bot.history(channel=channel, before_seq=_number(call, "before"), limit=limit)
        return _json(MessagePage(messages=[as_read(message) for message in found]))
    if call.site.streams >= _STREAMS_MAX:
        raise LimitReached("busy", f"at most {_STREAMS_MAX} programs listen at once")
    last = _as_number("Last-Event-ID", call.request.headers.get("last-event-id") or None)
    after = _number(call, "after") if last is None else last
    return _Listening(call.site, _events(call, bot, channel, after))


def _number(call: _Call, name: str) -> int | None:
    return _as_number(name, call.request.query_params.get(name))


def _as_number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _Failure(400, "bad_request", f"{name} is a number, not {text[:50]!r}")
    return int(text)


async def _events(call: _Call, bot: Bot, channel: str, after: int | None) -> AsyncIterator[bytes]:
    """Yield the messages of a channel after a seq, or from now on, each with its seq as its id."""
    try:
        async with bot.watch(channel, after=after) as messages:
            yield b"retry: 2000\n\n"  # whoever has read this misses nothing from now on
            while call.is_valid and not call.site.stopping.is_set():
                with anyio.move_on_after(_BEAT_SECONDS) as silence:
                    message = as_read(await anext(messages))
                if silence.cancelled_caught:
                    yield b":\n\n"
                else:
                    yield b"id: %d\ndata: %b\n\n" % (message.seq, msgspec.json.encode(message))
    except BusError as error:  # the client connects again, and names the last seq that it has
        yield b"event: fault\ndata: %b\n\n" % msgspec.json.encode(str(error))


class _Listening(StreamingResponse):
    """The events of a channel, counted while somebody reads them, and ended when the page stops."""

    def __init__(self, site: Website, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until the reader has gone."""
        self._site.streams += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._stop, tasks)
                await super().__call__(scope, receive, send)
                tasks.cancel_scope.cancel()
        finally:
            self._site.streams -= 1

    async def _stop(self, tasks: anyio.abc.TaskGroup) -> None:
        await self._site.stopping.wait()
        tasks.cancel_scope.cancel()


async def _document(request: Request) -> Response:
    return _json(document())


ROUTES: list[Route] = [
    _endpoint("/v1/send", "POST", _send),
    _endpoint("/v1/publish", "POST", _publish),
    _endpoint("/v1/request", "POST", _request),
    _endpoint("/v1/channels/{channel}/messages", "GET", _channel),
    Route("/v1/openapi.json", _document, methods=["GET"]),
]
