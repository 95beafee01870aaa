"""What all workflow calls on the wire have in common.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from .limits import NUMBER_MAX

__all__ = ["Call", "ListCall", "Number"]

Number = Annotated[int, Meta(ge=-NUMBER_MAX, le=NUMBER_MAX)]


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The arguments of one call. `answer` is the type of its value; `writes` is True if it changes something."""

    method: ClassVar[str]
    answer: ClassVar[Any]
    writes: ClassVar[bool] = False


class ListCall(Call, frozen=True, kw_only=True):
    """A list; a null limit asks for all of it."""

    limit: Number | None = None
    offset: Number = 0
