"""Questions on the wire: history, one message, bots, channels, subscriptions, dead letters, status."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from ..engines import sqlite_only
from .wire import MESSAGE_FIELDS, TIME, bodies, new_id, to_bot, to_channel
from .wire_worker import Worker


def test_history_between_two_bots(shared: Worker, name: str) -> None:
    alice, bob, carol = (shared.session(f"{name}-{each}") for each in ("alice", "bob", "carol"))
    alice.publish(to_bot(f"{name}-bob", "a1"))
    bob.publish(to_bot(f"{name}-alice", "b1"))
    carol.publish(to_bot(f"{name}-alice", "not theirs"), to_channel(name, "nor this"))
    alice.publish(to_bot(f"{name}-bob", "a2"), to_bot(f"{name}-carol", "nor that"))
    for pair in ([f"{name}-alice", f"{name}-bob"], [bob.bot_id, alice.bot_id], [f"{name}-bob", alice.bot_id]):
        value = carol.value("history", between=pair)
        assert bodies(value["messages"]) == ["a2", "b1", "a1"]
        assert value["more"] is False
    assert all(set(message) >= MESSAGE_FIELDS for message in value["messages"])
    assert bodies(alice.history(between=[f"{name}-bob", f"{name}-carol"])) == []
    assert alice.code("history", between=[f"{name}-alice", "nobody"]) == "unknown_bot"
    assert alice.code("history", between=[f"{name}-alice", new_id()]) == "unknown_bot"


def test_history_is_read_page_by_page(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(*(to_channel(name, number) for number in range(7)), to_channel(f"{name}-other", "x"))
    found: list[Any] = []
    page = session.value("history", channel=name, limit=3)
    assert bodies(page["messages"]) == [6, 5, 4]
    while page["more"]:
        found += bodies(page["messages"])
        page = session.value("history", channel=name, limit=3, before_seq=page["messages"][-1]["seq"])
    assert [*found, *bodies(page["messages"])] == [6, 5, 4, 3, 2, 1, 0]
    assert session.value("history", channel=name, limit=7)["more"] is False
    assert session.value("history", channel=name, limit=6)["more"] is True
    last = session.history(channel=name, limit=1)[0]["seq"]
    assert bodies(session.history(channel=name, before_seq=last, limit=2)) == [5, 4]
    assert session.history(channel=name, before_seq=1) == []
    assert session.code("history", channel=f"{name}-nothing") == "unknown_channel"


def test_history_is_read_from_where_one_stopped(shared: Worker, name: str) -> None:
    session = shared.session(name)
    first = to_channel(name, 0)
    session.publish(first, *(to_channel(name, number, reply_to=first["id"]) for number in range(1, 7)))
    for query in ({"channel": name}, {"thread": first["id"]}):
        found: list[Any] = []
        page = session.value("history", **query, limit=3, after_seq=0)
        assert bodies(page["messages"]) == [0, 1, 2]
        while page["more"]:
            found += bodies(page["messages"])
            page = session.value("history", **query, limit=3, after_seq=page["messages"][-1]["seq"])
        assert [*found, *bodies(page["messages"])] == [0, 1, 2, 3, 4, 5, 6]
        last = page["messages"][-1]["seq"]
        assert session.history(**query, after_seq=last) == []
        assert bodies(session.history(**query, after_seq=last - 3, before_seq=last)) == [4, 5]
    pair = {"between": [name, f"{name}-bob"]}
    other = shared.session(f"{name}-bob")
    other.publish(to_bot(name, "b1"))
    session.publish(to_bot(f"{name}-bob", "a1"), to_bot(f"{name}-bob", "a2"))
    assert bodies(session.history(**pair, after_seq=0, limit=2)) == ["b1", "a1"]


def test_history_gives_fifty_unless_asked_for_more(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(*(to_channel(name, number) for number in range(60)))
    value = session.value("history", channel=name)
    assert bodies(value["messages"]) == list(range(59, 9, -1))
    assert value["more"] is True
    assert len(session.history(channel=name, limit=1000)) == 60


def test_history_of_a_thread(shared: Worker, name: str) -> None:
    session = shared.session(name)
    question = to_channel(name, "question")
    answer = to_bot(name, "answer", reply_to=question["id"])
    thanks = to_bot(name, "thanks", reply_to=answer["id"])
    aside = to_channel(name, "aside", reply_to=question["id"])
    session.publish(question, to_channel(name, "noise"), answer, thanks, aside)
    for message in (question, answer, thanks):
        value = session.value("history", thread=message["id"])
        assert bodies(value["messages"]) == ["aside", "thanks", "answer", "question"]
        assert value["more"] is False
    page = session.value("history", thread=question["id"], limit=2)
    assert (bodies(page["messages"]), page["more"]) == (["aside", "thanks"], True)
    rest = session.history(thread=question["id"], before_seq=page["messages"][-1]["seq"])
    assert bodies(rest) == ["answer", "question"]


def test_a_message_tells_what_became_of_it(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    present, absent = shared.session(f"{name}-present"), shared.session(f"{name}-absent")
    present.subscribe(name)
    absent.subscribe(name)
    absent.goodbye()
    message = to_channel(name, "well?")
    [seq] = sender.publish(message)
    present.settle("ack", present.take_one()["seq"])
    value = sender.value("message", id=message["id"])
    assert set(value["message"]) >= MESSAGE_FIELDS
    assert (value["message"]["seq"], value["message"]["body"]) == (seq, "well?")
    states = {mailbox["bot_id"]: mailbox["state"] for mailbox in value["mailboxes"]}
    assert states == {present.bot_id: "settled", absent.bot_id: "waiting"}
    assert sender.code("message", id=new_id()) == "not_found"


def test_bots_are_listed(shared: Worker, name: str) -> None:
    here, gone = shared.session(name), shared.session(f"{name}-gone")
    gone.goodbye()
    here.publish(*(to_bot(f"{name}-gone", number) for number in range(3)))
    bots = {bot["name"]: bot for bot in here.value("bots")["bots"]}
    for bot in (bots[name], bots[f"{name}-gone"]):
        assert set(bot) >= {"id", "name", "online", "created_at", "last_seen_at", "backlog"}
        assert TIME.fullmatch(bot["created_at"])
        assert TIME.fullmatch(bot["last_seen_at"])
        assert bot["created_at"] <= bot["last_seen_at"]
    assert (bots[name]["id"], bots[name]["online"], bots[name]["backlog"]) == (here.bot_id, True, 0)
    assert bots[f"{name}-gone"]["id"] == gone.bot_id
    assert (bots[f"{name}-gone"]["online"], bots[f"{name}-gone"]["backlog"]) == (False, 3)


def test_bots_are_listed_with_their_sessions_and_what_these_hold(shared: Worker, name: str) -> None:
    first, second = shared.session(), shared.session()
    assert "sessions" not in first.hello(name, max_in_flight=2)
    assert second.hello(name, max_in_flight=0)["sessions"] == 2
    second.publish(*(to_bot(name, number) for number in range(3)))
    held = first.take(2)
    [row] = [bot for bot in second.value("bots")["bots"] if bot["name"] == name]
    assert (row["sessions"], row["backlog"], row["in_flight"]) == (2, 3, 2)
    first.settle("ack", held[0]["seq"])
    first.take_one()
    second.goodbye()
    first.goodbye()
    asker = shared.session(f"{name}-asker")
    [row] = [bot for bot in asker.value("bots")["bots"] if bot["name"] == name]
    assert (row["sessions"], row["backlog"], row["in_flight"]) == (0, 2, 0)


def test_channels_are_listed(shared: Worker, name: str) -> None:
    first, second = shared.session(name), shared.session(f"{name}-second")
    first.publish(to_channel(name, 1), to_channel(name, 2))
    first.subscribe(name)
    second.subscribe(name)
    second.subscribe(f"{name}-quiet")
    channels = {channel["name"]: channel for channel in first.value("channels")["channels"]}
    loud, quiet = channels[name], channels[f"{name}-quiet"]
    assert (loud["created_by_bot_id"], loud["subscribers"], loud["messages"]) == (first.bot_id, 2, 2)
    assert (quiet["created_by_bot_id"], quiet["subscribers"], quiet["messages"]) == (second.bot_id, 1, 0)
    assert TIME.fullmatch(loud["created_at"])


def test_some_bots_and_channels_are_listed(shared: Worker, name: str) -> None:
    ids = {each: shared.session(f"{name}-{each}").bot_id for each in ("ann", "bob", "cleo")}
    session = shared.session(f"{name}-dan")
    for channel in ("north", "south", "west"):
        session.publish(to_channel(f"{name}-{channel}", 1))

    def named(op: str, **query: Any) -> tuple[list[str], bool]:
        value = session.value(op, **query)
        return [each["name"].removeprefix(f"{name}-") for each in value[op]], value.get("more", False)

    assert named("bots", only=[f"{name}-cleo", ids["ann"], "nobody", ids["ann"]]) == (["ann", "cleo"], False)
    assert named("bots", part=name, limit=2) == (["ann", "bob"], True)
    assert named("bots", part=name, limit=2, after=f"{name}-bob") == (["cleo", "dan"], False)
    assert named("bots", part=f"{name}-c") == (["cleo"], False)
    assert named("bots", only=[]) == ([], False)
    assert named("channels", only=[f"{name}-west", f"{name}-east", f"{name}-north"]) == (["north", "west"], False)
    assert named("channels", part=f"{name}-", limit=1) == (["north"], True)
    assert named("channels", part=name, after=f"{name}-north", limit=5) == (["south", "west"], False)
    for fields in ({"limit": 0}, {"only": ["x"] * 1001}, {"only": [5]}, {"part": "x" * 300}):
        assert session.code("bots", **fields) == session.code("channels", **fields) == "bad_request"


def test_subscriptions_are_listed(shared: Worker, name: str) -> None:
    first, second = shared.session(name), shared.session(f"{name}-second")
    start_seq = first.subscribe(f"{name}-a")["start_seq"]
    first.subscribe(f"{name}-b", start="all", echo=True)
    second.subscribe(f"{name}-b")
    own = {each["channel_name"]: each for each in first.value("subscriptions")["subscriptions"]}
    assert set(own) == {f"{name}-a", f"{name}-b"}
    for each in own.values():
        assert each["bot_id"] == first.bot_id
        assert TIME.fullmatch(each["subscribed_at"])
    assert (own[f"{name}-a"]["start_seq"], own[f"{name}-a"]["echo"]) == (start_seq, False)
    assert (own[f"{name}-b"]["start_seq"], own[f"{name}-b"]["echo"]) == (0, True)
    others = first.value("subscriptions", bot=f"{name}-second")["subscriptions"]
    assert [(each["bot_id"], each["channel_name"]) for each in others] == [(second.bot_id, f"{name}-b")]
    everybody = first.value("subscriptions", channel=f"{name}-b")["subscriptions"]
    assert {each["bot_id"] for each in everybody} == {first.bot_id, second.bot_id}
    assert first.code("subscriptions", bot="nobody") == "unknown_bot"
    assert first.code("subscriptions", channel=f"{name}-nothing") == "unknown_channel"


def test_dead_letters_of_nobody_are_refused(shared: Worker, name: str) -> None:
    session = shared.session(name)
    assert session.code("dead_letters", bot="nobody") == "unknown_bot"
    assert session.code("retry_dead_letters", bot="nobody", seqs=[1]) == "unknown_bot"
    assert session.value("retry_dead_letters", bot=name, seqs=[1]) == {"retried": 0}


def test_status_tells_how_the_worker_is(shared: Worker, name: str) -> None:
    status = shared.session(name).value("status")
    for part in ("counters", "rates", "sizes", "versions"):
        assert status[part], f"{part} is empty"


@sqlite_only("PostgreSQL stores no text that is not UTF-8")
def test_an_answer_that_cannot_be_written_is_an_error_of_that_question(worker: Worker, name: str) -> None:
    session = worker.session(name)
    seqs = session.publish(to_bot(name, "x"))
    session.take_one()
    session.settle("term", *seqs, reason="r")
    with closing(sqlite3.connect(worker.database)) as database, database:
        database.execute("UPDATE dead_letters SET reason = CAST(x'32b8' AS TEXT)")
    assert session.code("dead_letters") == "internal"
    assert [each["name"] for each in session.value("bots")["bots"]] == [name]
    worker.stop()
    assert "question_failed" in worker.log_tail()
