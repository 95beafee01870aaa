"""`posthouse workflows`: the list, saving from a file, and showing one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bus.model.records import BotOwner, RunStatus
from worker import main

from .executing import created, define, ended
from .terminal import Posthouse

NIGHTLY: dict[str, Any] = {
    "id": "id-of-nightly",
    "name": "nightly",
    "owner": {"type": "global"},
    "version": "2.1.0",
    "description": "Gathers figures",
    "concurrency": 2,
    "timeout_secs": 60,
    "triggers": [{"type": "cron", "schedule": "0 3 * * *"}],
    "steps": [
        {"id": "gather", "name": "Gather", "type": "code", "config": {"x": 1}},
        {"id": "mail", "name": "Mail it", "type": "http", "config": {}, "depends_on": ["gather"]},
    ],
}


def test_a_workflow_is_saved_from_a_file_and_replaced_from_standard_input(
    posthouse: Posthouse, tmp_path: Path
) -> None:
    path = tmp_path / "nightly.json"
    path.write_text(json.dumps(NIGHTLY), encoding="utf-8")
    text = posthouse.answer("workflows", "save", path)
    assert text == "workflow nightly is saved, version 2.1.0 with 2 steps\n"
    again = json.dumps(NIGHTLY | {"version": "2.2.0", "steps": NIGHTLY["steps"][:1]})
    text = posthouse.answer("workflows", "save", "-", stdin=again)
    assert text == "workflow nightly is saved, version 2.2.0 with 1 step, in place of version 2.1.0\n"
    saved = posthouse.json("workflows", "save", path)
    assert saved == {"id": "id-of-nightly", "name": "nightly", "replaced": True}
    shown = posthouse.answer("workflows", "show", "nightly", "--json")
    assert shown == posthouse.answer("workflows", "show", "id-of-nightly", "--json")
    posthouse.answer("workflows", "save", "-", stdin=shown)
    assert posthouse.answer("workflows", "show", "nightly", "--json") == shown, "what is shown can be saved again"
    assert json.loads(shown) | NIGHTLY == json.loads(shown) | {
        "triggers": NIGHTLY["triggers"],
        "steps": NIGHTLY["steps"],
    }
    facts, steps = posthouse.answer("workflows", "show", "nightly").split("\n\n")
    assert dict(line.split(maxsplit=1) for line in facts.splitlines() if not line.startswith("at once")) == {
        "workflow": "nightly",
        "id": "id-of-nightly",
        "owner": "global",
        "version": "2.1.0",
        "about": "Gathers figures",
        "triggers": "cron",
        "timeout": "60 s",
    }
    assert [row.split() for row in steps.splitlines()] == [
        ["step", "type", "after", "condition", "name"],
        ["gather", "code", "Gather"],
        ["mail", "http", "gather", "Mail", "it"],
    ]


def test_the_list_has_owners_by_name_and_runs_by_status(posthouse: Posthouse) -> None:
    created(posthouse, "listed", "listed-1", "listed-2", "listed-3")
    ended(posthouse, "listed-1", RunStatus.FAILED, "broken")
    posthouse.answer("status", "--as", "landlord")
    [landlord] = [bot["id"] for bot in posthouse.json("bots") if bot["name"] == "landlord"]
    define(posthouse, "owned", owner=BotOwner(bot_id=landlord))
    header, *rows = posthouse.answer("workflows").splitlines()
    assert header.split() == ["workflow", "owner", "version", "steps", "runs", "id"]
    by_name = {row.split()[0]: row.split() for row in rows}
    assert by_name["listed"] == ["listed", "global", "1.0.0", "0", "1", "failed,", "2", "pending", "listed"]
    assert by_name["owned"] == ["owned", "landlord", "1.0.0", "0", "owned"]
    found = {each["id"]: each for each in posthouse.json("workflows")}
    assert found["listed"]["runs"] == {"failed": 1, "pending": 2}
    assert (found["owned"]["owner_name"], found["owned"]["runs"]) == ("landlord", {})
    assert found["owned"]["owner"] == {"type": "bot", "bot_id": landlord, "slug": ""}


def test_a_workflow_without_runs_is_removed(posthouse: Posthouse) -> None:
    posthouse.answer("workflows", "save", "-", stdin=json.dumps(NIGHTLY | {"id": "unused", "name": "unused"}))
    posthouse.answer("schedules", "add", "often", "unused", "--every", "7d")
    code, line = posthouse.refusal("workflows", "remove", "unused")
    assert (code, "has 1 schedule" in line) == (1, True)
    posthouse.answer("schedules", "remove", "often")
    assert posthouse.answer("workflows", "remove", "unused") == "workflow unused is deleted\n"
    code, line = posthouse.refusal("workflows", "remove", "unused")
    assert (code, "no workflow has the name or id 'unused'" in line) == (1, True)


def test_one_name_of_two_owners_needs_the_id(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "tenant")
    [tenant] = [bot["id"] for bot in posthouse.json("bots") if bot["name"] == "tenant"]
    define(posthouse, "double-1", name="double")
    define(posthouse, "double-2", name="double", owner=BotOwner(bot_id=tenant))
    code, line = posthouse.refusal("workflows", "show", "double")
    assert (code, "double-1 (global)" in line, "double-2 (tenant)" in line) == (1, True, True)
    assert posthouse.json("workflows", "show", "double-2")["owner"]["bot_id"] == tenant
    code, line = posthouse.refusal("workflows", "show", "dubble")
    assert (code, line.startswith("posthouse: no workflow has the name or id 'dubble'; known are ")) == (1, True)


def test_a_definition_that_contradicts_itself_is_refused(posthouse: Posthouse) -> None:
    twice = NIGHTLY | {"id": "twice", "name": "twice", "steps": NIGHTLY["steps"][:1] * 2}
    ended = posthouse.run("workflows", "save", "-", stdin=json.dumps(twice))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "posthouse: workflow 'twice': there are two steps 'gather'\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["save", "-"], '{"id": "x"}', "the field 'name' is missing"),
        (["save", "-"], "[1,", "not a valid workflow"),
        (["save", "-"], json.dumps(NIGHTLY | {"colour": "red"}), "colour"),
        (["save", "no/such/file"], "", "No such file"),
        (["--json", "show", "x"], "", "after 'show'"),
        (["show"], "", "NAME|ID"),
    ],
    ids=str,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], stdin: str, told: str) -> None:
    environment = {"POSTHOUSE_URL": "tcp://127.0.0.1:1", "COLUMNS": "300"}
    ended = CliRunner().invoke(main, ["workflows", *arguments], env=environment, input=stdin)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert told in " ".join(ended.stderr.split())
