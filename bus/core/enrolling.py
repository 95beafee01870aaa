"""Keys that are added, replaced and revoked, and what becomes of their sessions.

Owns who may do that, and in which order it happens. Its rules:

- A change of keys is on disk before it takes effect here, and before it is answered.
- Only a key of purpose `admin` manages keys. But any bot may replace the key of its own connection by another one
  with the same rights and no longer a life, and an invitation adds the one key that it is for.
- When a revocation is answered, the sessions of the key have ended, nothing more is sent to them, and what was in
  flight there is in flight for others or waits.
- A key whose revocation is on its way to the disk adds no other key, and is no admin any more.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from ..errors import InvalidKey
from ..errors.words import amount
from ..mailbox.sessions import Session, Sessions
from ..model.keys import Key, Principal, Purpose
from ..model.records import BotRecord, later
from ..model.repository import AddBot, AddKey, Change, MailboxState, RevokeKeys
from ..settings import Limits
from ..wire.answers import Enrolled, KeyAdded, KeysRevoked
from ..wire.frames import AddKeyFrame, Code, Enrol, ErrorFrame, Keys, Refusal, RequestFrame, RevokeKeyFrame
from ..wire.keys import canonical_public
from .batches import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Ask, Silence, Turn
from .founding import Founding
from .keyring import Keyring

__all__ = ["NO_KEYS", "Enrolling"]

NO_KEYS = (
    "this worker has no keys: stop it, make one for each bot with 'posthouse keys adopt',"
    ' and start it with mode = "keys" in [security]'
)

_Asker = tuple[bytes, int]
"""The address and the number of a request."""


class _End(Protocol):
    def __call__(self, session: Session, *, vanished: bool) -> None: ...


class Enrolling:
    """See the module. `end` ends a session."""

    def __init__(
        self,
        keyring: Keyring,
        directory: Directory,
        sessions: Sessions,
        *,
        batches: Batches,
        dispatch: Dispatch,
        founding: Founding,
        turn: Turn,
        limits: Limits,
        new_id: Callable[[], str],
        end: _End,
    ) -> None:
        self._keyring = keyring
        self._directory = directory
        self._sessions = sessions
        self._batches = batches
        self._dispatch = dispatch
        self._founding = founding
        self._turn = turn
        self._limits = limits
        self._new_id = new_id
        self._end = end
        self._adding: dict[str, _AddJob] = {}
        """The keys that are on their way to the disk."""

    def __repr__(self) -> str:
        return f"<Enrolling {self._keyring} adding={len(self._adding)}>"

    def request(self, session: Session, request: AddKeyFrame | RevokeKeyFrame | Keys) -> None:
        """Handle a frame about keys. Raise Refusal if it is invalid or not allowed."""
        match request:
            case AddKeyFrame():
                self.add(session, request)
            case RevokeKeyFrame():
                self.revoke(session, request)
            case Keys():
                self.require_admin(session, "keys", request.bot or "")
                self._turn.add(Ask(session.address, session.bot_id, request, session.principal))

    def receive(self, address: bytes, request: RequestFrame, principal: Principal | None) -> None:
        """Handle an enrol frame, or what an invitation says instead. Raise Refusal if it is not allowed."""
        assert principal is not None, "a worker with keys knows who says something"
        if not isinstance(request, Enrol):
            text = f"an invitation may only say enrol: enrol a key of your own for bot {principal.bot_name!r}"
            details = {"action": str(request.__struct_config__.tag), "object": "", "rule": "purpose"}
            raise Refusal(Code.FORBIDDEN, text, details=details)
        self.enrol(address, request, principal)

    # ── Adding ───────────────────────────────────────────────────────────────────────────────────────────

    def add(self, session: Session, request: AddKeyFrame) -> None:
        """Handle an add_key frame. Raise Refusal if it is invalid or not allowed."""
        public_key, replaces = _public(request.public_key), None
        if request.replaces is not None:
            replaces = self._keyring.get(_public(request.replaces))
        by = session.principal
        assert by is not None, "a worker with keys knows who says something"
        self._require_lasting(by, "add_key", request.bot)
        if by.purpose is not Purpose.ADMIN:
            _require_rotation(by, request, replaces, public_key)
        wall = self._turn.moment.wall
        bot = self._directory.names.get(request.bot) or self._new_bots().get(request.bot)
        if request.replaces is not None:
            self._check_replaced(replaces, request, bot, public_key)
        key = Key(
            public_key=public_key,
            bot_id=self._new_id() if bot is None else bot.id,
            purpose=_purpose(request, replaces),
            roles=_roles(request, replaces),
            label=request.label or ("" if replaces is None else replaces.label),
            created_at=wall,
            created_by=by.public_key,
            expires_at=None if request.expires_seconds is None else later(wall, request.expires_seconds),
        )
        ends_at = None if replaces is None else later(wall, request.grace_seconds)
        if replaces is not None and by.purpose is not Purpose.ADMIN:
            key = replace(key, expires_at=_sooner(key.expires_at, replaces.expires_at))
        if replaces is not None and replaces.expires_at is not None:
            ends_at = _sooner(ends_at, replaces.expires_at)
        self._add((session.address, request.request), key, bot or request.bot, replaces, ends_at)

    def enrol(self, address: bytes, request: Enrol, principal: Principal) -> None:
        """Handle an enrol frame. Raise Refusal if its key is no invitation, or was used or has expired."""
        if principal.purpose is not Purpose.ENROL:
            raise _forbidden(
                "your key is not an invitation: enrol with the one that you were given", "enrol", "", ""
            )
        self._require_lasting(principal, "enrol", principal.bot_name)
        public_key, wall = _public(request.public_key), self._turn.moment.wall
        invitation = self._keyring.get(principal.public_key)
        assert invitation is not None, "a principal's key is known"
        bot = self._directory.bots[invitation.bot_id]
        used_by = invitation.replaced_by
        for pending in self._adding.values():
            if pending.replaces == invitation.public_key:
                used_by = pending.key.public_key
        if used_by is None and not invitation.is_valid(wall):
            text = f"this invitation for bot {bot.name!r} expired at {invitation.expires_at}: ask for another"
            raise _forbidden(text, "enrol", bot.name, "expired")
        if used_by not in (None, public_key):
            text = f"this invitation for bot {bot.name!r} was used for another key: ask for another"
            raise _forbidden(text, "enrol", bot.name, "used")
        key = Key(
            public_key=public_key,
            bot_id=bot.id,
            roles=invitation.roles,
            label=invitation.label,
            created_at=wall,
            created_by=invitation.public_key,
        )
        self._add((address, request.request), key, bot, invitation, wall)

    def introduce(self, name: str, public_key: str) -> None:
        """Add a key that may manage keys, for whoever starts the worker. Raise Refusal if it has ended."""
        bot, wall = self._directory.names.get(name), self._turn.moment.wall
        key = Key(
            public_key=public_key,
            bot_id=self._new_id() if bot is None else bot.id,
            purpose=Purpose.ADMIN,
            label="made at the first start with keys",
            created_at=wall,
        )
        self._add(None, key, bot or name, None, None)

    def _add(
        self, asker: _Asker | None, key: Key, bot: BotRecord | str, replaces: Key | None, replaced_until: str | None
    ) -> None:
        """Add a key to the next batch, and its bot if that is only a name; a repeat gets the same answer."""
        pending = self._adding.get(key.public_key)
        known = self._keyring.get(key.public_key) if pending is None else pending.key
        if known is not None:
            if not _is_repeat(known, key):
                raise Refusal(Code.CONFLICT, "this key is known already: make a new pair for each key")
            if asker is None:
                return
            if pending is not None:
                pending.askers.append(asker)
            else:
                self._answer(asker, known, replaced_until=None if replaces is None else replaces.expires_at)
            return
        changes: list[Change] = []
        if isinstance(bot, str):
            self._founding.check(bot)
            bot = BotRecord(id=key.bot_id, name=bot, created_at=key.created_at, last_seen_at=key.created_at)
            changes.append(AddBot(bot))
        elif bot.id not in self._directory.bots:
            raise Refusal(Code.BUSY, f"bot {bot.name!r} is still being registered; try again in a moment")
        replaced = None if replaces is None else replaces.public_key
        changes.append(AddKey(key, replaced, replaced_until, self._to_forget(bot)))
        self._adding[key.public_key] = job = _AddJob(self, asker, bot, changes)
        if replaced is not None and key.purpose is not Purpose.ADMIN:
            self._keyring.demoting.add(replaced)
        self._batches.add(job)

    def _new_bots(self) -> dict[str, BotRecord]:
        """Return the bots that are being registered with their first keys, by name."""
        return {job.bot.name: job.bot for job in self._adding.values()}

    def _to_forget(self, bot: BotRecord) -> tuple[str, ...]:
        """Return the ended keys to forget for a new one. Raise Refusal if too many have not ended."""
        wall, most = self._turn.moment.wall, self._limits.keys_per_bot_max
        adding = [job for job in self._adding.values() if job.key.bot_id == bot.id]
        forgotten = {public_key for job in adding for public_key in job.forget}
        keys = [key for key in self._keyring.of_bot(bot.id) if key.public_key not in forgotten]
        surplus = max(0, len(keys) + len(adding) + 1 - most)
        replaced = {job.replaces for job in adding}
        ended = [key.public_key for key in keys if not key.is_valid(wall) and key.public_key not in replaced]
        if len(ended) < surplus:
            raise Refusal(Code.BUSY, f"bot {bot.name!r} has {amount(most, 'key')}, the maximum: revoke one first")
        return tuple(ended[:surplus])

    def _check_replaced(
        self, replaced: Key | None, request: AddKeyFrame, bot: BotRecord | None, public_key: str
    ) -> None:
        if replaced is None or bot is None or replaced.bot_id != bot.id:
            raise Refusal(Code.NOT_FOUND, f"the key to replace is not one of bot {request.bot!r}")
        ends = replaced.revoked_at is not None or replaced.public_key in self._keyring.revoking
        others = {job.key.public_key for job in self._adding.values() if job.replaces == replaced.public_key}
        if ends or not {replaced.replaced_by, *others} <= {None, public_key}:
            raise Refusal(Code.CONFLICT, "the key to replace was replaced or revoked before")
        if replaced.purpose is Purpose.ADMIN and _purpose(request, replaced) is not Purpose.ADMIN:
            self._keyring.keep_an_admin(self._turn.moment.wall, keys=[replaced.public_key])

    def added(self, job: _AddJob, answers: Sequence[Any]) -> None:
        """Enter a key that is on disk, and answer everybody who asked for it."""
        self._end_adding(job)
        if len(answers) > 1:  # the first is that of the new bot
            self._directory.add_bot(job.bot, MailboxState(job.bot.id, answers[0]), last_seq=answers[0])
        self._keyring.enter(job.key, forget=job.forget)
        replaced = None if job.replaces is None else self._keyring.get(job.replaces)
        if replaced is not None:
            self._keyring.enter(replace(replaced, replaced_by=job.key.public_key, expires_at=job.replaced_until))
        purpose, key, by = job.key.purpose.value, job.key.public_key, job.key.created_by
        self._turn.note("key_added", bot=job.bot.name, purpose=purpose, key=key, by=by)
        for asker in job.askers:
            self._answer(asker, job.key, replaced_until=job.replaced_until)

    def not_added(self, job: _AddJob, code: Code, message: str) -> None:
        """Refuse everybody who asked for a key that was not stored."""
        self._end_adding(job)
        for address, number in job.askers:
            self._turn.refuse(address, code, message, number)

    def _end_adding(self, job: _AddJob) -> None:
        del self._adding[job.key.public_key]
        if job.replaces is not None:
            self._keyring.demoting.discard(job.replaces)

    def _answer(self, asker: _Asker, key: Key, *, replaced_until: str | None) -> None:
        bot = self._directory.bots[key.bot_id]
        by = None if key.created_by is None else self._keyring.get(key.created_by)
        value: KeyAdded | Enrolled = KeyAdded(
            public_key=key.public_key,
            bot_id=bot.id,
            bot_name=bot.name,
            expires_at=key.expires_at,
            replaced_until=replaced_until,
        )
        if by is not None and by.purpose is Purpose.ENROL:
            value = Enrolled(bot.id, bot.name)
        self._turn.answer(*asker, value)

    # ── Ending ───────────────────────────────────────────────────────────────────────────────────────────

    def revoke(self, session: Session, request: RevokeKeyFrame) -> None:
        """Handle a revoke_key frame. Raise Refusal if it is not allowed, or there is no such key."""
        self.require_admin(session, "revoke_key", request.bot)
        bot = self._directory.names.get(request.bot)
        if bot is None:
            raise Refusal(Code.UNKNOWN_BOT, f"no bot named {request.bot!r}")
        keys = [key.public_key for key in self._keyring.of_bot(bot.id)]
        keys += [public_key for public_key, job in self._adding.items() if job.key.bot_id == bot.id]
        if request.public_key is not None:
            public_key = _public(request.public_key)
            if public_key not in keys:
                raise Refusal(Code.NOT_FOUND, f"this is not a key of bot {request.bot!r}")
            keys = [public_key]
        wall = self._turn.moment.wall
        self._keyring.keep_an_admin(wall, keys=keys)
        self._keyring.revoking.update(keys)
        self._batches.add(_RevokeJob(self, session, request, keys, wall))

    def revoked(self, own: Session, request: RevokeKeyFrame, public_keys: Sequence[str], at: str) -> None:
        """End the sessions of keys whose revocation is on disk, and answer the request; its own session last."""
        self._keyring.revoking -= Counter(public_keys)
        revoked = self._keyring.revoke(public_keys, at)
        for public_key in revoked:
            self._turn.note("key_revoked", bot=request.bot, key=public_key, by=own.public_key)
        sessions = self._sessions_of(revoked)
        self._shut_out([session for session in sessions if session is not own], "its key was revoked")
        self._leave_tap(revoked)
        self._turn.answer(own.address, request.request, KeysRevoked(len(revoked), len(sessions)))
        if own in sessions:
            self._shut_out([own], "its key was revoked")

    def not_revoked(
        self, address: bytes, request: RevokeKeyFrame, public_keys: Sequence[str], code: Code, message: str
    ) -> None:
        """Refuse a revocation that was not stored."""
        self._keyring.revoking -= Counter(public_keys)
        self._turn.refuse(address, code, message, request.request)

    def expire(self) -> None:
        """End the sessions of keys that have expired."""
        expired = [key.public_key for key in self._keyring.expire(self._turn.moment.wall)]
        if expired:
            self._shut_out(self._sessions_of(expired), "its key has expired")
            self._leave_tap(expired)

    def _sessions_of(self, public_keys: Iterable[str]) -> list[Session]:
        keys = [key for key in map(self._keyring.get, public_keys) if key is not None]
        return [
            session
            for bot_id in dict.fromkeys(key.bot_id for key in keys)
            for session in list(self._sessions.of_bot(bot_id, reading=True))
            if session.principal is not None and session.principal.public_key in {key.public_key for key in keys}
        ]

    def _shut_out(self, sessions: Iterable[Session], reason: str) -> None:
        """End sessions, tell their clients why, and send nothing more to these connections."""
        for session in sessions:
            self._turn.note("session_revoked", bot=session.bot_name, reason=reason)
            told = ErrorFrame(code=Code.REVOKED, message=f"this session has ended: {reason}", retry=False)
            self._turn.send(session.address, told)
            self._end(session, vanished=True)
            self._turn.add(Silence(session.address))

    def _leave_tap(self, public_keys: Iterable[str]) -> None:
        if self._keyring.leave_tap(public_keys):
            self._dispatch.tapping.empty("a key of one of its listeners has ended")

    def _require_lasting(self, by: Principal, action: str, what: str) -> None:
        """Raise Refusal if the key of whoever asks is being revoked: what it adds would outlive it."""
        if by.public_key in self._keyring.revoking:
            raise _forbidden("your key is being revoked", action, what, "revoked")

    def require_admin(self, session: Session, action: str, what: str) -> None:
        """Raise Refusal unless a session's key may manage keys."""
        if session.principal is None or session.principal.purpose is not Purpose.ADMIN:
            text = f"{action} needs a key of purpose 'admin', and that of bot {session.bot_name!r} is not one"
            raise _forbidden(text, action, what, "purpose")


