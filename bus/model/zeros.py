"""The character U+0000: which texts of records and frames may have it.

Owns the rule, which is the same for every store, although only PostgreSQL's texts cannot hold it
(docs/decisions/0076-a-log-in-postgresql.md): what is JSON of the author, what kind a message is, and what says why
something failed may have it, and names and ids may not. A backend stores what may have it in another form.

Pure.
"""

from __future__ import annotations

from typing import Any, get_args, get_origin

import msgspec

__all__ = ["ESCAPED_ZERO", "zero_in"]

ESCAPED_ZERO = b"\\u0000"
"""How JSON writes it, and nothing else: without this, no text of a record needs to be looked at."""

_MAY_HAVE_IT = frozenset({"headers", "header", "text", "body", "message_type", "error", "reason"})
"""Fields with it, besides those of any value: `header`, `text` and `body` are what is searched for."""


def zero_in(record: msgspec.Struct) -> str | None:
    """Return where a record has the character and must not, or None."""
    for field in msgspec.structs.fields(type(record)):
        if field.name not in _MAY_HAVE_IT and not _is_json(field.type):
            found = _find(getattr(record, field.name), field.encode_name)
            if found is not None:
                return found
    return None


def _is_json(kind: Any) -> bool:
    return kind is Any or (get_origin(kind) is dict and Any in get_args(kind))


def _find(value: Any, where: str) -> str | None:
    if isinstance(value, str):
        return where if "\0" in value else None
    if isinstance(value, msgspec.Struct):
        found = zero_in(value)
        return None if found is None else f"{where}.{found}"
    if isinstance(value, dict):
        value = (*value.keys(), *value.values())
    if isinstance(value, list | tuple):
        return next((found for item in value if (found := _find(item, where)) is not None), None)
    return None
