"""Why a frame was refused: the wire's codes, and the refusal that carries one to the peer.

Pure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from ..errors import Portable

__all__ = ["LIMITS", "RETRY", "Code", "Refusal"]


class Code(StrEnum):
    """Why a frame, or a message in one, was refused."""

    BAD_FRAME = "bad_frame"
    BAD_REQUEST = "bad_request"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    UNKNOWN_SESSION = "unknown_session"
    ELSEWHERE = "elsewhere"
    UNKNOWN_BOT = "unknown_bot"
    UNKNOWN_CHANNEL = "unknown_channel"
    NOT_FOUND = "not_found"
    BOT_CONFLICT = "bot_conflict"
    ID_CONFLICT = "id_conflict"
    CONFLICT = "conflict"
    INVALID_TRANSITION = "invalid_transition"
    INVALID_BODY = "invalid_body"
    TOO_LARGE = "too_large"
    MAILBOX_FULL = "mailbox_full"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    STORAGE_FULL = "storage_full"
    FORBIDDEN = "forbidden"
    REVOKED = "revoked"
    FENCED = "fenced"
    BUDGET_SPENT = "budget_spent"
    INTERNAL = "internal"


RETRY = frozenset(
    {
        Code.UNKNOWN_SESSION,
        Code.ELSEWHERE,
        Code.MAILBOX_FULL,
        Code.RATE_LIMITED,
        Code.BUSY,
        Code.STORAGE_FULL,
        Code.INTERNAL,
    }
)
"""The codes after which the same request may succeed."""

LIMITS = frozenset({Code.BUSY, Code.MAILBOX_FULL, Code.RATE_LIMITED, Code.TOO_LARGE, Code.STORAGE_FULL})
"""The codes of refusals that name a limit."""


class Refusal(Portable):
    """The peer's fault, with the message for it. `request` is the number to answer, if it could be read.

    `details` are for programs, if the code alone is not enough.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        request: int | None = None,
        *,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request = request
        self.retry_after = retry_after
        self.details = details
