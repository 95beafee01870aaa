"""A worker that lies, as a process of its own: `python -m tests.crash.lying_worker LIE serve …`.

It takes the command line of `posthouse`, after the name of a lie (see `lies`); for faults that need more of a
process than a forked one gives.
"""

from __future__ import annotations

import sys

import worker

from .lies import tell

if __name__ == "__main__":
    tell(sys.argv.pop(1))
    worker.main()
