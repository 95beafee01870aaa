"""What is wrong with a configuration: all of it at once, each fault with its key and what to write instead.

Owns the walk through the tables. `words` has the wording of what types and bounds refuse; settings that
contradict each other refuse themselves, with a SettingsError.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec

from ..model.rights import Action
from .words import in_words, unknown_key

__all__ = ["SettingsError", "faults_of", "refuse"]


class SettingsError(ValueError):
    """The configuration is invalid; each fault names the key and what is wrong with it.

    `place` is where the configuration comes from, if it is known.
    """

    def __init__(self, *faults: str, place: str = "") -> None:
        several = f"{len(faults)} faults: {'; '.join(f'({n}) {fault}' for n, fault in enumerate(faults, 1))}"
        super().__init__(_at(place, faults[0] if len(faults) == 1 else several))
        self.faults = faults
        self.place = place

    @property
    def lines(self) -> list[str]:
        """The faults, each with where it comes from."""
        return [_at(self.place, fault) for fault in self.faults]


def _at(place: str, text: str) -> str:
    return f"{place}: {text}" if place else text


def refuse(faults: Iterable[str]) -> None:
    """Raise a SettingsError with these faults, if there are any."""
    if found := tuple(faults):
        raise SettingsError(*found)


_NAMED = {
    "retention.channels": "the limits of channel {!r} in [retention.channels]: ",
    "security.roles": "role {!r} in [security.roles]: ",
    "security.channels": "channel {!r} in [security.channels]: ",
}
"""The tables of tables with names of the operator's, and what a fault in one of them begins with."""

_IN_A_ROLE = f"; a role has {', '.join(Action)}, deny, limits and external"


def faults_of(data: Mapping[str, Any], shape: type[msgspec.Struct]) -> list[str]:
    """Return what is wrong with the tables of a configuration, in their order.

    What contradicts another key of a table is found when each key of that table is right by itself, and what
    contradicts another table when all are.
    """
    return list(_walk(data, shape, shape, ""))


def _walk(value: Any, shape: type[msgspec.Struct], whole: type[msgspec.Struct], place: str) -> Iterator[str]:
    """Yield what is wrong with a table; `whole` is the shape in which its place is."""
    fields = {field.name: field.type for field in msgspec.structs.fields(shape)}
    found: list[str] = []
    for key, each in value.items() if isinstance(value, Mapping) else ():
        here = f"{place}.{key}" if place else key
        if key not in fields:
            found.append(unknown_key(here, whole))
        elif _is_table(fields[key]) and isinstance(each, Mapping):
            found += _walk(each, fields[key], whole, here)
        elif here in _NAMED and isinstance(each, Mapping):
            found += _named(each, get_args(fields[key])[1], here)
        else:
            found += _converted(each, fields[key], here)
    yield from found or _converted(value, shape, place)


def _named(tables: Mapping[str, Any], shape: type[msgspec.Struct], place: str) -> Iterator[str]:
    """Yield what is wrong with tables that have names."""
    for name, value in tables.items():
        for fault in _walk(value, shape, shape, ""):
            more = _IN_A_ROLE if place == "security.roles" and fault.startswith("unknown key") else ""
            yield f"{_NAMED[place].format(name)}{fault}{more}"


def _converted(value: Any, kind: Any, place: str) -> Iterable[str]:
    """Return what is wrong with a value, or with a table whose keys are right by themselves."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        own = error.__cause__
        return own.faults if isinstance(own, SettingsError) else [in_words(error, place, value)]
    return ()


def _is_table(kind: Any) -> bool:
    return get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, msgspec.Struct)
