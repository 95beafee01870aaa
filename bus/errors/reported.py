"""Which error a worker's refusal becomes: the class that the store would have raised, or that of its code.

Pure.
"""

from __future__ import annotations

from typing import Any

from .requests import (
    BotConflict,
    Forbidden,
    IdConflict,
    InvalidBody,
    LimitReached,
    RequestError,
    Revoked,
    UnknownBot,
    UnknownChannel,
    UnsupportedProtocol,
)
from .storing import (
    BudgetSpent,
    ChangesForgotten,
    Conflict,
    DefinitionInUse,
    Fenced,
    InvalidTransition,
    InvalidValue,
    NotAllowed,
    NotFound,
    RevisionConflict,
    RunEnded,
    RunGivenUp,
    RunHeld,
    RunNotDue,
    RunPaused,
    SlotsTaken,
    StorageBusy,
    StorageFull,
    TooLarge,
    TooManyKeys,
    TooManySignals,
    Unapproved,
)

__all__ = [
    "request_error",
]

_BY_NAME: dict[str, type[RequestError]] = {
    kind.error_name: kind
    for kind in (
        NotFound, Conflict, InvalidTransition, DefinitionInUse, RunEnded, RunGivenUp, RunHeld, RunNotDue,
        RunPaused, Fenced, SlotsTaken, TooLarge, TooManySignals, InvalidValue, StorageFull, StorageBusy, Unapproved,
        NotAllowed, RevisionConflict, ChangesForgotten, TooManyKeys, BudgetSpent,
    )
}  # fmt: skip

_BY_CODE: dict[str, type[RequestError]] = {
    kind.code: kind
    for kind in (
        UnknownBot, UnknownChannel, NotFound, BotConflict, IdConflict, Conflict, InvalidBody, TooLarge,
        LimitReached, StorageFull, Forbidden, Revoked, UnsupportedProtocol,
    )
}  # fmt: skip
_BY_CODE |= {"mailbox_full": LimitReached, "rate_limited": LimitReached}


def request_error(
    code: str,
    message: str,
    *,
    retry: bool = False,
    retry_after: float | None = None,
    details: dict[str, Any] | None = None,
) -> RequestError:
    """Return the error that a worker reports: by the name in its details, otherwise by its code.

    It is a plain RequestError if this version knows neither.
    """
    kind = _BY_NAME.get((details or {}).get("error", ""))
    if kind is None or details is None or not details.keys() >= set(kind.attributes):
        kind = _BY_CODE.get(code, RequestError)
    return kind.received(code, message, retry=retry, retry_after=retry_after, details=details)
