"""Ids that callers choose, so that a call can be repeated, or that are made for them."""

from __future__ import annotations

import uuid_utils

__all__ = ["chosen_id"]


def chosen_id(id: str | None, what: str = "id") -> str:
    """Return an id that was chosen, or a new one for None. Raise ValueError for an empty one."""
    if id is None:
        return str(uuid_utils.uuid7())
    if not id:
        raise ValueError(f"the {what} is empty: choose one, or pass None for a new one")
    return id
