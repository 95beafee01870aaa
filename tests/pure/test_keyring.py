"""Keys in the core: who a connection is, and what it may say about keys."""

from __future__ import annotations

from typing import Any

import pytest

from bus.model.keys import Key, Principal, Purpose
from bus.model.records import later
from bus.model.repository import AddKey
from bus.wire.frames import (
    Ack,
    AddKeyFrame,
    Code,
    Enrol,
    Hello,
    Keys,
    Ping,
    Refusal,
    RequestFrame,
    RevokeKeyFrame,
    ToBot,
)
from bus.wire.keys import secret_text

from .keyed import ADMIN, ANN, BOB, KeyedWorker, public
from .worker import Worker, published


@pytest.mark.parametrize(
    "request_frame",
    [
        Keys(request=2),
        AddKeyFrame(request=2, bot="bob", public_key="php_x"),
        RevokeKeyFrame(request=2, bot="bob"),
        Enrol(request=2, public_key="php_x"),
    ],
)
def test_without_keys_what_is_said_about_them_is_refused_with_the_way_to_have_them(
    request_frame: RequestFrame,
) -> None:
    worker = Worker()
    worker.hello("ann")
    [answer] = worker.say(b"ann", request_frame)
    assert (answer["code"], answer["request"]) == ("forbidden", 2)
    assert "posthouse keys adopt" in answer["message"]


def test_without_keys_a_hello_must_name_its_bot() -> None:
    worker = Worker()
    [answer] = worker.say(b"ann", Hello(request=1, protocol=1))
    assert answer["code"] == "bad_request"
    assert "must name your bot" in answer["message"]


# ── Who is who ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_is_that_of_its_keys_bot() -> None:
    worker = KeyedWorker()
    [welcome] = worker.comes(b"1", ANN)
    assert (welcome["op"], welcome["bot"], welcome["bot_id"]) == ("welcome", "ann", "id-of-ann")
    session = worker.core.sessions.get(b"1")
    assert session is not None
    assert session.principal == Principal(ANN, "id-of-ann", "ann", Purpose.BOT, ("ops",))


def test_nobody_says_hello_as_another_bot() -> None:
    worker = KeyedWorker()
    [refused] = worker.comes(b"1", ANN, bot="bob")
    assert refused["code"] == "forbidden"
    assert refused["details"] == {"action": "hello", "object": "bob", "rule": "a key is one bot's"}
    [refused] = worker.comes(b"1", ANN, bot_id="00000000-0000-7000-8000-000000000001")
    assert refused["code"] == "bot_conflict"
    assert len(worker.core.sessions) == 0


def test_no_hello_registers_a_bot() -> None:
    worker = KeyedWorker()
    [refused] = worker.comes(b"1", ANN, bot="eve")
    assert refused["code"] == "forbidden"
    assert set(worker.core.directory.names) == {"admin", "ann", "bob"}


def test_a_frame_of_another_key_ends_the_session_at_its_address() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    [refused] = worker.says(b"1", published(ToBot(bot="bob")), BOB)
    assert refused["code"] == "unknown_session"
    assert worker.core.sessions.get(b"1") is None
    assert worker.log.messages == {}


def test_a_frame_that_cannot_be_read_ends_another_keys_session_too() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    error = Refusal(Code.BAD_FRAME, "two parts")
    worker.do(worker.core.reject(b"1", error, worker.moment, worker.principal(BOB)))
    assert worker.core.sessions.get(b"1") is None


def test_a_frame_without_a_valid_key_is_dropped_and_counted() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    assert worker.says(b"1", published(ToBot(bot="bob")), public(99)) == []
    assert worker.core.sessions.get(b"1") is None
    assert worker.core.dispatch.counters.ignored == 1
    assert worker.log.messages == {}


def test_what_a_session_had_in_flight_stays_with_its_bot_when_another_key_has_its_address() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    worker.comes(b"2", BOB)
    [*_, delivery] = worker.says(b"2", published(ToBot(bot="ann")), BOB)
    assert delivery["op"] == "deliver"
    worker.says(b"1", Ack(seqs=[1], request=5), BOB)
    [welcome, again] = worker.comes(b"3", ANN)
    assert (welcome["op"], again["messages"][0]["attempt"]) == ("welcome", 2)


