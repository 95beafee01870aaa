"""Clients that return: what they hold stays with them, and no break counts as a failure of a message."""

from __future__ import annotations

from typing import Any

import pytest

from bus.settings import Settings
from bus.wire.frames import (
    Ack,
    Code,
    Commit,
    Credit,
    Hello,
    Nak,
    Ping,
    RetryDeadLetters,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
)

from .placement import placement_faults
from .worker import ID, TOKEN, Worker, delivered, holding, published, returns, settings, vanishes


def confirmed(worker: Worker, address: bytes, request: Any) -> dict[str, Any]:
    """Carry out a settle, and return its answer."""
    said = worker.say(address, request)
    while not (answers := [frame for frame in said if frame.get("request") == request.request]):
        said = worker.commit()
    answer: dict[str, Any] = answers[0]
    return answer


def passed_over(answer: dict[str, Any]) -> dict[int, str]:
    assert answer["op"] == "ok"
    return {each["seq"]: each["state"] for each in answer.get("value", {}).get("passed_over", ())}


def test_an_ack_after_a_break_holds() -> None:
    worker = Worker()
    seq = holding(worker)
    [welcome] = returns(worker, b"again", "b", [seq])
    assert "not_held" not in welcome
    assert passed_over(confirmed(worker, b"again", Ack(seqs=[seq], request=3))) == {}
    worker.restart()
    assert delivered(worker.hello("b")) == []


@pytest.mark.parametrize("flushed", [True, False])
def test_an_ack_after_a_restart_holds_without_credit(flushed: bool) -> None:
    """Also where the worker had not saved that it handed the message out."""
    worker = Worker()
    seq = holding(worker)
    if flushed:
        worker.commit(flush=True)
    worker.restart()
    [welcome] = returns(worker, b"again", "b", [seq], max_in_flight=0)
    assert "not_held" not in welcome
    assert passed_over(confirmed(worker, b"again", Ack(seqs=[seq], request=3))) == {}
    worker.restart()
    assert delivered(worker.hello("b")) == []


def test_what_a_client_does_not_hold_comes_again() -> None:
    worker = Worker()
    seq = holding(worker)
    assert [each["seq"] for each in delivered(returns(worker, b"again", "b", []) + worker.tick(1))] == [seq]


def test_a_dead_letter_that_is_put_back_is_delivered_anew() -> None:
    """Whoever had it before it was given up does not hold it any more."""
    worker = Worker()
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.say(b"other", Hello(request=2, protocol=1, bot="b"))
    worker.settle(1)
    worker.say(b"other", Term(seqs=[seq]))
    worker.say(b"other", Credit(max_in_flight=0))
    confirmed(worker, b"other", RetryDeadLetters(request=6, bot="b", seqs=[seq]))
    [welcome, *said] = returns(worker, b"again", "b", [seq])
    assert welcome["not_held"] == [seq]
    assert [(message["seq"], message["attempt"]) for message in delivered(said)] == [(seq, 1)]


@pytest.mark.parametrize("restarted", [False, True])
def test_the_delay_of_another_sessions_nak_holds(restarted: bool) -> None:
    """Whoever had it before is not given it back: it was delivered anew since, and is to wait."""
    worker = Worker()
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.say(b"other", Hello(request=2, protocol=1, bot="b"))
    worker.settle(1)
    worker.say(b"other", Nak(seqs=[seq], delay=8))
    worker.settle(1)
    if restarted:
        worker.restart()
    [welcome] = returns(worker, b"again", "b", [seq])
    assert welcome["not_held"] == [seq]
    assert delivered(worker.settle(3)) == []
    assert [message["seq"] for message in delivered(worker.settle(6))] == [seq]


def test_another_session_keeps_what_it_has() -> None:
    worker = Worker()
    seq = holding(worker)
    worker.do(worker.core.unreachable(b"b", worker.moment))
    worker.say(b"other", Hello(request=2, protocol=1, bot="b"))
    worker.tick(1)
    [welcome] = returns(worker, b"again", "b", [seq])
    assert welcome["not_held"] == [seq]
    for settle in (Ack(seqs=[seq], request=3), Term(seqs=[seq], request=4), Nak(seqs=[seq], request=5)):
        assert passed_over(confirmed(worker, b"again", settle)) == {seq: "in_flight"}
    assert worker.in_flight(b"other") == [seq]


