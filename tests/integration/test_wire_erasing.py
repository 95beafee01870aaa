"""Searching and erasing on the wire: what is found, what is left, and what mailboxes are told."""

from __future__ import annotations

from typing import Any

from .wire import Frame, Session, bodies, new_id, to_bot, to_channel
from .wire_worker import Worker


def erase(session: Session, *seqs: int, **fields: Any) -> Any:
    return session.value("erase", id=fields.pop("id", new_id()), seqs=list(seqs), **fields)


def gap_of(session: Session) -> Frame:
    """Return the gap that a session is told, before or after the answer to its last request."""
    return next((frame for frame in session.others if frame["op"] == "gap"), None) or session.receive_until("gap")


def test_an_erased_message_keeps_its_place(shared: Worker, name: str) -> None:
    session = shared.session(name)
    sent = to_channel(name, {"who": name}, headers={"who": name})
    [seq] = session.publish(sent)
    erased = erase(session, seq, reference="ticket 7")
    assert erased == {"seqs": [seq], "delayed": [], "runs": [], "runs_left": [], "again": False, "values": []}
    [kept] = session.history(channel=name)
    assert (kept["seq"], kept["id"], kept["body"], kept["headers"]) == (seq, sent["id"], None, {})
    assert kept["erased"] is True
    assert session.value("message", id=sent["id"])["message"]["erased"] is True
    assert session.publish(sent) == [seq]


def test_a_mailbox_that_waits_passes_over_it_and_is_told(shared: Worker, name: str) -> None:
    sender, receiver = shared.session(f"{name}-sender"), shared.session(name, max_in_flight=1)
    seqs = sender.publish(*(to_bot(name, number) for number in range(4)))
    first = receiver.take_one()
    erase(sender, seqs[1], seqs[2])
    receiver.settle("ack", first["seq"])
    gap = gap_of(receiver)
    assert (gap["from_seq"], gap["to_seq"]) == (seqs[1], seqs[2])
    last = receiver.take_one()
    assert (last["seq"], last["body"]) == (seqs[3], 3)


def test_a_mailbox_that_was_away_is_told_as_well(shared: Worker, name: str) -> None:
    shared.session(name).goodbye()
    sender = shared.session(f"{name}-sender")
    seqs = sender.publish(to_bot(name, 1), to_bot(name, 2))
    erase(sender, seqs[0])
    receiver = shared.session(name)
    assert receiver.take_one()["body"] == 2
    assert receiver.waiting_deliveries() == []


def test_what_is_in_flight_can_be_settled_and_does_not_come_again(shared: Worker, name: str) -> None:
    session = shared.session(name)
    seqs = session.publish(to_bot(name, "a"), to_bot(name, "b"))
    assert bodies(session.take(2)) == ["a", "b"]
    erase(session, *seqs)
    session.settle("ack", seqs[0])
    session.settle("nak", seqs[1], delay=0)
    gap = gap_of(session)
    assert (gap["from_seq"], gap["to_seq"]) == (seqs[1], seqs[1])
    assert session.waiting_deliveries() == []


def test_a_delayed_message_is_removed(shared: Worker, name: str) -> None:
    session = shared.session(name)
    sent = to_bot(name, f"said by {name}", delay=3600)
    assert session.try_publish(sent)["scheduled"] == [0]
    found = session.value("search", id=sent["id"])
    assert found["delayed"] == [{"id": sent["id"], "sender_bot_id": session.bot_id}]
    assert erase(session, delayed=found["delayed"])["delayed"] == found["delayed"]
    assert session.value("search", id=sent["id"])["delayed"] == []
    assert session.code("message", id=sent["id"]) == "not_found"


def test_a_text_is_found_until_it_is_erased(shared: Worker, name: str) -> None:
    session = shared.session(name)
    sent = [to_bot(name, {"to": [{"mail": f"{name}@here"}]}), to_bot(name, 1, headers={"by": f"{name}@here"})]
    seqs = session.publish(*sent)

    def found(**what: Any) -> list[Any]:
        portions = [session.value("search", **what)]
        while portions[-1]["after"] is not None:
            portions.append(session.value("search", after=portions[-1]["after"], **what))
        return [message for portion in portions for message in portion["messages"]]

    pairs = [[seq, message["id"]] for seq, message in zip(seqs, sent, strict=True)]
    assert found(text=f"{name}@HERE") == pairs
    assert found(header=["by", f"{name}@here"]) == pairs[1:]
    assert found(body={"path": ["to", "mail"], "value": f"{name}@here"}) == pairs[:1]
    erase(session, *seqs)
    assert found(text=f"{name}@here") == []


def test_a_repeated_erasure_has_its_first_answer_and_one_record(shared: Worker, name: str) -> None:
    session = shared.session(name)
    seqs = session.publish(to_bot(name, 1), to_bot(name, 2))
    id = new_id()
    assert erase(session, seqs[0], id=id, reference=name)["again"] is False
    again = erase(session, *seqs, id=id)
    assert (again["seqs"], again["again"]) == ([seqs[0]], True)
    [record] = [each for each in session.value("removals", limit=1000)["removals"] if each["id"] == id]
    assert (record["bot_name"], record["bot_id"], record["reference"]) == (name, session.bot_id, name)
    assert (record["erased"]["seqs"], record["scrubbed_at"]) == ([seqs[0]], None)


def test_a_scrub_is_noted(shared: Worker, name: str) -> None:
    session = shared.session(name)
    erase(session, *session.publish(to_bot(name, 1)), reference=name)
    assert session.value("scrub") == {}
    records = session.value("removals", limit=1000)["removals"]
    assert all(each["scrubbed_at"] for each in records if each["reference"] == name)
    session.publish(to_bot(name, 2))


def test_what_is_not_valid_is_refused(shared: Worker, name: str) -> None:
    session = shared.session(name)
    assert session.code("search") == "bad_request"
    assert session.code("search", text="a", id=new_id()) == "bad_request"
    assert session.code("search", text="a", after="nowhere:1") == "bad_request"
    assert session.code("search", text="a", sender="nobody", id=new_id()) in ("bad_request", "unknown_bot")
    assert session.code("erase", id=new_id(), reference="two\nlines") == "bad_request"


def test_erased_messages_stay_so_after_a_kill(worker: Worker) -> None:
    session = worker.session("ann")
    seqs = session.publish(to_bot("ann", "x"), to_bot("ann", "y"))
    session.take(2)
    erase(session, seqs[0])
    worker.kill()
    worker.start()
    again = worker.session("ann")
    assert [(each["seq"], each["body"]) for each in again.take(1)] == [(seqs[1], "y")]
    assert again.history(between=["ann", "ann"])[-1]["erased"] is True
