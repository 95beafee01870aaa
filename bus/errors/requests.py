"""Errors that a bot's author can encounter: no answer, an invalid answer, or a refused call.

Owns the roots `BusError` and `RequestError`, and what a refusal carries over the wire. `storing` has the refusals
that a store raises too.

Pure.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from .portable import Portable, blank

__all__ = [
    "AddressError",
    "BindError",
    "BotConflict",
    "BusError",
    "ClosedError",
    "Forbidden",
    "IdConflict",
    "InvalidBody",
    "LimitReached",
    "LogReplaced",
    "MalformedAnswer",
    "ReplyTimeout",
    "RequestError",
    "Revoked",
    "SubscriptionRemoved",
    "UnfitBody",
    "UnknownBot",
    "UnknownChannel",
    "UnsupportedProtocol",
    "WorkerUnavailable",
]


class BusError(Portable):
    """The root of all errors that a bot's author can encounter."""


class AddressError(BusError):
    """A bot cannot connect to this address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot connect to {address!r}: {reason}; use an address like tcp://127.0.0.1:7710")
        self.address = address


class BindError(BusError):
    """The worker could not listen at an address."""

    def __init__(self, address: str, reason: str, *, in_use: bool, hint: str = "check the address") -> None:
        hint = "stop the program that listens there, or choose another address" if in_use else hint
        super().__init__(f"cannot listen at {address}: {reason}; {hint}")
        self.address = address
        self.in_use = in_use


class ClosedError(BusError):
    """The bot was closed while this call waited, or before it was made."""


class SubscriptionRemoved(BusError):
    """The bot has a subscription no more that its program made: it was ended by somebody else.

    An operator removed it, its group, its channel or the bot; another program of the bot unsubscribed; or the
    worker goes on from a backup that was made before it. `group` is None if it was individual.
    """

    def __init__(self, channel: str, group: str | None) -> None:
        where = "" if group is None else f" in the group {group!r}"
        super().__init__(
            f"the subscription to {channel!r}{where} was removed, and its messages come no more: subscribe again if"
            " they are still wanted, or receive on without them"
        )
        self.channel = channel
        self.group = group


class LogReplaced(BusError):
    """A seq belongs to another log than the worker's, which is a restored copy of it, or another house's.

    `before` is the epoch of the seq's log, `epoch` that of the worker's. Both have the same messages up to
    `after_seq`; what the other one had after that is not in the worker's log, which gives those seqs to other
    messages. Read on after `after_seq`, which is 0 if the logs have nothing in common. It is less than `seq`, but
    where a conversation was read backwards from later messages.
    """

    def __init__(self, before: str | None, epoch: str, *, seq: int, after_seq: int) -> None:
        super().__init__(
            f"the worker's log is not that of seq {seq}: an earlier copy was restored, or it is another"
            f" house's. Read on after seq {after_seq}: what you know of later seqs is not in this log, which gives"
            " them to other messages"
        )
        self.before = before
        self.epoch = epoch
        self.seq = seq
        self.after_seq = after_seq


class ReplyTimeout(BusError):
    """No reply came in time. The message is unaffected: a later reply is an ordinary message.

    `state` is the state of the message: "waiting" (stored, not delivered to the bot), "in_flight" (delivered to the
    bot), "returned" (returned by the bot, to be redelivered), "settled" (settled by the bot, without a reply),
    "dead" (given up), "nobody" (nobody was subscribed to the channel, or the bot was removed), or "unknown" if the
    worker could not be asked. `bot` is who was asked: a bot, or a channel.
    """

    _WORDS: ClassVar[dict[str, str]] = {
        "waiting": "it is stored, but not yet delivered to {bot}: is it running, and has it credit?",
        "in_flight": "it is in flight for {bot}: wait longer, or check what that bot is doing",
        "returned": "{bot} returned it, and it will be redelivered",
        "settled": "{bot} settled it without a reply",
        "dead": "{bot}'s mailbox gave up on it; see its dead letters",
        "nobody": "it is in no mailbox: nobody is subscribed to {bot}, or that bot was removed",
        "unknown": "its state is unknown, because the worker does not answer",
    }

    def __init__(self, message_id: str, bot: str, timeout: float, state: str) -> None:
        words = self._WORDS.get(state, "it is " + state).format(bot=bot)
        super().__init__(f"no reply to message {message_id} within {timeout:g} s: {words}")
        self.message_id = message_id
        self.bot = bot
        self.state = state


class UnfitBody(BusError, ValueError):
    """The body of a message is not of the type as which it was read; `fault` says where, and what was expected."""

    def __init__(self, message_id: str, type_name: str, fault: str) -> None:
        super().__init__(f"the body does not fit {type_name}: {fault}")
        self.message_id = message_id
        self.type_name = type_name
        self.fault = fault


class MalformedAnswer(BusError):
    """The worker's answer violates the protocol. `what` was requested; whether it was carried out is unknown."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the answer for {what} violates the protocol: {reason}")
        self.what = what


