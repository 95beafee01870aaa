"""Whether a message may enter the log: everything that can be said before it is stored.

Owns the checks of one publication: its id, recipient, names, headers and body. What the log alone can know (that
an id was used before) is answered after the transaction.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from store.repository import NewMessage

from .bodies import body_fault
from .directory import Directory
from .protocol import Code, Publication, Rejected, ToBot, encode, is_id, is_name
from .sessions import Session
from .settings import Limits

__all__ = ["admit"]

_NAME_CHARACTERS_MAX = 128
_NO_HEADERS = b"{}"


def admit(publication: Publication, sender: Session, directory: Directory, limits: Limits) -> NewMessage:
    """Give the message as it is to be stored; raises Rejected with what is wrong with it."""
    if not is_id(publication.id):
        raise Rejected(Code.BAD_REQUEST, f"id {publication.id[:64]!r} is not a UUID in lower case with hyphens")
    if not 1 <= len(publication.message_type) <= _NAME_CHARACTERS_MAX:
        raise Rejected(Code.BAD_REQUEST, f"message_type must have 1 to {_NAME_CHARACTERS_MAX} characters")
    if publication.reply_to is not None and not is_id(publication.reply_to):
        raise Rejected(Code.BAD_REQUEST, "reply_to must be the id of a message")
    bot_id, channel = _recipient(publication, directory)
    body = bytes(publication.body)
    if len(body) > limits.body_bytes_max:
        raise Rejected(Code.TOO_LARGE, f"the body has {len(body)} bytes; the most is {limits.body_bytes_max}")
    fault = body_fault(body)
    if fault is not None:
        raise Rejected(Code.INVALID_BODY, fault)
    return NewMessage(
        publication.id,
        sender.bot_id,
        sender.bot_name,
        bot_id,
        channel,
        publication.message_type,
        body,
        publication.reply_to,
        _headers(publication.headers, limits) if publication.headers else _NO_HEADERS,
    )


def _recipient(publication: Publication, directory: Directory) -> tuple[str | None, str | None]:
    recipient = publication.recipient
    if not isinstance(recipient, ToBot):
        if recipient.name not in directory.channels and not is_name(recipient.name):
            raise Rejected(
                Code.BAD_REQUEST,
                f"channel {recipient.name[:64]!r} is no name: 1 to 128 of A-Za-z0-9._-, a letter or digit first",
            )
        return None, recipient.name
    if (recipient.bot is None) == (recipient.bot_id is None):
        raise Rejected(Code.BAD_REQUEST, "a direct recipient has either bot or bot_id")
    if recipient.bot is not None:
        bot = directory.names.get(recipient.bot)
        if bot is None:
            raise Rejected(Code.UNKNOWN_BOT, f"no bot named {recipient.bot[:64]!r}")
        return bot.id, None
    if recipient.bot_id not in directory.bots:
        raise Rejected(Code.UNKNOWN_BOT, f"no bot with id {str(recipient.bot_id)[:64]!r}")
    return recipient.bot_id, None


def _headers(headers: Mapping[str, str], limits: Limits) -> bytes:
    if len(headers) > limits.headers_max:
        raise Rejected(Code.BAD_REQUEST, f"{len(headers)} headers; the most is {limits.headers_max}")
    for name, value in headers.items():
        if not 1 <= len(name) <= _NAME_CHARACTERS_MAX:
            raise Rejected(Code.BAD_REQUEST, f"a header's name must have 1 to {_NAME_CHARACTERS_MAX} characters")
        if len(value.encode()) > limits.header_bytes_max:
            raise Rejected(Code.BAD_REQUEST, f"header {name!r} is over {limits.header_bytes_max} bytes")
    return encode(headers)
