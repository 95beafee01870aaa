"""All keys, and who a connection's key says it is.

Owns the worker's picture of the keys as they are on disk, and which of them are valid. A key is entered, revoked or
forgotten here when the transaction that does it has returned. Its rules:

- A key that was revoked or has expired is nobody's, and stays so whatever happens to the clock. An invitation that
  was used, or has expired, is still recognised, so that whoever uses it again can be told.
- What an unknown key is refused for is said to operators, and never to its peer.
- Keys that are ending, by themselves or with their bot, are in `revoking`, `demoting` or `leaving` from the moment
  that this is decided: the last key that may manage keys stays, whatever else is under way.

Pure: the wall clock is an argument.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from msgspec.structs import replace

from ..model.keys import Key, Principal, Purpose
from ..model.records import BotRecord
from ..wire.frames import Code, Refusal

__all__ = ["Keyring"]


class Keyring:
    """See the module. `bots` are those of the directory, by id; `may_tap` says which keys may listen to the tap."""

    def __init__(
        self,
        keys: Iterable[Key],
        bots: Mapping[str, BotRecord],
        *,
        may_tap: Callable[[Principal], bool] = lambda _: True,
    ) -> None:
        self._bots = bots
        self._may_tap = may_tap
        self._keys: dict[str, Key] = {}
        self._of_bot: dict[str, set[str]] = {}
        self._principals: dict[str, Principal] = {}
        self._expiring: dict[str, str] = {}
        """When keys expire that are not revoked."""
        self._expiries: list[tuple[str, str]] = []
        """The same as a heap; what differs was changed since."""
        self._used: dict[str, str] = {}
        self._tapping: set[str] = set()
        """Keys that came to the tap since it was opened."""
        self.revoking: Counter[str] = Counter()
        """Keys whose revocation is on its way to the disk."""
        self.demoting: set[str] = set()
        """Keys that are being replaced by one that manages no keys."""
        self.leaving: set[str] = set()
        """The ids of bots that are being removed with all their keys."""
        for key in keys:
            self.enter(key)

    def __repr__(self) -> str:
        return f"<Keyring keys={len(self._keys)} valid={len(self._principals)}>"

    # ── Who is who ───────────────────────────────────────────────────────────────────────────────────────

    def principal(self, public_key: str, wall: str) -> Principal | None:
        """Return who a key says its connection is; None if it is not valid, or not known."""
        expires_at = self._expiring.get(public_key) if self._expiring else None
        if expires_at is not None and expires_at <= wall and not self._is_invitation(public_key):
            return None
        return self._principals.get(public_key)

    def come(self, public_key: str, wall: str, *, to_tap: bool) -> Principal | None:
        """Return the same for a connection that comes now, and note that its key is used.

        Invitations may not listen to the tap.
        """
        principal = self.principal(public_key, wall)
        if principal is None or (to_tap and not self._may_listen(principal)):
            return None
        self._used[public_key] = wall
        if to_tap:
            self._tapping.add(public_key)
        return principal

    def _may_listen(self, principal: Principal) -> bool:
        return principal.purpose is not Purpose.ENROL and self._may_tap(principal)

    def fault(self, public_key: str, wall: str) -> str:
        """Return why a key does not let its bot in, for operators."""
        key = self._keys.get(public_key)
        if key is None:
            return "unknown key"
        if key.revoked_at is not None:
            return "revoked key"
        if not key.is_valid(wall):
            return "expired key"
        invites = key.purpose is Purpose.ENROL
        return "invitations may not listen to the tap" if invites else "no role of this key may listen to the tap"

    def bot_of(self, public_key: str) -> str | None:
        """Return the name of the bot whose key it is or was, or None."""
        key = self._keys.get(public_key)
        return None if key is None else self._bots[key.bot_id].name

    def newest(self, bot_id: str, wall: str) -> Principal | None:
        """Return who a bot is by the newest of its valid keys; None if it has none."""
        for key in reversed(self.of_bot(bot_id)):
            principal = self.principal(key.public_key, wall)
            if principal is not None and principal.purpose is not Purpose.ENROL and key.is_valid(wall):
                return principal
        return None

    def roles(self) -> set[str]:
        """Return the roles of all valid keys."""
        return {role for principal in self._principals.values() for role in principal.roles}

    # ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, public_key: str) -> Key | None:
        """Return a key, valid or not."""
        return self._keys.get(public_key)

    def of_bot(self, bot_id: str) -> list[Key]:
        """Return a bot's keys, the oldest first."""
        keys = (self._keys[public_key] for public_key in self._of_bot.get(bot_id, ()))
        return sorted(keys, key=lambda key: (key.created_at, key.public_key))

    def after(self, public_key: str | None, bot_id: str | None) -> list[Key]:
        """Return the keys of a bot, or of all, whose texts follow one."""
        names = self._keys if bot_id is None else self._of_bot.get(bot_id, ())
        return [self._keys[name] for name in sorted(names) if public_key is None or name > public_key]

    def admins(self, wall: str) -> list[str]:
        """Return the keys that may manage keys now."""
        return [
            public_key
            for public_key, principal in self._principals.items()
            if principal.purpose is Purpose.ADMIN and self._keys[public_key].is_valid(wall)
        ]

    def keep_an_admin(self, wall: str, *, keys: Container[str] = (), bot_id: str | None = None) -> None:
        """Raise Refusal if nobody could manage keys once these keys, or all keys of a bot, have ended as well.

        Keys that are ending count as ended, and so do those that were replaced and are valid for a while.
        """
        lasting = [key for key in map(self._keys.__getitem__, self.admins(wall)) if not self._is_ending(key)]
        if lasting and all(key.public_key in keys or key.bot_id == bot_id for key in lasting):
            text = "this would end the last key that may manage keys: add another one of purpose 'admin' first"
            raise Refusal(Code.CONFLICT, text)

    def _is_ending(self, key: Key) -> bool:
        name = key.public_key
        replaced = key.replaced_by is not None or name in self.demoting
        return replaced or name in self.revoking or key.bot_id in self.leaving

    def enter(self, key: Key, *, forget: Sequence[str] = ()) -> None:
        """Enter a key, or its new state; remove those to forget."""
        for forgotten in forget:
            if (gone := self._keys.pop(forgotten, None)) is not None:
                self._of_bot[gone.bot_id].discard(forgotten)
                self._end(forgotten)
        public_key = key.public_key
        self._keys[public_key] = key
        self._of_bot.setdefault(key.bot_id, set()).add(public_key)
        if key.revoked_at is not None:
            self._end(public_key)
            return
        if public_key not in self._principals:
            self._principals[public_key] = Principal(
                public_key, key.bot_id, self._bots[key.bot_id].name, key.purpose, key.roles
            )
        if key.expires_at is not None:
            self._expiring[public_key] = key.expires_at
            heapq.heappush(self._expiries, (key.expires_at, public_key))

    def forget_bot(self, bot_id: str) -> set[str]:
        """Remove all keys of a bot, and return them: they are as unknown as if they had never been added."""
        forgotten = self._of_bot.pop(bot_id, set())
        for public_key in forgotten:
            del self._keys[public_key]
            self._end(public_key)
        return forgotten

    def revoke(self, public_keys: Iterable[str], at: str) -> list[str]:
        """Revoke keys, and return those that were not revoked before."""
        known = (self._keys.get(public_key) for public_key in public_keys)
        keys = [key for key in known if key is not None and key.revoked_at is None]
        for key in keys:
            self.enter(replace(key, revoked_at=at))
        return [key.public_key for key in keys]

    def expire(self, wall: str) -> list[Key]:
        """Return the keys that have expired since the last call, except invitations."""
        expired: list[Key] = []
        while self._expiries and self._expiries[0][0] <= wall:
            at, public_key = heapq.heappop(self._expiries)
            if self._expiring.get(public_key) == at and not self._is_invitation(public_key):
                self._end(public_key)
                expired.append(self._keys[public_key])
        return expired

    def _is_invitation(self, public_key: str) -> bool:
        return self._keys[public_key].purpose is Purpose.ENROL

    def _end(self, public_key: str) -> None:
        self._principals.pop(public_key, None)
        self._expiring.pop(public_key, None)

    # ── Their use ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def used(self) -> bool:
        """Whether keys were used since `take_used`."""
        return bool(self._used)

    def take_used(self) -> dict[str, str]:
        """Return when keys were used last, for those that were used since the last call."""
        used, self._used = self._used, {}
        for public_key, at in used.items():
            if (key := self._keys.get(public_key)) is not None:
                self._keys[public_key] = replace(key, last_used_at=at)
        return used

    def look_at_tap(self) -> bool:
        """Return True if a key may be listening to the tap that is not allowed to any more; then as `leave_tap`."""
        principals = (self._principals.get(public_key) for public_key in self._tapping)
        lost = [each.public_key for each in principals if each is not None and not self._may_listen(each)]
        return self.leave_tap(lost)

    def leave_tap(self, public_keys: Iterable[str]) -> bool:
        """Return True if one of these keys may be listening to the tap, which is then to be emptied."""
        if self._tapping.isdisjoint(public_keys):
            return False
        self._tapping.clear()
        return True
