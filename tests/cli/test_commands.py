"""The people's commands: what they send, print and answer, and how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.integration.wire import to_bot
from tests.integration.wire_worker import Worker
from worker import main

from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse

UNKNOWN_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def bodies(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["body"] for message in messages]


# ── Sending ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_is_json_or_else_text(posthouse: Posthouse) -> None:
    given: list[tuple[str, str, Any]] = [
        ('{"text": "grüße", "n": 1.50}', "", {"text": "grüße", "n": 1.5}),
        ("5", "", 5),
        ("plain words", "", "plain words"),
        ("NaN", "", "NaN"),
        ("-", "[1,\n 2]\n", [1, 2]),
        ("-", "two\nlines\n", "two\nlines"),
    ]
    for argument, stdin, _ in given:
        posthouse.answer("publish", "bodies", argument, "--as", "speaker", stdin=stdin)
    assert bodies(posthouse.json("history", "--channel", "bodies")) == [body for _, _, body in given]


def test_a_body_that_begins_like_json_and_is_none_is_refused(posthouse: Posthouse) -> None:
    for given, stdin in (("{n:6}", ""), ('["a]', ""), ('"a', ""), ("-", " {broken\n")):
        ended = posthouse.run("publish", "broken", given, "--as", "speaker", stdin=stdin)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "begins like JSON, but is not valid" in " ".join(re.sub(r"[│╭╮╰╯─]", "", ended.stderr).split())
        posthouse.answer("publish", "broken", given, "--text", "--as", "speaker", stdin=stdin)
    posthouse.answer("publish", "broken", "5", "--text", "--as", "speaker")
    expected = ["{n:6}", '["a]', '"a', " {broken", "5"]
    assert bodies(posthouse.json("history", "--channel", "broken")) == expected


def test_a_question_registers_no_bot(posthouse: Posthouse) -> None:
    for command in (["status"], ["bots"], ["channels"], ["sessions"], ["runs"], ["workflows"], ["audit"]):
        posthouse.run(*command)
    names = [bot["name"] for bot in posthouse.json("bots")]
    assert not {"console", "posthouse.console"} & {*names}
    posthouse.answer("bots", "--as", "asker-of-its-own")
    assert posthouse.bot("asker-of-its-own")["online"] is False


def test_a_message_takes_everything_with_it(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "taker")
    first = posthouse.json("send", "taker", "1", "--as", "giver")
    fields = ["--type", "note", "--reply-to", first["id"], "--header", "a=b", "--header", "c=d=e"]
    second = posthouse.json("send", "taker", "2", "--as", "giver", *fields)
    [stored] = posthouse.json("history", "--between", "taker", "giver", "--limit", "1")
    assert stored["seq"] == second["seq"] > first["seq"]
    assert (stored["message_type"], stored["reply_to"]) == ("note", first["id"])
    assert stored["headers"] == {"a": "b", "c": "d=e"}
    assert bodies(posthouse.json("history", "--thread", second["id"])) == [1, 2]


def test_a_message_sent_again_with_its_id_is_stored_once(posthouse: Posthouse) -> None:
    first = posthouse.json("publish", "once", "x", "--as", "giver", "--id", UNKNOWN_ID)
    again = posthouse.json("publish", "once", "x", "--as", "giver", "--id", UNKNOWN_ID)
    assert again == {**first, "duplicate": True}
    assert "stored before" in posthouse.answer("publish", "once", "x", "--as", "giver", "--id", UNKNOWN_ID)
    assert len(posthouse.json("history", "--channel", "once")) == 1


def test_a_thread_is_that_of_the_named_sender(posthouse: Posthouse) -> None:
    id = "00000000-0000-7000-8000-00000000abcd"
    for sender in ("giver", "taker"):
        posthouse.json("publish", "same", sender, "--as", sender, "--id", id)
    for sender in ("giver", "taker"):
        assert bodies(posthouse.json("history", "--thread", id, "--sender", sender)) == [sender]
    assert bodies(posthouse.json("history", "--thread", id, "--as", "taker")) == ["taker"]


def test_history_begins_at_a_time(posthouse: Posthouse) -> None:
    for number in range(3):
        posthouse.answer("publish", "dated", str(number), "--as", "giver")
    read = ["history", "--channel", "dated"]
    _, second, third = posthouse.json(*read)
    assert bodies(posthouse.json(*read, "--since", second["timestamp"])) == [1, 2]
    assert bodies(posthouse.json(*read, "--since", "1h")) == [0, 1, 2]
    assert "--before" in posthouse.run(*read, "--limit", "2", "--since", second["timestamp"]).stderr
    cut = posthouse.run(*read, "--limit", "2", "--since", third["timestamp"])
    assert (len(cut.stdout.splitlines()), cut.stderr) == (1, "")
    assert posthouse.run(*read, "--since", "2999-01-01T00:00:00Z").stderr == "no messages\n"


# ── Listening ────────────────────────────────────────────────────────────────────────────────────────────


def test_listening_gives_direct_and_channel_messages_in_their_order(posthouse: Posthouse) -> None:
    posthouse.answer("publish", "ears", "0", "--as", "mouth")
    posthouse.answer("listen", "--as", "ear", "--channel", "ears", "--from", "all", "--count", "1")
    sent = [
        posthouse.json("publish", "ears", '"on the channel"', "--as", "mouth"),
        posthouse.json("send", "ear", '"to the bot"', "--as", "mouth"),
    ]
    output = posthouse.answer("listen", "--as", "ear", "--count", "2")
    columns = [line.split(maxsplit=5) for line in output.splitlines()]
    assert [column[1:] for column in columns] == [
        [str(sent[0]["seq"]), "mouth", "#ears", "message", '"on the channel"'],
        [str(sent[1]["seq"]), "mouth", "direct", "message", '"to the bot"'],
    ]


def test_what_was_printed_is_acknowledged_and_what_was_not_comes_again(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "reader")
    for number in range(3):
        posthouse.answer("send", "reader", str(number), "--as", "writer")
    first = json.loads(posthouse.answer("listen", "--as", "reader", "--count", "1", "--json"))
    rest = posthouse.answer("listen", "--as", "reader", "--count", "2", "--json").splitlines()
    assert [first["body"], *bodies([json.loads(line) for line in rest])] == [0, 1, 2]
    [entry] = [bot for bot in posthouse.json("bots") if bot["name"] == "reader"]
    assert entry["backlog"] == 0


def test_a_subscription_outlasts_the_listening(posthouse: Posthouse) -> None:
    with posthouse.start("listen", "--as", "sleeper", "--channel", "night", "--json") as listening:
        posthouse.wait_until(lambda: any(bot["name"] == "sleeper" for bot in posthouse.json("bots")))
        posthouse.answer("send", "sleeper", "0", "--as", "waker")
        # The direct message comes after the subscription was made: from here on it covers the channel.
        assert json.loads(listening.line())["body"] == 0
        listening.interrupt()
        assert listening.exit_code() == 0
    posthouse.answer("publish", "night", "1", "--as", "waker")
    again = json.loads(posthouse.answer("listen", "--as", "sleeper", "--count", "1", "--json"))
    assert (again["body"], again["recipient"]) == (1, {"type": "channel", "name": "night"})


def test_a_subscription_that_is_removed_is_told_and_the_listening_goes_on(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "watchman")
    with posthouse.start("listen", "--as", "watchman", "--channel", "dusk", "--channel", "dawn") as listening:
        posthouse.answer("send", "watchman", "0", "--as", "waker")
        assert listening.line().endswith("  0"), "it has subscribed"
        posthouse.answer("remove", "subscription", "watchman", "dusk")
        removed = "the subscription to 'dusk' was removed, and nothing more comes of it; to subscribe again,"
        assert listening.error_line() == f"{removed} end this and start it anew\n"
        posthouse.answer("publish", "dawn", "1", "--as", "waker")
        assert listening.line().endswith("  1")
        listening.interrupt()
        assert (listening.exit_code(), listening.errors()) == (0, "")


def test_a_pattern_of_channels_brings_those_that_are_there_and_those_that_come(posthouse: Posthouse) -> None:
    posthouse.answer("publish", "wires.old", "0", "--as", "waker")
    with posthouse.start("listen", "--as", "linesman", "--channel", "wires.*", "--from", "all") as listening:
        assert listening.line().split()[3:] == ["#wires.old", "message", "0"]
        posthouse.answer("publish", "wires.new", "1", "--as", "waker")
        assert listening.line().split()[3:] == ["#wires.new", "message", "1"]
        posthouse.answer("remove", "subscription", "linesman", "wires.*")
        assert listening.error_line().startswith("the subscription to 'wires.*' was removed")
        listening.interrupt()
        assert (listening.exit_code(), listening.errors()) == (0, "")


def test_each_line_leaves_at_once_and_an_interrupt_is_the_end(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "patient")
    with posthouse.start("listen", "--as", "patient") as listening:
        for number in range(2):
            posthouse.answer("send", "patient", str(number), "--as", "caller")
            assert listening.line().endswith(f"  {number}")
        listening.interrupt()
        assert (listening.exit_code(), listening.errors()) == (0, "")


def test_an_interrupt_before_the_count_is_told(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "counter")
    posthouse.answer("send", "counter", "1", "--as", "caller")
    with posthouse.start("listen", "--as", "counter", "--count", "2") as listening:
        listening.line()
        listening.interrupt()
        assert (listening.exit_code(), listening.errors()) == (130, "")


def test_a_second_listener_with_the_same_name_is_told_and_both_are_counted(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "shared")
    with (
        posthouse.start("listen", "--as", "shared") as first,
        posthouse.start("listen", "--as", "shared") as second,
    ):
        posthouse.wait_until(lambda: posthouse.bot("shared")["sessions"] == 2)
        for each in (first, second):
            each.interrupt()
        told = [each.errors() for each in (first, second) if each.exit_code() == 0]
    assert sorted(told, key=len) == [
        "",
        "posthouse: bot 'shared' has 1 other session: they share its mailbox,"
        " and each message goes to one of them\n",
    ]


def test_a_reader_that_goes_away_ends_it_and_loses_nothing(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "piped")
    posthouse.answer("send", "piped", "1", "--as", "caller")
    with posthouse.start("listen", "--as", "piped", "--json") as listening:
        listening.line()
        listening.close_output()
        posthouse.answer("send", "piped", "2", "--as", "caller")
        assert (listening.exit_code(), listening.errors()) == (0, "")
    assert json.loads(posthouse.answer("listen", "--as", "piped", "--count", "1", "--json"))["body"] == 2


def test_details_have_the_id_what_is_answered_and_the_headers(posthouse: Posthouse) -> None:
    fields = ["--reply-to", UNKNOWN_ID, "--header", "a=b"]
    sent = posthouse.json("publish", "details", "1", "--as", "giver", *fields)
    output = posthouse.answer("history", "--channel", "details", "--details")
    assert output.splitlines()[1].strip() == f"id {sent['id']}  reply to {UNKNOWN_ID}  a=b"


# ── What a bot says cannot steer a terminal ──────────────────────────────────────────────────────────────


def test_a_message_cannot_steer_the_terminal(posthouse: Posthouse) -> None:
    evil = "\x1b[31mred\x9b2J\u202e"
    posthouse.answer("publish", "evil", evil, "--as", "giver", "--type", evil, "--header", f"a={evil}")
    assert bodies(posthouse.json("history", "--channel", "evil")) == [evil]
    in_a_pipe = posthouse.answer("history", "--channel", "evil", "--details")
    on_a_terminal = terminal_output(posthouse, "history", "--channel", "evil", "--details")
    assert "\x1b[" in on_a_terminal
    for output in (in_a_pipe, on_a_terminal):
        assert output.count("\\u001b[31mred\\u009b2J\\u202e") == 3
        assert [part for part in ("\x1b[31mred", "\x9b", "\u202e") if part in output] == []


def terminal_output(posthouse: Posthouse, *arguments: str) -> str:
    """Run a command with a terminal as its output, and give what it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**posthouse.environment, "TERM": "xterm-256color", "COLUMNS": "500"}
    with subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        parts: list[bytes] = []
        try:
            while part := os.read(ours, 65_536):
                parts.append(part)
        except OSError:
            pass  # Linux's way to say that nobody has the other end any more
        finally:
            os.close(ours)
        assert process.wait(TIMEOUT_SECONDS) == 0
    return b"".join(parts).decode()


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────


