"""Who is woken when something happens to a run, decided without a store (docs/protocol.md, "Waking")."""

from __future__ import annotations

from typing import Any

import pytest

from bus.core.effects import Effect, EndPlaces, FindRuns
from bus.core.waking import _WAITED_FOR_MAX, Waking
from bus.mailbox.sessions import Session
from bus.model.repository import RunNews

from .worker import Worker, frames


@pytest.fixture
def worker() -> Worker:
    """A worker with three clients that are told of runs, and one, `old`, that is not."""
    worker = Worker()
    for bot in ("ann", "bob", "cat"):
        worker.hello(bot, wakes=True)
    worker.hello("old")
    return worker


def session(worker: Worker, bot: str) -> Session:
    found = worker.core.sessions.get(bot.encode())
    assert found is not None
    return found


def look(worker: Worker) -> FindRuns | None:
    """Return what the core asks of the store now."""
    asked = [each for each in worker.core.look_at_runs(worker.moment) if isinstance(each, FindRuns)]
    return asked[0] if asked else None


def woken(effects: list[Effect]) -> dict[bytes, list[str]]:
    """Return who was woken, and for which runs."""
    addresses = [effect.address for effect in effects if type(effect).__name__ == "Send"]  # type: ignore[union-attr]
    said = frames(effects)
    assert all(set(frame) == {"op", "runs"} and frame["op"] == "wake" for frame in said)
    return {address: frame["runs"] for address, frame in zip(addresses, said, strict=True)}


def answer(worker: Worker, *news: RunNews) -> dict[bytes, list[str]]:
    """Look up what happened, and return who is woken."""
    asked = look(worker)
    assert asked is not None
    return woken(worker.core.runs_found(asked, news, worker.moment))


def news(worker: Worker, run_id: str, last: str | None = None, **fields: Any) -> RunNews:
    holder = None if last is None else worker.core.directory.names[last].id
    return RunNews(run_id, fields.pop("ended", False), holder, **fields)


def test_the_bot_that_held_a_run_last_is_told_of_what_others_do(worker: Worker) -> None:
    worker.core.waking.happened("r")
    assert answer(worker, news(worker, "r", "ann")) == {b"ann": ["r"]}
    worker.core.waking.happened("r")
    assert answer(worker, news(worker, "r", "old")) == {}, "it did not say that it knows the frame"


def test_what_a_program_does_to_its_own_run_is_told_to_nobody_else(worker: Worker) -> None:
    worker.core.waking.happened("r", by_holder=True)
    assert look(worker) is None, "not even looked up"


def test_who_watches_a_run_is_told_of_each_change_until_it_ends(worker: Worker) -> None:
    waking = worker.core.waking
    for bot in ("bob", "cat", "old"):
        waking.watch(session(worker, bot), "r")
    waking.happened("r", by_holder=True, stopped=False)
    assert answer(worker, news(worker, "r", "ann")) == {b"bob": ["r"], b"cat": ["r"]}
    waking.leave(session(worker, "cat"))
    waking.happened("r")
    assert answer(worker, news(worker, "r", "ann", ended=True)) == {b"ann": ["r"], b"bob": ["r"]}
    waking.happened("r", by_holder=True)
    assert look(worker) is None


def test_who_watches_a_run_that_is_gone_is_told_so(worker: Worker) -> None:
    worker.core.waking.watch(session(worker, "bob"), "r")
    worker.core.waking.happened("r")
    assert answer(worker) == {b"bob": ["r"]}
    worker.core.waking.happened("r", by_holder=True)
    assert look(worker) is None


def test_a_slot_goes_to_who_is_next_for_it(worker: Worker) -> None:
    waking = worker.core.waking
    for bot, run_id in (("ann", "r1"), ("bob", "r2"), ("cat", "r3")):
        waking.refused(session(worker, bot), run_id, stops=waking.stops)
    waking.happened("r0", by_holder=True)
    assert answer(worker, news(worker, "r0", "ann", next_runs=("r1", "r2", "nobody's"))) == {
        b"ann": ["r1"],
        b"bob": ["r2"],
    }
    waking.claimed(session(worker, "ann"), "r1")
    waking.happened("r0", by_holder=True)
    assert answer(worker, news(worker, "r0", next_runs=("r1", "r2"))) == {b"bob": ["r2"]}


def test_a_step_of_another_run_is_no_slot(worker: Worker) -> None:
    worker.core.waking.refused(session(worker, "bob"), "r1", stops=worker.core.waking.stops)
    worker.core.waking.happened("r0", by_holder=True, stopped=False)
    assert look(worker) is None


def test_a_slot_that_was_left_during_the_claim_is_not_missed(worker: Worker) -> None:
    """The claim was refused, then a run stopped, and only then was it known that somebody waits."""
    waking = worker.core.waking
    before = waking.stops
    waking.happened("r0", by_holder=True)
    waking.refused(session(worker, "bob"), "r1", stops=before)
    assert answer(worker, news(worker, "r1", next_runs=("r1",))) == {b"bob": ["r1"]}


