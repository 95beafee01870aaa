"""Keys by chance: whatever is added, replaced, revoked, expires or is lost in a crash, the valid ones are known."""

from __future__ import annotations

import random

import pytest

from bus.mailbox.sessions import Session
from bus.model.keys import Key, Purpose
from bus.wire.frames import AddKeyFrame, Enrol, Ping, RevokeKeyFrame
from bus.wire.keys import public_text

from .keyed import ADMIN, KeyedWorker

KEYS_MAX = 5
STEPS = 200


class World:
    """A worker, and what its keys must be by the answers that it gave."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.worker = KeyedWorker(keys_per_bot_max=KEYS_MAX)
        self.known: dict[str, str | None] = {}
        """The keys of `ann` and `bob` that were answered, with the time at which each ends."""
        self.invitations: set[str] = set()
        for key in self.worker.log.keys.values():
            if key.purpose is Purpose.BOT:
                self.known[key.public_key] = None
        self.worker.comes(b"admin", ADMIN)

    def new_key(self) -> str:
        return public_text(self.chance.randbytes(32))

    def valid(self) -> list[str]:
        now = self.worker.moment.wall
        return [key for key, ends_at in self.known.items() if ends_at is None or now < ends_at]

    def bot_of(self, key: str) -> str:
        return self.worker.log.keys[key].bot_id.removeprefix("id-of-")

    def add(self) -> None:
        key, bot = self.new_key(), self.chance.choice(["ann", "bob"])
        seconds = self.chance.choice([None, 3.0, 60.0])
        frame = AddKeyFrame(request=2, bot=bot, public_key=key, expires_seconds=seconds)
        [answer] = self.worker.says(b"admin", frame, ADMIN)
        if answer["op"] == "ok":
            self.known[key] = answer["value"]["expires_at"]
        else:
            assert answer["code"] == "busy"
            assert sum(self.bot_of(each) == bot for each in self.valid()) + len(self.invitations) >= KEYS_MAX - 2

    def rotate(self) -> None:
        if not (valid := self.valid()):
            return
        old, new = self.chance.choice(valid), self.new_key()
        address = old.encode()
        if self.worker.comes(address, old)[0]["op"] != "welcome":
            return
        frame = AddKeyFrame(
            request=3, bot=self.bot_of(old), public_key=new, replaces=old, grace_seconds=self.chance.choice([0, 4])
        )
        answer = self.worker.says(address, frame, old)[0]
        if answer["op"] == "ok":
            self.known[new] = answer["value"]["expires_at"]
            self.known[old] = answer["value"]["replaced_until"]
        else:
            assert answer["code"] in ("busy", "conflict")

    def revoke(self) -> None:
        if not (valid := self.valid()):
            return
        key = self.chance.choice(valid)
        frame = RevokeKeyFrame(request=4, bot=self.bot_of(key), public_key=key)
        self.worker.says(b"admin", frame, ADMIN)
        del self.known[key]
        assert all(session.principal.public_key != key for session in self.sessions() if session.principal)

    def invite(self) -> None:
        invitation, key = self.new_key(), self.new_key()
        frame = AddKeyFrame(request=5, bot="ann", public_key=invitation, purpose=Purpose.ENROL)
        [answer] = self.worker.says(b"admin", frame, ADMIN)
        if answer["op"] != "ok":
            return
        self.invitations.add(invitation)
        [answer] = self.worker.says(b"guest", Enrol(request=1, public_key=key), invitation)
        if answer["op"] == "ok":
            self.invitations.discard(invitation)
            self.known[key] = None

    def crash(self) -> None:
        self.worker.restart()
        self.worker.silent.clear()
        self.worker.comes(b"admin", ADMIN)

    def pass_time(self) -> None:
        self.worker.settle(self.chance.choice([1, 3]))

    def sessions(self) -> list[Session]:
        return list(self.worker.core.sessions)

    def check(self) -> None:
        valid = set(self.valid())
        found = {key for key in self.known if self.worker.principal(key) is not None}
        assert found == valid
        kept = [key for key in self.worker.log.keys.values() if key.bot_id == "id-of-ann"]
        assert len(kept) <= KEYS_MAX
        self.worker.says(b"admin", Ping(), ADMIN)


@pytest.mark.parametrize("seed", range(10))
def test_the_valid_keys_are_known_and_no_others(seed: int) -> None:
    world = World(seed)
    steps = [world.add, world.rotate, world.revoke, world.invite, world.crash, world.pass_time, world.pass_time]
    for _ in range(STEPS):
        world.chance.choice(steps)()
        world.check()
    assert isinstance(world.worker.log.keys[ADMIN], Key)
