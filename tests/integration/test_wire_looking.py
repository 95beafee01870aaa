"""Questions on the wire about one message, what a mailbox has, and who is connected."""

from __future__ import annotations

import time
from typing import Any

from .wire import MESSAGE_FIELDS, TIME, new_id, to_bot, to_channel
from .wire_worker import Worker

STATES = ("waiting", "in_flight", "parked", "returned", "delayed", "dead")


def mailbox(asker: Any, **fields: Any) -> dict[str, Any]:
    value: dict[str, Any] = asker.value("mailbox", **fields)
    return value


def states(value: dict[str, Any]) -> list[tuple[Any, str]]:
    return [(row["message"]["body"], row["state"]) for row in value["messages"]]


# ── One message ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_is_found_by_its_seq(shared: Worker, name: str) -> None:
    session = shared.session(name)
    message = to_bot(name, "here")
    [seq] = session.publish(message)
    by_seq, by_id = session.value("message", seq=seq), session.value("message", id=message["id"])
    assert by_seq["message"] == by_id["message"]
    assert by_seq["message"]["body"] == "here"
    assert session.code("message", seq=seq + 1_000_000) == "not_found"
    for fields in ({}, {"seq": seq, "id": message["id"]}, {"seq": seq, "sender": name}, {"seq": -1}):
        assert session.code("message", **fields) == "bad_request"


def test_a_message_tells_who_has_it_and_since_when(shared: Worker, name: str) -> None:
    sender, holder = shared.session(f"{name}-sender"), shared.session()
    welcome = holder.hello(name)
    [seq] = sender.publish(to_bot(name, "work"))
    assert holder.take_one()["seq"] == seq
    found = sender.value("message", seq=seq)
    [fate] = found["mailboxes"]
    assert (fate["state"], fate["attempts"], fate.get("failures", 0)) == ("in_flight", 1, 0)
    assert (fate["session"], fate["held_by"]) == (welcome["session"], name)
    assert found["message"]["timestamp"] <= fate["since"] < fate["deadline"]
    assert TIME.fullmatch(fate["since"])
    holder.send(op="park", seqs=[seq])
    holder.value("status")
    [fate] = sender.value("message", seq=seq)["mailboxes"]
    assert (fate["parked"], "deadline" in fate) == (True, False)
    holder.settle("nak", seq, delay=3600)
    [fate] = sender.value("message", seq=seq)["mailboxes"]
    assert (fate["state"], fate["attempts"], fate["failures"], "session" in fate) == ("returned", 1, 1, False)
    assert fate["due_at"] > found["mailboxes"][0]["since"]


def test_a_message_tells_why_it_is_a_dead_letter(shared: Worker, name: str) -> None:
    sender, first, second = (shared.session(f"{name}-{each}") for each in ("sender", "first", "second"))
    first.subscribe(name)
    second.subscribe(name, group="team")
    [seq] = sender.publish(to_channel(name, "well?"))
    first.settle("term", first.take_one()["seq"], reason="no such file")
    second.settle("ack", second.take_one()["seq"])
    fates = {fate["bot"]: fate for fate in sender.value("message", seq=seq)["mailboxes"]}
    dead = fates[f"{name}-first"]
    assert (dead["state"], dead["reason"], dead["attempts"]) == ("dead", "no such file", 1)
    assert TIME.fullmatch(dead["given_up_at"])
    assert fates[None] == {
        "bot": None,
        "bot_id": None,
        "channel": name,
        "group": "team",
        "state": "settled",
    }


def test_a_message_tells_when_it_expires(shared: Worker, name: str) -> None:
    sender, _ = shared.session(f"{name}-sender"), shared.session(name)
    [seq] = sender.publish(to_bot(name, "soon", ttl=3600))
    found = sender.value("message", seq=seq)
    assert found["message"]["timestamp"] < found["expires_at"]
    delayed = to_bot(name, "later", delay=3600, ttl=60)
    sender.ask("publish", messages=[delayed], answer="published")
    waits = sender.value("message", id=delayed["id"])
    assert waits["due_at"] < waits["expires_at"]