def test_without_the_token_a_session_is_another_clients() -> None:
    worker = Worker()
    seq = holding(worker)
    [welcome] = returns(worker, b"thief", "b", [seq], token="a guess at the secret of it")
    assert welcome["not_held"] == [seq]
    assert worker.in_flight(b"b") == [seq]


def test_nobody_holds_what_is_not_for_its_bot() -> None:
    worker = Worker()
    for bot in ("s", "a", "b"):
        worker.hello(bot, max_in_flight=0)
    worker.say(b"s", published(ToBot(bot="a"), ToChannel("news")))
    worker.commit()
    worker.restart()
    [welcome] = returns(worker, b"again", "b", [1, 2, 3, 999])
    assert welcome["not_held"] == [1, 2, 3, 999]
    assert worker.in_flight(b"again") == []


def test_seqs_of_another_log_are_not_held() -> None:
    worker = Worker()
    seq = holding(worker)
    [welcome, *said] = returns(worker, b"again", "b", [seq], epoch="another")
    assert welcome["not_held"] == [seq]
    assert [message["attempt"] for message in delivered(said)] == [2]


def test_a_group_lets_its_member_keep_what_it_holds() -> None:
    worker = Worker()
    worker.hello("s", max_in_flight=0)
    worker.hello("b", token=TOKEN)
    worker.say(b"b", Subscribe(request=5, channel="work", group="team"))
    worker.commit()
    worker.say(b"s", published(ToChannel("work")))
    [message] = delivered(worker.commit())
    seq = message["seq"]
    for _ in range(2):  # the second time by a worker that remembers nothing
        [welcome] = returns(worker, b"again", "b", [seq], max_in_flight=0)
        assert "not_held" not in welcome
        worker.restart()
    returns(worker, b"again", "b", [seq])
    assert passed_over(confirmed(worker, b"again", Ack(seqs=[seq], request=6))) == {}
    assert worker.core.directory.mailboxes["work/team"].fate(seq, "work") == "settled"


@pytest.mark.parametrize("first", ["crew", None])
def test_what_another_mailbox_delivered_is_not_taken_for_a_message_of_the_group_that_is_joined_now(
    first: str | None,
) -> None:
    worker = Worker()
    worker.hello("s", max_in_flight=0)
    worker.hello("b", token=TOKEN)
    worker.say(b"b", Subscribe(request=5, channel="work", group=first))
    worker.commit()
    worker.say(b"s", published(ToChannel("work")))
    [message] = delivered(worker.commit())
    worker.say(b"b", Unsubscribe(request=6, channel="work"))
    worker.commit()
    worker.say(b"b", Subscribe(request=7, channel="work", group="team", start="all"))
    worker.do(worker.core.unreachable(b"b", worker.moment))
    worker.commit()
    worker.restart()
    held_groups = {} if first is None else {first: [message["seq"]]}
    said = returns(worker, b"again", "b", [message["seq"]], held_groups=held_groups)
    assert said[0]["not_held"] == [message["seq"]]
    [again] = delivered(said + worker.settle(1))
    assert (again["group"], again["attempt"]) == ("team", 1)


def test_a_repeated_ack_is_confirmed_and_what_is_dead_is_named() -> None:
    worker = Worker()
    seq = holding(worker)
    assert passed_over(confirmed(worker, b"b", Term(seqs=[seq], request=3))) == {}
    assert passed_over(confirmed(worker, b"b", Term(seqs=[seq], request=4))) == {}
    assert passed_over(confirmed(worker, b"b", Ack(seqs=[seq], request=5))) == {seq: "dead"}
    confirmed(worker, b"b", RetryDeadLetters(request=6, bot="b", seqs=[seq]))
    worker.tick(1)
    for number in (7, 8):
        assert passed_over(confirmed(worker, b"b", Ack(seqs=[seq], request=number))) == {}
    assert passed_over(confirmed(worker, b"b", Ack(seqs=[seq, 77], request=9))) == {77: "unknown"}


def of_a_group(worker: Worker) -> int:
    """Let bot `b` be delivered a message by a group that it shares with bot `c`; return its seq."""
    worker.hello("s", max_in_flight=0)
    worker.hello("b", token=TOKEN)
    worker.hello("c", max_in_flight=0)
    for member in (b"b", b"c"):
        worker.say(member, Subscribe(request=5, channel="work", group="team"))
        worker.commit()
    worker.say(b"s", published(ToChannel("work")))
    [message] = delivered(worker.commit())
    seq: int = message["seq"]
    return seq