def test_history_is_read_in_pages_from_the_newest(posthouse: Posthouse) -> None:
    for number in range(5):
        posthouse.answer("publish", "pages", str(number), "--as", "giver")
    newest = posthouse.json("history", "--channel", "pages", "--limit", "2")
    earlier = posthouse.json("history", "--channel", "pages", "--limit", "2", "--before", str(newest[0]["seq"]))
    assert (bodies(newest), bodies(earlier)) == ([3, 4], [1, 2])
    assert not {"attempt", "prev_seq"} & newest[0].keys()
    shown = posthouse.run("history", "--channel", "pages", "--limit", "2")
    assert shown.stderr == f"for earlier messages: --before {newest[0]['seq']}\n"


def test_the_tables_say_who_there_is_and_what(posthouse: Posthouse) -> None:
    posthouse.answer("publish", "tables", "1", "--as", "carpenter")
    posthouse.answer("listen", "--as", "apprentice", "--channel", "tables", "--from", "all", "--count", "1")
    [bot] = [line.split() for line in posthouse.answer("bots").splitlines() if line.startswith("apprentice ")]
    assert bot[1:5] == ["no", "0", "0", "0"]
    [channel] = [line.split() for line in posthouse.answer("channels").splitlines() if line.startswith("tables ")]
    assert (channel[1:3], channel[-1]) == (["1", "1"], "carpenter")
    for query in (["--bot", "apprentice"], ["--channel", "tables"]):
        heading, line = posthouse.answer("subscriptions", *query).splitlines()
        assert heading.split()[:2] == ["channel", "bot"]
        assert line.split()[:2] == ["tables", "apprentice"]
    everything = posthouse.json("subscriptions")
    assert ("tables", "apprentice") in {(each["channel_name"], each["bot"]) for each in everything}
    assert [each["name"] for each in posthouse.json("channels")].count("tables") == 1