# ── A mailbox ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mailbox_is_seen_without_taking_anything(shared: Worker, name: str) -> None:
    reader, sender = shared.session(f"{name}-reader"), shared.session(f"{name}-sender")
    holder = shared.session()
    holder.hello(name, max_in_flight=3)
    sender.publish(*(to_bot(name, number) for number in range(5)))
    first, second, third = (each["seq"] for each in holder.take(3))
    holder.settle("ack", first)
    holder.take_one()
    holder.settle("nak", second, delay=3600)
    holder.take_one()
    holder.settle("term", third, reason="no")
    value = mailbox(reader, bot=name)
    assert states(value) == [(1, "returned"), (3, "in_flight"), (4, "in_flight")]
    assert [value["counts"][state] for state in STATES] == [0, 2, 0, 1, 1, 1]
    assert value["position"] == value["messages"][-1]["message"]["seq"]
    assert value["messages"][1]["held_by"] == name
    assert (value["name"], value["bot_id"], value["group"]) == (name, holder.bot_id, None)
    assert (value["sessions"], value["free"]) == (1, 1)
    assert all(set(row["message"]) >= MESSAGE_FIELDS for row in value["messages"])
    assert value["oldest_at"] == value["messages"][0]["message"]["timestamp"]
    assert states(mailbox(holder)) == states(value), "a bot's own mailbox, if none is named"
    assert states(mailbox(reader, bot=holder.bot_id)) == states(value)
    holder.goodbye()
    value = mailbox(reader, bot=name)
    assert {state for _, state in states(value)} == {"returned"}
    assert (value["sessions"], value["free"]) == (0, 0)


def test_a_mailbox_is_read_page_by_page_oldest_first(shared: Worker, name: str) -> None:
    sender, away = shared.session(f"{name}-sender"), shared.session(name)
    away.subscribe(f"{name}-news")
    away.goodbye()
    for number in range(0, 150, 2):
        sender.publish(
            to_bot(name, number), to_channel(f"{name}-news", number + 1), to_bot(f"{name}-sender", "noise")
        )
    value = mailbox(sender, bot=name, limit=70)
    assert (len(value["messages"]), value["more"]) == (70, True)
    found = value["messages"]
    while value.get("more"):
        value = mailbox(sender, bot=name, limit=70, after_seq=found[-1]["message"]["seq"])
        found += value["messages"]
    assert [row["message"]["body"] for row in found] == list(range(150))
    assert {row["state"] for row in found} == {"waiting"}
    assert value["counts"]["waiting"] == 150
    assert value["oldest_at"] == found[0]["message"]["timestamp"], "the oldest of all, and not of the page"
    assert mailbox(sender, bot=name, after_seq=found[-1]["message"]["seq"])["messages"] == []


def test_a_mailbox_with_much_in_flight_is_counted_and_read_whole(shared: Worker, name: str) -> None:
    sender, holder = shared.session(f"{name}-sender"), shared.session()
    holder.hello(name, max_in_flight=1_000)
    for first in range(0, 1_100, 100):
        sender.publish(*(to_bot(name, number) for number in range(first, first + 100)))
    taken = [each["seq"] for each in holder.take(1_000)]
    holder.send(op="park", seqs=[taken[-1]])
    holder.settle("nak", taken[-2], delay=3600)
    holder.take(2)
    value = mailbox(sender, bot=name)
    assert [value["counts"][state] for state in STATES] == [98, 1_001, 1, 1, 1, 0]
    assert [body for body, _ in states(value)] == list(range(len(value["messages"])))
    last = mailbox(sender, bot=name, after_seq=taken[990], limit=20)
    assert [body for body, _ in states(last)] == list(range(991, 1_011))


def test_a_mailbox_whose_reply_came_early_is_seen_whole(shared: Worker, name: str) -> None:
    asker, other = shared.session(), shared.session(f"{name}-other")
    asker.hello(name, max_in_flight=0)
    question = to_bot(f"{name}-other", "?", expects_reply=True)
    asker.publish(question)
    other.take_one()
    other.publish(to_bot(name, "first"))
    other.publish(to_bot(name, "reply", reply_to=question["id"]))
    other.publish(to_bot(name, "last"))
    [reply] = asker.take(1)
    expected = [("first", "waiting"), ("reply", "in_flight"), ("last", "waiting")]
    assert states(mailbox(other, bot=name)) == expected
    assert states(mailbox(other, bot=name, limit=2)) == expected[:2]
    asker.settle("ack", reply["seq"])
    value = mailbox(other, bot=name)
    assert states(value) == [("first", "waiting"), ("last", "waiting")]
    assert (value["counts"]["waiting"], value["counts"]["in_flight"]) == (2, 0)


