"""The OpenAPI document of `/v1/`, made of the shapes that are decoded and encoded.

Pure.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from .api_shapes import (
    ErrorAnswer,
    MessagePage,
    PublishOrder,
    ReadMessage,
    Replaced,
    Replied,
    RequestOrder,
    SendOrder,
    Stored,
)

__all__ = ["document"]

_REF = "#/components/schemas/{name}"

_ERRORS = {
    "400": "The request is not valid, or the worker refuses the body.",
    "401": "The token is missing or not valid, or the worker refuses the key of its bot.",
    "403": "The token, or the rights of its bot, do not allow it.",
    "404": "The bot does not exist.",
    "409": "The request contradicts what is stored, or names a seq of another log.",
    "413": "The request is too large.",
    "429": "A mailbox is full, or the sender is too fast: try again later, with the same id.",
    "500": "The token is not set up correctly: see the log of posthouse web.",
    "503": "No worker answers: try again, with the same id.",
    "507": "The worker's disk is full.",
}

_READ_ERRORS = ("400", "401", "403", "404", "409", "429", "500", "503")


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    shapes = (
        SendOrder,
        PublishOrder,
        RequestOrder,
        Stored,
        Replied,
        MessagePage,
        ReadMessage,
        Replaced,
        ErrorAnswer,
    )
    _, schemas = msgspec.json.schema_components(shapes, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "posthouse",
            "version": "1",
            "description": "HTTP for programs without ZeroMQ. Each token acts as one bot.",
        },
        "paths": {
            "/v1/send": _post("Send a direct message", SendOrder, Stored),
            "/v1/publish": _post("Publish a message on a channel", PublishOrder, Stored),
            "/v1/request": _post(
                "Send a direct message, and wait for the first reply",
                RequestOrder,
                Replied,
                {"504": "No reply came in time; `state` says what became of the message."},
            ),
            "/v1/channels/{channel}/messages": {"get": _listen()},
            "/v1/openapi.json": {
                "get": {
                    "summary": "This document",
                    "security": [],
                    "responses": {"200": {"description": "The document.", "content": {"application/json": {}}}},
                }
            },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _content(shape: type, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": _REF.format(name=shape.__name__)}}}


def _responses(answer: type, errors: dict[str, str]) -> dict[str, Any]:
    refused = {code: {"description": text, "content": _content(ErrorAnswer)} for code, text in errors.items()}
    return {"200": {"description": (answer.__doc__ or "").split("\n")[0], "content": _content(answer)}} | refused


def _post(summary: str, order: type, answer: type, more: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": _content(order)},
            "responses": _responses(answer, _ERRORS | (more or {})),
        }
    }


def _listen() -> dict[str, Any]:
    answers = _responses(MessagePage, {code: _ERRORS[code] for code in _READ_ERRORS})
    answers["200"]["content"] |= {"text/event-stream": {"schema": {"type": "string"}}}
    place = {"type": "string", "pattern": "^([0-9a-f-]{36}/)?[0-9]+$"}
    limit = {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    return {
        "summary": "Read a channel, or listen to it",
        "description": (
            "With `Accept: text/event-stream`, each message is an event with a ReadMessage as `data`, and as `id`"
            " the epoch of the log and the seq, as EPOCH/SEQ: those after the id or seq in `Last-Event-ID` or"
            " `after`, or else from now on. Clients for server-sent events send `Last-Event-ID` when they"
            " reconnect, so that none is missed or repeated. If the log is another one by then, and differs in what"
            " was read, an event `replaced` with a Replaced as `data` says so, and where reading goes on. An event"
            " `fault`, whose `data` is a text, says why a stream ends. Without that `Accept`, such a log is an"
            " error with the status 409 and the code `log_replaced`, whose `after` is where to go on."
        ),
        "parameters": [
            {"name": "channel", "in": "path", "required": True, "schema": {"type": "string"}},
            _parameter("before", "query", place, "Only messages before this seq, as SEQ or EPOCH/SEQ."),
            _parameter("limit", "query", limit, "How many messages."),
            _parameter("after", "query", place, "Only messages after this seq, oldest first; as SEQ or EPOCH/SEQ."),
            _parameter("Last-Event-ID", "header", place, "The same for events; it takes precedence."),
        ],
        "responses": answers,
    }


def _parameter(name: str, place: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, "description": text}
