"""Commits on the wire: a run's progress, messages and acks in one transaction, once."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .forked_worker import forked_worker
from .wire import Session, bodies, new_id, to_bot, to_channel
from .wire_worker import Worker

TIME = "2026-01-01T00:00:00.000000Z"


def call(session: Session, name: str, **arguments: Any) -> Any:
    return session.value("workflow", call=name, arguments=arguments)


def claimed(session: Session, name: str, id: str | None = None) -> tuple[str, int]:
    """Create a run of a definition of that name, and claim it."""
    definition = {"id": f"w-{name}", "name": name, "owner": {"type": "global"}}
    call(session, "save_definition", definition=definition)
    run_id = id or f"r-{name}-{new_id()}"
    run = {"id": run_id, "workflow_id": f"w-{name}", "workflow_name": name, "trigger_type": "manual"}
    call(session, "create_run", run={**run, "started_at": TIME})
    return run_id, call(session, "claim_run", run_id=run_id)["fence"]


def step(run_id: str, name: str = "one", **fields: Any) -> dict[str, Any]:
    return {"id": new_id(), "run_id": run_id, "step_id": name, "step_name": name, "status": "completed"} | fields


def test_everything_of_a_commit_happens(shared: Worker, name: str) -> None:
    bot, reader = shared.session(name), shared.session(f"{name}-reader")
    reader.subscribe(f"{name}-news")
    bot.publish(to_bot(name, "do it"))
    message = bot.take_one()
    run_id, fence = claimed(bot, name)
    value = bot.value(
        "commit",
        id=new_id(),
        run_id=run_id,
        fence=fence,
        steps=[step(run_id, output={"n": 1})],
        context={"at": 1},
        status="completed",
        messages=[to_channel(f"{name}-news", "done"), to_bot(f"{name}-reader", "you too")],
        acks=[message["seq"]],
    )
    assert len(value["seqs"]) == 2
    assert bodies(reader.take(2)) == ["done", "you too"]
    run = call(bot, "get_run", run_id=run_id)
    assert (run["status"], run["context"]) == ("completed", {"at": 1})
    assert call(bot, "get_completed_step_ids", run_id=run_id) == ["one"]
    fate = bot.value("message", id=message["id"])["mailboxes"][0]["state"]
    assert fate == "settled"


def test_the_same_commit_again_has_its_first_answer(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    run_id, fence = claimed(bot, name)
    fields = {
        "id": new_id(),
        "run_id": run_id,
        "fence": fence,
        "steps": [step(run_id)],
        "messages": [to_channel(name, 1), to_channel(name, 2, delay=3600)],
    }
    first = bot.value("commit", **fields)
    assert first["seqs"][1] is None
    assert bot.value("commit", **fields) == first
    assert bodies(bot.history(channel=name)) == [1]
    changed = {**fields, "context": {"other": True}}
    assert bot.code("commit", **changed) == "conflict"
    other = shared.session(f"{name}-other")
    assert other.code("commit", **fields) == "conflict"


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"fence": 99}, "fenced"),
        ({"status": "pending", "context": "no matter"}, None),
        ({"messages": [to_bot("nobody-of-that-name", 1)]}, "unknown_bot"),
        ({"acks": [1]}, "conflict"),
        ({"run_id": "nowhere", "steps": []}, "not_found"),
        ({"run_id": None}, "bad_request"),
        ({"fence": None}, "bad_request"),
        ({"surprise": 1}, "bad_request"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_one_wrong_part_refuses_the_whole(
    shared: Worker, name: str, broken: dict[str, Any], code: str | None
) -> None:
    bot = shared.session(name)
    run_id, fence = claimed(bot, name)
    fields: dict[str, Any] = {
        "id": new_id(),
        "run_id": run_id,
        "fence": fence,
        "steps": [step(run_id)],
        "context": {"kept": False},
        "messages": [to_channel(name, 1)],
    }
    fields = {key: value for key, value in (fields | broken).items() if value is not None}
    if code is None:
        bot.value("commit", **fields)
        return
    assert bot.code("commit", **fields) == code
    assert call(bot, "list_step_logs", run_id=run_id) == []
    assert call(bot, "get_run", run_id=run_id)["context"] == {}
    assert name not in [channel["name"] for channel in bot.value("channels")["channels"]]


def test_a_step_is_left_as_it_is_given(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    run_id, fence = claimed(bot, name)
    begun = step(run_id, status="running", input={"url": "x"}, started_at=TIME)
    call(bot, "create_step_log", step=begun, fence=fence)
    done = {**begun, "status": "completed", "output": [1]}
    bot.value("commit", id=new_id(), run_id=run_id, fence=fence, steps=[done])
    [found] = call(bot, "list_step_logs", run_id=run_id)
    assert (found["status"], found["output"], found["input"]) == ("completed", [1], {"url": "x"})
    again = {**begun, "status": "running"}
    assert bot.code("commit", id=new_id(), run_id=run_id, fence=fence, steps=[again]) == "invalid_transition"


@pytest.mark.parametrize("way", ["create_step_log", "update_step_status", "commit"])
def test_a_step_that_is_done_is_progress_of_the_message_that_began_its_run(
    shared: Worker, name: str, way: str
) -> None:
    """Whatever becomes of the client a moment later: what it failed before is forgotten."""
    bot = shared.session(name)
    id = new_id()
    run_id, fence = claimed(bot, name, id)
    bot.publish({**to_bot(name, "do it"), "id": id})
    for number in range(7):  # more than max_deliver
        message = bot.take_one()
        assert (message["id"], message["attempt"]) == (id, number + 1)
        done = step(run_id, f"step {number}")
        if way == "commit":
            bot.value("commit", id=new_id(), run_id=run_id, fence=fence, steps=[done])
        elif way == "create_step_log":
            call(bot, way, step=done, fence=fence)
        else:
            call(bot, "create_step_log", step={**done, "status": "running"}, fence=fence)
            call(bot, way, step_id=done["id"], status="completed", fence=fence)
        bot.settle("nak", message["seq"], delay=0)
    for _ in range(4):
        bot.settle("nak", bot.take_one()["seq"], delay=0)
    assert bot.value("message", id=id)["mailboxes"][0]["state"] == "dead", "without a step, failures add up"


def test_an_ack_of_another_session_refuses_the_commit(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    other = shared.session(f"{name}-other")
    bot.publish(to_bot(name, "mine"))
    message = bot.take_one()
    code = other.code("commit", id=new_id(), messages=[to_channel(name, 1)], acks=[message["seq"]])
    assert code == "conflict"
    assert bot.value("commit", id=new_id(), messages=[to_channel(name, 1)], acks=[message["seq"]])["seqs"]
    assert len(bot.history(channel=name)) == 1


def test_a_commit_survives_a_kill_whole(worker: Worker) -> None:
    bot = worker.session("bot")
    bot.publish(to_bot("bot", "do it"), to_bot("bot", "and that"))
    first, second = bot.take(2)
    run_id, fence = claimed(bot, "w")
    fields = {
        "id": new_id(),
        "run_id": run_id,
        "fence": fence,
        "steps": [step(run_id)],
        "messages": [to_channel("news", "out")],
        "acks": [first["seq"]],
    }
    value = bot.value("commit", **fields)
    worker.kill()
    worker.close_clients()
    worker.start()
    bot = worker.session("bot")
    again = bot.take_one()
    assert again["seq"] == second["seq"], "what the commit settled does not come again"
    assert bot.waiting_deliveries() == []
    assert bot.value("commit", **fields) == value, "sent again in another session, it has its first answer"
    assert bodies(bot.history(channel="news")) == ["out"]
    assert call(bot, "get_completed_step_ids", run_id=run_id) == ["one"]


def test_a_run_whose_lease_ran_out_is_given_up_and_told(tmp_path: Any, store_url: str) -> None:
    with forked_worker(tmp_path, "[workflows]\nsweep_seconds = 0.1\n", store_url) as worker:
        bot = worker.session("bot")
        definition = {"id": "w", "name": "w", "owner": {"type": "global"}}
        call(bot, "save_definition", definition=definition)
        run = {"id": "r", "workflow_id": "w", "workflow_name": "w", "trigger_type": "manual", "started_at": TIME}
        call(bot, "create_run", run=run)
        fence = call(bot, "claim_run", run_id="r", lease_seconds=0.3)["fence"]
        running = step("r", status="running", started_at=TIME)
        call(bot, "create_step_log", step=running, fence=fence)
        notice = bot.take_one()
        assert notice["message_type"] == "workflow.crashed"
        assert (notice["sender_bot_name"], notice["body"]["run_id"]) == ("posthouse", "r")
        assert call(bot, "get_run", run_id="r")["status"] == "crashed"
        [found] = call(bot, "list_step_logs", run_id="r")
        assert (found["status"], found["error"]) == ("failed", "interrupted")
        late = bot.code("commit", id=new_id(), run_id="r", fence=fence, context={"late": True})
        assert late == "fenced"


def test_nobody_can_keep_a_run_from_being_given_up_by_using_an_id_that_it_foresees(
    tmp_path: Any, store_url: str
) -> None:
    with forked_worker(tmp_path, "[workflows]\nsweep_seconds = 0.1\n", store_url) as worker:
        bot, other = worker.session("bot"), worker.session("other")
        definition = {"id": "w", "name": "w", "owner": {"type": "global"}}
        call(bot, "save_definition", definition=definition)
        run = {"id": "r", "workflow_id": "w", "workflow_name": "w", "trigger_type": "manual", "started_at": TIME}
        call(bot, "create_run", run=run)
        foreseen = uuid.UUID("0d2c6c0e-6c8b-5a37-9a5e-5d2f5f8f3a10")
        ids = [str(uuid.uuid5(foreseen, f"r {fence}")) for fence in range(5)]
        other.publish(*(to_bot("other", None) | {"id": message_id} for message_id in ids))
        call(bot, "claim_run", run_id="r", lease_seconds=0.3)
        assert bot.take_one()["message_type"] == "workflow.crashed"