def test_status_has_the_log_and_the_versions(posthouse: Posthouse) -> None:
    sent = posthouse.json("publish", "status", "1", "--as", "giver")
    status = posthouse.json("status")
    assert status["last_seq"] >= sent["seq"]
    text = posthouse.answer("status")
    assert posthouse.url in text
    assert f"epoch {status['epoch']}" in text
    assert f"sqlite {status['versions']['sqlite']}" in text


def test_commands_find_the_worker_that_serves_among_several(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "seeker")
    nobody = "tcp://127.0.0.1:1"
    options = ("--url", nobody, "--url", posthouse.url)
    assert f"worker    {posthouse.url}" in posthouse.answer("status", *options)
    assert Posthouse(f"{nobody},{posthouse.url}").json("status")["bots"] >= 1


def test_status_lists_who_was_too_fast(tmp_path: Path) -> None:
    configuration = "[limits]\nsender_messages_per_second_max = 0.001\npair_messages_per_second_max = 0.0001"
    with Worker(tmp_path, configuration) as worker:
        posthouse = Posthouse(worker.command)
        assert "too fast" not in posthouse.answer("status")
        hasty = worker.session("hasty")
        hasty.publish(to_bot("hasty", 1))
        code, line = posthouse.refusal("publish", "news", "2", "--as", "hasty")
        assert (code, "rate_limited" in line) == (1, True)
        assert "'hasty' may publish no more than 0.001 a second, and 1 at once" in line
        text = posthouse.answer("status")
        assert re.search(r"^rate_limited +1 ", text, re.MULTILINE)
        assert re.search(r"^too fast +to +refused +last\nhasty +anybody +1 +20", text, re.MULTILINE)
        [listed] = posthouse.json("status")["rate_limited"]
        assert (listed["sender"], listed["recipient"], listed["times"]) == ("hasty", None, 1)


