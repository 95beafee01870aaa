"""The last key that may manage keys stays, whatever ends keys at the same time, and in which order."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest

from bus.core.batches import Batch
from bus.model.keys import Key, Purpose
from bus.wire.frames import AddKeyFrame, Code, Hello, RemoveFrame, RevokeKeyFrame
from bus.wire.removing_frames import BotOf

from .keyed import ADMIN, KeyedWorker, public
from .worker import ID

ANN, REMOVER = public(4), public(5)
WAYS = ("revoked", "demoted", "removed")


class Race(KeyedWorker):
    """`admin` and `ann` have a key each that manages keys, and end it themselves; `bob` removes bots."""

    def __init__(self) -> None:
        super().__init__(
            Key(public_key=ANN, bot_id="id-of-ann", purpose=Purpose.ADMIN, created_at=""),
            Key(public_key=REMOVER, bot_id="id-of-bob", roles=("admin",), created_at=""),
        )
        self.comes(b"bob", REMOVER)

    def connect(self, bot: str, key: str, way: str) -> None:
        if way != "removed":
            self.comes(bot.encode(), key)

    def end(self, bot: str, key: str, way: str, *, dry_run: bool = False) -> list[dict[str, Any]]:
        """Let the key of a bot end; what comes of it needs the disk."""
        frame: RevokeKeyFrame | AddKeyFrame | RemoveFrame
        match way:
            case "revoked":
                frame = RevokeKeyFrame(request=2, bot=bot, public_key=key)
            case "demoted":
                new = public(60 + len(bot))
                frame = AddKeyFrame(
                    request=2, bot=bot, public_key=new, purpose=Purpose.BOT, replaces=key, grace_seconds=9
                )
            case _:
                id = ID % len(bot)
                frame = RemoveFrame(request=2, id=id, what=BotOf(bot), force=True, dry_run=dry_run)
                bot, key = "bob", REMOVER
        return self.do(self.core.receive(bot.encode(), frame, self.moment, self.principal(key)))

    def finish(self) -> list[dict[str, Any]]:
        """Let the disk answer everything."""
        said: list[dict[str, Any]] = []
        while self.core.has_batch(self.moment) or self.looking:
            said += self.commit()
        return said

    def admins(self) -> list[str]:
        """Return the keys that may manage keys once no replaced one is valid any more."""
        self.now += 10
        assert self.core.keyring is not None
        return self.core.keyring.admins(self.moment.wall)


def under_way(race: Race, first: str, second: str) -> list[dict[str, Any]]:
    """Let the key of `ann` begin to end, and then that of `admin`, before the first is on disk."""
    if first == "removed":
        race.end("ann", ANN, first)
        if second != "removed":
            race.commit()  # it was looked up
        return race.end("admin", ADMIN, second)
    if second != "removed":
        race.end("ann", ANN, first)
        return race.end("admin", ADMIN, second)
    race.end("admin", ADMIN, second)
    looked = race.look()
    race.end("ann", ANN, first)
    return race.found(looked)


@pytest.mark.parametrize(("first", "second"), [*product(WAYS, WAYS)])
@pytest.mark.parametrize("done", [False, True])
def test_of_two_that_end_at_the_same_time_the_second_stays(first: str, second: str, *, done: bool) -> None:
    race = Race()
    race.connect("ann", ANN, first)
    race.connect("admin", ADMIN, second)
    if done:
        race.end("ann", ANN, first)
        race.finish()
        said = race.end("admin", ADMIN, second)
    else:
        said = under_way(race, first, second)
    said += race.finish()
    refused = [frame for frame in said if frame["op"] == "error" and frame["code"] != "revoked"]
    assert [(frame["code"], "the last key" in frame["message"]) for frame in refused] == [("conflict", True)]
    assert race.admins() == [ADMIN]
    race.restart()
    assert race.admins() == [ADMIN]


@pytest.mark.parametrize(("first", "second"), [*product(WAYS, WAYS)])
def test_what_could_not_be_stored_ends_nothing(first: str, second: str) -> None:
    race = Race()
    race.connect("ann", ANN, first)
    race.connect("admin", ADMIN, second)
    race.end("ann", ANN, first)
    if first == "removed":
        race.commit()
    race.refuse()
    race.end("admin", ADMIN, second)
    race.finish()
    assert race.admins() == [ANN]


def test_a_key_that_is_added_to_a_bot_that_is_being_removed_ends_with_it() -> None:
    race = Race()
    race.comes(b"admin", ADMIN)
    race.says(b"admin", RevokeKeyFrame(request=3, bot="ann", public_key=ANN), ADMIN)
    race.end("ann", "", "removed")
    looked = race.look()
    frame = AddKeyFrame(request=4, bot="ann", public_key=public(9), purpose=Purpose.ADMIN)
    race.do(race.core.receive(b"admin", frame, race.moment, race.principal(ADMIN)))
    race.found(looked)
    race.commit()  # the key is added, and the removal comes next
    [refused] = race.end("admin", ADMIN, "revoked")
    assert refused["code"] == "conflict"
    race.finish()
    assert race.admins() == [ADMIN]


def test_a_dry_run_says_that_a_bot_has_the_last_key() -> None:
    race = Race()
    race.comes(b"admin", ADMIN)
    race.says(b"admin", RevokeKeyFrame(request=3, bot="ann", public_key=ANN), ADMIN)
    race.core.unreachable(b"admin", race.moment)
    race.end("admin", ADMIN, "removed", dry_run=True)
    [refused] = race.finish()
    assert (refused["code"], "the last key" in refused["message"]) == ("conflict", True)


def test_who_rotates_a_key_may_revoke_the_old_one_at_once_and_not_the_new_one() -> None:
    race = Race()
    race.comes(b"admin", ADMIN)
    race.says(b"admin", RevokeKeyFrame(request=3, bot="ann", public_key=ANN), ADMIN)
    frame = AddKeyFrame(request=4, bot="admin", public_key=public(9), replaces=ADMIN, grace_seconds=60)
    race.says(b"admin", frame, ADMIN)
    race.comes(b"new", public(9))
    for key, op in ((public(9), "error"), (ADMIN, "ok")):
        answer = race.says(b"new", RevokeKeyFrame(request=5, bot="admin", public_key=key), public(9))[-1]
        assert answer["op"] == op
    assert race.admins() == [public(9)]


class World(Race):
    """Bots that end each other's keys at random, while batches are written, fail, or are lost in a crash."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.batch: Batch | None = None
        self.made = 100

    def say_as_admin(self, frame: RevokeKeyFrame | AddKeyFrame) -> None:
        """Let one of those who may manage keys say something, and leave."""
        key = self.chance.choice(self.now_admins())
        address = self.new_id().encode()
        for said in (Hello(request=1, protocol=1), frame):
            self.do(self.core.receive(address, said, self.moment, self.principal(key)))
        self.do(self.core.unreachable(address, self.moment))

    def now_admins(self) -> list[str]:
        assert self.core.keyring is not None
        return self.core.keyring.admins(self.moment.wall)

    def any_key(self) -> tuple[str, str]:
        """Return a key, and the name of its bot."""
        keys = [key for key in self.log.keys.values() if key.public_key != REMOVER]
        key = self.chance.choice(sorted(keys, key=lambda each: each.public_key))
        return key.public_key, self.log.bots[key.bot_id].name

    def new_key(self) -> str:
        self.made += 1
        return public(self.made)

    def add(self) -> None:
        bot = self.chance.choice(["admin", "ann", "bob"])
        self.say_as_admin(AddKeyFrame(request=2, bot=bot, public_key=self.new_key(), purpose=Purpose.ADMIN))

    def replace(self) -> None:
        key, bot = self.any_key()
        purpose = self.chance.choice([Purpose.BOT, Purpose.ADMIN])
        new, grace = self.new_key(), self.chance.choice([0, 9])
        self.say_as_admin(
            AddKeyFrame(request=2, bot=bot, public_key=new, purpose=purpose, replaces=key, grace_seconds=grace)
        )

    def revoke(self) -> None:
        key, bot = self.any_key()
        which = key if bot == "bob" else self.chance.choice([key, None])  # he has the key that removes bots
        self.say_as_admin(RevokeKeyFrame(request=2, bot=bot, public_key=which))

    def remove(self) -> None:
        what = BotOf(self.chance.choice(["admin", "ann"]))
        frame = RemoveFrame(request=2, id=self.new_id(), what=what, force=True)
        self.do(self.core.receive(b"bob", frame, self.moment, self.principal(REMOVER)))

    def look_up(self) -> None:
        self.found(self.look())

    def take(self) -> None:
        if self.batch is None and self.core.has_batch(self.moment):
            self.batch = self.core.take_batch(self.moment)

    def write(self) -> None:
        if self.batch is not None:
            batch, self.batch = self.batch, None
            applied = self.log.apply(batch.changes)
            if self.chance.random() < 0.05:
                self.crash()
            else:
                self.do(self.core.applied(batch, applied, self.moment))

    def fail(self) -> None:
        if self.batch is not None:
            batch, self.batch = self.batch, None
            self.do(self.core.failed(batch, Code.STORAGE_FULL, "the disk is full", self.moment))

    def crash(self) -> None:
        self.batch = None
        self.restart()
        self.do(self.core.receive(b"bob", Hello(request=1, protocol=1), self.moment, self.principal(REMOVER)))

    def pass_time(self) -> None:
        self.now += 5
        self.do(self.core.tick(self.moment))


@pytest.mark.parametrize("seed", range(10))
def test_somebody_manages_keys_whatever_ends_at_the_same_time(seed: int) -> None:
    world = World(seed)
    steps = [world.add, world.replace, world.revoke, world.remove, world.remove, world.fail, world.pass_time]
    steps += [world.look_up, world.take, world.write] * 4
    for _ in range(400):
        world.chance.choice(steps)()
        lasting = [key for key in world.now_admins() if world.log.keys[key].replaced_by is None]
        assert lasting, f"nobody may manage keys, with seed {seed}"
    assert world.log.removals, "a world in which nobody is removed shows little"
