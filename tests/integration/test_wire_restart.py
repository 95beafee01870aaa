"""A worker that is killed or stopped, seen from the wire, and the programs of docs/protocol.md over it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from .wire import bodies, seqs_of, to_bot, to_channel
from .wire_program import check_echo_program, code_block
from .wire_worker import REPOSITORY, Worker


def test_a_killed_worker_forgets_nothing_that_it_confirmed(worker: Worker) -> None:
    sender, receiver, absent = (worker.session(each) for each in ("sender", "receiver", "absent"))
    receiver.subscribe("news")
    absent.subscribe("news")
    absent.goodbye()
    terms = receiver.hello("receiver")
    messages = [to_bot("receiver", 0), to_channel("news", 1), to_bot("receiver", 2), to_channel("news", 3)]
    seqs = sender.publish(*messages)
    first = receiver.take(4)
    receiver.settle("ack", seqs[1])

    worker.kill()
    worker.start()

    # The sockets connect again by themselves; their sessions are gone.
    assert receiver.code("status") == "unknown_session"
    again = receiver.hello("receiver")
    assert (again["bot_id"], again["epoch"]) == (terms["bot_id"], terms["epoch"])
    assert again["last_seq"] == seqs[-1]
    assert receiver.take(3) == [{**first[index], "attempt": 2} for index in (0, 2, 3)]
    sender.hello("sender")
    repeated = sender.try_publish(*messages)
    assert (repeated["seqs"], repeated["duplicates"]) == (seqs, [0, 1, 2, 3])
    [last] = sender.publish(to_channel("news", 4))
    assert last == seqs[-1] + 1
    assert receiver.take_one()["seq"] == last
    assert receiver.subscribe("news")["created"] is False
    absent.hello("absent")
    assert [(each["seq"], each["attempt"]) for each in absent.take(3)] == [
        (seqs[1], 1),
        (seqs[3], 1),
        (last, 1),
    ]
    assert bodies(sender.history(channel="news")) == [4, 3, 1]
    assert receiver.waiting_deliveries() == []


def test_a_killed_worker_keeps_dead_letters(worker: Worker) -> None:
    session = worker.session("bot")
    [seq] = session.publish(to_bot("bot", "bad"))
    session.settle("term", session.take_one()["seq"], reason="no")
    worker.kill()
    worker.start()
    session.hello("bot")
    assert session.waiting_deliveries() == []
    assert seqs_of(session.value("dead_letters", bot="bot")["dead_letters"]) == [seq]
    assert session.value("retry_dead_letters", bot="bot", seqs=[seq]) == {"retried": 1}
    assert session.take_one()["seq"] == seq


def test_a_stopped_worker_says_so_and_goes_on_where_it_was(worker: Worker) -> None:
    sender, receiver = worker.session("sender"), worker.session("receiver")
    seqs = sender.publish(*(to_bot("receiver", number) for number in range(3)))
    first = receiver.take(3)
    receiver.send(op="ack", seqs=[seqs[0]])
    receiver.ping()

    worker.signal(signal.SIGTERM)
    assert receiver.receive_until("closing") == {"op": "closing"}
    assert sender.receive_until("closing") == {"op": "closing"}
    assert worker.exit_code() == 0
    worker.start()

    receiver.hello("receiver")
    # Settled without confirmation, but the stop was in order: it stays settled.
    assert receiver.take(2) == [{**delivery, "attempt": 2} for delivery in first[1:]]
    assert receiver.waiting_deliveries() == []


# ── The page's own program ───────────────────────────────────────────────────────────────────────────────


def test_the_python_program_of_the_page_answers_and_survives_a_restart(worker: Worker, tmp_path: Path) -> None:
    program = tmp_path / "echo_bot.py"
    program.write_text(code_block(REPOSITORY / "docs" / "protocol.md", "python"), encoding="utf-8")
    check_echo_program(worker, [sys.executable, str(program), worker.command], tmp_path)