# ── Adding ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_admin_adds_a_key_and_its_bot() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    frame = AddKeyFrame(request=2, bot="carl", public_key=public(9), roles=["ops"], label="x", expires_seconds=60)
    principal = worker.principal(ADMIN)
    assert worker.do(worker.core.receive(b"a", frame, worker.moment, principal)) == [], "not before it is on disk"
    assert worker.principal(public(9)) is None
    [answer] = worker.commit()
    key = worker.log.keys[public(9)]
    assert answer["value"]["bot_id"] == key.bot_id
    assert (key.roles, key.label, key.created_by) == (("ops",), "x", ADMIN)
    assert answer["value"]["expires_at"] == key.expires_at == later(key.created_at, 60)
    [welcome] = worker.comes(b"c", public(9))
    assert (welcome["bot"], welcome["bot_id"]) == ("carl", key.bot_id)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"bot": "posthouse"}, "bad_request"),
        ({"bot": "00000000-0000-7000-8000-000000000001"}, "bad_request"),
        ({"public_key": "php_short"}, "bad_request"),
        ({"public_key": ANN}, "conflict"),
        ({"replaces": BOB}, "not_found"),
        ({"replaces": public(77)}, "not_found"),
        ({"bot": "admin", "replaces": ADMIN, "purpose": Purpose.BOT}, "conflict"),
        ({"bot": "new", "replaces": ANN}, "not_found"),
    ],
)
def test_a_key_that_cannot_be_is_refused(fields: dict[str, Any], code: str) -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    given: dict[str, Any] = {"request": 2, "bot": "ann", "public_key": public(9)}
    frame = AddKeyFrame(**given | fields)
    [refused] = worker.says(b"a", frame, ADMIN)
    assert (refused["code"], refused["request"]) == (code, 2)
    assert len(worker.log.keys) == 3


def test_a_secret_in_a_public_keys_place_is_refused_without_repeating_it() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    secret = secret_text(b"s" * 32)
    [refused] = worker.says(b"a", AddKeyFrame(request=2, bot="ann", public_key=secret), ADMIN)
    assert "a secret key" in refused["message"]
    assert secret not in str(refused)


def test_a_repeated_request_for_a_key_gets_the_same_answer() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    frame = AddKeyFrame(request=2, bot="carl", public_key=public(9))
    principal = worker.principal(ADMIN)
    for _ in range(2):
        assert worker.do(worker.core.receive(b"a", frame, worker.moment, principal)) == []
    first, second = worker.commit()
    [third] = worker.says(b"a", frame, ADMIN)
    assert first == second == third
    assert third["op"] == "ok"


def test_two_keys_for_one_new_bot_are_added_one_after_the_other() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    principal = worker.principal(ADMIN)
    first, second = (AddKeyFrame(request=n, bot="carl", public_key=public(n)) for n in (8, 9))
    assert worker.do(worker.core.receive(b"a", first, worker.moment, principal)) == []
    [refused] = worker.do(worker.core.receive(b"a", second, worker.moment, principal))
    assert (refused["code"], refused["retry"]) == ("busy", True)
    worker.commit()
    [answer] = worker.says(b"a", second, ADMIN)
    assert answer["op"] == "ok"
    assert worker.log.keys[public(8)].bot_id == worker.log.keys[public(9)].bot_id


def test_a_key_that_could_not_be_stored_is_unknown_and_may_be_tried_again() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    frame = AddKeyFrame(request=2, bot="carl", public_key=public(9))
    worker.do(worker.core.receive(b"a", frame, worker.moment, worker.principal(ADMIN)))
    [refused] = worker.refuse()
    assert refused["code"] == "storage_full"
    assert worker.principal(public(9)) is None
    [answer] = worker.says(b"a", frame, ADMIN)
    assert answer["op"] == "ok"


