"""The HTTP status of each error, and its text for people.

Pure.
"""

from __future__ import annotations

from ..errors import (
    AddressError,
    BusError,
    CredentialsError,
    HandshakeError,
    LogReplaced,
    ReplyTimeout,
    RequestError,
)

__all__ = ["http_status", "in_words"]

_STATUSES = {
    "unknown_bot": 404,
    "unknown_channel": 404,
    "not_found": 404,
    "revoked": 401,
    "forbidden": 403,
    "conflict": 409,
    "id_conflict": 409,
    "invalid_transition": 409,
    "fenced": 409,
    "budget_spent": 409,
    "too_large": 413,
    "busy": 429,
    "mailbox_full": 429,
    "rate_limited": 429,
    "storage_full": 507,
    "internal": 500,
}
"""By the codes of the protocol. All others are errors of the client."""


def http_status(error: BusError) -> int:
    """Return the status with which an error is answered."""
    if isinstance(error, RequestError):
        return _STATUSES.get(error.code, 400)
    if isinstance(error, CredentialsError | HandshakeError | AddressError):
        return 500
    if isinstance(error, LogReplaced):
        return 409
    return 504 if isinstance(error, ReplyTimeout) else 503


def in_words(error: BusError) -> str:
    """Return the text of an error without the protocol's code, which is told by the status."""
    if not isinstance(error, RequestError):
        return str(error)
    return f"{error.message}: {error.hint}" if error.hint else error.message