def test_security_events_are_shown_and_followed(posthouse: Posthouse) -> None:
    posthouse.answer("publish", "news", "1", "--as", "auditor")
    posthouse.wait_until(lambda: bool(posthouse.json("audit", "--bot", "auditor", "--since", "1h")))
    [event, *_] = posthouse.json("audit", "--bot", "auditor", "--event", "session_opened")
    assert (event["event"], event["bot"], event["times"]) == ("session_opened", "auditor", 1)
    heading, line = posthouse.run("audit", "--bot", "auditor", "--limit", "1").stdout.splitlines()
    assert heading.split()[:4] == ["id", "time", "event", "bot"]
    assert line.split()[2:4] == ["session_opened", "auditor"]
    assert posthouse.run("audit", "--bot", "auditor", "--since", "2999-01-01T00:00:00Z").stderr == "no events\n"
    assert posthouse.run("message", "999999").returncode == 1
    console = "posthouse.console"
    posthouse.wait_until(
        lambda: bool(posthouse.json("audit", "--bot", console, "--event", "refused", "--since", "1h"))
    )
    assert {event["bot"] for event in posthouse.json("audit", "--bot", console)} == {console}
    with posthouse.start("audit", "--follow", "--bot", "auditor", "--since", "1h") as following:
        assert "session_opened  bot auditor" in following.line()
        following.interrupt()
        assert following.exit_code() == 0


