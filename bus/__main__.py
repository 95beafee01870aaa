"""The command `posthouse`, also as `python -m bus`.

`worker` and `store` are top-level modules with common names: a folder in PYTHONPATH may have other files of these
names, and those are not run.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["OBJECTS_A_COLLECTION", "begin", "main"]

_NEEDED = ("worker", "store")
_OURS = Path(__file__).resolve().parents[1]
_EXIT_CONFIGURATION = 78

OBJECTS_A_COLLECTION = 50_000
"""How many objects more, before Python looks for cycles: imports make 50,000, a batch a few. Its default is 700."""


def begin() -> None:
    """Prepare for what happens while the rest is imported, which takes a while.

    Ctrl-C would print a traceback. A worker's signals wait until it can handle them; before that, a process with
    the id 1 would not even be ended by them.
    """
    gc.set_threshold(OBJECTS_A_COLLECTION)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    if sys.argv[1:2] == ["serve"] and os.name != "nt":
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def main() -> None:
    """Run the command. Exit with 78 (sysexits) if other files shadow its modules."""
    begin()
    for name in _NEEDED:
        found = find_spec(name)
        places = () if found is None else (found.origin, *(found.submodule_search_locations or ()))
        where = next((place for place in places if place is not None), None)
        if where is None or not Path(where).resolve().is_relative_to(_OURS):
            sys.stderr.write(
                f"posthouse: {where or 'nothing'} is in the way of posthouse's own module {name!r}: remove it from"
                " PYTHONPATH, or rename it\n"
            )
            sys.exit(_EXIT_CONFIGURATION)
    from .cli.program import program

    program()


if __name__ == "__main__":
    main()