@pytest.mark.parametrize(
    "frame",
    [
        AddKeyFrame(request=2, bot="carl", public_key=public(9)),
        AddKeyFrame(request=2, bot="ann", public_key=public(9)),
        AddKeyFrame(request=2, bot="bob", public_key=public(9), replaces=BOB),
        AddKeyFrame(request=2, bot="ann", public_key=public(9), replaces=ANN, purpose=Purpose.ADMIN),
        AddKeyFrame(request=2, bot="ann", public_key=public(9), replaces=ANN, roles=["ops", "boss"]),
        RevokeKeyFrame(request=2, bot="ann"),
        RevokeKeyFrame(request=2, bot="bob"),
        Keys(request=2),
        Keys(request=2, bot="ann"),
        Enrol(request=2, public_key=public(9)),
    ],
)
def test_what_is_said_about_keys_needs_an_admin(frame: RequestFrame) -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    [refused] = worker.says(b"1", frame, ANN)
    assert (refused["code"], refused["request"]) == ("forbidden", 2)
    assert set(refused["details"]) == {"action", "object", "rule"}
    assert len(worker.log.keys) == 3


# ── Rotation ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bot_replaces_its_own_key_and_both_are_valid_until_the_grace_is_over() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    frame = AddKeyFrame(request=2, bot="ann", public_key=public(9), replaces=ANN, grace_seconds=10)
    [answer] = worker.says(b"1", frame, ANN)
    new = worker.log.keys[public(9)]
    assert (new.roles, new.label, new.purpose, new.expires_at) == (("ops",), "first", Purpose.BOT, None)
    assert answer["value"]["replaced_until"] == worker.log.keys[ANN].expires_at
    assert worker.comes(b"2", public(9))[0]["bot"] == "ann"
    worker.settle(9)
    assert worker.says(b"1", Ping(), ANN)[0]["op"] == "pong"
    told = worker.settle(2)
    assert [frame["code"] for frame in told if frame["op"] == "error"] == ["revoked"]
    assert worker.silent == [b"1"]
    assert worker.says(b"1", Ping(), ANN) == []
    assert worker.says(b"2", Ping(), public(9))[0]["op"] == "pong"


def test_a_bot_repeats_a_rotation_whose_answer_was_lost_with_its_new_key() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    frame = AddKeyFrame(request=2, bot="ann", public_key=public(9), replaces=ANN, grace_seconds=10)
    [answer] = worker.says(b"1", frame, ANN)
    worker.settle(12)
    worker.comes(b"2", public(9))
    assert worker.says(b"2", frame, public(9)) == [answer]
    other = AddKeyFrame(request=2, bot="ann", public_key=public(8), replaces=ANN)
    assert worker.says(b"2", other, public(9))[0]["code"] == "forbidden"


def test_a_key_hands_its_purpose_on_to_the_one_that_replaces_it() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.says(b"a", AddKeyFrame(request=2, bot="admin", public_key=public(9), replaces=ADMIN), ADMIN)
    found = worker.principal(public(9))
    assert found is not None
    assert found.purpose is Purpose.ADMIN


def test_a_rotation_does_not_prolong_the_life_of_a_key() -> None:
    worker = KeyedWorker()
    at = worker.moment.wall
    worker.log.apply(
        [AddKey(Key(public_key=public(5), bot_id="id-of-ann", created_at=at, expires_at=later(at, 60)))]
    )
    worker.restart()
    worker.comes(b"1", public(5))
    frame = AddKeyFrame(
        request=2, bot="ann", public_key=public(9), replaces=public(5), expires_seconds=900, grace_seconds=900
    )
    [answer] = worker.says(b"1", frame, public(5))
    assert answer["value"]["expires_at"] == later(at, 60)
    assert answer["value"]["replaced_until"] == later(at, 60)


def test_an_answer_that_was_lost_is_given_again_to_the_key_that_was_replaced() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    frame = AddKeyFrame(request=2, bot="ann", public_key=public(9), replaces=ANN, grace_seconds=60)
    [answer] = worker.says(b"1", frame, ANN)
    worker.comes(b"2", ANN)
    assert worker.says(b"2", frame, ANN) == [answer]
    other = AddKeyFrame(request=3, bot="ann", public_key=public(8), replaces=ANN, grace_seconds=60)
    [refused] = worker.says(b"2", other, ANN)
    assert refused["code"] == "conflict"


