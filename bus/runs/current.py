"""The run in whose block the current task is: where a decorated step belongs.

Owns the context variable. Tasks that are started in the block inherit it; functions of steps are outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

__all__ = ["current_run", "in_run"]

_current: ContextVar[Any] = ContextVar("posthouse_run")


def current_run() -> Any:
    """Return the current `Run`, or None outside of runs, and in the function of a step."""
    return _current.get(None)


@contextmanager
def in_run(run: Any) -> Iterator[None]:
    """Make a run the current one within a block; None for no run."""
    token = _current.set(run)
    try:
        yield
    finally:
        with suppress(ValueError):  # it is left in another context than it was entered in, as by a fixture
            _current.reset(token)
