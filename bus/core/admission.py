"""Admission: which messages are accepted, and whether there is room for them.

Owns the checks of a publication (its id, recipient, names, headers, body), the rates, and the room reserved for
messages on their way to the disk. It also enters their outcome. Publish frames and commits both use it.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..mailbox.sessions import Session
from ..model.records import Channel, later
from ..model.repository import Added, NewMessage
from ..settings import Limits
from ..wire.bodies import body_fault
from ..wire.codec import encode
from ..wire.frames import Code, Publication, Refusal, ToBot, is_id, is_name
from ..wire.limits import NAME_CHARACTERS_MAX
from ..wire.refusals import NAME_RULE
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn
from .rates import Rates
from .scheduling import Scheduling

__all__ = ["Admission"]

_NO_HEADERS = b"{}"


def _admit(
    publication: Publication, sender: Session, directory: Directory, limits: Limits, turn: Turn
) -> NewMessage:
    """Return the message to store. Raises Refusal if it is invalid."""
    if not is_id(publication.id):
        raise Refusal(Code.BAD_REQUEST, f"id {publication.id[:64]!r} is not a lower-case UUID with hyphens")
    if not 1 <= len(publication.message_type) <= NAME_CHARACTERS_MAX:
        raise Refusal(Code.BAD_REQUEST, f"message_type must have 1 to {NAME_CHARACTERS_MAX} characters")
    if publication.reply_to is not None and not is_id(publication.reply_to):
        raise Refusal(Code.BAD_REQUEST, "reply_to must be the id of a message")
    bot_id, channel = _recipient(publication, directory)
    body = bytes(publication.body)
    if len(body) > limits.body_bytes_max:
        raise Refusal(Code.TOO_LARGE, f"the body has {len(body)} bytes; the maximum is {limits.body_bytes_max}")
    fault = body_fault(body)
    if fault is not None:
        raise Refusal(Code.INVALID_BODY, fault)
    ttl, delay = publication.ttl, publication.delay
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
        None if ttl is None else later(turn.moment.wall, ttl + (delay or 0.0)),
        later(turn.steady(), delay) if delay else None,
    )


def _recipient(publication: Publication, directory: Directory) -> tuple[str | None, str | None]:
    recipient = publication.recipient
    if not isinstance(recipient, ToBot):
        if recipient.name not in directory.channels and not is_name(recipient.name):
            raise Refusal(
                Code.BAD_REQUEST,
                f"{recipient.name[:64]!r} is not a valid channel name: {NAME_RULE}",
            )
        return None, recipient.name
    if (recipient.bot is None) == (recipient.bot_id is None):
        raise Refusal(Code.BAD_REQUEST, "a direct recipient needs either bot or bot_id")
    if recipient.bot is not None:
        bot = directory.names.get(recipient.bot)
        if bot is None:
            raise Refusal(Code.UNKNOWN_BOT, f"no bot named {recipient.bot[:64]!r}")
        return bot.id, None
    bot = directory.find_bot(recipient.bot_id or "")
    if bot is None:
        raise Refusal(Code.UNKNOWN_BOT, f"no bot with id {str(recipient.bot_id)[:64]!r}")
    return bot.id, None


def _headers(headers: Mapping[str, str], limits: Limits) -> bytes:
    if len(headers) > limits.headers_max:
        raise Refusal(Code.BAD_REQUEST, f"{len(headers)} headers; the maximum is {limits.headers_max}")
    for name, value in headers.items():
        if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
            raise Refusal(Code.BAD_REQUEST, f"a header's name must have 1 to {NAME_CHARACTERS_MAX} characters")
        if len(value.encode()) > limits.header_bytes_max:
            raise Refusal(Code.BAD_REQUEST, f"header {name!r} is longer than {limits.header_bytes_max} bytes")
    return encode(headers)


class Admission:
    """See the module."""

    def __init__(
        self, directory: Directory, scheduling: Scheduling, dispatch: Dispatch, turn: Turn, limits: Limits
    ) -> None:
        self.rates = Rates(limits)
        self._directory = directory
        self._scheduling = scheduling
        self._dispatch = dispatch
        self._turn = turn
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Admission {self.rates}>"

    def admit(self, session: Session, publication: Publication) -> NewMessage:
        """Return the message to store. Raises Refusal if it is invalid."""
        return _admit(publication, session, self._directory, self._limits, self._turn)

    def _slow_down(self, message: NewMessage) -> Refusal | None:
        """Return the refusal of a message that exceeds a rate, or None."""
        too_fast = self.rates.take(message.sender_bot_id, message.recipient_bot_id, *self._turn.moment)
        if too_fast is None:
            return None
        whom = "publish"
        if too_fast.setting.startswith("pair"):
            whom = f"send {self._directory.bots[message.recipient_bot_id or ''].name!r}"
        text = (
            f"bot {message.sender_bot_name!r} may {whom} no more than {too_fast.per_second:g} a second, and"
            f" {too_fast.burst} at once ({too_fast.setting}); try again in {too_fast.wait_seconds:g} s"
        )
        return Refusal(Code.RATE_LIMITED, text, retry_after=too_fast.wait_seconds)

    def reserve(self, message: NewMessage) -> Refusal | None:
        """Reserve room for a message, within its rates; return the refusal if there is none.

        The refusal is sent only if the log does not know the message's id.
        """
        if not self.rates.unlimited and (too_fast := self._slow_down(message)) is not None:
            return too_fast
        if message.due_at is not None:
            if self._scheduling.has_room():
                self._scheduling.expected += 1
                return None
            most = self._limits.scheduled_messages_max
            return Refusal(Code.BUSY, f"{most} delayed messages wait, the maximum")
        if message.recipient_bot_id is not None:
            mailbox = self._directory.mailboxes[message.recipient_bot_id]
            if not self._dispatch.has_room(mailbox):
                name = self._directory.bots[message.recipient_bot_id].name
                text = f"{self._limits.backlog_messages_max} messages wait for bot {name!r}, the maximum"
                return Refusal(Code.MAILBOX_FULL, text)
            mailbox.backlog.expect()
        return None

    def refused(self, code: str) -> None:
        """Count a message, or a commit, that was refused for lack of room and is not a repeat."""
        if code == Code.RATE_LIMITED:
            self._dispatch.counters.rate_limited += 1

    def leave(self, message: NewMessage) -> None:
        """Release the room reserved for a message whose outcome is known."""
        if message.due_at is not None:
            self._scheduling.expected -= 1
        elif message.recipient_bot_id is not None:
            self._directory.mailboxes[message.recipient_bot_id].backlog.expect_no_more()

    def enter(self, message: NewMessage, added: Added, timestamp: str) -> None:
        """Enter the outcome of a message whose transaction has returned."""
        if added.duplicate:
            self._dispatch.counters.duplicates += 1
        elif added.seq is not None:
            self._dispatch.enter(message, added.seq, timestamp)
        elif added.scheduled:
            self._scheduling.add(message.due_at or "")

    def expect(self, session: Session, publications: Sequence[Publication]) -> None:
        """Note the messages to which the session awaits replies."""
        asked = [publication.id for publication in publications if publication.expects_reply]
        session.expect(asked, self._limits.expected_replies_max)

    def new_channels(self, session: Session, messages: Sequence[NewMessage]) -> list[Channel]:
        """Return the channels that these messages create."""
        named = dict.fromkeys(message.recipient_channel for message in messages)
        new = [name for name in named if name is not None and name not in self._directory.channels]
        wall = self._turn.moment.wall
        return [Channel(name=name, created_at=wall, created_by_bot_id=session.bot_id) for name in new]

    def add_channels(self, channels: Sequence[Channel]) -> None:
        """Enter newly created channels."""
        self._directory.add_channels(channels)