def test_the_mailbox_of_a_group_is_seen(shared: Worker, name: str) -> None:
    sender, member = shared.session(f"{name}-sender"), shared.session()
    member.hello(f"{name}-member", max_in_flight=1)
    member.subscribe(name, group="team")
    sender.publish(to_channel(name, 1), to_channel(name, 2))
    member.take_one()
    value = mailbox(sender, bot=f"{name}/team")
    assert states(value) == [(1, "in_flight"), (2, "waiting")]
    assert value["messages"][0]["held_by"] == f"{name}-member"
    assert (value["name"], value["bot_id"], value["channel"], value["group"]) == (
        f"{name}/team",
        None,
        name,
        "team",
    )
    assert sender.code("mailbox", bot=f"{name}/nobody") == "unknown_bot"
    assert sender.code("mailbox", bot=new_id()) == "unknown_bot"
    assert sender.code("mailbox", bot=name, limit=0) == "bad_request"


def test_an_expired_message_is_told_until_its_turn_comes(shared: Worker, name: str) -> None:
    sender, _ = shared.session(f"{name}-sender"), shared.session(name)
    shared.session(f"{name}-away").goodbye()
    sender.publish(to_bot(f"{name}-away", "short", ttl=0.001), to_bot(f"{name}-away", "long"))
    value = mailbox(sender, bot=f"{name}-away")
    while states(value)[0][1] != "expired":
        time.sleep(0.01)
        value = mailbox(sender, bot=f"{name}-away")
    assert states(value) == [("short", "expired"), ("long", "waiting")]


# ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────────


def test_sessions_are_listed(shared: Worker, name: str) -> None:
    first, second = shared.session(), shared.session(f"{name}-second")
    welcome = first.hello(name, max_in_flight=7, client="some-client/1.0")
    second.publish(to_bot(name, 1), to_bot(name, 2))
    held = first.take(2)
    first.send(op="park", seqs=[held[0]["seq"]])
    first.value("status")
    [row] = second.value("sessions", bot=name)["sessions"]
    assert (row["id"], row["bot"], row["bot_id"]) == (welcome["session"], name, first.bot_id)
    assert (row["credit"], row["in_flight"], row["parked"], row["client"]) == (7, 2, 1, "some-client/1.0")
    assert row["in_flight_bytes"] > 0
    assert TIME.fullmatch(row["since"])
    assert row["since"] <= row["last_heard_at"]
    assert row["address"] == "127.0.0.1"
    assert "key" not in row
    assert second.code("sessions", bot=f"{name}-nobody") == "unknown_bot"
    first.goodbye()
    assert second.value("sessions", bot=name)["sessions"] == []


def test_sessions_are_read_page_by_page(shared: Worker, name: str) -> None:
    sessions = [shared.session() for _ in range(5)]
    ids = {session.hello(name)["session"] for session in sessions}
    page = sessions[0].value("sessions", bot=name, limit=2)
    found = [row["id"] for row in page["sessions"]]
    while page.get("more"):
        page = sessions[0].value("sessions", bot=name, limit=2, after=found[-1])
        found += [row["id"] for row in page["sessions"]]
    assert found == sorted(ids)
    everybody = {row["id"] for row in sessions[0].value("sessions", limit=1000)["sessions"]}
    assert everybody >= ids


# ── What happened lately ─────────────────────────────────────────────────────────────────────────────────


def test_what_happened_is_remembered_for_who_asks_later(shared: Worker, name: str) -> None:
    with shared.session(name) as session:
        session.subscribe(name)
        [seq] = session.publish(to_bot(name, "hopeless"))
        session.take_one()
        session.settle("term", seq, reason="no such file")
    asker = shared.session(f"{name}-asker")
    found = asker.value("events", limit=1000)
    assert TIME.fullmatch(found["since"])
    mine = {each["message_type"]: each for each in found["events"] if name in each["body"].values()}
    dead = mine["dead_letters.added"]
    assert (dead["times"], dead["body"]["listed"][0]["reason"]) == (1, "no such file")
    assert all(TIME.fullmatch(each["at"]) and each["at"] >= found["since"] for each in found["events"])
    numbers = [each["number"] for each in found["events"]]
    assert numbers == sorted(numbers)
    page = asker.value("events", after=numbers[0], limit=1)
    assert ([each["number"] for each in page["events"]], page["more"]) == ([numbers[1]], True)
    assert asker.value("events", after=10**9)["events"] == []
    for fields in ({"after": -1}, {"limit": 0}, {"kind": "session.opened"}):
        assert asker.code("events", **fields) == "bad_request"
    status = asker.value("status")
    assert (status["backlog_messages_max"] > 0, "fault" in status) == (True, False)
