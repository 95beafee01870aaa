"""The last key that may manage keys stays, whatever ends keys at the same time, and in which order."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from bus.model.keys import Key, Purpose
from bus.wire.frames import AddKeyFrame, Code, RemoveFrame, RevokeKeyFrame
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
        while self.core.has_batch(self.moment):
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
    batch = race.core.take_batch(race.moment)
    assert batch is not None
    race.end("ann", ANN, first)
    return race.do(race.core.applied(batch, race.log.apply(batch.changes), race.moment))


@pytest.mark.parametrize(("first", "second"), product(WAYS, WAYS))
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


@pytest.mark.parametrize(("first", "second"), product(WAYS, WAYS))
def test_what_could_not_be_stored_ends_nothing(first: str, second: str) -> None:
    race = Race()
    race.connect("ann", ANN, first)
    race.connect("admin", ADMIN, second)
    race.end("ann", ANN, first)
    if first == "removed":
        race.commit()
    batch = race.core.take_batch(race.moment)
    assert batch is not None
    race.do(race.core.failed(batch, Code.STORAGE_FULL, "the disk is full", race.moment))
    race.end("admin", ADMIN, second)
    race.finish()
    assert race.admins() == [ANN]


def test_a_key_that_is_added_to_a_bot_that_is_being_removed_ends_with_it() -> None:
    race = Race()
    race.comes(b"admin", ADMIN)
    race.says(b"admin", RevokeKeyFrame(request=3, bot="ann", public_key=ANN), ADMIN)
    race.end("ann", "", "removed")
    batch = race.core.take_batch(race.moment)
    assert batch is not None
    frame = AddKeyFrame(request=4, bot="ann", public_key=public(9), purpose=Purpose.ADMIN)
    race.do(race.core.receive(b"admin", frame, race.moment, race.principal(ADMIN)))
    race.do(race.core.applied(batch, race.log.apply(batch.changes), race.moment))
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
    [refused] = race.end("admin", public(9), "revoked")
    assert refused["code"] == "conflict"
    race.end("admin", ADMIN, "revoked")
    race.finish()
    assert race.admins() == [public(9)]