class WorkerUnavailable(BusError):
    """No worker answered in time. Whether what was sent is stored is unknown: send it again with the same id."""


# ── Refused requests ─────────────────────────────────────────────────────────────────────────────────────


class RequestError(BusError):
    """A call was refused, by the worker or by the store.

    `code` is the protocol's; `retry` says whether the same call may succeed later, `retry_after` after how many
    seconds, if the worker says so, and `hint` what to do. `details` are for programs, if the code alone is not
    enough. The text of an error from a worker ends with its code and its hint.
    """

    code: str = "internal"
    hint: ClassVar[str] = ""
    retry: bool = False
    retry_after: float | None = None
    details: dict[str, Any] | None = None

    error_name: ClassVar[str] = ""
    """Its name in `details`, for classes whose attributes are sent over the wire."""
    attributes: ClassVar[tuple[str, ...]] = ()
    """The other attributes in `details`."""

    def __init__(self, message: str, *values: Any, **options: Any) -> None:
        """Create the error of a call that was refused here, with the values of its attributes.

        A class without attributes can also be created like a worker's refusal: from a code, a message, and the
        other arguments of `received`.
        """
        if not self.attributes and len(values) == 1:
            received = type(self).received(message, *values, **options)
            super().__init__(*received.args)
            vars(self).update(vars(received))
            return
        super().__init__(message)
        self.message = message
        attributes = dict(zip(self.attributes, values, strict=True))
        vars(self).update(attributes)
        if self.error_name:
            self.details = {"error": self.error_name} | attributes

    @classmethod
    def received(
        cls,
        code: str,
        message: str,
        *,
        retry: bool = False,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> Self:
        """Return the error of a refusal from a worker, with the attributes in its details.

        Its constructor is not called, because it takes arguments that not every worker sends.
        """
        sent = details or {}
        is_stores = bool(cls.error_name) and sent.get("error") == cls.error_name
        text = message if is_stores else f"{message} [{code}]{': ' if cls.hint else ''}{cls.hint}"
        attributes = {name: sent[name] for name in cls.attributes if name in sent}
        attributes |= {"code": code, "message": message, "retry": retry, "retry_after": retry_after}
        return blank(cls, (text,), attributes | {"details": details})

    def reworded(self, message: str) -> Self:
        """Return the same error with another text."""
        self.args, self.message = (message,), message
        return self


class UnknownBot(RequestError):
    """No bot has that name or id."""

    code = "unknown_bot"
    hint = "a bot is known once it has connected for the first time"


class UnknownChannel(RequestError):
    """The channel does not exist."""

    code = "unknown_channel"
    hint = "a channel is created when it is first used"


class BotConflict(RequestError):
    """The bot's name or id belongs to another."""

    code = "bot_conflict"
    hint = "connect without bot_id, or with the id that the name has"


class IdConflict(RequestError):
    """A message of another bot has that id: only workers of earlier versions refuse it."""

    code = "id_conflict"
    hint = "let the client choose the id, or generate a new UUIDv7"


class InvalidBody(RequestError):
    """The body is not JSON that every receiver can decode."""

    code = "invalid_body"
    hint = "send finite numbers, valid text, and at most 100 levels"


class LimitReached(RequestError):
    """A limit was reached, and nothing was stored."""

    code = "busy"
    hint = "wait a moment and send it again"
    retry = True


class Forbidden(RequestError):
    """The bot is not allowed to do that."""

    code = "forbidden"


class Revoked(RequestError):
    """The key of the bot's connection was revoked, or expired, and its session ended."""

    code = "revoked"
    hint = "whoever runs the worker can make another key"


class UnsupportedProtocol(RequestError):
    """The worker speaks another version of the protocol."""

    code = "unsupported_protocol"
    hint = "install matching versions of client and worker"
