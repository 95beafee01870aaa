"""What is larger than a frame: parts of frames that are not whole yet, and answers that are read in parts.

Owns their bytes, until they are whole, read or forgotten. Its rules:

- A session sends one frame in parts at a time, in order, and another one replaces it. A part that came before
  changes nothing. Before a frame is whole nothing of it is carried out, and nothing of it is ever on disk.
- An answer is kept until its last part was read.
- One bot may have so many bytes here, and all bots together so many; more are `busy`. If those of all bots are too
  many, the oldest of the bot that has most makes room, unless this bot would then have more. So nobody keeps the
  others out.
- What is not touched for a while, and what belongs to a session that ended, is forgotten: its bot begins again.

Pure: time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

import msgspec

from ..mailbox.sessions import Session, Sessions
from ..settings import Settings
from ..wire.codec import decode_request, encode
from ..wire.frames import RETRY, Code, Commit, ErrorFrame, Refusal, Workflow
from ..wire.parts_frames import InParts, PartFrame, ReadPart, WholeFrame, part_bytes
from .effects import Turn
from .shares import Shares

__all__ = ["LargeFrames"]

_UNKNOWN = {"parts": "unknown"}
"""The details of a refusal after which a client begins again."""


class _Kept:
    """Bytes of a session, in the room that they take when they are complete."""

    __slots__ = ("address", "bot_id", "data", "key", "room_bytes", "touched")

    def __init__(self, session: Session, key: str | int, room_bytes: int, now: float) -> None:
        self.address = session.address
        self.bot_id = session.bot_id
        self.key = key
        self.room_bytes = room_bytes
        self.data = bytearray()
        self.touched = now


class LargeFrames:
    """See the module."""

    def __init__(self, sessions: Sessions, shares: Shares, settings: Settings) -> None:
        self._sessions = sessions
        self._whole_bytes_max = settings.whole_bytes_max
        self._all_bytes_max = settings.limits.parts_bytes_max
        self._idle_seconds = settings.delivery.session_timeout_seconds
        self._part_bytes = part_bytes(settings.limits.frame_bytes_max)
        self._shares = shares
        self._kept: dict[tuple[bytes, str | int], _Kept] = {}
        """By session, and by the id of the upload or the number of the request; the oldest first."""
        self._uploads: dict[bytes, str] = {}
        self._bytes: dict[str, int] = {}
        """By bot."""
        self._total = 0

    def __repr__(self) -> str:
        return f"<LargeFrames {len(self._kept)} with {self._total} bytes>"

    # ── Frames of clients ────────────────────────────────────────────────────────────────────────────────

    def request(self, session: Session, request: PartFrame | ReadPart, turn: Turn) -> None:
        """Receive a part of a frame, or send one of an answer. Raise Refusal."""
        now = turn.moment.now
        if isinstance(request, PartFrame):
            turn.answer(session.address, request.request, {"received": self.put(session, request, now)})
        else:
            turn.answer(session.address, request.request, {"data": self.read(session, request, now)})

    def whole(self, session: Session, whole: WholeFrame) -> Workflow | Commit:
        """Return the frame whose parts have come, with the number of this request. Raise Refusal."""
        frame = decode_request(self.take(session, whole), self._whole_bytes_max)
        if not isinstance(frame, Workflow | Commit):
            raise Refusal(Code.BAD_REQUEST, "only the frames workflow and commit may come in parts")
        return msgspec.structs.replace(frame, request=whole.request)

    def put(self, session: Session, part: PartFrame, now: float) -> int:
        """Add a part of a frame, and return how many bytes of it there are. Raise Refusal."""
        kept = self._kept.get((session.address, part.upload))
        if kept is None:
            if part.offset:
                raise _unknown(f"upload {part.upload}")
            if part.total > self._whole_bytes_max:
                text = f"the frame has {part.total} bytes; the maximum, in parts, is {self._whole_bytes_max}"
                raise Refusal(Code.TOO_LARGE, text)
            earlier = self._uploads.pop(session.address, None)
            if earlier is not None:
                self._drop(self._kept[session.address, earlier])
            kept = self._keep(session, part.upload, part.total, now)
            self._uploads[session.address] = part.upload
        kept.touched = now
        end = part.offset + len(part.data)
        if part.total != kept.room_bytes or part.offset > len(kept.data) or end > part.total:
            raise Refusal(
                Code.BAD_REQUEST, f"this part does not follow the {len(kept.data)} bytes that came before"
            )
        if end > len(kept.data):
            kept.data += part.data[len(kept.data) - part.offset :]
        return len(kept.data)

    def take(self, session: Session, whole: WholeFrame) -> bytes:
        """Return a frame of which all parts have come, and forget them. Raise Refusal."""
        kept = self._kept.get((session.address, whole.upload))
        if kept is None:
            raise _unknown(f"upload {whole.upload}")
        if len(kept.data) < kept.room_bytes:
            text = f"only {len(kept.data)} of the frame's {kept.room_bytes} bytes have come"
            raise Refusal(Code.BAD_REQUEST, text)
        self._drop(kept)
        return bytes(kept.data)

    # ── Answers ──────────────────────────────────────────────────────────────────────────────────────────

    def are_read_by(self, address: bytes) -> bool:
        """Return True if the session at an address reads answers in parts."""
        session = self._sessions.get(address)
        return session is not None and session.in_parts

    def answer(self, address: bytes, request: int, frame: bytes, now: float) -> bytes | None:
        """Keep an answer that is to be read in parts, and return the frame to send instead of it.

        Return None if no session at this address reads answers in parts.
        """
        session = self._sessions.get(address)
        if session is None or not session.in_parts:
            return None
        try:
            self.keep(session, request, frame, now)
        except Refusal as error:
            refused = ErrorFrame(
                code=error.code,
                message=f"the answer has {len(frame)} bytes: {error.message}",
                request=request,
                retry=error.code in RETRY,
                details=error.details,
            )
            return encode(refused)
        return encode(InParts(request=request, total=len(frame)))

    def keep(self, session: Session, request: int, frame: bytes, now: float) -> None:
        """Keep an answer that is to be read in parts. Raise Refusal if there is no room for it."""
        earlier = self._kept.get((session.address, request))
        if earlier is not None:
            self._drop(earlier)
        self._keep(session, request, len(frame), now).data += frame

    def read(self, session: Session, read: ReadPart, now: float) -> bytes:
        """Return a part of an answer; the last one ends it. Raise Refusal."""
        kept = self._kept.get((session.address, read.of))
        if kept is None:
            raise _unknown(f"the answer to request {read.of}")
        if read.offset >= len(kept.data):
            raise Refusal(Code.BAD_REQUEST, f"the answer has only {len(kept.data)} bytes")
        kept.touched = now
        part = bytes(kept.data[read.offset : read.offset + self._part_bytes])
        if read.offset + len(part) == len(kept.data):
            self._drop(kept)
        return part

    # ── Room ─────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self, session: Session, key: str | int, room_bytes: int, now: float) -> _Kept:
        own = self._bytes.get(session.bot_id, 0) + room_bytes
        share = self._shares.of(session.principal)
        if own > share.parts_bytes:
            text = f"{own - room_bytes} bytes of this bot are on their way in parts; try again later"
            raise share.refusal("parts_bytes", text)
        while self._total + room_bytes > self._all_bytes_max:
            most = max(self._bytes, key=lambda bot_id: self._bytes[bot_id])
            if self._bytes[most] <= own:
                text = f"{self._total} bytes of all bots are on their way in parts; try again later"
                raise Refusal(Code.BUSY, text)
            self._drop(next(kept for kept in self._kept.values() if kept.bot_id == most))
        kept = self._kept[session.address, key] = _Kept(session, key, room_bytes, now)
        self._bytes[kept.bot_id] = own
        self._total += room_bytes
        return kept

    def _drop(self, kept: _Kept) -> None:
        del self._kept[kept.address, kept.key]
        if self._uploads.get(kept.address) == kept.key:
            del self._uploads[kept.address]
        self._total -= kept.room_bytes
        self._bytes[kept.bot_id] -= kept.room_bytes
        if not self._bytes[kept.bot_id]:
            del self._bytes[kept.bot_id]

    def forget(self, address: bytes) -> None:
        """Forget what belongs to a session that ended."""
        for kept in [kept for kept in self._kept.values() if kept.address == address]:
            self._drop(kept)

    def expire(self, now: float) -> None:
        """Forget what was not touched for as long as a session may be silent."""
        for kept in [kept for kept in self._kept.values() if now - kept.touched > self._idle_seconds]:
            self._drop(kept)


def _unknown(what: str) -> Refusal:
    text = f"{what} is not here any more: begin again with the first part, or with the request"
    return Refusal(Code.NOT_FOUND, text, details=_UNKNOWN)
