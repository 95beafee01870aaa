"""What can go wrong between a bot and its worker.

Owns the package's one error tree. A `RequestError` is an answer: the worker refused, and its code says why. The
others say that no answer came.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .model.errors import Portable

__all__ = [
    "ENDED",
    "NOT_NOW",
    "AddressError",
    "BindError",
    "BotConflict",
    "BusError",
    "ClosedError",
    "Conflict",
    "Forbidden",
    "IdConflict",
    "InvalidBody",
    "LimitReached",
    "NotFound",
    "NotInFlight",
    "Rejected",
    "ReplyTimeout",
    "RequestError",
    "RunBusy",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunLost",
    "StepChanged",
    "StepFailed",
    "StorageFull",
    "TooLarge",
    "UnknownBot",
    "UnknownChannel",
    "UnknownWorkflow",
    "UnsupportedProtocol",
    "WorkerUnavailable",
    "frame_too_large",
    "request_error",
]


class BusError(Portable):
    """The root of everything that the bus raises."""


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


class WorkerUnavailable(BusError):
    """No worker answered in time. What was sent may or may not be stored: send it again with the same id."""


class RequestError(BusError):
    """The worker refused a request.

    `code` is the protocol's, `retry` tells whether the same request may succeed later, `retry_after` in how many
    seconds, where the worker says so, and `hint` what to do. `details` are for programs, where the code alone does
    not say enough.
    """

    hint = ""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry: bool = False,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{message} [{code}]{': ' if self.hint else ''}{self.hint}")
        self.code = code
        self.message = message
        self.retry = retry
        self.retry_after = retry_after
        self.details = details


class UnknownBot(RequestError):
    """No bot has that name or id."""

    hint = "a bot is known once it has connected for the first time"


class UnknownChannel(RequestError):
    """There is no such channel."""

    hint = "a channel comes into being by its first use"


class NotFound(RequestError):
    """There is no such thing."""


class BotConflict(RequestError):
    """The bot's name and id belong to others."""

    hint = "connect without bot_id, or with the id that the name has"


class IdConflict(RequestError):
    """A message of another bot has that id."""

    hint = "leave the id to the client, or make a new UUIDv7"


class Conflict(RequestError):
    """The request contradicts what is stored."""


class NotInFlight(Conflict):
    """A message that was to be settled is not with this bot any more: nothing was done to it.

    Another session of the bot has it, it waits to be delivered again, or it is a dead letter by now: then
    `details["state"]` is "in_flight", "returned", "waiting" or "dead". A commit that acks it did nothing at all.
    """


class InvalidBody(RequestError):
    """The body is no JSON that every receiver could decode."""

    hint = "send finite numbers, valid text, and at most 100 levels"


class TooLarge(RequestError):
    """The body or the frame is over its limit."""

    hint = "put the data elsewhere and send its name"


class LimitReached(RequestError):
    """A limit was reached, and nothing was stored."""

    hint = "wait a moment and send it again"


class StorageFull(RequestError):
    """The worker's disk is full, and nothing was stored."""

    hint = "make room on the worker's disk; it goes on by itself"


class Forbidden(RequestError):
    """The bot may not do that."""


class UnsupportedProtocol(RequestError):
    """The worker speaks another version of the protocol."""

    hint = "install versions of client and worker that belong together"


# ── Runs of workflows ────────────────────────────────────────────────────────────────────────────────────


class RunError(BusError):
    """Something about one run of a workflow; the root of what running it raises."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class UnknownWorkflow(BusError):
    """No definition has that name or id."""

    def __init__(self, workflow: str, bot: str) -> None:
        super().__init__(
            f"no workflow {workflow!r} of {bot!r}, and no global one: save one first with"
            " bot.workflows.save_definition(WorkflowDefinition(...)), or give it as definition="
        )
        self.workflow = workflow


class RunBusy(RunError):
    """A run could not be had in time: somebody else holds it, or it has no slot; `reason` says which."""

    retry_after: float | None = None

    def __init__(self, run_id: str, timeout: float, reason: str) -> None:
        super().__init__(run_id, f"not within {timeout:g} s: {reason}")
        self.reason = reason


class RunLost(RunError):
    """Somebody else has the run now, or ended it; `status` is what it is. Nothing more of it was written here."""

    retry_after: float | None = None

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(run_id, f"run {run_id!r} is {status}, and not held here any more")
        self.status = status


class RunCancelled(RunError):
    """A person cancelled the run."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, f"run {run_id!r} was cancelled")


class RunFailed(RunError):
    """The run failed before, with `error`, and cannot go on: start another one."""

    def __init__(self, run_id: str, error: str | None) -> None:
        super().__init__(run_id, f"run {run_id!r} failed before: {error or 'nobody said why'}")
        self.error = error


class StepFailed(RunError):
    """A step failed as often as it may; `error` is the text of the last error, which this one is raised from.

    After a restart the error itself is gone, and only its text is left.
    """

    def __init__(self, run_id: str, step_id: str, attempts: int, error: str) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(run_id, f"step {step_id!r} failed {times}: {error}")
        self.step_id = step_id
        self.attempts = attempts
        self.error = error


class StepChanged(RunError):
    """What is recorded of a step does not belong to this call: the program changed while the run was under way."""

    def __init__(self, run_id: str, step_id: str, reason: str) -> None:
        super().__init__(run_id, f"step {step_id!r}: {reason}")
        self.step_id = step_id


class Rejected(RunError):
    """A person rejected what they were asked; `answer` is what they said, where that was more than no."""

    def __init__(self, run_id: str, step_id: str, answer: Any, reason: str | None) -> None:
        super().__init__(run_id, f"approval {step_id!r} was rejected{f': {reason}' if reason else ''}")
        self.step_id = step_id
        self.answer = answer
        self.reason = reason


NOT_NOW = (LimitReached, NotInFlight, StorageFull, RunBusy, RunLost)
"""What is no fault of who asked, and passes: a handler that meets one is to be slowed, and has not failed."""

ENDED = (RunCancelled, RunFailed)
"""What says that a run has ended and is never opened again: to try again what met it is of no use."""


_BY_CODE: dict[str, type[RequestError]] = {
    "unknown_bot": UnknownBot,
    "unknown_channel": UnknownChannel,
    "not_found": NotFound,
    "bot_conflict": BotConflict,
    "id_conflict": IdConflict,
    "conflict": Conflict,
    "invalid_body": InvalidBody,
    "too_large": TooLarge,
    "mailbox_full": LimitReached,
    "rate_limited": LimitReached,
    "busy": LimitReached,
    "storage_full": StorageFull,
    "forbidden": Forbidden,
    "unsupported_protocol": UnsupportedProtocol,
}


def request_error(
    code: str,
    message: str,
    *,
    retry: bool = False,
    retry_after: float | None = None,
    details: dict[str, Any] | None = None,
) -> RequestError:
    """Return the error of a code; a code that this version does not know is a plain RequestError."""
    kind = _BY_CODE.get(code, RequestError)
    return kind(code, message, retry=retry, retry_after=retry_after, details=details)


def frame_too_large(size_bytes: int, bytes_max: int) -> RequestError:
    """Return the error of a frame that the worker would refuse, with the details of the store's own error."""
    details = {"error": "too_large", "what": "the frame", "size_bytes": size_bytes, "bytes_max": bytes_max}
    return TooLarge("too_large", f"the frame has {size_bytes} bytes; the most is {bytes_max}", details=details)
