"""The frame that begins a session.

Owns the welcome frame: who the worker is, and what it expects of a client (docs/protocol.md).

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..mailbox.sessions import Session, Sessions
from ..settings import Settings
from ..wire.frames import PROTOCOL_VERSION, Hello, Welcome
from .effects import Turn

__all__ = ["Welcoming"]


class Welcoming:
    """See the module."""

    def __init__(self, sessions: Sessions, turn: Turn, settings: Settings, *, worker: str, epoch: str) -> None:
        self._sessions = sessions
        self._turn = turn
        self._settings = settings
        self._worker = worker
        self._epoch = epoch
        self.tap: str | None = None
        """Where the tap is, once it is known."""

    def __repr__(self) -> str:
        return f"<Welcoming {self._worker} epoch={self._epoch}>"

    def welcome(
        self,
        session: Session,
        hello: Hello,
        *,
        earlier: Session | None,
        not_held: Sequence[int],
        last_seq: int,
    ) -> None:
        """Welcome a session, which replaces its client's `earlier` one."""
        delivery, limits = self._settings.delivery, self._settings.limits
        event = "console_opened" if session.reads_only else "session_opened"
        who = {"bot": session.bot_name, "session": session.id, "key": session.public_key}
        self._turn.note(event, client=hello.client, **who)
        sharers = self._sessions.of_bot(session.bot_id)
        self._turn.send(
            session.address,
            Welcome(
                request=hello.request,
                protocol=PROTOCOL_VERSION,
                worker=self._worker,
                session=session.id,
                epoch=self._epoch,
                bot=session.bot_name,
                bot_id=session.bot_id,
                max_in_flight=session.credit,
                max_publish_in_flight=limits.publishes_in_flight_max,
                heartbeat=delivery.heartbeat_seconds,
                session_timeout=delivery.session_timeout_seconds,
                ack_wait=delivery.ack_wait_seconds,
                max_deliver=delivery.max_deliver,
                max_frame_bytes=limits.frame_bytes_max,
                max_body_bytes=limits.body_bytes_max,
                last_seq=last_seq,
                max_publish_messages=limits.messages_per_publish_max,
                sessions=1 + sum(each not in (session, earlier) and each.credit > 0 for each in sharers),
                not_held=list(not_held),
                wakes=session.wakes,
                opens_runs=True,
                joins_removals=True,
                follows_subscriptions=True,
                tap=self.tap,
                max_parked=limits.parked_max,
                max_parts_bytes=self._settings.whole_bytes_max,
                max_output_bytes=self._settings.workflows.output_bytes_max,
            ),
        )
