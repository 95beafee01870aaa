"""What became of a message, what a mailbox has, and who is connected, on the command line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

import bus
from bus import sync
from bus.cli.console import Time, table

from .terminal import Posthouse
from .test_dead_letters import give_up


def rows(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def stored(posthouse: Posthouse, *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(posthouse.answer(*arguments, "--json"))
    return value


def test_a_message_is_shown_by_its_id_and_by_its_seq(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "lena")
    receipt = stored(posthouse, "send", "lena", '{"n":1}', "--as", "mark", "--header", "lang=en")
    by_seq = posthouse.answer("message", str(receipt["seq"]))
    assert by_seq == posthouse.answer("message", receipt["id"])
    facts, _, fates = by_seq.partition("\n\n")
    assert (
        dict(line for line in rows(facts) if len(line) == 2).items()
        >= {
            "seq": str(receipt["seq"]),
            "id": receipt["id"],
            "sender": "mark",
            "to": "lena",
            "headers": "lang=en",
            "body": '{"n":1}',
        }.items()
    )
    assert rows(fates) == [["mailbox", "state", "attempts", "detail"], ["lena", "waiting", "0"]]
    found = stored(posthouse, "message", receipt["id"], "--sender", "mark")
    assert (found["message"]["body"], found["mailboxes"][0]["state"]) == ({"n": 1}, "waiting")


def test_what_is_not_known_of_a_settled_message_is_said(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "lea")
    seq = stored(posthouse, "send", "lea", "1", "--as", "max")["seq"]
    posthouse.answer("listen", "--as", "lea", "--count", "1")
    [_, row] = rows(posthouse.answer("message", str(seq)).partition("\n\n")[2])
    assert row == ["lea", "settled", "not kept"]
    assert not stored(posthouse, "message", str(seq))["mailboxes"][0].get("attempts")


def test_an_erased_message_does_not_come_again(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "lou")
    seq = stored(posthouse, "send", "lou", "gone by erasing", "--as", "max")["seq"]
    with sync.connect(posthouse.url, bot="max") as max:
        max.call(lambda bot: bot.erase(seqs=[seq]))
    [_, row] = rows(posthouse.answer("message", str(seq)).partition("\n\n")[2])
    assert row == ["lou", "waiting", "0", "erased: it is not delivered any more"]


def test_a_message_to_a_bot_that_was_removed_is_in_no_mailbox(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "liv")
    seq = stored(posthouse, "send", "liv", "1", "--as", "max")["seq"]
    bot_id = posthouse.bot("liv")["id"]
    posthouse.answer("remove", "bot", "liv", "--force")
    shown = posthouse.run("message", str(seq))
    assert "or their mailboxes were removed" in shown.stderr
    assert ["to", bot_id] in rows(shown.stdout)


def test_what_is_left_of_a_thread_is_shown(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "vera")
    first = stored(posthouse, "send", "vera", "1", "--as", "will", "--hops", "1", "--deadline", "1h")["id"]
    second = stored(posthouse, "send", "will", "2", "--as", "vera", "--reply-to", first)["id"]
    refused = posthouse.run("send", "vera", "3", "--as", "will", "--reply-to", second)
    assert refused.returncode == 1
    assert "no hops are left in its thread" in refused.stderr.replace("\n", " ")
    shown = [line.partition("(")[2] for line in posthouse.answer("history", "--thread", first).splitlines()]
    assert [line[: len("1 hop left until 20")] for line in shown] == ["1 hop left until 20", "0 hops left until 2"]
    assert re.search(r"^budget +0 hops left until 20", posthouse.answer("message", second), re.MULTILINE)


def test_a_dead_letter_tells_why(posthouse: Posthouse) -> None:
    [seq] = give_up(posthouse, "nora", 1, "no such file")
    [_, row] = rows(posthouse.answer("message", str(seq)).partition("\n\n")[2])
    assert row[:3] == ["nora", "dead", "1"]
    assert row[3].startswith("no such file, since ")
    assert "dead      1 dead letter" in posthouse.answer("mailbox", "nora")


def test_a_message_that_is_not_due_is_in_no_mailbox(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "olga")
    receipt = stored(posthouse, "send", "olga", "later", "--as", "paul", "--delay", "1h")
    shown = posthouse.answer("message", receipt["id"])
    assert shown.startswith("seq       none before it is due\n")
    assert re.search(r"^due +\d{4}-", shown, re.MULTILINE)


def test_a_last_will_is_shown_with_its_bot(posthouse: Posthouse) -> None:
    with sync.connect(posthouse.url, bot="wanda") as wanda:
        wanda.call(lambda bot: bot.will(bus.Draft(channel="alarms", body="gone"), delay=3600))
        [listed] = [each for each in json.loads(posthouse.answer("bots", "--json")) if each["name"] == "wanda"]
        will = listed["will"]
        assert (will["recipient"], will["delay"]) == ({"type": "channel", "name": "alarms"}, 3600)
        assert will["due_at"] is None, "it is there"
        [row] = [row for row in rows(posthouse.answer("bots")) if row[0] == "wanda"]
        assert "#alarms" in row
        shown = posthouse.answer("message", will["id"])
        assert re.search("^seq +none before it is sent$", shown, re.MULTILINE)
        assert "of wanda: it is sent if wanda vanishes, and is not back in 3600 s" in shown
        wanda.call(lambda bot: bot.will(bus.Draft(to="wanda", body="gone"), delay=3600))
        assert posthouse.run("message", will["id"]).returncode == 1, "another one took its place"
        [row] = [row for row in rows(posthouse.answer("bots")) if row[0] == "wanda"]
        assert row.count("wanda") == 2, "its own name, and to whom it is"
    [listed] = [each for each in json.loads(posthouse.answer("bots", "--json")) if each["name"] == "wanda"]
    assert listed["will"] is None, "it said goodbye"


def test_what_is_no_message_is_said_to_be_none(posthouse: Posthouse) -> None:
    for given in ("0", "-3", "abc", "019AB6D0-5C1E-7F3A-9D54-0D1F6B2A7C11"):
        ended = posthouse.run("message", "--", given)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "neither a message's id" in ended.stderr.replace("\n", " ")
    ended = posthouse.run("message", "9" * 12)
    assert ended.returncode == 1
    assert "the log ends at" in ended.stderr
    assert posthouse.run("message", "1", "--sender", "x").returncode == 2


def test_a_mailbox_is_shown_and_read_on(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "rosa")
    for number in range(3):
        posthouse.answer("send", "rosa", str(number), "--as", "sam")
    summary, _, messages = posthouse.answer("mailbox", "rosa").partition("\n\n")
    assert dict(rows(summary))["waiting"] == "3 messages"
    assert dict(rows(summary))["taken by"].startswith("nobody")
    assert [row[-1] for row in rows(messages)] == ["body", "0", "1", "2"]
    ended = posthouse.run("mailbox", "rosa", "--limit", "2")
    after = re.fullmatch(r"for later messages: --after (\d+)\n", ended.stderr)
    assert after is not None
    rest = posthouse.answer("mailbox", "rosa", "--after", after[1]).partition("\n\n")[2]
    assert [row[-1] for row in rows(rest)] == ["body", "2"]
    value = stored(posthouse, "mailbox", "rosa", "--limit", "1")
    assert (value["counts"]["waiting"], len(value["messages"]), value["more"]) == (3, 1, True)
    assert posthouse.run("mailbox", "nobody-here").returncode == 1


def test_who_is_connected_is_shown(posthouse: Posthouse) -> None:
    with posthouse.start("listen", "--as", "tina") as listener:
        posthouse.wait_until(lambda: is_connected(posthouse, "tina"))
        [_, row] = rows(posthouse.answer("sessions", "--bot", "tina"))
        assert row[0] == "tina"
        assert re.fullmatch(r"0/\d+", row[1])
        assert "127.0.0.1" in row
        listener.interrupt()
        assert listener.exit_code() == 0
    assert posthouse.run("sessions", "--bot", "nobody-here").returncode == 1


def is_connected(posthouse: Posthouse, bot: str) -> bool:
    ended = posthouse.run("sessions", "--bot", bot, "--json")
    return ended.returncode == 0 and json.loads(ended.stdout) != []


# ── Narrow terminals ─────────────────────────────────────────────────────────────────────────────────────

COLUMNS = ("bot", "waiting", "seen", "id")
ROWS = [("writer", 12, Time("2026-01-01T00:00:00.000000Z"), "01900000-0000-7000-8000-000000000001")]


def drawn(width: int, columns: Any, shown: Any, **options: Any) -> list[str]:
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table(console, columns, shown, **options))
    lines = [Text.from_ansi(line).plain for line in capture.get().splitlines()]
    assert all(len(line) <= width for line in lines), lines
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("width", "names"),
    [(100, ["bot", "waiting", "seen", "id"]), (50, ["bot", "waiting", "seen"]), (30, ["bot", "waiting"])],
)
def test_a_narrow_table_leaves_out_what_matters_least(width: int, names: list[str]) -> None:
    heading, _, row = drawn(width, COLUMNS, ROWS, minor=("id", "seen"))
    assert heading.split() == names
    assert row.split()[0] == "writer"


def test_a_table_that_is_too_wide_for_that_becomes_blocks() -> None:
    assert drawn(50, COLUMNS, ROWS * 2)[:4] == [
        "bot       writer",
        "waiting   12",
        drawn(50, COLUMNS, ROWS)[2],
        "id        01900000-0000-7000-8000-000000000001",
    ]


def test_a_long_last_column_is_folded() -> None:
    heading, _, *lines = drawn(50, ("bot", "reason"), [("writer", "the file was not found " * 4)])
    assert heading.split() == ["bot", "reason"]
    assert len(lines) > 1
    assert lines[0].startswith("writer   the file")


def test_an_empty_minor_column_is_left_out() -> None:
    heading, *_ = drawn(100, ("bot", "key"), [("writer", "")], minor=("key",))
    assert heading.split() == ["bot"]
