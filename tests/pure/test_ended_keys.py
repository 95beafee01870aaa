"""How keys end in the core: revoked, or by time; and what is noted of their use."""

from __future__ import annotations

import pytest

from bus.core.effects import Locate
from bus.model.keys import Key, Purpose
from bus.model.records import later
from bus.model.repository import AddKey
from bus.wire.frames import AddKeyFrame, Hello, Ping, RevokeKeyFrame, ToBot

from .keyed import ADMIN, ANN, BOB, KeyedWorker, public
from .worker import TOKEN, published

# ── Revocation and expiry ────────────────────────────────────────────────────────────────────────────────


def test_a_revocation_ends_the_sessions_of_the_key_before_it_is_answered() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.comes(b"1", ANN)
    worker.comes(b"2", BOB)
    worker.says(b"2", published(ToBot(bot="ann")), BOB)
    frame = RevokeKeyFrame(request=4, bot="ann", public_key=ANN)
    assert worker.do(worker.core.receive(b"a", frame, worker.moment, worker.principal(ADMIN))) == []
    assert worker.principal(ANN) is not None, "not before it is on disk"
    told, answer = worker.commit()
    assert (told["op"], told["code"]) == ("error", "revoked")
    assert answer["value"] == {"revoked": 1, "sessions": 1}
    assert worker.silent == [b"1"]
    assert worker.says(b"1", published(ToBot(bot="bob")), ANN) == []
    assert list(worker.log.messages) == [1]
    worker.restart()
    assert worker.principal(ANN) is None


def test_what_was_in_flight_for_a_revoked_key_goes_back() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.says(b"a", AddKeyFrame(request=2, bot="ann", public_key=public(9)), ADMIN)
    worker.comes(b"1", ANN)
    worker.comes(b"2", BOB)
    worker.says(b"2", published(ToBot(bot="ann")), BOB)
    worker.says(b"a", RevokeKeyFrame(request=4, bot="ann", public_key=ANN), ADMIN)
    welcome, delivery = worker.comes(b"3", public(9))
    assert (welcome["op"], delivery["messages"][0]["attempt"]) == ("welcome", 2)


def test_all_keys_of_a_bot_are_revoked_even_one_on_its_way_to_the_disk() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    principal = worker.principal(ADMIN)
    add = AddKeyFrame(request=2, bot="ann", public_key=public(9))
    worker.do(worker.core.receive(b"a", add, worker.moment, principal))
    [added, revoked] = worker.says(b"a", RevokeKeyFrame(request=3, bot="ann"), ADMIN)
    assert (added["op"], revoked["value"]["revoked"]) == ("ok", 2)
    assert (worker.principal(ANN), worker.principal(public(9))) == (None, None)


def test_nothing_is_sent_to_a_revoked_key_that_waited_for_an_answer() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.comes(b"1", ANN)
    revoke = RevokeKeyFrame(request=4, bot="ann")
    worker.do(worker.core.receive(b"a", revoke, worker.moment, worker.principal(ADMIN)))
    worker.do(worker.core.receive(b"1", published(ToBot(bot="bob")), worker.moment, worker.principal(ANN)))
    said = worker.commit()
    assert [frame["op"] for frame in said] == ["error", "ok"]


def test_an_admin_that_revokes_its_own_key_is_answered_first() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.says(b"a", AddKeyFrame(request=2, bot="admin", public_key=public(9), purpose=Purpose.ADMIN), ADMIN)
    said = worker.says(b"a", RevokeKeyFrame(request=3, bot="admin", public_key=ADMIN), ADMIN)
    assert [frame["op"] for frame in said] == ["ok", "error"]
    assert worker.silent == [b"a"]


@pytest.mark.parametrize("public_key", [None, ADMIN])
def test_the_last_admin_stays(public_key: str | None) -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    [refused] = worker.says(b"a", RevokeKeyFrame(request=3, bot="admin", public_key=public_key), ADMIN)
    assert (refused["code"], "the last key" in refused["message"]) == ("conflict", True)
    assert worker.principal(ADMIN) is not None


@pytest.mark.parametrize(("bot", "key", "code"), [("eve", None, "unknown_bot"), ("ann", BOB, "not_found")])
def test_a_key_that_is_not_there_is_not_revoked(bot: str, key: str | None, code: str) -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    [refused] = worker.says(b"a", RevokeKeyFrame(request=3, bot=bot, public_key=key), ADMIN)
    assert refused["code"] == code


