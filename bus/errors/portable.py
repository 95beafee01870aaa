"""The ability of the package's errors to be copied, and pickled into another process.

Pure.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, Self, TypeVar

__all__ = [
    "Portable",
    "blank",
]

_Error = TypeVar("_Error", bound=BaseException)


class Portable(Exception):
    """An error that can be copied, and pickled into another process, whatever its constructor takes.

    The copy has the same text, attributes and notes. Its cause and context are included if they can be pickled.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        cause = _pickled(self.__cause__)
        context = None if self.__context__ is self.__cause__ else _pickled(self.__context__)
        return _restored, (type(self), self.args, vars(self), cause, context, self.__suppress_context__)

    def __copy__(self) -> Self:
        return self._copied(vars(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._copied(copy.deepcopy(vars(self), memo))

    def _copied(self, attributes: dict[str, Any]) -> Self:
        error = blank(type(self), self.args, attributes)
        error.__cause__, error.__context__ = self.__cause__, self.__context__
        error.__suppress_context__ = self.__suppress_context__
        return error


def blank(kind: type[_Error], args: tuple[Any, ...], attributes: dict[str, Any]) -> _Error:
    """Create an error without calling its constructor, which takes other arguments than its text."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(attributes)
    return error


def _restored(
    kind: type[_Error],
    args: tuple[Any, ...],
    attributes: dict[str, Any],
    cause: bytes | None,
    context: bytes | None,
    suppress_context: bool,
) -> _Error:
    error = blank(kind, args, attributes)
    error.__cause__ = None if cause is None else pickle.loads(cause)
    error.__context__ = error.__cause__ if context is None else pickle.loads(context)
    error.__suppress_context__ = suppress_context
    return error


def _pickled(error: BaseException | None) -> bytes | None:
    """Return an error pickled; None if that fails, or if it could not be unpickled."""
    if error is None:
        return None
    try:
        written = pickle.dumps(error)
        pickle.loads(written)
    except Exception:  # an unknown error may raise anything
        return None
    return written
