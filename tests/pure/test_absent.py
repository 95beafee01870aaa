"""Clients that vanish: what they failed by that, and what a return takes back."""

from __future__ import annotations

from typing import Any

import pytest

from bus.core.effects import Read
from bus.mailbox.absent import Absent
from bus.mailbox.unsettled import Unsettled
from bus.model.repository import Page
from bus.settings import Delivery, Limits, Settings
from bus.wire.frames import Credit, Extend, Hello, Nak, Ping, Subscribe, ToBot, ToChannel, Unsubscribe

from .worker import TOKEN, Worker, delivered, holding, published, returns, settings, vanishes


@pytest.mark.parametrize("max_deliver", [1, 3])
def test_breaks_are_no_failures(max_deliver: int) -> None:
    worker = Worker(settings(max_deliver=max_deliver))
    seq = holding(worker)
    for number in range(9):
        returns(worker, b"%d" % number, "b", [seq])
    assert worker.in_flight(b"8") == [seq]
    [message] = delivered(returns(worker, b"empty", "b", []))
    assert (message["seq"], message["attempt"]) == (seq, 2)
    assert worker.core.dispatch.counters.dead == 0


@pytest.mark.parametrize("max_deliver", [1, 2])
def test_a_client_that_vanished_and_returns_has_not_failed(max_deliver: int) -> None:
    worker = Worker(settings(max_deliver=max_deliver))
    seq = holding(worker)
    address = b"b"
    for number in range(6):
        worker.do(worker.core.unreachable(address, worker.moment))
        address = b"%d" % number
        worker.settle(10)
        [welcome] = returns(worker, address, "b", [seq])
        assert "not_held" not in welcome
    assert worker.core.dispatch.counters.dead == 0


def test_a_client_that_returns_to_a_worker_which_was_restarted_has_not_failed() -> None:
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.settle(1)
    worker.restart()
    worker.settle(10)
    [welcome] = returns(worker, b"again", "b", [seq])
    assert "not_held" not in welcome
    worker.settle(2)
    vanishes(worker, b"again")
    worker.restart()
    worker.settle(40)
    assert worker.log.dead_letters == {}


def test_a_client_that_returns_without_a_message_has_not_failed_it() -> None:
    """It was lost on its way: the client never had it."""
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    vanishes(worker, b"b")
    said = returns(worker, b"again", "b", [])
    assert [message["seq"] for message in delivered(said)] == [seq]
    worker.settle(10)
    assert worker.log.dead_letters == {}


def test_two_clients_behind_one_network_have_not_failed() -> None:
    worker = Worker(settings(max_deliver=2))
    seq = holding(worker)
    other = "the secret of another client"
    worker.say(b"other", Hello(request=2, protocol=1, bot="b", token=other))
    for _ in range(3):
        vanishes(worker, b"b")
        worker.settle(1)
        assert worker.in_flight(b"other") == [seq]
        vanishes(worker, b"other")
        worker.settle(5)
        [welcome] = returns(worker, b"other", "b", [seq], token=other)
        assert "not_held" not in welcome
        [welcome] = returns(worker, b"b", "b", [])
        vanishes(worker, b"other")
        worker.say(b"other", Hello(request=2, protocol=1, bot="b", token=other))
        worker.settle(1)
        assert worker.in_flight(b"b") == [seq]
    assert worker.log.dead_letters == {}


def test_a_break_longer_than_ack_wait_is_no_failure() -> None:
    worker = Worker(settings(max_deliver=1, ack_wait_seconds=8.0))
    seq = holding(worker)
    worker.settle(12)  # nothing is heard of it, and its session is not over yet
    [welcome] = returns(worker, b"again", "b", [seq])
    assert "not_held" not in welcome
    worker.settle(1)
    assert worker.log.dead_letters == {}