def test_ended_keys_make_room_for_new_ones() -> None:
    worker = KeyedWorker(keys_per_bot_max=3)
    worker.comes(b"a", ADMIN)
    key = ANN
    for number in range(10, 20):
        worker.comes(b"%d" % number, key)
        frame = AddKeyFrame(request=2, bot="ann", public_key=public(number), replaces=key)
        [answer] = worker.says(b"%d" % number, frame, key)
        assert answer["op"] == "ok"
        key = public(number)
        worker.settle(1)
    assert [each for each in worker.log.keys if each not in (ADMIN, BOB)] == [public(17), public(18), public(19)]
    for number in (30, 31):
        [answer] = worker.says(b"a", AddKeyFrame(request=2, bot="ann", public_key=public(number)), ADMIN)
        assert answer["op"] == "ok"
    [refused] = worker.says(b"a", AddKeyFrame(request=2, bot="ann", public_key=public(32)), ADMIN)
    assert (refused["code"], "revoke one first" in refused["message"]) == ("busy", True)
    assert worker.principal(key) is not None


# ── Invitations ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_invitation_adds_one_key_for_its_bot() -> None:
    worker = KeyedWorker()
    invitation = worker.invite(label="from afar")
    [answer] = worker.says(b"d", Enrol(request=1, public_key=public(51)), invitation)
    assert answer["value"]["bot_name"] == "dora"
    key = worker.log.keys[public(51)]
    assert (key.purpose, key.roles, key.label, key.created_by) == (Purpose.BOT, ("ops",), "from afar", invitation)
    assert worker.comes(b"d2", public(51))[0]["bot"] == "dora"
    assert worker.log.keys[invitation].replaced_by == public(51)


def test_an_invitation_that_was_used_is_refused_and_a_repeat_answered() -> None:
    worker = KeyedWorker()
    invitation = worker.invite()
    first = worker.says(b"d", Enrol(request=1, public_key=public(51)), invitation)
    worker.restart()
    assert worker.says(b"e", Enrol(request=1, public_key=public(51)), invitation) == first
    [refused] = worker.says(b"d", Enrol(request=3, public_key=public(52)), invitation)
    assert (refused["code"], refused["request"], refused["details"]["rule"]) == ("forbidden", 3, "used")
    assert public(52) not in worker.log.keys


def test_two_uses_of_an_invitation_at_once_are_one() -> None:
    worker = KeyedWorker()
    invitation = worker.invite()
    principal = worker.principal(invitation)
    first, second = (Enrol(request=1, public_key=public(number)) for number in (51, 52))
    assert worker.do(worker.core.receive(b"d", first, worker.moment, principal)) == []
    [refused] = worker.do(worker.core.receive(b"e", second, worker.moment, principal))
    assert refused["details"]["rule"] == "used"
    [answer] = worker.commit()
    assert answer["op"] == "ok"


def test_an_invitation_that_has_expired_is_refused() -> None:
    worker = KeyedWorker()
    invitation = worker.invite(expires_seconds=60)
    worker.settle(61)
    [refused] = worker.says(b"d", Enrol(request=1, public_key=public(51)), invitation)
    assert refused["details"] == {"action": "enrol", "object": "dora", "rule": "expired"}


def test_an_invitation_that_was_revoked_says_nothing() -> None:
    worker = KeyedWorker()
    invitation = worker.invite()
    worker.says(b"a", RevokeKeyFrame(request=3, bot="dora", public_key=invitation), ADMIN)
    assert worker.says(b"d", Enrol(request=1, public_key=public(51)), invitation) == []


@pytest.mark.parametrize(
    "frame", [Hello(request=1, protocol=1), Ping(), published(ToBot(bot="bob")), Keys(request=1)]
)
def test_an_invitation_may_say_nothing_else(frame: RequestFrame) -> None:
    worker = KeyedWorker()
    invitation = worker.invite()
    [refused] = worker.says(b"d", frame, invitation)
    assert (refused["code"], refused["details"]["rule"]) == ("forbidden", "purpose")
    assert worker.core.sessions.get(b"d") is None


