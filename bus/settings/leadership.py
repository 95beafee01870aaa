"""The settings of a house with several workers.

Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ..model.leadership import RENEWALS_MIN, USABLE_FRACTION
from .faults import SettingsError

__all__ = ["Leadership"]


class Leadership(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long the worker that leads may be silent before another one takes over."""

    lease_seconds: Annotated[float, Meta(ge=1, le=300)] = 10.0
    """Bots wait so long, at most, after their worker was killed. It must outlast the pauses of a busy machine."""

    renew_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    """How often the leader renews its lease: one commit."""

    def __post_init__(self) -> None:
        """Refuse a lease that one late renewal ends."""
        most = self.lease_seconds * USABLE_FRACTION / RENEWALS_MIN
        if self.renew_seconds > most:
            raise SettingsError(
                f"leadership.renew_seconds is {self.renew_seconds:g}, but with leadership.lease_seconds ="
                f" {self.lease_seconds:g} it must be at most {most:.2g}: {RENEWALS_MIN} renewals have to fit in"
            )
