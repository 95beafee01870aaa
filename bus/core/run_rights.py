"""Which runs a bot sees, which it may send signals to, and which it may create.

Asked by calls before they are carried out, and by the store in the transaction of a commit, which alone knows whose
the runs are that the commit names.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import NotAllowed, NotFound, Refused
from ..model.keys import Principal
from ..model.rights import OWN, Action
from ..model.workflows import RunOwners
from ..settings.rights import READ_ALL
from .access import Access

__all__ = ["RunRights"]


class RunRights:
    """See the module."""

    def __init__(self, access: Access, principal: Principal) -> None:
        self._access = access
        self._principal = principal

    def __repr__(self) -> str:
        return f"<RunRights of {self._principal.bot_name!r}>"

    def sees(self, owners: RunOwners) -> bool:
        """Return True if the bot may read a run."""
        if self._principal.bot_id in (owners.created_by, owners.holder, owners.last_holder):
            return self._access.may(self._principal, Action.READ, OWN)
        own = owners.owner == self._principal.bot_id
        return self.may_any(owners.workflow_name, (Action.RUN, Action.OPERATE), own=own)

    def may_any(self, workflow: str, actions: Iterable[Action], *, own: bool) -> bool:
        """Return True if the bot may read all, approve runs of a workflow, or do one of these actions with it."""
        access, principal = self._access, self._principal
        if access.may(principal, Action.READ, READ_ALL) or access.may(principal, Action.APPROVE, workflow):
            return True
        return any(access.may(principal, action, workflow, own=own) for action in actions)

    def refuse_signal(self, owners: RunOwners) -> Refused | None:
        """Return why the bot may not send a signal to a run, or None."""
        mine = (owners.owner, owners.created_by, owners.holder, owners.last_holder)
        own = self._principal.bot_id in mine
        verdict = self._access.judge(self._principal, Action.SIGNAL, owners.workflow_name, own=own)
        if verdict.allowed:
            return None
        if not self.sees(owners):
            return NotFound("run", owners.run_id)
        return NotAllowed(self._principal.bot_name, Action.SIGNAL, owners.workflow_name, verdict.rule)

    def refuse_run(self, workflow_name: str, owner: str | None) -> Refused | None:
        """Return why the bot may not create a run of a workflow, which belongs to the bot `owner`, or None."""
        own = owner in (None, self._principal.bot_id)
        verdict = self._access.judge(self._principal, Action.RUN, workflow_name, own=own)
        if verdict.allowed:
            return None
        if not self.may_any(workflow_name, (Action.DEFINE, Action.RUN, Action.OPERATE), own=own):
            return NotFound("workflow", workflow_name)
        return NotAllowed(self._principal.bot_name, Action.RUN, workflow_name, verdict.rule)
