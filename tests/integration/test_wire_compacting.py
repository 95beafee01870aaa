"""Giving room back on the wire: a portion at a time, or an answer that says what else to do."""

from __future__ import annotations

from .wire import new_id, to_bot
from .wire_worker import Worker


def test_a_portion_of_the_free_room_is_given_back(shared: Worker, name: str, engine_name: str) -> None:
    session = shared.session(name)
    if engine_name == "postgresql":
        for dry_run in (False, True):
            error = session.ask("compact", answer="error", dry_run=dry_run)
            assert (error["code"], "autovacuum" in error["message"]) == ("conflict", True)
        return
    seqs = session.publish(*(to_bot(name, "x" * 100_000) for _ in range(5)))
    session.take(len(seqs))
    session.settle("ack", *seqs)
    assert session.value("erase", id=new_id(), seqs=seqs)["seqs"] == seqs
    before = session.value("compact", dry_run=True)
    assert before["free_bytes"] >= 400_000
    assert (before["freed_bytes"], before["in_portions"]) == (0, True)
    given, left = 0, before["free_bytes"]
    while left:
        portion = session.value("compact")
        given, left = given + portion["freed_bytes"], portion["free_bytes"]
    assert given >= before["free_bytes"]
    assert session.value("status")["sizes"]["database_bytes"] < before["database_bytes"]
