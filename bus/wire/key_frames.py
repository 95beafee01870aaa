"""The frames about keys, documented in `docs/protocol.md`.

Public keys in them are text, which `keys` reads. Except for `Enrol`, they are said in a session.

Pure.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..model.keys import Purpose
from .fields import ClientFrame, Name, QueryLimit, RequestId
from .limits import NAME_CHARACTERS_MAX, ROLES_MAX, WAIT_SECONDS_MAX

__all__ = ["AddKeyFrame", "Enrol", "Keys", "RevokeKeyFrame"]

KeyText = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
LifeSeconds = Annotated[float, Meta(gt=0, le=WAIT_SECONDS_MAX)]


class Keys(ClientFrame, frozen=True, tag="keys"):
    """Asks for keys, by their text: those of a bot, or all; those after a key."""

    request: RequestId
    bot: Name | None = None
    after: KeyText | None = None
    limit: QueryLimit = 50


class AddKeyFrame(ClientFrame, frozen=True, tag="add_key"):
    """Adds a bot's key, and the bot if it is unknown; with `replaces`, that key expires after the grace."""

    request: RequestId
    bot: Name
    public_key: KeyText
    purpose: Purpose | None = None
    """None means that of the key that is replaced, or `bot`."""
    roles: Annotated[list[Name], Meta(max_length=ROLES_MAX)] | None = None
    """None means those of the key that is replaced, or none."""
    label: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] = ""
    expires_seconds: LifeSeconds | None = None
    replaces: KeyText | None = None
    grace_seconds: Annotated[float, Meta(ge=0, le=WAIT_SECONDS_MAX)] = 0.0


class RevokeKeyFrame(ClientFrame, frozen=True, tag="revoke_key"):
    """Revokes a bot's key, or all of them, and ends their sessions."""

    request: RequestId
    bot: Name
    public_key: KeyText | None = None


class Enrol(ClientFrame, frozen=True, tag="enrol"):
    """Adds a key of one's own by an invitation, which is used up. It is said without a session."""

    request: RequestId
    public_key: KeyText
