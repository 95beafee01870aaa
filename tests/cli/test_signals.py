"""`posthouse signal`."""

from __future__ import annotations

from typing import Any

from bus.model.records import RunStatus
from bus.model.repository import WorkflowRepository

from .executing import created, ended, work
from .terminal import Posthouse


def test_a_signal_is_sent_once_with_its_payload(posthouse: Posthouse) -> None:
    created(posthouse, "pay", "pay-1")
    text = posthouse.answer("signal", "pay-", "paid", '{"amount":3}', "--as", "ada", "--id", "s1")
    assert text == "signal paid of ada waits for run pay-1 to take it\n"
    again = posthouse.json("signal", "pay-1", "paid", '{"amount":3}', "--as", "ada", "--id", "s1")
    assert (again["id"], again["payload"], again["sender"]) == ("s1", {"amount": 3}, "ada")
    for command in (("signal", "pay-1", "paid"), ("fork", "pay-1")):
        refused = posthouse.run(*command, "--id", "")
        assert (refused.returncode, "it is empty" in refused.stderr) == (2, True)
    posthouse.answer("signal", "pay-1", "paid", "-5")
    posthouse.answer("signal", "pay-1", "noted", "just text")
    posthouse.answer("signal", "pay-1", "noted")

    async def sent(workflows: WorkflowRepository) -> Any:
        return [signal.payload for signal in await workflows.list_signals("pay-1")]

    assert work(posthouse, "executor", sent) == [{"amount": 3}, -5, "just text", None]
    shown = posthouse.run("run", "pay-1").stdout
    assert "signals   paid (2 times), noted (2 times)" in shown
    assert [each["name"] for each in posthouse.json("run", "pay-1")["signals"]] == [
        "paid",
        "paid",
        "noted",
        "noted",
    ]


def test_a_run_that_has_ended_takes_none(posthouse: Posthouse) -> None:
    created(posthouse, "over", "over-1")
    ended(posthouse, "over-1", RunStatus.CANCELLED)
    assert posthouse.refusal("signal", "over-1", "paid") == (
        1,
        "posthouse: run 'over-1' is cancelled: it has ended, and takes no signals",
    )
    assert posthouse.refusal("signal", "never", "paid")[0] == 1