def test_a_client_that_is_there_and_too_slow_has_failed() -> None:
    worker = Worker(settings(max_deliver=1, ack_wait_seconds=8.0))
    seq = holding(worker)
    for _ in range(9):
        worker.settle(1)
        worker.say(b"b", Ping())
    worker.settle(1)
    assert [dead.reason for dead in worker.log.dead_letters.values()] == ["ack_wait ran out; failed 1 times"]
    [welcome] = returns(worker, b"again", "b", [seq])
    assert welcome["not_held"] == [seq]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_client_failed_by_vanishing_is_given_up_when_it_does_not_return(restarted: bool) -> None:
    """Also where nobody of that bot comes back, and over a restart of the worker."""
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.settle(10)
    assert worker.log.dead_letters == {}
    if restarted:
        worker.restart()
    for _ in range(2):
        worker.settle(10)
    [((_, dead_seq), dead)] = worker.log.dead_letters.items()
    assert (dead_seq, dead.reason) == (seq, "its session vanished; failed 1 times")
    [welcome] = returns(worker, b"again", "b", [seq])
    assert welcome["not_held"] == [seq]


def test_a_client_that_stays_away_has_failed() -> None:
    worker = Worker(settings(max_deliver=2))
    seq = holding(worker)
    worker.do(worker.core.unreachable(b"b", worker.moment))
    worker.say(b"other", Hello(request=2, protocol=1, bot="b", token="another client of it"))
    worker.tick(1)
    assert worker.in_flight(b"other") == [seq]
    vanishes(worker, b"other")
    worker.settle(16)
    assert worker.core.dispatch.counters.dead == 1


def test_a_pause_of_the_worker_is_nobodys_failure() -> None:
    """Before anybody is held to a deadline, what waits in the socket is read."""
    worker = Worker(settings(max_deliver=1, ack_wait_seconds=20.0))
    seq = holding(worker)
    for _ in range(5):
        worker.now += 100.0
        worker.do(worker.core.tick(worker.moment))
        worker.tick(1)
        worker.say(b"b", Ping())
    assert worker.in_flight(b"b") == [seq]
    assert worker.core.dispatch.counters.dead == 0


def test_a_silent_client_that_returns_has_failed_nothing_however_often() -> None:
    """A delivery of its expired twice before its session was over."""
    worker = Worker(settings(max_deliver=3, ack_wait_seconds=6.0))
    seq = holding(worker)
    for number in range(4):
        worker.settle(14)
        returns(worker, b"%d" % number, "b", [seq])
    worker.settle(1)
    assert worker.in_flight(b"3") == [seq]
    worker.say(b"3", Nak(seqs=[seq]))
    worker.settle(1)
    assert worker.log.dead_letters == {}


def test_a_client_that_is_heard_again_in_the_same_session_has_not_failed() -> None:
    worker = Worker(settings(max_deliver=1, ack_wait_seconds=8.0))
    seq = holding(worker)
    worker.settle(12)
    said = worker.say(b"b", Ping())
    assert [(message["seq"], message["attempt"]) for message in delivered(said)] == [(seq, 2)]
    for _ in range(20):
        worker.settle(1)
        worker.say(b"b", Ping())
    assert [dead.reason for dead in worker.log.dead_letters.values()] == ["ack_wait ran out; failed 1 times"]


def test_a_pause_of_the_worker_gives_clients_their_time_anew() -> None:
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.settle(1)
    worker.now += 100.0
    worker.settle(2)
    [welcome] = returns(worker, b"again", "b", [seq])
    assert "not_held" not in welcome
    assert worker.log.dead_letters == {}


