"""Workers that are broken on purpose in their last wills: what `wills` has to find.

Owns these lies; `lies` tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uuid_utils

from bus.core.wills import Wills
from bus.mailbox.sessions import Session
from bus.model.keyed import KeyedWrite
from bus.model.repository import CommitWork, Lot
from bus.wire.frames import Goodbye, Ok

from .lies_of_mailboxes import replace

__all__ = ["LIES_OF_WILLS", "TELLERS_OF_WILLS"]

LIES_OF_WILLS = {
    "wills_forgotten": "was never sent",
    "wills_sent_twice": "was sent . times",
    "wills_after_goodbye": "said goodbye or came back",
}
"""Each with what is said of it when it is found."""


def _forgotten() -> None:
    replace(Wills, "load", lambda _: lambda held, stored, now: None)


def _sent_twice() -> None:
    """Leave a will on disk when it is sent. Only its id would keep it from being sent again."""

    def make(honest: Any) -> Any:
        def work(held: Wills, write: KeyedWrite, lots: Sequence[Lot] = (), *sender: Any) -> CommitWork:
            other = [msgspec.structs.replace(lot, ids=[str(uuid_utils.uuid7())]) for lot in lots]
            made: CommitWork = honest(held, write, other, *sender)
            return msgspec.structs.replace(made, values=()) if lots else made

        return work

    replace(Wills, "_work", make)


def _after_goodbye() -> None:
    def goodbye(held: Wills, session: Session, request: Goodbye) -> None:
        held.turn.send(session.address, Ok(request=request.request))

    replace(Wills, "goodbye", lambda _: goodbye)


TELLERS_OF_WILLS: dict[str, Callable[[], None]] = {
    "wills_forgotten": _forgotten,
    "wills_sent_twice": _sent_twice,
    "wills_after_goodbye": _after_goodbye,
}
