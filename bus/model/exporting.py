"""The file that `posthouse export` writes and `import` reads: a header, a line for each message, a footer.

Owns its form, which is JSON lines, and what makes it whole: the footer has the number of messages, and a checksum
over all lines before it.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import DatabaseUnusable
from .budgets import budget_of
from .lots import LogMessage, NewMessage
from .priorities import PRIORITIES, Priority, name_of
from .records import parse_timestamp

__all__ = [
    "FORM",
    "ExportFilter",
    "ExportLines",
    "Exported",
    "Footer",
    "Header",
    "checked",
    "export_of",
    "is_export",
    "message_of",
    "read_footer",
    "read_header",
]

FORM = 1
"""The version of the form."""

_ORIGINAL_SEQ, _ORIGINAL_TIME = "original-seq", "original-time"
"""The headers by which an imported message tells where and when it was stored first."""

_NO_BODY, _NO_HEADERS = msgspec.Raw(b"null"), msgspec.Raw(b"{}")


class ExportFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which messages are exported: those for which all that is given here is true."""

    channel: str | None = None
    between: tuple[str, str] | None = None
    """The ids of two bots, whose direct messages are wanted."""
    since: str | None = None
    """The time of the first message."""
    until: str | None = None
    """A time after the last one."""

    def has(self, message: LogMessage) -> bool:
        """Return True if a message is wanted."""
        if self.channel is not None and message.recipient_channel != self.channel:
            return False
        pair = {message.sender_bot_id, message.recipient_bot_id}
        if self.between is not None and pair != set(self.between):
            return False
        return (self.since or "") <= message.timestamp and (self.until is None or message.timestamp < self.until)


class Header(msgspec.Struct, frozen=True):
    """The first line. `wanted` is what was asked for, with names."""

    posthouse_export: int
    version: str
    epoch: str
    last_seq: int
    exported_at: str
    wanted: dict[str, Any]


class Exported(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """The line of one message; an erased one has neither body nor headers."""

    seq: int
    timestamp: str
    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient_bot_id: str | None = None
    recipient_bot_name: str | None = None
    recipient_channel: str | None = None
    message_type: str
    body: msgspec.Raw = _NO_BODY
    reply_to: str | None = None
    headers: msgspec.Raw = _NO_HEADERS
    expires_at: str | None = None
    tainted: bool = False
    priority: Priority = "normal"
    erased: bool = False


class Footer(msgspec.Struct, frozen=True):
    """The last line. `damaged` has the seqs of messages that did not match their checksums, and are left out."""

    messages: int
    damaged: list[int]
    sha256: str


class ExportLines:
    """Makes the lines of a file, and its footer."""

    def __init__(self) -> None:
        self.messages = 0
        self.damaged: list[int] = []
        self._sha256 = hashlib.sha256()

    def __repr__(self) -> str:
        return f"<ExportLines messages={self.messages} damaged={len(self.damaged)}>"

    def header(self, header: Header) -> bytes:
        """Return the first line."""
        return self._line(header)

    def message(self, message: Exported) -> bytes:
        """Return the line of a message."""
        self.messages += 1
        return self._line(message)

    def footer(self) -> bytes:
        """Return the last line."""
        return _encode(Footer(self.messages, self.damaged, self._sha256.hexdigest()))

    def _line(self, record: msgspec.Struct) -> bytes:
        line = _encode(record)
        self._sha256.update(line)
        return line


_encoder = msgspec.json.Encoder()


def _encode(record: msgspec.Struct) -> bytes:
    return _encoder.encode(record) + b"\n"


def export_of(message: LogMessage, names: Mapping[str, str]) -> Exported:
    """Return what a line has of a message; `names` are those of bots by their ids."""
    erased = not message.body
    return Exported(
        seq=message.seq,
        timestamp=message.timestamp,
        id=message.id,
        sender_bot_id=message.sender_bot_id,
        sender_bot_name=message.sender_bot_name,
        recipient_bot_id=message.recipient_bot_id,
        recipient_bot_name=names.get(message.recipient_bot_id or ""),
        recipient_channel=message.recipient_channel,
        message_type=message.message_type,
        body=_NO_BODY if erased else _raw(message.body),
        reply_to=message.reply_to,
        headers=_raw(message.headers),
        expires_at=message.expires_at,
        tainted=message.tainted,
        priority=name_of(message.priority),
        erased=erased,
    )


def _raw(text: bytes) -> msgspec.Raw:
    """Return JSON in one line: a line feed in JSON is always a space between two values."""
    return msgspec.Raw(text.replace(b"\n", b" ") if b"\n" in text else text)


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────

_header = msgspec.json.Decoder(Header)
_footer = msgspec.json.Decoder(Footer)
_message = msgspec.json.Decoder(Exported)
_headers = msgspec.json.Decoder(dict[str, str])
_value = msgspec.json.Decoder()


def is_export(beginning: bytes) -> bool:
    """Return True if a file that begins like this is an export, or empty."""
    return beginning.startswith(b'{"posthouse_export":') or not beginning


def read_header(line: bytes) -> Header:
    """Read the first line. Raise DatabaseUnusable if it is not that of an export, or of a later version."""
    try:
        header = _header.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise DatabaseUnusable("it is not an export: its first line is not that of `posthouse export`") from None
    if header.posthouse_export != FORM:
        raise DatabaseUnusable(f"it was written by posthouse {header.version}: import it with that version")
    return header


def read_footer(line: bytes) -> Footer | None:
    """Read a line as the last one; None if it is not."""
    try:
        return _footer.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def checked(line: bytes) -> Exported:
    """Read the line of a message. Raise ValueError if nothing like it could have been stored."""
    message = _message.decode(line)  # whose errors are ValueErrors
    _value.decode(message.body)
    _headers.decode(message.headers)
    parse_timestamp(message.timestamp)
    if message.expires_at is not None:
        parse_timestamp(message.expires_at)
    if (message.recipient_bot_id is None) is (message.recipient_channel is None):
        raise ValueError("it needs either a recipient_bot_id or a recipient_channel")
    return message


def message_of(line: Exported, epoch: str, bots: Mapping[str, tuple[str, str]]) -> NewMessage:
    """Return a message as it is imported; `bots` has the id and the name that a bot has there, by its id here."""
    sender_id, sender_name = bots.get(line.sender_bot_id, (line.sender_bot_id, line.sender_bot_name))
    recipient = line.recipient_bot_id
    if recipient is not None:
        recipient = bots.get(recipient, (recipient, ""))[0]
    headers = {_ORIGINAL_SEQ: f"{epoch}/{line.seq}", _ORIGINAL_TIME: line.timestamp}
    return NewMessage(
        id=line.id,
        sender_bot_id=sender_id,
        sender_bot_name=sender_name,
        recipient_bot_id=recipient,
        recipient_channel=line.recipient_channel,
        message_type=line.message_type,
        body=bytes(line.body),
        reply_to=line.reply_to,
        headers=_encoder.encode(headers | _headers.decode(line.headers)),
        expires_at=line.expires_at,
        tainted=line.tainted,
        priority=PRIORITIES[line.priority],
        budget=msgspec.structs.replace(budget_of(bytes(line.headers)), kept=True),
    )
