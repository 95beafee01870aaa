"""Asking for a reply, and what mailboxes gave up on, on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

import bus
from worker import main

from .terminal import TIMEOUT_SECONDS, Posthouse

HELPER = """
import sys

import bus

bot = bus.Bot(sys.argv[2], sys.argv[1])


@bot.on_message()
async def direct(message):
    return {"said": message.body, "type": message.message_type, "headers": message.headers}


bot.run()
"""


@contextmanager
def helper(posthouse: Posthouse, name: str) -> Iterator[None]:
    posthouse.answer("status", "--as", name)
    process = subprocess.Popen([sys.executable, "-c", HELPER, posthouse.url, name])
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0


LISTS = "'posthouse dead-letters list' shows them"


def give_up(posthouse: Posthouse, bot: str, count: int, reason: str = "hopeless") -> list[int]:
    """Make dead letters of a bot, and give their seqs."""

    async def work() -> list[int]:
        seqs: list[int] = []
        async with bus.connect(posthouse.url, bot=bot, timeout=TIMEOUT_SECONDS) as giver:
            for number in range(count):
                headers = {"lang": "en"}
                seqs.append((await giver.send(bot, {"n": number}, message_type="task", headers=headers)).seq)
                await (await giver.receive()).term(reason, confirm=True)
        return seqs

    return anyio.run(work)


def left(posthouse: Posthouse, bot: str) -> list[int]:
    return [dead["seq"] for dead in posthouse.json("dead-letters", "list", "--bot", bot)]


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_prints_its_reply(posthouse: Posthouse) -> None:
    with helper(posthouse, "helper"):
        line = posthouse.answer("request", "helper", "[1, 2]", "--as", "curious", "--timeout", "30")
        columns = line.split(maxsplit=5)
        assert columns[2:5] == ["helper", "direct", "message"]
        assert json.loads(columns[5]) == {"said": [1, 2], "type": "message", "headers": {}}
        fields = ["--type", "question", "--header", "a=b", "--timeout", "30"]
        reply = posthouse.json("request", "helper", "-", *fields, stdin="words")
        assert reply["body"] == {"said": "words", "type": "question", "headers": {"a": "b"}}
        assert (reply["sender_bot_name"], reply["attempt"]) == ("helper", 1)
    for name in ("curious", "console"):
        posthouse.answer("send", name, "what is next", "--as", "sender")
        [next_one] = posthouse.answer("listen", "--as", name, "--count", "1", "--json").splitlines()
        assert json.loads(next_one)["body"] == "what is next", "a reply that was printed is settled"


def test_a_request_that_nobody_answers(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "deaf")
    code, line = posthouse.refusal("request", "deaf", "hello", "--timeout", "0.5")
    assert code == 1
    assert "within 0.5 s: it is stored, but not yet delivered to deaf" in line
    code, line = posthouse.refusal("request", "stranger", "hello")
    assert (code, "stranger" in line) == (1, True)


# ── Dead letters ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_is_a_table_or_json(posthouse: Posthouse) -> None:
    seqs = give_up(posthouse, "tabled", 3, "no such \x1b[31morder")
    header, *rows = posthouse.answer("dead-letters", "list", "--bot", "tabled").splitlines()
    assert header.split() == ["seq", "bot", "sender", "type", "attempts", "given", "up", "reason"]
    assert [row.split()[:5] for row in rows] == [[str(seq), "tabled", "tabled", "task", "1"] for seq in seqs[::-1]]
    assert all(row.endswith("no such \\u001b[31morder") for row in rows)
    found = posthouse.json("dead-letters", "list", "--bot", "tabled", "--limit", "2")
    assert [(dead["seq"], dead["bot"], dead["message"]["body"]) for dead in found] == [
        (seqs[2], "tabled", {"n": 2}),
        (seqs[1], "tabled", {"n": 1}),
    ]
    everybody = posthouse.json("dead-letters", "list")
    assert {"tabled"} <= {dead["bot"] for dead in everybody}
    assert set(seqs) <= {dead["seq"] for dead in everybody}
    assert posthouse.json("dead-letters") == everybody
    misplaced = posthouse.run("dead-letters", "--json", "list")
    assert (misplaced.returncode, "put the options after 'list'" in misplaced.stderr) == (2, True)


def test_no_dead_letters(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "healthy")
    ended = posthouse.run("dead-letters", "list", "--bot", "healthy")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "no dead letters\n")
    assert posthouse.json("dead-letters", "list", "--bot", "healthy") == []
    assert posthouse.refusal("dead-letters", "list", "--bot", "nobody-knows")[0] == 1


def test_one_is_shown_whole(posthouse: Posthouse) -> None:
    [seq] = give_up(posthouse, "shown", 1)
    facts = dict(
        line.split(maxsplit=1)
        for line in posthouse.answer("dead-letters", "show", str(seq)).splitlines()
        if not line.startswith("given up")
    )
    shown: dict[str, Any] = posthouse.json("dead-letters", "show", str(seq), "--bot", "shown")
    assert facts == {
        "seq": str(seq),
        "mailbox": "shown",
        "reason": "hopeless",
        "attempts": "1",
        "sent": shown["message"]["timestamp"],
        "sender": "shown",
        "to": "direct",
        "type": "task",
        "id": shown["message"]["id"],
        "headers": "lang=en",
        "body": '{"n":0}',
    }
    assert (shown["bot"], shown["message"]["body"]) == ("shown", {"n": 0})
    assert posthouse.refusal("dead-letters", "show", "999999") == (
        1,
        f"posthouse: not a dead letter of any mailbox: 999999; {LISTS}",
    )
    posthouse.answer("status", "--as", "spared")
    code, line = posthouse.refusal("dead-letters", "show", str(seq), "--bot", "spared")
    assert (code, line) == (1, f"posthouse: not a dead letter of spared: {seq}; {LISTS}")


def test_retrying_puts_them_back(posthouse: Posthouse) -> None:
    seqs = give_up(posthouse, "second", 5)
    others = give_up(posthouse, "other", 1)
    assert posthouse.answer("dead-letters", "retry", str(seqs[0])) == "1 dead letter put back\n"
    assert left(posthouse, "second") == seqs[:0:-1]
    given = [str(seqs[1]), str(seqs[2])]
    assert posthouse.json("dead-letters", "retry", *given, "--bot", "second") == {"retried": 2, "missing": []}
    assert posthouse.answer("dead-letters", "retry", "--all", "--bot", "second") == "2 dead letters put back\n"
    assert (left(posthouse, "second"), left(posthouse, "other")) == ([], others)
    assert posthouse.json("dead-letters", "retry", "--all", "--bot", "second") == {"retried": 0, "missing": []}
    lines = posthouse.answer("listen", "--as", "second", "--count", "5", "--json").splitlines()
    assert [json.loads(line)["seq"] for line in lines] == seqs
    code, line = posthouse.refusal("dead-letters", "retry", str(seqs[0]), "--bot", "second")
    assert (code, line) == (1, f"posthouse: not a dead letter of second: {seqs[0]}; {LISTS}")


def test_those_that_are_none_are_named_and_the_others_are_put_back_or_discarded(posthouse: Posthouse) -> None:
    seqs = give_up(posthouse, "partial", 2, "no")
    ended = posthouse.run("dead-letters", "retry", str(seqs[0]), "999998", "999999")
    assert (ended.returncode, ended.stdout) == (1, "1 dead letter put back\n")
    assert ended.stderr == f"posthouse: not a dead letter of any mailbox: 999998, 999999; {LISTS}\n"
    ended = posthouse.run("dead-letters", "discard", str(seqs[1]), "999999", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["missing"]) == (1, [999999])


@pytest.mark.parametrize(
    "arguments",
    [
        ["request", "someone"],
        ["request", "no name", "x"],
        ["request", "someone", "x", "--timeout", "0"],
        ["dead-letters", "show"],
        ["dead-letters", "show", "x"],
        ["dead-letters", "retry"],
        ["dead-letters", "retry", "1", "--all"],
        ["dead-letters", "list", "--bot", "no name"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    ended = CliRunner().invoke(main, arguments, env={"POSTHOUSE_URL": "tcp://127.0.0.1:1"})
    assert (ended.exit_code, ended.stdout) == (2, "")


def test_dead_letters_are_discarded_by_what_they_are(posthouse: Posthouse) -> None:
    seqs = [*give_up(posthouse, "discarder", 2, "no JSON"), *give_up(posthouse, "discarder", 1, "too late")]
    chosen = ("--bot", "discarder", "--reason", "no JSON", "--yes")
    assert (
        posthouse.answer("dead-letters", "discard", *chosen, "--dry-run") == "2 dead letters would be discarded\n"
    )
    assert (
        posthouse.json("dead-letters", "discard", "--bot", "discarder", "--older-than", "7d", "--yes")["discarded"]
        == 0
    )
    posthouse.answer("publish", "news", "hello", "--as", "author")
    assert (
        posthouse.json("dead-letters", "discard", "--bot", "discarder", "--channel", "news", "--yes")["discarded"]
        == 0
    )
    told = posthouse.answer("dead-letters", "discard", *chosen, "--reference", "ticket 9")
    assert told == "2 dead letters discarded\n"
    [left] = posthouse.json("dead-letters", "list", "--bot", "discarder")
    assert left["seq"] == seqs[2]
    assert posthouse.json("dead-letters", "discard", str(seqs[2])) == {
        "discarded": 1,
        "missing": [],
        "dry_run": False,
    }
    code, line = posthouse.refusal("dead-letters", "discard", str(seqs[2]), "--bot", "discarder")
    assert (code, line) == (1, f"posthouse: not a dead letter of discarder: {seqs[2]}; {LISTS}")
    [record] = [each for each in posthouse.json("removals") if each["reference"] == "ticket 9"]
    assert record["removed"]["seqs"] == seqs[:2]
    shown = posthouse.answer("removals")
    assert "2 dead letters of discarder" in " ".join(shown.split())


def test_which_dead_letters_to_discard_must_be_said(posthouse: Posthouse) -> None:
    for arguments in ((), ("--bot", "nobody"), ("--all", "1"), ("--all", "--reason", "x")):
        assert posthouse.run("dead-letters", "discard", *arguments).returncode == 2
