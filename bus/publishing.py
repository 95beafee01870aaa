"""Publishing: which messages may enter the log, and what their sender is told.

Owns the checks of a publication (its id, recipient, names, headers, body) and the answer to a publish frame. What
the log alone can know, that an id was used before, is answered after the transaction.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec

from store.records import Channel, parse_timestamp, timestamp
from store.repository import Added, NewMessage

from .batch import Batches, Job
from .bodies import body_fault
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn
from .protocol import Code, ItemError, Publication, Publish, Published, Rejected, ToBot, encode, is_id, is_name
from .rates import Rates
from .scheduling import Scheduling
from .sessions import Session
from .settings import Limits

__all__ = ["Publishing", "admit"]

_NAME_CHARACTERS_MAX = 128
_NO_HEADERS = b"{}"


def admit(publication: Publication, sender: Session, directory: Directory, limits: Limits, wall: str) -> NewMessage:
    """Give the message as it is to be stored at a time; raises Rejected with what is wrong with it."""
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
        None if publication.ttl is None else _after(wall, publication.ttl + (publication.delay or 0.0)),
        _after(wall, publication.delay) if publication.delay else None,
    )


def _after(wall: str, seconds: float) -> str:
    return timestamp(parse_timestamp(wall) + timedelta(seconds=seconds))


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


class _Frame:
    """One publish frame on its way: what was taken of it, and what was refused."""

    def __init__(self, session: Session, publish: Publish) -> None:
        self.address = session.address
        self.request = publish.request
        self.count = len(publish.messages)
        self.messages: dict[int, NewMessage] = {}
        self.errors: list[ItemError] = []
        self.full: dict[int, ItemError] = {}
        """What to say of those that are only looked up, because there is no room, where they are not known."""


class Publishing:
    """Takes publish frames. `timestamp` is that of the batch whose answers are being entered."""

    def __init__(
        self,
        directory: Directory,
        scheduling: Scheduling,
        batches: Batches,
        dispatch: Dispatch,
        turn: Turn,
        limits: Limits,
    ) -> None:
        self.timestamp = ""
        self._directory = directory
        self._scheduling = scheduling
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn
        self._limits = limits
        self.rates = Rates(limits)

    def __repr__(self) -> str:
        return f"<Publishing {self._batches}>"

    def request(self, session: Session, publish: Publish) -> None:
        """Put a frame's messages into the next batch; those that are refused hold up none of the others."""
        count, most = len(publish.messages), self._limits.messages_per_publish_max
        if not 1 <= count <= most:
            raise Rejected(Code.BAD_REQUEST, f"a publish frame has 1 to {most} messages, not {count}")
        frame = _Frame(session, publish)
        for index, publication in enumerate(publish.messages):
            try:
                message = admit(publication, session, self._directory, self._limits, self._turn.moment.wall)
                self._slow_down(message)
            except Rejected as error:
                frame.errors.append(ItemError(index, error.code, error.message, error.retry_after))
            else:
                frame.messages[index] = self._make_room(frame, index, message)
        taken = [publish.messages[index] for index in frame.messages]
        self._expect(session, [publication.id for publication in taken if publication.expects_reply])
        if not frame.messages:
            self._done(frame, ())
            return
        admitted = list(frame.messages.values())
        self._batches.add(
            Job(
                lambda added: self._done(frame, added),
                lambda code, message: self._failed(frame, code, message),
                messages=admitted,
                channels=self._new_channels(session, admitted),
            )
        )

    def _make_room(self, frame: _Frame, index: int, message: NewMessage) -> NewMessage:
        """Give the message; where there is no room, only to be looked up: it may repeat one that is stored."""
        if message.due_at is not None:
            if self._scheduling.has_room():
                self._scheduling.expected += 1
                return message
            text = f"{self._limits.scheduled_messages_max} messages wait until they are due, the most there may be"
            frame.full[index] = ItemError(index, Code.BUSY, text)
        elif message.recipient_bot_id is not None:
            mailbox = self._directory.mailboxes[message.recipient_bot_id]
            if self._dispatch.has_room(mailbox):
                mailbox.backlog.expected += 1
                return message
            name = self._directory.bots[message.recipient_bot_id].name
            text = f"{self._limits.backlog_messages_max} messages wait for bot {name!r}, the most there may be"
            frame.full[index] = ItemError(index, Code.MAILBOX_FULL, text)
        else:
            return message
        return msgspec.structs.replace(message, known_only=True)

    def _leave_room(self, frame: _Frame) -> None:
        """Expect these messages no more: what became of them is known."""
        for index, message in frame.messages.items():
            if index in frame.full:
                continue
            if message.due_at is not None:
                self._scheduling.expected -= 1
            elif message.recipient_bot_id is not None:
                self._directory.mailboxes[message.recipient_bot_id].backlog.expected -= 1

    def _done(self, frame: _Frame, added: Sequence[Added]) -> None:
        self._leave_room(frame)
        seqs: list[int | None] = [None] * frame.count
        duplicates: list[int] = []
        scheduled: list[int] = []
        for (index, message), outcome in zip(frame.messages.items(), added, strict=True):
            seqs[index] = outcome.seq
            if outcome.scheduled:
                scheduled.append(index)
            if outcome.duplicate:
                duplicates.append(index)
            elif outcome.conflict:
                text = f"message id {message.id} belongs to another bot's message"
                frame.errors.append(ItemError(index, Code.ID_CONFLICT, text))
            elif index in frame.full:
                frame.errors.append(frame.full[index])
            elif message.due_at is not None:
                self._scheduling.add(message.due_at)
            else:
                assert outcome.seq is not None
                self._dispatch.enter(message, outcome.seq, self.timestamp)
        self._dispatch.counters["duplicates"] += len(duplicates)
        self._dispatch.counters["refused"] += len(frame.errors)
        frame.errors.sort(key=lambda error: error.index)
        self._turn.send(
            frame.address,
            Published(
                request=frame.request, seqs=seqs, duplicates=duplicates, errors=frame.errors, scheduled=scheduled
            ),
        )

    def _failed(self, frame: _Frame, code: Code, message: str) -> None:
        self._leave_room(frame)
        self._turn.refuse(frame.address, code, message, frame.request)

    def _slow_down(self, message: NewMessage) -> None:
        """Refuse a message that comes too fast."""
        too_fast = self.rates.take(message.sender_bot_id, message.recipient_bot_id, *self._turn.moment)
        if too_fast is None:
            return
        self._dispatch.counters["rate_limited"] += 1
        whom = "publish"
        if too_fast.setting.startswith("pair"):
            whom = f"send {self._directory.bots[message.recipient_bot_id or ''].name!r}"
        text = (
            f"bot {message.sender_bot_name!r} may {whom} no more than {too_fast.per_second:g} a second, and"
            f" {too_fast.burst} at once ({too_fast.setting}); try again in {too_fast.wait_seconds:g} s"
        )
        raise Rejected(Code.RATE_LIMITED, text, retry_after=too_fast.wait_seconds)

    def _expect(self, session: Session, ids: Sequence[str]) -> None:
        """Note whose first replies the session waits for; the oldest are forgotten beyond the limit."""
        session.expecting.update(dict.fromkeys(ids))
        while len(session.expecting) > self._limits.expected_replies_max:
            del session.expecting[next(iter(session.expecting))]

    def _new_channels(self, session: Session, messages: Sequence[NewMessage]) -> list[Channel]:
        named = dict.fromkeys(message.recipient_channel for message in messages)
        new = [name for name in named if name is not None and name not in self._directory.channels]
        wall = self._turn.moment.wall
        return [Channel(name=name, created_at=wall, created_by_bot_id=session.bot_id) for name in new]
