"""Read-only sessions: they ask, and change nothing.

Their rules (docs/protocol.md, "Read-only sessions"):

- They register no bot, take no part in a mailbox, and leave no trace at a bot: it is not online by them, nor heard.
- Without keys they belong to no bot. With keys they are of their key's bot, with its rights, and end with the key.

Pure.
"""

from __future__ import annotations

from typing import get_args

from ..mailbox.sessions import Session
from ..wire.calls import CALLS
from ..wire.frames import Code, Compact, Goodbye, May, Ping, Query, Refusal, RequestFrame, Scrub, Workflow
from ..wire.parts_frames import PartFrame, ReadPart, WholeFrame

__all__ = ["greeted"]

_ASKS = ({*get_args(Query)} - {Scrub, Compact}) | {Ping, Goodbye, May, PartFrame, WholeFrame, ReadPart}
"""What a read-only session may send, besides workflow calls that only read."""


def greeted(session: Session | None, request: RequestFrame) -> Session:
    """Return the session that sent a frame. Raise Refusal if there is none, or if it may only read."""
    if session is None:
        raise Refusal(Code.UNKNOWN_SESSION, "no session here: say hello, then repeat unanswered requests")
    if session.reads_only and type(request) not in _ASKS and not _only_reads(request):
        text = "this session is read-only, and only asks: say hello without read_only, as a bot"
        details = {"action": _name(request), "object": session.bot_name, "rule": "the session is read_only"}
        raise Refusal(Code.FORBIDDEN, text, details=details)
    return session


def _only_reads(request: RequestFrame) -> bool:
    if not isinstance(request, Workflow):
        return False
    call = CALLS.get(request.call)
    return call is None or not call.writes  # of an unknown call, the answer says so


def _name(request: RequestFrame) -> str:
    return request.call if isinstance(request, Workflow) else str(type(request).__struct_config__.tag)
