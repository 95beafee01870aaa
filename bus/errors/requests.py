"""What a bot's author meets: no answer, an answer that cannot be read, or a call that was refused.

Owns the roots `BusError` and `RequestError`, and what a refusal carries over the wire. Refusals that a store
makes as well are in `storing`.

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
    "MalformedAnswer",
    "ReplyTimeout",
    "RequestError",
    "UnknownBot",
    "UnknownChannel",
    "UnsupportedProtocol",
    "WorkerUnavailable",
]


class BusError(Portable):
    """The root of everything that a bot's author can meet."""


class AddressError(BusError):
    """A bot cannot connect to such an address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot connect to {address!r}: {reason}; write it like tcp://127.0.0.1:7710")
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


class ReplyTimeout(BusError):
    """Nobody replied in time. The message stays where it is: a reply that comes later is an ordinary message.

    `state` says how far it got: "waiting" (stored, and not handed to the bot), "in_flight" (the bot has it),
    "returned" (the bot gave it back, and gets it again), "settled" (the bot is done with it, without a reply),
    "dead" (given up), or "unknown" where the worker could not be asked.
    """

    _WORDS: ClassVar[dict[str, str]] = {
        "waiting": "it is stored, and {bot} was not handed it yet: is it running, and has it credit?",
        "in_flight": "{bot} has it and is at work: wait longer, or look at what it does",
        "returned": "{bot} gave it back, and will be handed it again",
        "settled": "{bot} settled it without a reply",
        "dead": "{bot}'s mailbox gave up on it; see its dead letters",
        "unknown": "how far it got is unknown, because the worker does not answer",
    }

    def __init__(self, message_id: str, bot: str, timeout: float, state: str) -> None:
        words = self._WORDS.get(state, "it is " + state).format(bot=bot)
        super().__init__(f"no reply to message {message_id} within {timeout:g} s: {words}")
        self.message_id = message_id
        self.bot = bot
        self.state = state


class MalformedAnswer(BusError):
    """The worker's answer is not what the protocol says. `what` was asked for; whether it was done is unknown."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the answer for {what} is not what the protocol says: {reason}")
        self.what = what


class WorkerUnavailable(BusError):
    """No worker answered in time. What was sent may or may not be stored: send it again with the same id."""


# ── Refused requests ─────────────────────────────────────────────────────────────────────────────────────


class RequestError(BusError):
    """A call was refused, by the worker or by the store.

    `code` is the protocol's, `retry` says whether the same call may succeed later, `retry_after` in how many
    seconds, where the worker says so, and `hint` what to do. `details` are for programs, where the code alone does
    not say enough. The text of an error that came from a worker ends with its code and its hint.
    """

    code: str = "internal"
    hint: ClassVar[str] = ""
    retry: bool = False
    retry_after: float | None = None
    details: dict[str, Any] | None = None

    error_name: ClassVar[str] = ""
    """What `details` call it, for those whose attributes go over the wire."""
    attributes: ClassVar[tuple[str, ...]] = ()
    """What `details` have of it besides."""

    def __init__(self, message: str, *values: Any, **told: Any) -> None:
        """Make the error of a call that was refused here, with the values of its attributes.

        A class without attributes is also made as a worker's refusal is: of a code and a message, and of what
        `received` takes besides.
        """
        if not self.attributes and len(values) == 1:
            received = type(self).received(message, *values, **told)
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
        """Return the error of a refusal as it comes from a worker, with the attributes that its details have.

        Its constructor is not called: it takes what not every worker tells.
        """
        told = details or {}
        is_stores = bool(cls.error_name) and told.get("error") == cls.error_name
        text = message if is_stores else f"{message} [{code}]{': ' if cls.hint else ''}{cls.hint}"
        attributes = {name: told[name] for name in cls.attributes if name in told}
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
    """There is no such channel."""

    code = "unknown_channel"
    hint = "a channel comes into being by its first use"


class BotConflict(RequestError):
    """The bot's name and id belong to others."""

    code = "bot_conflict"
    hint = "connect without bot_id, or with the id that the name has"


class IdConflict(RequestError):
    """A message of another bot has that id."""

    code = "id_conflict"
    hint = "leave the id to the client, or make a new UUIDv7"


class InvalidBody(RequestError):
    """The body is no JSON that every receiver could decode."""

    code = "invalid_body"
    hint = "send finite numbers, valid text, and at most 100 levels"


class LimitReached(RequestError):
    """A limit was reached, and nothing was stored."""

    code = "busy"
    hint = "wait a moment and send it again"
    retry = True


class Forbidden(RequestError):
    """The bot may not do that."""

    code = "forbidden"


class UnsupportedProtocol(RequestError):
    """The worker speaks another version of the protocol."""

    code = "unsupported_protocol"
    hint = "install versions of client and worker that belong together"
