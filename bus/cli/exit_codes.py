"""The exit codes of what works on a database itself: `serve`, `check`, `backup` and `restore`.

They are those of sysexits: 65 if the database is damaged or newer, 74 after an I/O error, 75 if the database or an
address is in use, 78 if the configuration is wrong. Each comes with one line on standard error that says what is
wrong and what to do; a configuration with one for each fault.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import (
    BindError,
    CredentialsError,
    DatabaseDamaged,
    DatabaseInUse,
    DatabaseNewer,
    DatabaseUnusable,
    KeyFileUnusable,
    OwnershipLost,
    StoreFailure,
)
from ..settings import SettingsError
from .streams import EXIT_CONFIG, EXIT_DATA, EXIT_IN_USE, EXIT_OUTPUT, show_error

__all__ = ["exit_codes"]

_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (SettingsError, EXIT_CONFIG),
    (DatabaseDamaged, EXIT_DATA),
    (DatabaseNewer, EXIT_DATA),
    (DatabaseInUse, EXIT_IN_USE),
    (OwnershipLost, EXIT_IN_USE),
    (DatabaseUnusable, EXIT_CONFIG),
    (BindError, EXIT_CONFIG),
    (KeyFileUnusable, EXIT_CONFIG),
    (CredentialsError, EXIT_CONFIG),
    (StoreFailure, EXIT_OUTPUT),
)
"""The exit code of each error that a person can fix. For a group of errors, the first matching row counts."""


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the error that ended the work into one line, or one for each fault of a configuration, and an exit code.

    The code is determined inside the handler and raised outside of it: early releases of Python 3.11 lose a
    SystemExit that is raised while a group of errors is handled.
    """
    try:
        yield
    except BaseException as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
    else:
        return
    code, lines = refusal
    for line in lines:
        show_error(" ".join(line.splitlines()))
    sys.exit(code)


def _refusal(error: BaseException) -> tuple[int, list[str]] | None:
    """Return the exit code and the lines for an error, or for one in a group; None if it is a bug of ours."""
    leaves = list(_leaves(error))
    for kind, code in _EXIT_CODES:
        for leaf in leaves:
            if isinstance(leaf, kind):
                lines = leaf.lines if isinstance(leaf, SettingsError) else [str(leaf)]
                return EXIT_IN_USE if isinstance(leaf, BindError) and leaf.in_use else code, lines
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
