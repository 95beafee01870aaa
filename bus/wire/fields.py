"""What a client's frames have in common: their base, and fields for names, ids, seqs and numbers with their bounds.

Owns the patterns of names and ids.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from ..model.keyed import KEY_CHARACTERS_MAX
from .limits import ANSWER_ITEMS_MAX, CREDIT_MAX, NAME_CHARACTERS_MAX, NUMBER_MAX, SETTLED_MAX, WAIT_SECONDS_MAX

__all__ = [
    "ID",
    "NAME",
    "ClientFrame",
    "Credits",
    "Id",
    "Name",
    "NameOrPattern",
    "QueryLimit",
    "RequestId",
    "Revision",
    "Seq",
    "Seqs",
    "Ttl",
    "ValueKey",
    "are_ids",
    "is_id",
    "is_name",
]

NAME = f"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_CHARACTERS_MAX - 1}}}\\Z"
_NAME_OR_PATTERN = f"^[A-Za-z0-9*][A-Za-z0-9.*_-]{{0,{NAME_CHARACTERS_MAX - 1}}}\\Z"
_ID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
ID = f"^{_ID}\\Z"

is_name = re.compile(NAME).match
"""Return True if a text can name a bot or a channel."""

is_id = re.compile(ID).match
"""Return True if a text is a UUID in the form used here: lower case, with hyphens."""

_ID_CHARACTERS = 36
_all_ids = re.compile(f"(?:{_ID})*\\Z").match


def are_ids(texts: Sequence[str]) -> bool:
    """Return True if every text is an id: what `is_id` says of each, at a fraction of the cost for many."""
    if len(texts) == 1:
        return is_id(texts[0]) is not None
    return {*map(len, texts)} <= {_ID_CHARACTERS} and _all_ids("".join(texts)) is not None


RequestId = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Name = Annotated[str, Meta(pattern=NAME)]
NameOrPattern = Annotated[str, Meta(pattern=_NAME_OR_PATTERN)]
"""The name of a channel, or a pattern of several; where a `*` may stand is checked elsewhere."""
Id = Annotated[str, Meta(pattern=ID)]
Seq = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Seqs = Annotated[list[Seq], Meta(max_length=SETTLED_MAX)]
QueryLimit = Annotated[int, Meta(ge=1, le=ANSWER_ITEMS_MAX)]
ValueKey = Annotated[str, Meta(min_length=1, max_length=KEY_CHARACTERS_MAX, pattern=r"^[^\x00]*\Z")]
Revision = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Ttl = Annotated[float, Meta(gt=0, le=WAIT_SECONDS_MAX)]
Credits = Annotated[int, Meta(ge=0, le=CREDIT_MAX)]


class ClientFrame(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", omit_defaults=True
):
    """What every frame of a client has in common."""
