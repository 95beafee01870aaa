"""The frames about rights, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from .fields import ClientFrame, Name, RequestId
from .limits import NAME_CHARACTERS_MAX

__all__ = ["May", "Reload"]


class May(ClientFrame, frozen=True, tag="may"):
    """Asks whether a bot may do something, and by which rule."""

    request: RequestId
    bot: Name
    action: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
    object: Annotated[str, Meta(min_length=1, max_length=4 * NAME_CHARACTERS_MAX)]


class Reload(ClientFrame, frozen=True, tag="reload"):
    """Asks the worker to read its configuration again."""

    request: RequestId
