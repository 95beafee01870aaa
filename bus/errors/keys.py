"""Errors of keys: a text that is no key, a file with credentials that cannot be used.

Their texts never repeat a key: what was given may be a secret in the wrong place.

Pure.
"""

from __future__ import annotations

from .requests import BusError

__all__ = ["CredentialsError", "InvalidKey"]


class InvalidKey(BusError, ValueError):
    """A text is not a key, or one of another kind. The text is not repeated, for it may be a secret."""


class CredentialsError(BusError):
    """A file of credentials cannot be read, written, or trusted; `path` is the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"credentials {path}: {reason}")
        self.path = path
