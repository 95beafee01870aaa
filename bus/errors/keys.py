"""Errors of keys: texts and files that hold none, and connections that end before the first frame.

Their texts never repeat a key: what was given may be a secret in the wrong place.

Pure.
"""

from __future__ import annotations

from .requests import BusError

__all__ = [
    "CredentialsError",
    "HandshakeError",
    "InvalidKey",
    "KeyFileUnusable",
    "KeyRefused",
    "KeysRequired",
    "KeysUnsupported",
    "WrongWorker",
]


class InvalidKey(BusError, ValueError):
    """A text is not a key, or one of another kind. The text is not repeated, for it may be a secret."""


class CredentialsError(BusError):
    """A file of credentials cannot be read, written, or trusted; `path` is the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"credentials {path}: {reason}")
        self.path = path


class KeyFileUnusable(BusError):
    """The file with the worker's own key cannot be read, written, or trusted; `path` is the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the worker's key file {path}: {reason}")
        self.path = path


class HandshakeError(BusError):
    """A worker and a bot did not accept each other, so no frame was sent; `url` is the worker's address."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(reason)
        self.url = url


class KeyRefused(HandshakeError):
    """The worker does not take the bot's key: it is unknown there, has expired, or was revoked."""

    def __init__(self, url: str, bot: str) -> None:
        super().__init__(
            url,
            f"the worker at {url} refused the key of bot {bot!r}: it is unknown there, has expired, or was revoked;"
            f" whoever runs the worker can make another one: posthouse keys new {bot}",
        )
        self.bot = bot


class WrongWorker(HandshakeError):
    """The worker at the address is not the one of these credentials."""

    def __init__(self, url: str) -> None:
        super().__init__(
            url,
            f"the worker at {url} has another key than the one in these credentials, so it is another worker, or"
            " somebody in its place; nothing was sent to it",
        )


class KeysRequired(HandshakeError):
    """The worker takes only bots with a key, and this one has none."""

    def __init__(self, url: str) -> None:
        super().__init__(
            url,
            f"the worker at {url} takes only bots with a key: name a file of credentials (credentials=,"
            " --credentials or POSTHOUSE_CREDENTIALS); posthouse keys new makes one",
        )


class KeysUnsupported(HandshakeError):
    """The worker has no keys, and a bot with credentials does not talk to it."""

    def __init__(self, url: str) -> None:
        super().__init__(
            url,
            f"the worker at {url} has no keys, so it may be another than that of these credentials, and nothing was"
            ' sent to it: start it with mode = "keys" in [security], or connect without credentials',
        )
