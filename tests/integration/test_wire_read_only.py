"""Sessions on the wire that only ask."""

from __future__ import annotations

import pytest

from .wire import new_id, to_bot, to_channel
from .wire_worker import Worker

CONSOLE = "posthouse.console"


def test_a_read_only_session_registers_no_bot(shared: Worker, name: str) -> None:
    bot, console = shared.session(name), shared.session()
    before = [each["name"] for each in bot.value("bots", after=None)["bots"]]
    welcome = console.ask("hello", answer="welcome", protocol=1, read_only=True, client="some-console/1.0")
    assert (welcome["bot"], welcome["max_in_flight"]) == (CONSOLE, 0)
    assert [each["name"] for each in bot.value("bots")["bots"]] == before
    [row] = [each for each in bot.value("sessions", limit=1000)["sessions"] if each["id"] == welcome["session"]]
    assert (row["bot"], row["read_only"], row["client"]) == (CONSOLE, True, "some-console/1.0")
    assert bot.code("mailbox", bot=CONSOLE) == "unknown_bot"
    [seq] = bot.publish(to_bot(name, "hello"))
    assert console.value("message", seq=seq)["message"]["body"] == "hello"
    assert console.value("mailbox", bot=name)["counts"]["in_flight"] == 1
    assert console.value("workflow", call="list_definitions") == []
    console.goodbye()
    assert console.code("status") == "unknown_session"


def test_a_read_only_session_changes_nothing(shared: Worker, name: str) -> None:
    bot, console = shared.session(name), shared.session()
    console.ask("hello", answer="welcome", protocol=1, read_only=True)
    [seq] = bot.publish(to_bot(name, "hello"))
    bot.take_one()
    for op, fields in (
        ("publish", {"messages": [to_channel(name, 1)]}),
        ("subscribe", {"channel": name}),
        ("ack", {"seqs": [seq]}),
        ("credit", {"max_in_flight": 10}),
        ("retry_dead_letters", {"bot": name, "seqs": [seq]}),
        ("scrub", {}),
        ("compact", {"dry_run": True}),
        ("erase", {"id": new_id(), "seqs": [seq], "delayed": [], "runs": []}),
        ("workflow", {"call": "delete_run", "arguments": {"run_id": "r"}}),
    ):
        assert console.code(op, **fields) == "forbidden", op
    assert bot.value("message", seq=seq)["mailboxes"][0]["state"] == "in_flight"
    assert console.code("workflow", call="nothing") == "bad_request"


@pytest.mark.parametrize("op", ["subscriptions", "dead_letters", "mailbox"])
def test_a_read_only_session_has_nothing_of_its_own(shared: Worker, name: str, op: str) -> None:
    shared.session(name)
    console = shared.session()
    console.ask("hello", answer="welcome", protocol=1, read_only=True)
    assert console.code(op) == "bad_request"
    assert console.value(op, bot=name)


def test_a_read_only_session_names_no_bot(shared: Worker, name: str) -> None:
    session = shared.session()
    for fields in ({"bot": name}, {"bot_id": new_id()}):
        assert session.code("hello", protocol=1, read_only=True, **fields) == "bad_request"
    for reserved in ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000000"):
        assert session.code("hello", protocol=1, bot=name, bot_id=reserved) == "bad_request"
    assert session.code("hello", protocol=1, bot=CONSOLE) == "bad_request"


def test_a_connection_goes_over_from_asking_to_being_a_bot_and_back(shared: Worker, name: str) -> None:
    session = shared.session()
    session.ask("hello", answer="welcome", protocol=1, read_only=True)
    session.hello(name)
    session.publish(to_bot(name, 1))
    session.take_one()
    session.ask("hello", answer="welcome", protocol=1, read_only=True)
    [row] = [each for each in session.value("bots")["bots"] if each["name"] == name]
    assert (row["online"], row["sessions"], row["in_flight"], row["backlog"]) == (False, 0, 0, 1)
