"""`posthouse erase`, `scrub` and `removals`: what is counted, what is left, and that the file has nothing of it."""

from __future__ import annotations

import subprocess

import anyio
import pytest
from click.testing import CliRunner

import bus
from bus.cli import erasing
from bus.cli.program import main
from bus.model.erasing import Removal
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition, WorkflowRun
from store.sqlite.check import Check

from .terminal import TIMEOUT_SECONDS, Posthouse

NOW = "2026-01-01T00:00:00.000000Z"


def in_files(posthouse: Posthouse, secret: str) -> list[str]:
    """Return the files of the database that have a text."""
    files = [each for each in posthouse.database.parent.glob("posthouse.db*") if each.is_file()]
    found = subprocess.run(["grep", "-lF", secret, *files], capture_output=True, text=True, check=False)
    return found.stdout.split()


def publish(posthouse: Posthouse, *bodies: object) -> None:
    async def work() -> None:
        async with bus.connect(posthouse.url, bot="author", timeout=TIMEOUT_SECONDS) as author:
            for body in bodies:
                await author.publish("erasing", body)

    anyio.run(work)


def give_up(posthouse: Posthouse, reason: str) -> str:
    """Let a bot give up on a message, and return the seq of the dead letter."""

    async def work() -> int:
        async with bus.connect(posthouse.url, bot="giver", timeout=TIMEOUT_SECONDS) as giver:
            await giver.send("giver", "a request")
            message = await giver.receive()
            await message.term(reason, confirm=True)
            return message.seq

    return str(anyio.run(work))


def start_run(posthouse: Posthouse, id: str, secret: str) -> None:
    async def work() -> None:
        async with bus.connect(posthouse.url, bot="author", timeout=TIMEOUT_SECONDS) as author:
            definition = WorkflowDefinition(id="erased", name="erased", owner=GlobalOwner())
            await author.workflows.save_definition(definition)
            run = WorkflowRun(
                id=id,
                workflow_id="erased",
                workflow_name="erased",
                trigger_type="manual",
                started_at=NOW,
                trigger_payload=secret,
            )
            await author.workflows.create_run(run)

    anyio.run(work)


def end_run(posthouse: Posthouse, id: str) -> None:
    async def work() -> None:
        async with bus.connect(posthouse.url, bot="author", timeout=TIMEOUT_SECONDS) as author:
            await author.workflows.update_run_status(id, RunStatus.CANCELLED)

    anyio.run(work)


def test_a_dry_run_changes_nothing(posthouse: Posthouse) -> None:
    publish(posthouse, {"mail": "dry@example.org"}, "nothing")
    shown = posthouse.answer("erase", "--text", "dry@example.org", "--dry-run")
    assert shown.splitlines()[-1] == "1 message, 0 delayed messages, 0 runs and 0 keyed values would be erased"
    assert posthouse.json("erase", "--body", "mail=dry@example.org", "--dry-run")["messages"] == 1
    assert posthouse.json("erase", "--body", "mail=other@example.org", "--dry-run")["messages"] == 0


def test_what_is_erased_is_in_no_file_and_the_log_is_whole(posthouse: Posthouse) -> None:
    publish(posthouse, {"mail": "gone@example.org"}, "about gone@example.org", "nothing" * 100)
    seq = give_up(posthouse, "no bot serves gone@example.org")
    assert in_files(posthouse, "gone@example.org") != []
    told = posthouse.answer("erase", "--yes", "--text", "GONE@example.org", "--reference", "ticket 7")
    assert told == "3 messages, 0 delayed messages, 0 runs and 0 keyed values erased\n"
    assert dict(posthouse.json("dead-letters", "show", seq, "--bot", "giver"))["reason"] == "erased"
    assert "(erased)" in posthouse.answer("dead-letters", "show", seq)
    assert "(erased)" in posthouse.run("history", "--channel", "erasing", "--limit", "2").stdout
    assert in_files(posthouse, "gone@example.org") == []
    check = Check(posthouse.database)
    for _ in check.run():
        pass
    assert check.damage == []
    record = posthouse.json("removals")[-1]
    assert (record["bot_name"], record["reference"], len(record["erased"]["seqs"])) == ("console", "ticket 7", 3)
    assert record["scrubbed_at"] is not None
    assert posthouse.answer("erase", "--yes", "--text", "gone@example.org").startswith("0 messages")
    assert "ticket 7" in posthouse.answer("removals")