@pytest.mark.parametrize("away", [False, True])
def test_what_a_group_has_back_is_not_confirmed_to_a_bot_that_left_it(away: bool) -> None:
    worker = Worker()
    seq = of_a_group(worker)
    worker.say(b"b2", Hello(request=1, protocol=1, bot="b", max_in_flight=0))
    if away:
        worker.do(worker.core.unreachable(b"b", worker.moment))
    worker.say(b"b2", Unsubscribe(request=6, channel="work"))
    worker.commit()
    returns(worker, b"again", "b", [seq])
    assert passed_over(confirmed(worker, b"again", Ack(seqs=[seq], request=7))) == {seq: "returned"}
    worker.say(b"c", Credit(max_in_flight=10))
    worker.tick(1)
    assert worker.in_flight(b"c") == [seq]


def test_what_a_client_holds_no_longer_waits_in_its_group() -> None:
    """Another member may have read it before the client returned."""
    worker = Worker()
    seq = of_a_group(worker)
    for _ in range(2):
        worker.say(b"s", published(ToChannel("work")))
        worker.commit()
    worker.restart()
    worker.hello("c", max_in_flight=1)  # it has one of the three; the others are read, and wait
    mailbox = worker.core.directory.mailboxes["work/team"]
    [first] = worker.in_flight(b"c")
    assert first == seq
    assert len(mailbox.intake) == 2
    [welcome] = returns(worker, b"again", "b", [seq + 1, seq + 2], max_in_flight=0)
    assert "not_held" not in welcome
    assert len(mailbox.intake) == 0
    assert placement_faults(mailbox) == []


def test_an_ack_is_on_disk_before_it_is_answered_also_where_the_bot_leaves_the_group_meanwhile() -> None:
    """One of the seqs was not in flight, so that the log is asked first."""
    worker = Worker()
    seq = of_a_group(worker)
    effects = worker.core.receive(b"b", Ack(seqs=[seq, 99], request=7), worker.moment)
    worker.say(b"b", Unsubscribe(request=6, channel="work"))
    worker.commit()
    worker.do(effects)
    assert [answer["request"] for answer in worker.commit()] == [7]
    worker.restart()
    worker.hello("c", max_in_flight=10)
    worker.tick(1)
    assert worker.in_flight(b"c") == []


def test_an_ack_is_confirmed_again_after_its_channel_was_left() -> None:
    worker = Worker()
    worker.hello("s", max_in_flight=0)
    worker.hello("b", token=TOKEN)
    worker.say(b"b", Subscribe(request=5, channel="work"))
    worker.commit()
    worker.say(b"s", published(ToChannel("work")))
    [message] = delivered(worker.commit())
    assert passed_over(confirmed(worker, b"b", Ack(seqs=[message["seq"]], request=7))) == {}
    worker.say(b"b", Unsubscribe(request=8, channel="work"))
    worker.commit()
    assert passed_over(confirmed(worker, b"b", Ack(seqs=[message["seq"]], request=9))) == {}


def test_an_ack_of_a_group_is_confirmed_again_while_other_mail_waits() -> None:
    worker = Worker()
    seq = of_a_group(worker)
    worker.say(b"s", published(ToBot(bot="b")))
    worker.commit()
    assert passed_over(confirmed(worker, b"b", Ack(seqs=[seq], request=7))) == {}
    worker.commit(flush=True)
    worker.restart()
    returns(worker, b"again", "b", [seq], max_in_flight=0)
    assert passed_over(confirmed(worker, b"again", Ack(seqs=[seq], request=8))) == {}


def test_a_direct_ack_is_confirmed_again_while_a_group_waits() -> None:
    worker = Worker()
    of_a_group(worker)
    worker.say(b"s", published(ToBot(bot="b")))
    [message] = delivered(worker.commit())
    assert passed_over(confirmed(worker, b"b", Ack(seqs=[message["seq"]], request=7))) == {}
    worker.restart()
    returns(worker, b"again", "b", [message["seq"]], max_in_flight=0)
    assert passed_over(confirmed(worker, b"again", Ack(seqs=[message["seq"]], request=8))) == {}


def test_a_client_returns_to_a_full_house() -> None:
    worker = Worker(Settings(limits=Settings().limits.__class__(sessions_max=2)))
    seq = holding(worker)
    [refusal] = worker.say(b"third", Hello(request=1, protocol=1, bot="b"))
    assert refusal["code"] == Code.BUSY
    [welcome] = returns(worker, b"again", "b", [seq])
    assert welcome["op"] == "welcome"


# ── Replies ──────────────────────────────────────────────────────────────────────────────────────────────


