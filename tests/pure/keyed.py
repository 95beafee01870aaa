"""A worker with keys, for tests of the pure core: who says something is known by a key, as the shell knows it."""

from __future__ import annotations

from typing import Any

from bus.core.effects import EmptyTap, Silence
from bus.model.keys import Key, Principal, Purpose
from bus.model.records import BotRecord
from bus.model.repository import AddBot, AddKey
from bus.settings import Limits, Security, Settings
from bus.wire.frames import AddKeyFrame, Hello
from bus.wire.keys import public_text

from .worker import Worker, frames

__all__ = ["ADMIN", "ANN", "BOB", "KeyedWorker", "public"]


def public(number: int) -> str:
    """Return the text of a public key."""
    return public_text(bytes([number]) * 32)


ADMIN, ANN, BOB = public(1), public(2), public(3)


class KeyedWorker(Worker):
    """A worker whose bots `admin`, `ann` and `bob` have a key each. `silent` has the connections shut out."""

    def __init__(self, *keys: Key, **limits: Any) -> None:
        super().__init__(Settings(security=Security(mode="keys"), limits=Limits(**limits)))
        self.silent: list[bytes] = []
        self.emptied = 0
        at = self.moment.wall
        for name in ("admin", "ann", "bob"):
            self.log.apply([AddBot(BotRecord(id=f"id-of-{name}", name=name, created_at=at, last_seen_at=at))])
        admin = Key(public_key=ADMIN, bot_id="id-of-admin", purpose=Purpose.ADMIN, created_at=at)
        ann = Key(public_key=ANN, bot_id="id-of-ann", created_at=at, roles=("ops",), label="first")
        bob = Key(public_key=BOB, bot_id="id-of-bob", created_at=at)
        self.log.apply([AddKey(key) for key in (admin, ann, bob, *keys)])
        self.restart()

    def principal(self, key: str) -> Principal | None:
        assert self.core.keyring is not None
        return self.core.keyring.principal(key, self.moment.wall)

    def says(self, address: bytes, request: Any, key: str) -> list[dict[str, Any]]:
        """Let a connection with a key send a frame, and the disk answer."""
        principal = self.principal(key)
        if principal is None:
            return self.do(self.core.ignore(address, self.moment))
        said = self.do(self.core.receive(address, request, self.moment, principal))
        while self.core.has_batch(self.moment) or self.looking:
            said += self.commit()
        return said

    def comes(self, address: bytes, key: str, **fields: Any) -> list[dict[str, Any]]:
        """Let a connection with a key say hello."""
        return self.says(address, Hello(request=1, protocol=1, **fields), key)

    def invite(self, **fields: Any) -> str:
        """Let the admin add an invitation for a new bot `dora`."""
        self.comes(b"a", ADMIN)
        invitation = public(50)
        frame = AddKeyFrame(
            request=2, bot="dora", public_key=invitation, purpose=Purpose.ENROL, roles=["ops"], **fields
        )
        [answer] = self.says(b"a", frame, ADMIN)
        assert answer["op"] == "ok"
        return invitation

    def do(self, effects: Any) -> list[dict[str, Any]]:
        """Note who is shut out, and what else the shell would do."""
        said: list[dict[str, Any]] = []
        for effect in effects:
            match effect:
                case Silence(address):
                    self.silent.append(address)
                case EmptyTap():
                    self.emptied += 1
                case _ if frames([effect]) and effect.address in self.silent:
                    pass
                case _:
                    said += super().do([effect])
        return said
