"""Bots that settle what they should not, and late, and twice; and one that leaves a channel with its hands full."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ..engines import empty_store
from .forked_worker import forked_worker
from .wire import TIMEOUT_SECONDS, Session, bodies, seqs_of, to_bot, to_channel
from .wire_worker import Worker

IMPATIENT = """
[delivery]
ack_wait_seconds = 0.5
"""


@pytest.fixture(scope="module")
def impatient_process(
    engine_name: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("impatient")
    with empty_store(engine_name, folder, request) as url, forked_worker(folder, IMPATIENT, url) as running:
        yield running


@pytest.fixture
def impatient(impatient_process: Worker) -> Iterator[Worker]:
    """A worker that takes back after half a second what was not settled."""
    yield impatient_process
    impatient_process.close_clients()


def states(session: Session, *ids: str) -> list[str]:
    """Tell what became of messages that went to one mailbox."""
    return [session.value("message", id=each)["mailboxes"][0]["state"] for each in ids]


# ── Settling ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["ack", "nak", "term", "extend"])
def test_another_bots_message_is_not_ours_to_settle(shared: Worker, name: str, how: str) -> None:
    owner, thief = shared.session(name), shared.session(f"{name}-thief")
    message = to_bot(name, "mine")
    [seq] = thief.publish(message)
    assert owner.take_one()["seq"] == seq
    thief.settle(how, seq)
    assert states(owner, message["id"]) == ["in_flight"]
    for bot in (name, f"{name}-thief"):
        assert owner.value("dead_letters", bot=bot)["dead_letters"] == []
    assert owner.waiting_deliveries() == []
    owner.settle("ack", seq)
    assert states(owner, message["id"]) == ["settled"]


def test_what_two_bots_have_of_one_message_stands_alone(shared: Worker, name: str) -> None:
    sender, first, second = (shared.session(f"{name}-{number}") for number in range(3))
    for each in (first, second):
        each.subscribe(name)
    message = to_channel(name, "for both")
    [seq] = sender.publish(message)
    assert first.take_one()["seq"] == second.take_one()["seq"] == seq
    first.settle("term", seq)
    mailboxes = sender.value("message", id=message["id"])["mailboxes"]
    assert {each["bot_id"]: each["state"] for each in mailboxes} == {
        first.bot_id: "dead",
        second.bot_id: "in_flight",
    }
    second.settle("ack", seq)
    assert second.value("dead_letters")["dead_letters"] == []


def test_settling_twice_counts_once(shared: Worker, name: str) -> None:
    session = shared.session(name)
    messages = [to_bot(name, number) for number in range(4)]
    acked, naked, ended, released = session.publish(*messages)
    session.take(4)
    session.settle("ack", acked, acked, acked)
    for how in ("ack", "nak", "term"):
        session.settle(how, acked)
    session.settle("nak", naked, naked, naked, naked, naked, naked, delay=60)
    session.settle("ack", naked)
    session.settle("term", ended, ended, reason="first")
    session.settle("term", ended, reason="second")
    session.settle("ack", ended)
    session.settle("nak", released, release=True, delay=60)
    session.settle("nak", released, released, released, released, released, delay=0)
    assert states(session, *(message["id"] for message in messages)) == ["settled", "returned", "dead", "returned"]
    [dead] = session.value("dead_letters")["dead_letters"]
    assert (dead["seq"], dead["reason"], dead["attempts"]) == (ended, "first", 1)
    assert session.waiting_deliveries() == []


def test_settling_in_any_order(worker: Worker) -> None:
    session = worker.session("bot", max_in_flight=1000)
    seqs = session.publish(*(to_bot("bot", number) for number in range(500)))
    assert seqs_of(session.take(500)) == seqs
    kept = {seqs[0], seqs[7], seqs[250], seqs[499]}
    shuffled = sorted(set(seqs) - kept, key=lambda seq: (seq * 7919) % 1009)
    for start in range(0, len(shuffled), 100):
        session.settle("ack", *shuffled[start : start + 100])
    worker.kill()
    worker.start()
    session.hello("bot")
    assert [(each["seq"], each["attempt"]) for each in session.take(4)] == [(seq, 2) for seq in sorted(kept)]
    assert session.waiting_deliveries() == []


def test_an_ack_that_comes_too_late(impatient: Worker, name: str) -> None:
    """Its message is with another session by then, and only that one can settle it."""
    late = impatient.session(name, max_in_flight=1)
    message = to_bot(name, "slow work")
    [seq] = late.publish(message)
    assert late.take_one()["attempt"] == 1
    late.value("credit", max_in_flight=0)
    other = impatient.session(name, max_in_flight=1)
    assert [(each["seq"], each["attempt"]) for each in other.take(1)] == [(seq, 2)]
    for how in ("ack", "nak", "term", "extend"):
        late.settle(how, seq)
    assert states(late, message["id"]) == ["in_flight"]
    other.settle("ack", seq)
    assert states(late, message["id"]) == ["settled"]
    assert late.value("dead_letters")["dead_letters"] == []


def test_an_ack_that_comes_while_nobody_has_the_message(impatient: Worker, name: str) -> None:
    """It was taken back, and there was no credit to hand it out again: the ack is for a delivery that is over."""
    session = impatient.session(name, max_in_flight=1)
    message = to_bot(name, "slow work")
    [seq] = session.publish(message)
    session.take_one()
    session.value("credit", max_in_flight=0)
    while states(session, message["id"]) == ["in_flight"]:
        time.sleep(0.01)
        session.ping()
    assert states(session, message["id"]) == ["returned"]
    session.settle("ack", seq)
    assert states(session, message["id"]) == ["returned"]
    session.value("credit", max_in_flight=1)
    assert session.take_one()["attempt"] == 2
    session.settle("ack", seq)
    assert states(session, message["id"]) == ["settled"]


def test_an_ack_of_the_first_delivery_settles_the_second_in_the_same_session(impatient: Worker, name: str) -> None:
    session = impatient.session(name)
    message = to_bot(name, "slow work")
    [seq] = session.publish(message)
    assert [each["attempt"] for each in session.take(2)] == [1, 2]
    session.settle("ack", seq)
    assert states(session, message["id"]) == ["settled"]


def test_seqs_that_never_were(shared: Worker, name: str) -> None:
    session = shared.session(name)
    for how in ("ack", "nak", "term", "extend"):
        session.settle(how, 0, 2**53 - 1, 10**12)
        session.settle(how)
        session.settle(how, *range(10**9, 10**9 + 10_000))
    session.publish(to_bot(name, "fine"))
    assert session.take_one()["body"] == "fine"
    assert session.code("ack", seqs=list(range(10_001))) == "bad_request"


# ── Leaving a channel with full hands ────────────────────────────────────────────────────────────────────


def test_leaving_while_messages_are_in_flight(shared: Worker, name: str) -> None:
    """They may still be settled, and nothing of them comes back, however that is done."""
    sender, session = shared.session(f"{name}-sender"), shared.session(name, max_in_flight=6)
    session.subscribe(name)
    messages = [to_channel(name, number) for number in range(20)]
    seqs = sender.publish(*messages)
    taken = session.take(6)
    assert seqs_of(taken) == seqs[:6]
    assert session.value("unsubscribe", channel=name) == {"removed": True}
    assert session.waiting_deliveries() == []
    session.settle("extend", *seqs[:6])
    session.settle("ack", seqs[0])
    session.settle("nak", seqs[1], delay=0)
    session.settle("nak", seqs[2], release=True)
    session.settle("term", seqs[3], reason="left")
    session.publish(to_bot(name, "direct mail goes on"))
    assert bodies(session.take(1)) == ["direct mail goes on"]
    assert session.waiting_deliveries() == []
    [dead] = session.value("dead_letters")["dead_letters"]
    assert (dead["seq"], dead["reason"]) == (seqs[3], "left")
    session.goodbye()  # with two of them still in its hands
    session.hello(name)
    assert bodies(session.take(1)) == ["direct mail goes on"]
    assert session.waiting_deliveries() == []
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while backlog(sender, name) != 1:  # what was given back is looked at when it is due, and then forgotten
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert session.waiting_deliveries() == []


def backlog(session: Session, bot: str) -> int:
    [found] = [each["backlog"] for each in session.value("bots")["bots"] if each["name"] == bot]
    return int(found)


def test_leaving_survives_a_kill(worker: Worker) -> None:
    sender, session = worker.session("sender"), worker.session("bot", max_in_flight=3)
    session.subscribe("news")
    seqs = sender.publish(*(to_channel("news", number) for number in range(5)), to_bot("bot", "direct"))
    assert seqs_of(session.take(3)) == seqs[:3]
    session.value("unsubscribe", channel="news")
    worker.kill()
    worker.start()
    session.hello("bot")
    assert bodies(session.take(1)) == ["direct"]
    assert session.waiting_deliveries() == []
    session.subscribe("news", start="all")
    assert bodies(session.take(2)) == [0, 1]
