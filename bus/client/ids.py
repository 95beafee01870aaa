"""Names and ids that callers choose, checked where they are given, and ids that are made for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import uuid_utils

from ..errors import InvalidValue
from ..model.patterns import WILDCARD, channel_pattern_fault
from ..wire.frames import is_id, is_name
from ..wire.refusals import ID_RULE, NAME_RULE, PATTERN_RULE

__all__ = ["checked_channels", "checked_id", "checked_name", "chosen_id"]


def checked_name(what: str, name: Any) -> str:
    """Return the name of a bot, a channel or a group. Raise InvalidValue for what cannot be one."""
    return _checked(what, name, "a name", NAME_RULE, is_valid=is_name)


def checked_channels(what: str, name: Any) -> str:
    """Return the name of a channel, or a pattern of such names. Raise InvalidValue for what cannot be one."""
    if not isinstance(name, str) or WILDCARD not in name:
        return checked_name(what, name)
    fault = channel_pattern_fault(name)
    if fault is not None:
        raise InvalidValue(what, f"{name!r} is not a pattern of names: {fault}; {PATTERN_RULE}")
    return name


def checked_id(what: str, id: Any) -> str:
    """Return an id. Raise InvalidValue for what cannot be one."""
    return _checked(what, id, "an id", ID_RULE, is_valid=is_id)


def _checked(what: str, value: Any, kind: str, rule: str, *, is_valid: Callable[[str], object]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be {kind}, a str, not {value!r}")
    if not is_valid(value):
        raise InvalidValue(what, f"{value!r} is not {kind}: {rule}")
    return value


def chosen_id(id: str | None, what: str = "id") -> str:
    """Return an id that was chosen, or a new one for None. Raise ValueError for an empty one."""
    if id is None:
        return str(uuid_utils.uuid7())
    if not id:
        raise ValueError(f"the {what} is empty: choose one, or pass None for a new one")
    return id