def _public(text: str) -> str:
    try:
        return canonical_public(text)
    except InvalidKey as error:
        raise Refusal(Code.BAD_REQUEST, str(error)) from None


def _require_rotation(by: Principal, request: AddKeyFrame, replaced: Key | None, public_key: str) -> None:
    """Raise Refusal unless a bot replaces the key of its own connection by one that may do the same.

    If the answer was lost, the bot may repeat that over a connection with the new key.
    """
    own, is_repeat = by.public_key, replaced is not None and replaced.replaced_by == public_key
    is_own = (
        request.bot == by.bot_name
        and replaced is not None
        and (own == replaced.public_key or (is_repeat and own == public_key))
    )
    same = _purpose(request, replaced) is by.purpose and (
        request.roles is None or set(request.roles) == set(by.roles)
    )
    if not (is_own and same):
        text = (
            f"add_key needs a key of purpose 'admin', and that of bot {by.bot_name!r} is not one: it may only"
            " replace itself, by a key of the same purpose and roles"
        )
        raise _forbidden(text, "add_key", request.bot, "purpose")


def _purpose(request: AddKeyFrame, replaced: Key | None) -> Purpose:
    if request.purpose is not None:
        return request.purpose
    return Purpose.BOT if replaced is None else replaced.purpose


def _roles(request: AddKeyFrame, replaced: Key | None) -> tuple[str, ...]:
    if request.roles is not None:
        return tuple(dict.fromkeys(request.roles))
    return () if replaced is None else replaced.roles