def test_a_command_that_erases_in_parts_is_one_row(posthouse: Posthouse, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(posthouse, *(f"many@example.org {number}" for number in range(7)))
    monkeypatch.setattr(erasing, "_PORTION", 3)
    options = ["erase", "--text", "many@example.org", "--yes", "--no-scrub", "--reference", "ticket 9"]
    ended = CliRunner().invoke(main, options, env=posthouse.environment)
    assert (ended.exit_code, ended.stdout.split(",")[0]) == (0, "7 messages")

    async def stored() -> list[Removal]:
        async with bus.connect(posthouse.url, bot="auditor", timeout=TIMEOUT_SECONDS) as auditor:
            return [each for each in await auditor.removals(limit=1000) if each.reference == "ticket 9"]

    assert [len(part.erased.seqs) for part in anyio.run(stored)] == [3, 3, 1]
    [record] = [each for each in posthouse.json("removals") if each["reference"] == "ticket 9"]
    assert len(record["erased"]["seqs"]) == 7
    assert posthouse.json("removals", "--after", str(record["number"])) == []


def test_one_message_is_erased_and_scrubbed_later(posthouse: Posthouse) -> None:
    sent = posthouse.json("publish", "erasing", "only@example.org", "--as", "author")
    told = posthouse.json("erase", sent["id"], "--no-scrub")
    assert told == {"messages": 1, "delayed": 0, "runs": 0, "values": 0, "runs_left": [], "dry_run": False}
    assert posthouse.json("removals")[-1]["scrubbed_at"] is None
    assert posthouse.json("scrub") == {"scrubbed": True}
    assert posthouse.json("removals")[-1]["scrubbed_at"] is not None
    assert in_files(posthouse, "only@example.org") == []
    code, line = posthouse.refusal("erase", sent["id"])
    assert (code, "erased before, or never there" in line) == (1, True)


def test_a_run_that_has_not_ended_is_named_and_left(posthouse: Posthouse) -> None:
    start_run(posthouse, "run-of-eve", "eve@example.org")
    ended = posthouse.run("erase", "--yes", "--text", "eve@example.org")
    assert ended.returncode == 1
    assert "run run-of-eve is left" in ended.stderr
    end_run(posthouse, "run-of-eve")
    assert posthouse.json("erase", "--yes", "--text", "eve@example.org")["runs"] == 1
    assert in_files(posthouse, "eve@example.org") == []


def test_what_to_erase_must_be_said(posthouse: Posthouse) -> None:
    for arguments in ((), ("--text", "a", "--header", "b=c"), ("--header", "b")):
        assert posthouse.run("erase", *arguments).returncode == 2


def test_keyed_values_and_last_values_are_erased_with_the_rest(posthouse: Posthouse) -> None:
    posthouse.answer("kv", "put", "customers", "7", '{"mail": "kim@example.org"}')
    posthouse.answer("kv", "put", "customers", "of/kim@example.org", "7")
    posthouse.answer("publish", "customers", '{"mail": "kim@example.org"}', "--retain", "--as", "author")
    assert len(in_files(posthouse, "kim@example.org")) > 0
    shown = posthouse.answer("erase", "--text", "kim@example.org", "--dry-run").splitlines()
    assert "the value of 7 in customers" in shown
    assert "the last value of the channel customers" in shown
    told = posthouse.json("erase", "--yes", "--body", "mail=kim@example.org")
    assert (told["messages"], told["values"]) == (1, 2)
    assert posthouse.json("erase", "--yes", "--text", "kim@example.org")["values"] == 1, "in a key"
    assert posthouse.json("kv", "list", "customers") == []
    record = posthouse.json("removals")[-1]
    assert [value["kv"] for value in record["erased"]["values"]] == ["customers"]
    assert "1 keyed value erased" in posthouse.answer("removals")


def test_a_value_that_was_erased_is_in_no_file(posthouse: Posthouse) -> None:
    posthouse.answer("kv", "put", "customers", "8", '{"mail": "pat@example.org"}')
    assert in_files(posthouse, "pat@example.org") != []
    assert posthouse.json("erase", "--yes", "--text", "pat@example.org")["values"] == 1
    assert in_files(posthouse, "pat@example.org") == []