def asked(worker: Worker) -> str:
    """Let the second of three sessions of bot `b` ask bot `s`; return the question's id."""
    worker.hello("s")
    worker.hello("b", token=TOKEN)
    for address in (b"b2", b"b3"):
        worker.say(address, Hello(request=1, protocol=1, bot="b", token=f"of session {address!r}..."))
    question = published(ToBot(bot="s"), expects_reply=True)
    worker.say(b"b", question)
    worker.commit()
    return question.messages[0].id


def answer(worker: Worker, question: str) -> None:
    worker.say(b"s", published(ToBot(bot="b"), reply_to=question))
    worker.commit()


def test_a_reply_comes_to_the_session_that_asked() -> None:
    worker = Worker()
    answer(worker, asked(worker))
    for _ in range(4):
        question = published(ToBot(bot="s"), expects_reply=True)
        worker.say(b"b", question)
        worker.commit()
        answer(worker, question.messages[0].id)
    assert worker.in_flight(b"b2") == worker.in_flight(b"b3") == []
    assert len(worker.in_flight(b"b")) == 5


def test_a_reply_follows_its_client() -> None:
    worker = Worker()
    question = asked(worker)
    returns(worker, b"again", "b", [], awaits=[question])
    answer(worker, question)
    assert len(worker.in_flight(b"again")) == 1


def test_a_reply_that_was_lost_on_its_way_follows_its_client() -> None:
    worker = Worker()
    question = asked(worker)
    answer(worker, question)
    said = returns(worker, b"again", "b", [], awaits=[question])
    assert [message["reply_to"] for message in delivered(said)] == [question]


def test_a_reply_is_awaited_over_a_restart() -> None:
    worker = Worker()
    question = asked(worker)
    worker.commit(flush=True)
    worker.restart()
    worker.hello("s", max_in_flight=0)
    worker.say(b"other", Hello(request=1, protocol=1, bot="b"))
    returns(worker, b"again", "b", [], awaits=[question], max_in_flight=1)
    answer(worker, question)
    assert len(worker.in_flight(b"again")) == 1


def test_a_reply_whose_asker_is_gone_is_ordinary_mail() -> None:
    worker = Worker()
    question = asked(worker)
    worker.do(worker.core.unreachable(b"b", worker.moment))
    answer(worker, question)
    assert len(worker.in_flight(b"b2") + worker.in_flight(b"b3")) == 1


# ── Commits ──────────────────────────────────────────────────────────────────────────────────────────────


def committing(worker: Worker, seq: int) -> Commit:
    """Let a commit that acks a message be on its way to the disk."""
    commit = Commit(request=5, id=ID % 77, messages=[], acks=[seq])
    worker.say(b"b", commit)
    return commit


@pytest.mark.parametrize("how", ["vanishes", "naks", "terms", "is late"])
def test_what_a_commit_settles_is_left_alone(how: str) -> None:
    worker = Worker(settings(max_deliver=1, ack_wait_seconds=5.0))
    seq = holding(worker)
    committing(worker, seq)
    batch = worker.next_batch()
    if how == "vanishes":
        worker.do(worker.core.unreachable(b"b", worker.moment))
        worker.say(b"other", Hello(request=1, protocol=1, bot="b"))
    elif how == "is late":
        for _ in range(8):
            worker.tick(2)
            worker.say(b"b", Ping())
    else:
        worker.say(b"b", Nak(seqs=[seq]) if how == "naks" else Term(seqs=[seq]))
    assert delivered(worker.tick(1)) == []
    worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    while worker.core.has_batch(worker.moment):
        worker.commit()
    assert worker.log.dead_letters == {}
    assert worker.core.directory.find_mailbox("b").fate(seq, None) == "settled"  # type: ignore[union-attr]


def test_what_a_refused_commit_would_have_settled_comes_again() -> None:
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    committing(worker, seq)
    batch = worker.next_batch()
    worker.do(worker.core.unreachable(b"b", worker.moment))
    worker.say(b"other", Hello(request=1, protocol=1, bot="b"))
    said = worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "the disk is full", worker.moment))
    assert [message["seq"] for message in delivered(said)] == [seq]


def test_a_commit_is_repeated_by_a_client_that_returns() -> None:
    worker = Worker()
    seq = holding(worker)
    commit = committing(worker, seq)
    returns(worker, b"again", "b", [seq])
    worker.say(b"again", commit)
    said = worker.commit()
    assert [frame["op"] for frame in said if frame.get("request") == 5] == ["ok", "ok"]