def test_nothing_to_show_is_said_beside_the_output(posthouse: Posthouse) -> None:
    ended = posthouse.run("history", "--thread", UNKNOWN_ID[:-1] + "0")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "no messages\n")


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_is_one_line_and_exit_code_1(posthouse: Posthouse) -> None:
    code, line = posthouse.refusal("send", "nobody", "x", "--as", "giver")
    assert code == 1
    assert line.startswith("posthouse: no bot named 'nobody' [unknown_bot]")
    assert line.endswith("; see 'posthouse bots'")
    code, line = posthouse.refusal("history", "--channel", "nowhere")
    assert (code, line.endswith("; see 'posthouse channels'")) == (1, True)
    code, line = posthouse.refusal("mailbox", "nowhere/team")
    assert (code, line.endswith("; see 'posthouse bots' and 'posthouse channels'")) == (1, True)


def test_without_a_worker_it_is_one_line_and_exit_code_69() -> None:
    code, line = Posthouse().refusal("status", "--timeout", "0.2")
    assert code == 69
    assert line.startswith("posthouse: no worker answers at tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "someone", "x"],
        ["send", "someone", "x", "--as", "no name"],
        ["publish", "no channel", "x", "--as", "someone"],
        ["send", "someone", "x", "--as", "someone", "--header", "novalue"],
        ["send", "someone", "x", "--as", "someone", "--reply-to", "41"],
        ["send", "someone", "x", "--as", "someone", "--ttl", "nan"],
        ["send", "someone", "x", "--as", "someone", "--delay", "nan"],
        ["listen", "--as", "someone", "--count", "0"],
        ["history"],
        ["history", "--channel", "a", "--thread", UNKNOWN_ID],
        ["history", "--channel", "a", "--sender", "a"],
        ["subscriptions", "--bot", "a", "--channel", "b"],
        ["listen", "--as", "someone", "--channel", "papers.**.new"],
        ["audit", "--since", "yesterday"],
        ["audit", "--event", "forbiden"],
        ["history", "--channel", "a", "--since", "yesterday"],
        ["audit", "--since", "1999999999d"],
        ["status", "--url", "localhost"],
        ["status", "--timeout", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_needs_no_worker(arguments: list[str]) -> None:
    ended = CliRunner().invoke(main, arguments, env={"POSTHOUSE_URL": "tcp://127.0.0.1:1"})
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Error" in ended.stderr


def test_no_two_parameters_of_a_command_have_one_name() -> None:
    """One of them would get the other's value."""

    def commands_of(command: click.Command) -> Iterator[click.Command]:
        yield command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                if (found := command.get_command(context, name)) is not None:
                    yield from commands_of(found)

    found = {command.name: [each.name for each in command.params] for command in commands_of(main)}
    assert len(found) > 30
    assert {name for name, names in found.items() if len(names) > len(set(names))} == set()