# ── Revocations on their way to the disk ─────────────────────────────────────────────────────────────────


def together(worker: KeyedWorker, *said: tuple[bytes, RequestFrame, str]) -> list[dict[str, Any]]:
    """Let connections say something before the disk answers any of it."""
    answers: list[dict[str, Any]] = []
    for address, request, key in said:
        answers += worker.do(worker.core.receive(address, request, worker.moment, worker.principal(key)))
    while worker.core.has_batch(worker.moment):
        answers += worker.commit()
    return answers


def test_a_key_that_is_being_revoked_does_not_replace_itself() -> None:
    worker, new = KeyedWorker(), public(77)
    worker.comes(b"a", ADMIN)
    worker.comes(b"1", ANN)
    rotation = AddKeyFrame(request=6, bot="ann", public_key=new, replaces=ANN)
    said = together(worker, (b"a", RevokeKeyFrame(request=5, bot="ann"), ADMIN), (b"1", rotation, ANN))
    assert ("forbidden", 6) in [(each.get("code"), each.get("request")) for each in said]
    worker.restart()
    assert worker.principal(new) is None


def test_an_invitation_that_is_being_revoked_enrols_nobody() -> None:
    worker, new = KeyedWorker(), public(77)
    invitation = worker.invite()
    revoke, enrol = RevokeKeyFrame(request=5, bot="dora"), Enrol(request=1, public_key=new)
    together(worker, (b"a", revoke, ADMIN), (b"1", enrol, invitation))
    assert worker.principal(new) is None


def test_an_admin_that_is_being_revoked_adds_no_key() -> None:
    worker, other, new = KeyedWorker(), public(60), public(77)
    worker.comes(b"a", ADMIN)
    worker.says(b"a", AddKeyFrame(request=2, bot="root", public_key=other, purpose=Purpose.ADMIN), ADMIN)
    worker.comes(b"b", other)
    add = AddKeyFrame(request=7, bot="eve", public_key=new, purpose=Purpose.ADMIN)
    together(worker, (b"a", RevokeKeyFrame(request=5, bot="root"), ADMIN), (b"b", add, other))
    assert worker.principal(new) is None


@pytest.mark.parametrize("by_one", [True, False])
def test_admins_that_revoke_each_other_at_once_leave_one(by_one: bool) -> None:
    worker, other = KeyedWorker(), public(60)
    worker.comes(b"a", ADMIN)
    worker.says(b"a", AddKeyFrame(request=2, bot="root", public_key=other, purpose=Purpose.ADMIN), ADMIN)
    worker.comes(b"b", other)
    address, key = (b"a", ADMIN) if by_one else (b"b", other)
    first, second = RevokeKeyFrame(request=5, bot="root"), RevokeKeyFrame(request=6, bot="admin")
    said = together(worker, (b"a", first, ADMIN), (address, second, key))
    assert ("conflict", 6) in [(each.get("code"), each.get("request")) for each in said]
    assert worker.core.keyring is not None
    assert worker.core.keyring.admins(worker.moment.wall) == [ADMIN]


def test_a_key_is_replaced_by_one_other_even_at_once() -> None:
    worker = KeyedWorker()
    worker.comes(b"1", ANN)
    frames = [
        (b"1", AddKeyFrame(request=number, bot="ann", public_key=public(number), replaces=ANN), ANN)
        for number in (81, 82)
    ]
    said = together(worker, *frames)
    assert [each["op"] for each in said] == ["error", "ok"]
    assert worker.principal(public(82)) is None


def test_a_revocation_that_was_not_stored_leaves_the_key_as_it_was() -> None:
    worker, new = KeyedWorker(), public(77)
    worker.comes(b"a", ADMIN)
    worker.comes(b"1", ANN)
    worker.do(
        worker.core.receive(b"a", RevokeKeyFrame(request=5, bot="ann"), worker.moment, worker.principal(ADMIN))
    )
    worker.refuse()
    [answer] = worker.says(b"1", AddKeyFrame(request=6, bot="ann", public_key=new, replaces=ANN), ANN)
    assert answer["op"] == "ok"
