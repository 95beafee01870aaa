"""What changes if the configuration is read again, and which of that a running worker takes over.

Pure.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .sections import Settings

__all__ = ["TakenOver", "take_over"]

_RIGHTS = ("default_role", "roles", "channels")

_LIVE = {*(f"security.{name}" for name in _RIGHTS), "log.level", "log.format"}
"""The keys that need no restart."""


class TakenOver(NamedTuple):
    """The settings of a running worker after its configuration was read again.

    `changed` has the keys that it took over, and `restart` those that differ, but only matter after a restart.
    """

    settings: Settings
    changed: list[str]
    restart: list[str]


def take_over(before: Settings, after: Settings) -> TakenOver:
    """Return what a worker with some settings does if its configuration says other ones.

    Rights are taken over only if it says whether there are keys as before: they mean nothing without.
    """
    one, other = msgspec.to_builtins(before), msgspec.to_builtins(after)
    differ = [
        f"{section}.{key}" for section in one for key in one[section] if one[section][key] != other[section][key]
    ]
    live = {key for key in _LIVE if before.security.mode == after.security.mode or not key.startswith("security.")}
    rights = {name: getattr(after.security, name) for name in _RIGHTS}
    security = msgspec.structs.replace(before.security, **rights) if "security.roles" in live else before.security
    settings = msgspec.structs.replace(before, security=security, log=after.log)
    return TakenOver(settings, [key for key in differ if key in live], [key for key in differ if key not in live])