def test_a_page_that_was_asked_for_before_a_client_vanished_changes_nothing() -> None:
    """The message was to be read again after a restart, and its client held it meanwhile."""
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    worker.settle(1)
    worker.restart()
    effects = worker.core.receive(b"other", Hello(request=2, protocol=1, bot="b"), worker.moment)
    [read] = [effect for effect in effects if isinstance(effect, Read)]
    assert read.request.seqs == (seq,)
    returns(worker, b"again", "b", [seq])
    vanishes(worker, b"again")
    worker.do(worker.core.page_read(read.request, Page([], [], complete=True, damaged=(seq,)), worker.moment))
    for _ in range(3):
        worker.settle(10)
    assert [dead.reason for dead in worker.log.dead_letters.values()] == ["its session vanished; failed 1 times"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_nak_keeps_its_delay_when_a_client_returns(restarted: bool) -> None:
    """It was the last failure, beside one of a client that vanished, and is not when that one is back."""
    worker = Worker(settings(max_deliver=2))
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.say(b"other", Hello(request=2, protocol=1, bot="b"))
    worker.settle(1)
    worker.say(b"other", Nak(seqs=[seq], delay=10.0))
    worker.say(b"other", Credit(max_in_flight=0))
    worker.settle(1)
    if restarted:
        worker.restart()
        worker.settle(2)
    assert delivered(returns(worker, b"again", "b", [])) == []
    worker.settle(3)
    worker.say(b"again", Ping())
    assert worker.in_flight(b"again") == []
    for _ in range(9):
        worker.settle(1)
        worker.say(b"again", Ping())
    assert worker.in_flight(b"again") == [seq]
    assert worker.log.dead_letters == {}


def test_nothing_is_given_up_while_the_log_is_asked_what_a_client_holds() -> None:
    """Its hello came in time; a busy disk takes long to answer."""
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.settle(1)
    worker.restart()
    worker.settle(12)
    hello = Hello(request=2, protocol=1, bot="b", token=TOKEN, epoch="epoch", holds=[seq])
    effects = worker.core.receive(b"again", hello, worker.moment)
    for _ in range(8):
        worker.settle(1)
        worker.say(b"again", Ping())
    [welcome] = worker.do(effects)
    assert "not_held" not in welcome
    assert worker.in_flight(b"again") == [seq]
    assert worker.log.dead_letters == {}


def test_a_lower_max_deliver_gives_up_what_failed_so_often() -> None:
    worker = Worker(settings(max_deliver=5))
    seq = holding(worker)
    vanishes(worker, b"b")
    worker.say(b"other", Hello(request=2, protocol=1, bot="b"))
    worker.settle(1)
    worker.say(b"other", Nak(seqs=[seq], delay=5.0))
    worker.settle(1)
    worker.settings = settings(max_deliver=2)
    worker.restart()
    worker.say(b"other", Hello(request=2, protocol=1, bot="b"))
    for _ in range(30):
        worker.settle(1)
        worker.say(b"other", Extend(seqs=[seq]))
    assert [dead.reason for dead in worker.log.dead_letters.values()] == ["its session vanished; failed 2 times"]


def test_a_break_during_which_ack_wait_ends_within_a_heartbeat_is_no_failure() -> None:
    worker = Worker(settings(max_deliver=1))
    seq = holding(worker)
    for _ in range(27):
        worker.settle(1)
        worker.say(b"b", Ping())
    worker.settle(4)  # the ack_wait ends meanwhile
    [welcome] = returns(worker, b"again", "b", [seq])
    worker.settle(1)
    assert worker.log.dead_letters == {}
    assert "not_held" not in welcome


def test_four_breaks_and_a_nak_are_one_failure() -> None:
    worker = Worker(settings(max_deliver=5, ack_wait_seconds=6.0))
    seq = holding(worker)
    address = b"b"
    for number in range(4):
        worker.say(address, Ping())
        worker.settle(13)
        address = b"%d" % number
        returns(worker, address, "b", [seq])
    worker.say(address, Nak(seqs=[seq]))
    worker.settle(1)
    assert worker.log.dead_letters == {}


def test_breaks_alone_make_no_dead_letter() -> None:
    worker = Worker(settings(max_deliver=5, ack_wait_seconds=3.0))
    seq = holding(worker)
    address = b"b"
    for number in range(6):
        worker.say(address, Ping())
        worker.settle(12)
        address = b"%d" % number
        returns(worker, address, "b", [seq])
    worker.settle(1)
    assert worker.core.dispatch.counters.dead == 0


def test_a_client_whose_bot_left_the_group_while_it_was_cut_off_has_not_failed() -> None:
    worker = Worker(settings(max_deliver=1))
    worker.hello("s", max_in_flight=0)
    worker.hello("b", token=TOKEN)
    worker.hello("c", max_in_flight=0)
    for member in (b"b", b"c"):
        worker.say(member, Subscribe(request=5, channel="work", group="team"))
        worker.commit()
    worker.say(b"s", published(ToChannel("work")))
    [message] = delivered(worker.commit())
    worker.say(b"b", Unsubscribe(request=6, channel="work"))  # on its way to the disk
    batch = worker.core.take_batch(worker.moment)
    vanishes(worker, b"b")
    assert batch is not None
    worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    worker.settle(1)
    returns(worker, b"again", "b", [message["seq"]])
    worker.say(b"c", Credit(max_in_flight=10))
    for _ in range(20):
        worker.settle(1)
        worker.say(b"again", Ping())
        worker.say(b"c", Ping())
    assert worker.log.dead_letters == {}
    assert worker.in_flight(b"c") == [message["seq"]]


def on_news(worker: Worker) -> int:
    """Let bot `b` be delivered a message on a channel by a worker that is then restarted; return its seq."""
    worker.hello("s", max_in_flight=0)
    worker.hello("b", token=TOKEN)
    worker.say(b"b", Subscribe(request=5, channel="news"))
    worker.commit()
    worker.say(b"s", published(ToChannel("news")))
    [message] = delivered(worker.commit())
    seq: int = message["seq"]
    worker.commit(flush=True)
    return seq


@pytest.mark.parametrize("then", ["the channel is left", "the page comes"])
def test_what_is_read_while_its_client_is_away_is_in_one_place(then: str) -> None:
    worker = Worker(settings(max_deliver=1))
    seq = on_news(worker)
    worker.restart()
    worker.hello("s", max_in_flight=0)
    effects = worker.core.receive(b"other", Hello(request=1, protocol=1, bot="b", max_in_flight=1), worker.moment)
    [read] = [effect for effect in effects if isinstance(effect, Read)]
    returns(worker, b"again", "b", [seq])
    if then == "the channel is left":
        worker.say(b"again", Unsubscribe(request=6, channel="news"))
        worker.commit()
    vanishes(worker, b"again")
    worker.do(worker.core.page_read(read.request, worker.log.read_page(read.request), worker.moment))
    for _ in range(3):
        worker.settle(10)
    assert len(worker.log.dead_letters) == 1


def test_what_waits_for_its_client_is_dropped_with_the_channel() -> None:
    worker = Worker(settings(max_deliver=1))
    on_news(worker)
    vanishes(worker, b"b")
    worker.say(b"other", Hello(request=1, protocol=1, bot="b"))
    worker.say(b"other", Unsubscribe(request=6, channel="news"))
    worker.commit()
    for _ in range(3):
        worker.settle(10)
    assert worker.log.dead_letters == {}


def test_what_is_held_over_a_restart_moves_to_the_group_with_its_channel() -> None:
    worker = Worker()
    seq = on_news(worker)
    worker.restart()
    returns(worker, b"again", "b", [seq])
    worker.say(b"again", Unsubscribe(request=6, channel="news"))
    worker.commit()
    worker.say(b"again", Subscribe(request=7, channel="news", group="team", start="all"))
    said = worker.commit()
    assert [(message["seq"], message["group"]) for message in delivered(said)] == [(seq, "team")]
    for _ in range(40):
        worker.settle(1)
        worker.say(b"again", Ping())
    assert worker.in_flight(b"again") == [seq]


def test_what_waits_in_the_socket_is_read_before_a_message_is_given_up() -> None:
    """The batch is full for 4 s, less than a heartbeat."""
    worker = Worker(Settings(delivery=Delivery(max_deliver=1), limits=Limits(batch_messages_max=1)))
    holding(worker)
    worker.settle(2)
    vanishes(worker, b"b")
    for _ in range(12):
        worker.settle(1)
        worker.say(b"s", Ping())
    worker.say(b"s", published(ToBot(bot="b")))
    assert worker.core.take_batch(worker.moment) is not None  # the disk is slow
    worker.say(b"s", published(ToBot(bot="b")))
    assert worker.core.full  # the hello of the client waits in the socket
    for _ in range(40):
        worker.now += 0.1
        worker.do(worker.core.tick(worker.moment))
    assert worker.core.dispatch.counters.dead == 0


class Looked(dict[int, Unsettled]):
    """Messages, and how often somebody looked through all of them."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        return super().items()


def test_to_remember_who_vanished_costs_no_look_at_all_messages() -> None:
    messages = Looked((seq, Unsettled(1, 0, None)) for seq in range(1000))
    absent = Absent(messages, failures_max=100)
    for client in range(9):
        for seq in messages:
            absent.note(f"client {client}", seq, messages)
    assert messages.looks < 10
