"""The frames about rights, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .fields import Name, RequestId
from .limits import NAME_CHARACTERS_MAX

__all__ = ["May", "Reload"]


class _ClientFrame(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", omit_defaults=True
):
    """What every frame of a client has in common."""


class May(_ClientFrame, frozen=True, tag="may"):
    """Asks whether a bot may do something, and by which rule."""

    request: RequestId
    bot: Name
    action: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
    object: Annotated[str, Meta(min_length=1, max_length=4 * NAME_CHARACTERS_MAX)]


class Reload(_ClientFrame, frozen=True, tag="reload"):
    """Asks the worker to read its configuration again."""

    request: RequestId