def test_a_revocation_that_could_not_be_stored_changes_nothing() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.comes(b"1", ANN)
    revoke = RevokeKeyFrame(request=4, bot="ann")
    worker.do(worker.core.receive(b"a", revoke, worker.moment, worker.principal(ADMIN)))
    [refused] = worker.refuse()
    assert (refused["code"], refused["request"]) == ("storage_full", 4)
    assert worker.says(b"1", Ping(), ANN)[0]["op"] == "pong"


def test_a_key_is_nobodys_from_the_moment_on_at_which_it_expires() -> None:
    worker = KeyedWorker()
    at = worker.moment.wall
    worker.log.apply(
        [AddKey(Key(public_key=public(5), bot_id="id-of-ann", created_at=at, expires_at=later(at, 60)))]
    )
    worker.restart()
    worker.comes(b"1", public(5))
    worker.now += 60
    assert worker.says(b"1", published(ToBot(bot="bob")), public(5)) == [], "even before the next tick"
    worker.settle(1)
    worker.now -= 60
    assert worker.principal(public(5)) is None, "not even if the clock is set back"


def test_the_tap_is_emptied_only_if_the_key_may_listen_to_it() -> None:
    worker = KeyedWorker()
    assert worker.core.keyring is not None
    worker.comes(b"a", ADMIN)
    assert worker.core.keyring.come(ANN, worker.moment.wall, to_tap=True)
    worker.says(b"a", RevokeKeyFrame(request=2, bot="bob"), ADMIN)
    assert worker.emptied == 0
    worker.says(b"a", RevokeKeyFrame(request=3, bot="ann"), ADMIN)
    assert worker.emptied == 1


# ── Coming, and use ──────────────────────────────────────────────────────────────────────────────────────


def test_who_may_come_and_where() -> None:
    worker = KeyedWorker()
    invitation = worker.invite()
    keyring, wall = worker.core.keyring, worker.moment.wall
    assert keyring is not None
    assert keyring.come(ANN, wall, to_tap=True) == worker.principal(ANN)
    assert keyring.come(invitation, wall, to_tap=False) is not None
    assert keyring.come(invitation, wall, to_tap=True) is None
    assert keyring.come(public(99), wall, to_tap=False) is None
    worker.says(b"a", RevokeKeyFrame(request=2, bot="ann"), ADMIN)
    assert keyring.come(ANN, wall, to_tap=False) is None
    faults = {keyring.fault(key, wall) for key in (ANN, public(99), invitation)}
    assert faults == {"revoked key", "unknown key", "invitations may not listen to the tap"}


def test_the_use_of_a_key_is_noted_with_the_next_flush() -> None:
    worker = KeyedWorker()
    assert worker.core.keyring is not None
    wall = worker.moment.wall
    worker.core.keyring.come(ANN, wall, to_tap=False)
    worker.commit(flush=True)
    assert worker.log.keys[ANN].last_used_at == wall
    assert worker.log.keys[BOB].last_used_at is None
    found = worker.core.keyring.get(ANN)
    assert found is not None
    assert found.last_used_at == wall


def test_a_hello_that_waited_when_its_key_was_revoked_opens_nothing() -> None:
    worker = KeyedWorker()
    worker.comes(b"2", BOB)
    worker.says(b"2", published(ToBot(bot="ann")), BOB)
    worker.restart()
    worker.comes(b"a", ADMIN)
    hello = Hello(request=1, protocol=1, token=TOKEN, epoch="epoch", holds=[1])
    effects = worker.core.receive(b"1", hello, worker.moment, worker.principal(ANN))
    [located] = [effect for effect in effects if isinstance(effect, Locate)]
    worker.core.receive(b"1", published(ToBot(bot="bob")), worker.moment, worker.principal(ANN))
    told, answer = worker.says(b"a", RevokeKeyFrame(request=4, bot="ann"), ADMIN)
    assert (told["code"], answer["value"]["sessions"]) == ("revoked", 1)
    assert worker.do(worker.core.located(located, worker.log.locate(located.seqs), worker.moment)) == []
    assert worker.core.sessions.get(b"1") is None
    assert list(worker.log.messages) == [1], "nothing of what waited for the welcome"
