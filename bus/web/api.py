"""HTTP for programs without ZeroMQ: sending, publishing, requesting, and listening to a channel.

Owns what a token may do. Each token acts as one bot, with a session of its own at the worker, so that the worker's
rights and rates hold for it too. The id of a message is its sender's choice: whoever repeats one after a lost
answer stores it once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..bot import Bot
from ..client.ids import chosen_id
from ..errors import (
    AddressError,
    BusError,
    CredentialsError,
    Forbidden,
    HandshakeError,
    KeyRefused,
    KeysRequired,
    LimitReached,
    LogReplaced,
    Portable,
    ReplyTimeout,
    RequestError,
)
from ..model.patterns import Pattern
from ..wire.frames import is_name
from ..wire.refusals import NAME_RULE
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
from .forms import BodyTooLarge, read_body
from .listening import Listening, beyond, events
from .openapi import document
from .orders import BadOrder, LogPlace, as_number, as_place, only, read_order
from .site import Website
from .statuses import http_status, in_words
from .tickets import Token

__all__ = ["ROUTES"]

_BODY_BYTES_MAX = 1024 * 1024
"""As a frame of the protocol. The worker's own limits are lower."""

_STREAMS_MAX = 200
_PAGE_MESSAGES = 50
_PAGE_MESSAGES_MAX = 500

T = TypeVar("T", bound=msgspec.Struct)


