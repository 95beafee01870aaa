"""Where a subscription starts: what a program says of it, and what it is told if that is in another log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from ..errors import Conflict, LogReplaced
from ..model.records import timestamp
from ..wire.frames import StartAt

__all__ = ["StartPosition", "start_of", "telling_of_logs"]

StartPosition = Literal["new", "all"] | int | datetime


def start_of(start: StartPosition, epoch: str | None) -> Literal["new", "all"] | StartAt:
    """Return a start as it is sent. Raise ValueError if it says nothing definite."""
    if isinstance(start, int):
        return StartAt(seq=start, epoch=epoch)
    if epoch is not None:
        raise ValueError("an epoch says which log a seq is of: give it with a seq as the start")
    if not isinstance(start, datetime):
        return start
    if start.tzinfo is None:
        raise ValueError("start needs a time zone, for instance datetime.now(UTC)")
    return StartAt(time=timestamp(start))


@contextmanager
def telling_of_logs() -> Iterator[None]:
    """Raise LogReplaced instead of the refusal of a start that is in another log."""
    try:
        yield
    except Conflict as error:
        details = error.details or {}
        if details.get("error") != "log_replaced":
            raise
        before, epoch, seq, after_seq = (details[name] for name in ("before", "epoch", "seq", "after_seq"))
        raise LogReplaced(before, epoch, seq=seq, after_seq=after_seq) from error
