"""What administrators ask of a worker that runs: about rights, to erase and to remove.

Pure.
"""

from __future__ import annotations

from ..mailbox.sessions import Session
from ..model.keys import Principal
from ..model.repository import Looked, Remove
from ..model.rights import Action
from ..settings import Security
from ..settings.rights import object_fault
from ..wire.answers import MayAnswer
from ..wire.frames import Code, EraseFrame, May, Refusal, Reload, RemoveFrame
from .access import Access
from .clearing import Clearing
from .directory import Directory
from .effects import Reconfigure
from .erasing import Erasing
from .keyring import Keyring
from .scheduling import Scheduling
from .subscribing import Subscribing
from .wills import Wills

__all__ = ["Administering"]

_NO_RIGHTS = "this worker has no keys, and so no rights: to let it read its configuration again, send it SIGHUP"


class Administering:
    """See the module. `keyring` is None for a worker without keys."""

    def __init__(
        self,
        access: Access,
        keyring: Keyring | None,
        directory: Directory,
        subscribing: Subscribing,
        *,
        scheduling: Scheduling,
        wills: Wills,
    ) -> None:
        self._access = access
        batches = wills.batches
        self.erasing = Erasing(access, directory, batches, scheduling)
        self._clearing = Clearing(
            access, directory, batches, scheduling=scheduling, subscribing=subscribing, keyring=keyring, wills=wills
        )
        self._keyring = keyring
        self._directory = directory
        self._pausing = subscribing.pausing
        self._matching = subscribing.matching
        self._matching.keyring = keyring
        self._matching.look_at_all()  # what an earlier worker could not bring, and what was created without one
        self._dispatch = scheduling.dispatch
        self._turn = scheduling.turn
        self._dispatch.tapping.closed = access.closed
        if keyring is None:
            subscribing.pausing.end()

    def __repr__(self) -> str:
        return f"<Administering {self._access}>"

    def request(self, session: Session, request: May | Reload | EraseFrame | RemoveFrame) -> None:
        """Handle a frame. Raise Refusal if it is invalid or not allowed."""
        principal = session.principal
        if isinstance(request, EraseFrame):
            self.erasing.request(session, request)
            return
        if isinstance(request, RemoveFrame):
            self._clearing.request(session, request)
            return
        if self._keyring is None or principal is None:
            raise Refusal(Code.FORBIDDEN, _NO_RIGHTS)
        if isinstance(request, May):
            self._turn.answer(session.address, request.request, self._may(self._keyring, principal, request))
        else:
            self._access.require(principal, Action.ADMIN, "reload")
            self._turn.add(Reconfigure(session.address, request.request))

    def looked_up(self, change: Remove, found: Looked | Refusal) -> None:
        """Go on with a removal that was looked up, or could not be."""
        self._clearing.looked_up(change, found)

    def _may(self, keyring: Keyring, principal: Principal, request: May) -> MayAnswer:
        if request.bot != principal.bot_name:
            self._access.require(principal, Action.ADMIN, "may")
        if request.action not in set(Action):
            text = f"{request.action!r} is not an action; the actions are {', '.join(Action)}"
            raise Refusal(Code.BAD_REQUEST, text)
        action = Action(request.action)
        if (fault := object_fault(action, request.object)) is not None:
            raise Refusal(Code.BAD_REQUEST, f"the object {request.object!r}: {fault}")
        bot = self._directory.names.get(request.bot)
        if bot is None:
            raise Refusal(Code.UNKNOWN_BOT, f"no bot named {request.bot!r}")
        asked = principal if bot.id == principal.bot_id else keyring.newest(bot.id, self._turn.moment.wall)
        if asked is None:
            raise Refusal(Code.NOT_FOUND, f"bot {request.bot!r} has no valid key, so it may do nothing")
        verdict = self._access.judge(asked, action, request.object)
        return MayAnswer(verdict.allowed, verdict.rule)

    def configure(self, security: Security) -> None:
        """Decide by other rights from now on: subscriptions that are no longer allowed are paused."""
        self._access.configure(security)
        self._dispatch.tapping.closed = self._access.closed
        self._pausing.look_at_all()
        self._matching.look_at_all()
        if self._keyring is not None and self._keyring.look_at_tap():
            self._dispatch.tapping.empty("a listener may not listen any more")

    def undefined_roles(self) -> list[str]:
        """Return the roles of keys that the configuration does not define: they allow nothing."""
        return [] if self._keyring is None else self._access.undefined(self._keyring.roles())