def test_what_happens_meanwhile_is_looked_up_once(worker: Worker) -> None:
    waking = worker.core.waking
    waking.happened("r1")
    first = look(worker)
    assert first is not None
    for run_id in ("r2", "r3", "r2"):
        waking.happened(run_id)
    assert look(worker) is None, "the store is asked one question at a time"
    effects = worker.core.runs_found(first, [news(worker, "r1", "ann")], worker.moment)
    [second] = [each for each in effects if isinstance(each, FindRuns)]
    assert list(second.run_ids) == ["r2", "r3"]


def test_nobody_waits_after_the_end_of_its_session(worker: Worker) -> None:
    waking = worker.core.waking
    waking.watch(session(worker, "bob"), "r")
    for bot, run_id in (("bob", "s"), ("bob", "t"), ("cat", "t")):
        waking.refused(session(worker, bot), run_id, stops=0)
    ended = [each for each in worker.core.unreachable(b"bob", worker.moment) if isinstance(each, EndPlaces)]
    assert ended == [EndPlaces(("s",))], "another session waits for the other one"
    waking.unclaimed(b"cat", "t")
    for run_id in ("r", "s", "t"):
        waking.happened(run_id, by_holder=True)
    assert look(worker) is None


def test_free_slots_are_looked_for_from_time_to_time_while_somebody_waits(worker: Worker) -> None:
    def asked() -> list[FindRuns]:
        return [each for each in worker.core.tick(worker.moment) if isinstance(each, FindRuns)]

    assert asked() == []
    worker.core.waking.refused(session(worker, "bob"), "r", stops=0)
    assert asked() == []
    worker.now += worker.settings.workflows.sweep_seconds
    [sweep] = asked()
    assert sweep == FindRuns({}, slots=True)
    effects = worker.core.runs_found(sweep, [news(worker, "r", next_runs=("r",))], worker.moment)
    assert woken(effects) == {b"bob": ["r"]}
    assert asked() == []


def test_what_one_session_waits_for_is_bounded(worker: Worker) -> None:
    waking: Waking = worker.core.waking
    for number in range(_WAITED_FOR_MAX + 1):
        waking.watch(session(worker, "bob"), f"r{number}")
    waking.happened("r0", by_holder=True)
    assert look(worker) is None, "the first is forgotten"
    waking.happened("r1", by_holder=True)
    assert answer(worker, news(worker, "r1")) == {b"bob": ["r1"]}


def test_many_runs_are_told_in_several_frames(worker: Worker) -> None:
    waking = worker.core.waking
    run_ids = [f"r{number}" for number in range(2500)]
    for run_id in run_ids:
        waking.happened(run_id)
    asked, told = look(worker), []
    while asked is not None:
        found = [news(worker, each, "ann") for each in asked.run_ids]
        effects = worker.core.runs_found(asked, found, worker.moment)
        told += [frame["runs"] for frame in frames(effects)]
        asked = next((each for each in effects if isinstance(each, FindRuns)), None)
    assert [len(each) for each in told] == [1000, 1000, 500]
    assert [run_id for each in told for run_id in each] == run_ids


def test_watching_runs_that_do_not_exist_keeps_no_long_ids(worker: Worker) -> None:
    waking, ann = worker.core.waking, session(worker, "ann")
    for id in ("soon", "x" * 1_000_000):
        waking.watch(ann, id)
        waking.not_found(ann.address, id)
        waking.happened(id, by_holder=True)
    assert answer(worker) == {b"ann": ["soon"]}
    for name in ("short", "x" * 1_000_000):
        waking.execute(ann, name)
    assert [waking.sessions_of("none", (name,)) for name in ("short", "x" * 1_000_000)] == [[ann], []]


@pytest.mark.parametrize("owner", [None, "ann"], ids=["global", "owned"])
def test_a_run_that_nobody_held_is_for_those_who_execute_its_workflow(worker: Worker, owner: str | None) -> None:
    waking = worker.core.waking
    for bot, workflow in (("ann", "w-1"), ("bob", "report"), ("cat", "other"), ("old", "report")):
        waking.execute(session(worker, bot), workflow)
    ids = {None: None} | {bot.name: bot.id for bot in worker.core.directory.bots.values()}
    found = news(worker, "r", is_open=True, workflow=("w-1", "report"), owner=ids[owner])
    waking.happened("r", by_holder=True)
    assert answer(worker, found) == {b"ann": ["r"]} | ({} if owner else {b"bob": ["r"]})


def test_a_run_that_a_bot_held_is_left_to_it(worker: Worker) -> None:
    waking = worker.core.waking
    for bot in ("ann", "bob"):
        waking.execute(session(worker, bot), "report")
    waking.happened("r", by_holder=True)
    assert answer(worker, news(worker, "r", "bob", is_open=True, workflow=("w-1", "report"))) == {b"bob": ["r"]}
    waking.happened("r", by_holder=True)
    assert answer(worker, news(worker, "r", "bob", workflow=("w-1", "report"))) == {}, "somebody is at work on it"
    waking.leave(session(worker, "ann"))
    waking.leave(session(worker, "bob"))
    waking.happened("r", by_holder=True)
    assert look(worker) is None