class _Failure(Portable):
    """A request that is answered with an error of this page."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.fault = Problem(code=code, message=message)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _refused(error: BusError, token: Token, sent: str | None = None) -> Response:
    """Answer with an error; `sent` is the id of a message that may be stored if no worker said otherwise."""
    status, message = http_status(error), in_words(error)
    id: str | None = None
    state: str | None = None
    retry_after: float | None = None
    match error:
        case LogReplaced():
            code, retry = "log_replaced", False
        case RequestError():
            code, retry, retry_after = error.code, error.retry, error.retry_after
        case ReplyTimeout():
            code, retry, id, state = "no_reply", True, error.message_id, error.state
        case KeyRefused():
            status, code, retry = 401, "unauthorized", False
            message = f"the worker refuses the key of bot {token.bot!r}: it was revoked, or has expired"
        case KeysRequired():
            code, retry = "misconfigured", False
            message = (
                f"the token {token.label!r} has no credentials, and the worker takes only bots with a key: end the"
                " token, and add it again with --credentials"
            )
        case CredentialsError() | HandshakeError() | AddressError():
            code, retry = "misconfigured", False
            message = f"the token {token.label!r} is not set up correctly: see the log of posthouse web"
        case _:
            code, retry, id, state = "unavailable", True, sent, "unknown" if sent else None
    after = str(LogPlace(error.epoch, error.after_seq)) if isinstance(error, LogReplaced) else None
    fault = Problem(
        code=code, message=message, retry=retry, retry_after=retry_after, id=id, state=state, after=after
    )
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["retry-after"] = str(int(retry_after or 0) + 1)
    return _json(ErrorAnswer(fault), status, headers)


def _endpoint(path: str, method: str, answer: Callable[[_Call], Awaitable[Response]]) -> Route:
    """Return a route for programs with a token; whatever goes wrong is answered in JSON."""

    async def endpoint(request: Request) -> Response:
        site: Website = request.app.state.site
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        token = await site.ticket(secret.strip(), Token) if kind.lower() == "bearer" else None
        if token is None:
            text = "send the header `Authorization: Bearer TOKEN`; posthouse web token add makes a token"
            headers = {"www-authenticate": "Bearer"}
            return _json(ErrorAnswer(Problem(code="unauthorized", message=text)), 401, headers)
        try:
            return await answer(_Call(request, token, secret.strip()))
        except _Failure as failure:
            return _json(ErrorAnswer(failure.fault), failure.status)
        except BadOrder as error:
            return _json(ErrorAnswer(Problem(code=error.code, message=str(error))), 400)
        except BusError as error:
            return _refused(error, token)

    return Route(path, endpoint, methods=[method])


class _Call:
    """A request of a program with a valid token."""

    def __init__(self, request: Request, token: Token, secret: str) -> None:
        self.request = request
        self.site: Website = request.app.state.site
        self.token = token
        self._secret = secret

    async def is_valid(self) -> bool:
        """Return True if the token is still valid."""
        return await self.site.ticket(self._secret, Token) is not None

    def bot(self) -> AbstractAsyncContextManager[Bot]:
        """Return the bot as which it acts, for a block. Entering it raises the error why there is none."""
        return self.site.upstreams.using(self.token)

    async def order(self, shape: type[T]) -> T:
        """Return what was sent. Raise BadOrder, and _Failure if it did not come whole."""
        try:
            return read_order(await read_body(self.request, _BODY_BYTES_MAX), shape)
        except BodyTooLarge:
            raise _Failure(413, "too_large", f"a request has at most {_BODY_BYTES_MAX} bytes") from None
        except TimeoutError:
            raise _Failure(408, "timeout", "the request was not received in time") from None

    def require(self, action: str, name: str) -> None:
        """Raise Forbidden if the token may not do something, and _Failure if the name is not valid."""
        if not is_name(name):
            raise _Failure(400, "bad_request", f"{name[:200]!r} is not a valid name: {NAME_RULE}")
        for entry in self.token.allow:
            allowed, _, pattern = entry.partition(":")
            if allowed == action and Pattern(pattern).matches(name, self.token.bot):
                return
        raise Forbidden("forbidden", f"the token {self.token.label!r} may not {action} {name!r}")


async def _send(call: _Call) -> Response:
    order = await call.order(SendOrder)
    call.require("send", order.to)
    async with call.bot() as bot:
        return await _stored(call, bot.send, order, "to")


async def _publish(call: _Call) -> Response:
    order = await call.order(PublishOrder)
    call.require("publish", order.channel)
    async with call.bot() as bot:
        return await _stored(call, bot.publish, order, "channel")


async def _stored(
    call: _Call, give: Callable[..., Awaitable[Any]], order: SendOrder | PublishOrder, where: str
) -> Response:
    fields = msgspec.structs.asdict(order)
    place, body = fields.pop(where), fields.pop("body")
    try:
        fields["id"] = message_id = chosen_id(order.id)
        receipt = await give(place, body, **fields)
    except (TypeError, ValueError) as error:
        raise _Failure(400, "bad_request", str(error)) from None
    except BusError as error:
        return _refused(error, call.token, message_id)
    seq = None if receipt.scheduled else receipt.seq
    return _json(Stored(id=receipt.id, seq=seq, duplicate=receipt.duplicate, scheduled=receipt.scheduled))


async def _request(call: _Call) -> Response:
    order = await call.order(RequestOrder)
    call.require("send", order.to)
    async with call.bot() as bot:
        try:
            message_id = chosen_id(order.id)
            reply = await bot.request(
                order.to,
                order.body,
                timeout=order.timeout,
                message_type=order.message_type,
                headers=order.headers,
                id=message_id,
                hops=order.hops,
                deadline=order.deadline,
            )
        except (TypeError, ValueError) as error:
            raise _Failure(400, "bad_request", str(error)) from None
        except BusError as error:
            return _refused(error, call.token, message_id)
    return _json(Replied(id=message_id, reply=as_read(reply.stored)))


async def _channel(call: _Call) -> Response:
    channel = call.request.path_params["channel"]
    call.require("read", channel)
    asked = only(call.request.query_params.multi_items(), ("after", "before", "limit"))
    before, after = as_place("before", asked.get("before")), as_place("after", asked.get("after"))
    limit = as_number("limit", asked.get("limit"), least=1, most=_PAGE_MESSAGES_MAX) or _PAGE_MESSAGES
    if "text/event-stream" not in call.request.headers.get("accept", ""):
        return await _page(call, channel, before=before, after=after, limit=limit)
    last = as_place("Last-Event-ID", call.request.headers.get("last-event-id") or None)
    async with call.bot():
        pass  # why there is none is told by a status
    if call.site.streams >= _STREAMS_MAX:
        raise LimitReached("busy", f"at most {_STREAMS_MAX} programs may listen at once")
    if call.request.method == "HEAD":
        return Response(media_type="text/event-stream")
    told = events(channel, last or after, using=call.bot(), is_valid=call.is_valid, stopping=call.site.stopping)
    return Listening(call.site, told)


async def _page(
    call: _Call, channel: str, *, before: LogPlace | None, after: LogPlace | None, limit: int
) -> Response:
    epochs = {place.epoch for place in (before, after) if place is not None and place.epoch is not None}
    if len(epochs) > 1:
        raise BadOrder("before and after are of different logs")
    async with call.bot() as bot:
        found = await bot.history(
            channel=channel,
            before_seq=before and before.seq,
            after_seq=after and after.seq,
            limit=limit,
            epoch=next(iter(epochs), None),
        )
        if not found and after is not None and (fault := await beyond(bot, after.seq)) is not None:
            raise fault
        epoch = bot.epoch or ""
    return _json(MessagePage(epoch=epoch, messages=[as_read(message) for message in found]))


async def _document(request: Request) -> Response:
    return _json(document())


ROUTES: list[Route] = [
    _endpoint("/v1/send", "POST", _send),
    _endpoint("/v1/publish", "POST", _publish),
    _endpoint("/v1/request", "POST", _request),
    _endpoint("/v1/channels/{channel}/messages", "GET", _channel),
    Route("/v1/openapi.json", _document, methods=["GET"]),
]