def _sooner(one: str | None, other: str | None) -> str | None:
    """Return the earlier of two times, of which None is never."""
    return one if other is None else other if one is None else min(one, other)


def _is_repeat(known: Key, key: Key) -> bool:
    """Return True if a key that is asked for is there already, and may still be used."""
    same = (known.bot_id, known.purpose, known.roles) == (key.bot_id, key.purpose, key.roles)
    return same and known.is_valid(key.created_at)


def _forbidden(message: str, action: str, what: str, rule: str) -> Refusal:
    return Refusal(Code.FORBIDDEN, message, details={"action": action, "object": what, "rule": rule})


class _AddJob(Job[Any]):
    """A new key, with its bot if that is new."""

    __slots__ = ("_by", "askers", "bot", "forget", "key", "replaced_until", "replaces")

    def __init__(self, by: Enrolling, asker: _Asker | None, bot: BotRecord, changes: Sequence[Change]) -> None:
        super().__init__(changes=changes)
        change = changes[-1]
        assert isinstance(change, AddKey)
        self.key = change.key
        self.replaces = change.replaces
        self.replaced_until = change.replaced_until
        self.forget = change.forget
        self.bot = bot
        self.askers = [] if asker is None else [asker]
        self._by = by

    def done(self, answers: Sequence[Any], at: str) -> None:
        """Enter the key."""
        self._by.added(self, answers)

    def failed(self, code: Code, message: str) -> None:
        """Refuse it."""
        self._by.not_added(self, code, message)


class _RevokeJob(Job[Any]):
    """Keys to be revoked."""

    __slots__ = ("_at", "_by", "_keys", "_request", "_session")

    def __init__(
        self, by: Enrolling, session: Session, request: RevokeKeyFrame, keys: Sequence[str], at: str
    ) -> None:
        super().__init__(changes=[RevokeKeys(tuple(keys), at)])
        self._by = by
        self._session = session
        self._request = request
        self._keys = keys
        self._at = at

    def done(self, answers: Sequence[Any], at: str) -> None:
        """End their sessions."""
        self._by.revoked(self._session, self._request, self._keys, self._at)

    def failed(self, code: Code, message: str) -> None:
        """Leave them as they are."""
        self._by.not_revoked(self._session.address, self._request, self._keys, code, message)
