"""Values of a run: what its program records, as JSON, and what is read back of it.

Owns the author's hooks for types that JSON does not know, the types that outputs are read back as, and the warnings
about values that come near a limit. A type that could not be read back is refused before anything is carried out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..client.typed import Decode, check_readable, read_as, type_name
from ..errors import InvalidValue, TooLarge
from ..model.exact import Encode, Exact
from ..model.values import exact_value, json_bytes

__all__ = ["Context", "ReadAs", "Values", "exact_argument"]

_WARN_FRACTION = 0.5
"""The part of a limit beyond which a value is warned of: early enough to change the program."""

_logger = logging.getLogger("posthouse.client")


def exact_argument(value: Any, what: str) -> Exact | None:
    """Return a value for the arguments of a call, where it is not looked at again; None if it is null."""
    found = exact_value(value, what)
    return None if found.value is None else found


class Values:
    """How a bot's runs write and read values. One object serves all runs of a bot."""

    def __init__(self) -> None:
        self.encode: Encode | None = None
        """Called with a value that JSON does not know."""
        self.decode: Decode | None = None
        """Called with a type that is not known, and the JSON value to make one of."""
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"<Values encode={self.encode} decode={self.decode}>"

    def plain(self, value: Any, what: str, *, bytes_max: int | None = None, name: str = "") -> Any:
        """Return a value as it is read back from JSON. Raise InvalidValue or TooLarge if it cannot be recorded.

        `name` is what values of its kind have in common, in other runs too: one warning is enough for them.
        """
        return self.exact(value, what, bytes_max=bytes_max, name=name).value

    def exact(self, value: Any, what: str, *, bytes_max: int | None = None, name: str = "") -> Exact:
        """Return a value as JSON and as it is read back; else like `plain`."""
        found = exact_value(value, what, bytes_max=bytes_max, encode=self.encode)
        if bytes_max is not None:
            self.warn(what, len(found.json), bytes_max, name=name)
        return found

    def warn(self, what: str, size_bytes: int, bytes_max: int, *, name: str) -> None:
        """Log a warning, once for each name, if a value has more than half of what it may have."""
        if size_bytes > bytes_max * _WARN_FRACTION and name not in self._warned:
            self._warned.add(name)
            _logger.warning(
                "the %s has %d bytes, more than half of the %d that it may have: record less, or put the data"
                " into a file and record its name",
                what,
                size_bytes,
                bytes_max,
            )

    def reading(self, kind: Any) -> ReadAs:
        """Return what reads recorded values as a type. Raise TypeError if no value of it could be read."""
        check_readable(kind, ", or set bot.workflows.decode", self.decode)
        return ReadAs(kind, self.decode)


class ReadAs:
    """Reads recorded values as values of a type: the same ones whether they were recorded now or long ago."""

    def __init__(self, kind: Any, decode: Decode | None) -> None:
        self._kind = kind
        self._decode = decode

    def __repr__(self) -> str:
        return f"<ReadAs {self._kind!r}>"

    def read(self, value: Any, what: str) -> Any:
        """Return a recorded value as a value of the type. Raise InvalidValue if it is none."""
        try:
            return read_as(self._kind, value, self._decode)
        except ValueError as error:
            reason = f"it is recorded, and cannot be read as {type_name(self._kind)}: {error}"
            raise InvalidValue(what, reason) from error.__cause__


class Context(dict[str, Any]):
    """A run's context: what is set in it can be recorded. A change inside a value is checked when it is saved."""

    def __init__(self, content: Mapping[str, Any], what: str, values: Values, *, bytes_max: int, name: str) -> None:
        super().__init__(content)
        self._what = what
        self._values = values
        self._bytes_max = bytes_max
        self._name = name
        self._sizes: dict[str, int] | None = None
        """Of its values; they are looked at when the first one is set."""

    def __setitem__(self, key: str, value: Any) -> None:
        if self._sizes is None:
            self._sizes = {name: self._size(name, each) for name, each in self.items()}
        size = self._size(key, value)
        total = size + sum(self._sizes[name] for name in self if name != key)
        if total > self._bytes_max:
            raise TooLarge(self._what, total, self._bytes_max)
        self._values.warn(self._what, total, self._bytes_max, name=self._name)
        self._sizes[key] = size
        super().__setitem__(key, value)

    def _size(self, key: str, value: Any) -> int:
        return len(json_bytes({key: value}, f"{self._what}, {key!r}", encode=self._values.encode))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set a value if there is none, and return the one that is there."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Mapping[str, Any] | Iterable[tuple[str, Any]], **values: Any) -> None:  # type: ignore[override]
        """Set several values."""
        for key, value in dict(*others, **values).items():
            self[key] = value

    def __ior__(self, other: Any) -> Context:  # type: ignore[override, misc]
        self.update(other)
        return self
