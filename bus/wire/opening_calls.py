"""The workflow call that opens a run, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from ..model.openings import OpenedRun, RunOpening
from .call import Call

__all__ = ["OpenRun"]


class OpenRun(Call, frozen=True, kw_only=True):
    """Claims a run, and creates it first if it does not exist; `holder` may name only the session's bot."""

    method = "open_run"
    answer = OpenedRun
    writes = True
    opening: RunOpening
    holder: str | None = None
