"""When the client takes a silent worker for gone."""

from __future__ import annotations

from bus.client.silence import WorkerSilence


def test_the_only_worker_is_waited_for_as_long_as_the_session_lasts() -> None:
    silence = WorkerSilence(100.0)
    silence.asked(104.0)
    assert silence.over_at(15.0, several=False) == 115.0
    silence.heard(105.0)
    assert silence.over_at(15.0, several=False) == 120.0


def test_one_of_several_is_left_when_it_leaves_a_ping_unanswered() -> None:
    silence = WorkerSilence(100.0)
    assert silence.over_at(15.0, several=True) == 115.0, "nobody asked"
    silence.asked(104.0)
    silence.asked(108.0)
    assert silence.over_at(15.0, several=True) == 110.0, "since the first ping"
    silence.heard(109.0)
    assert silence.over_at(15.0, several=True) == 124.0
    silence.asked(112.0)
    assert silence.over_at(15.0, several=True) == 118.0


def test_a_ping_after_long_silence_adds_no_time() -> None:
    silence = WorkerSilence(100.0)
    silence.asked(114.0)
    assert silence.over_at(15.0, several=True) == 115.0
