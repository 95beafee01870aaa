"""What `worker` joins to the commands, which know no store. It is imported when a command needs it."""

from __future__ import annotations

from importlib import import_module

from ..model.databases import Databases

__all__ = ["databases"]


def databases() -> Databases:
    """Return what is done with whole databases."""
    joined: Databases = import_module("worker").databases
    return joined
