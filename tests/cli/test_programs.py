"""The programs that pages show do what the pages say, run as they stand there but for the address."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..integrations.extras import needs
from ..snippets import PAGES, ROOT, snippets
from .terminal import TIMEOUT_SECONDS, Posthouse, Running

UNTRIED = [
    (snippet.page, snippet.code)
    for path in PAGES
    for snippet in snippets(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    if snippet.is_program
]
"""The programs that no test has taken yet. In the end there are none."""


def program(page: str, part: str) -> str:
    """Take a program out of a page: the one that has this part."""
    [found] = [each for each in UNTRIED if each[0] == page and part in each[1]]
    UNTRIED.remove(found)
    return found[1]


GREETER = program("README.md", 'bus.Bot("greeter")')
VISITOR = program("README.md", 'bot="visitor"')
FIRST = program("docs/python.md", 'bus.Bot("writer")')
LOOP = program("docs/python.md", 'bot="greeter"')
CONNECTING = program("docs/python.md", "bot.status()")
CONSUMER = program("docs/delivery.md", 'bot="worker"')
MEMBER = program("docs/groups.md", 'group="makers"')
ORACLE = program("docs/requests.md", 'bus.Bot("oracle")')
ASKER = program("docs/requests.md", 'bot="visitor"')
POLITE = program("docs/requests.md", "def polite")
DIGESTER = program("docs/workflows.md", "run.approval")
TAP = program("docs/protocol.md", "zmq.SUB")
program("docs/protocol.md", "# echo_bot.py")  # tests/integration/test_wire_restart.py
PLANNER = program("docs/keyed.md", 'bot="planner"')
PROVED = program("docs/python.md", "pytest.fixture")
GRAPH = program("docs/integrations/langgraph.md", "ainvoke")


def test_every_program_is_run() -> None:
    assert UNTRIED == []


def start(posthouse: Posthouse, code: str) -> Running:
    """Run a program of a page with the addresses of the test's worker."""
    code, connected = re.subn(r"bus\.connect\(bot=", f'bus.connect("{posthouse.url}", bot=', code)
    code, made = re.subn(r'bus\.Bot\(("\w+"|name)\)', rf'bus.Bot(\1, "{posthouse.url}")', code)
    code, tapped = re.subn(r"tcp://127\.0\.0\.1:7711", posthouse.tap_url, code)
    assert connected + made + tapped == 1
    # A shell's background job ignores Ctrl-C, as do the tests that are one.
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    environment = {**posthouse.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return Running([sys.executable, "-c", code], environment)


def until_subscribed(posthouse: Posthouse, bot: str = "greeter", channel: str = "visitors") -> None:
    posthouse.wait_until(lambda: channel in posthouse.run("subscriptions", "--as", bot).stdout)


def interrupted(program: Running) -> None:
    """End a program with Ctrl-C, which leaves no traceback."""
    program.interrupt()
    assert program.exit_code() == 0, program.errors()
    assert "KeyboardInterrupt" not in program.errors()


@pytest.mark.parametrize("greeter", [GREETER, LOOP], ids=["application", "loop"])
def test_the_readme_greets(posthouse: Posthouse, greeter: str) -> None:
    with start(posthouse, greeter) as running:
        until_subscribed(posthouse)
        with start(posthouse, VISITOR) as visitor:
            assert visitor.line().startswith("on disk, with seq ")
            assert visitor.line() == "greeter says hello, Ada"
            assert (visitor.exit_code(), visitor.errors()) == (0, "")
        interrupted(running)


@pytest.mark.parametrize("greeter", [GREETER, LOOP], ids=["application", "loop"])
def test_the_readme_greets_on_after_a_message_that_it_cannot_handle(posthouse: Posthouse, greeter: str) -> None:
    with start(posthouse, greeter) as running:
        until_subscribed(posthouse)
        posthouse.answer("publish", "visitors", '{"who": "nobody knows"}', "--as", "stranger")
        with start(posthouse, VISITOR) as visitor:
            assert visitor.line().startswith("on disk, with seq ")
            assert visitor.line() == "greeter says hello, Ada"
            assert visitor.exit_code() == 0
        interrupted(running)


def test_the_examples_greet(posthouse: Posthouse) -> None:
    with posthouse.example("greeter.py") as greeter:
        until_subscribed(posthouse)
        with posthouse.example("visitor.py", PYTHONUNBUFFERED="1") as visitor:
            assert visitor.line().startswith("on disk, with seq ")
            assert visitor.line() == "greeter says hello, Ada"
            assert visitor.exit_code() == 0
        interrupted(greeter)


def test_the_guide_begins_with_a_bot_that_answers(posthouse: Posthouse) -> None:
    with start(posthouse, FIRST) as writer:
        until_subscribed(posthouse, "writer", "news")
        answered = posthouse.answer("request", "writer", '{"text": "moths"}', "--type", "question", "--as", "asker")
        assert "about moths: it depends" in answered
        posthouse.answer("publish", "news", "a moth", "--as", "asker")
        assert writer.line() == "asker a moth"
        interrupted(writer)


def test_the_guide_connects(posthouse: Posthouse) -> None:
    with start(posthouse, CONNECTING) as connecting:
        assert connecting.line().isdecimal()
        assert (connecting.exit_code(), connecting.errors()) == (0, "")


def test_a_value_is_put_and_found(posthouse: Posthouse) -> None:
    with start(posthouse, PLANNER) as planner:
        assert re.fullmatch(r"small is revision \d+", planner.line())
        assert (planner.exit_code(), planner.errors()) == (0, "")


@pytest.mark.parametrize(
    ("code", "bot", "channel", "expected"),
    [
        pytest.param(CONSUMER, "worker", "orders", r"\d+ 1 two cups", id="delivery"),
        pytest.param(MEMBER, "maker-1", "thumbnails", "maker-1 makes two cups for the group makers", id="groups"),
    ],
)
def test_a_loop_handles_what_is_published(
    posthouse: Posthouse, code: str, bot: str, channel: str, expected: str
) -> None:
    with start(posthouse, code) as loop:
        until_subscribed(posthouse, bot, channel)
        posthouse.answer("publish", channel, "two cups", "--as", "customer")
        assert re.fullmatch(expected, loop.line())
        loop.interrupt()
        assert loop.exit_code() != 0  # a KeyboardInterrupt


def test_a_request_is_answered(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "oracle")
    with start(posthouse, ORACLE) as oracle:
        with start(posthouse, ASKER) as asker:
            assert asker.line() == "oracle {'text': 'about tea: it depends'}"
            assert (asker.exit_code(), asker.errors()) == (0, "")
        question = ("request", "oracle", '{"text": "tea"}', "--type", "question", "--as", "visitor")
        budget = ("--hops", "3", "--deadline", "1h", "--priority", "high")
        reply = posthouse.json(*question, *budget)
        assert reply["headers"]["posthouse-hops"] == "2"
        asked = posthouse.json("message", reply["reply_to"], "--sender", "visitor")["message"]
        assert asked["priority"] == "high"
        assert asked["headers"]["posthouse-deadline"] == reply["headers"]["posthouse-deadline"]
        interrupted(oracle)


def test_two_polite_bots_stop_when_no_hops_are_left(posthouse: Posthouse) -> None:
    with start(posthouse, POLITE) as bots:
        said = [bots.line() for _ in range(7)]
        assert said == [f"{'ann' if left % 2 else 'ben'} has {left} hops left" for left in range(6, -1, -1)]
        assert (bots.exit_code(), bots.errors()) == (0, "")
    assert "\n".join(["```", *said, "```"]) in (ROOT / "docs" / "requests.md").read_text(encoding="utf-8")


def test_a_digest_is_announced_once_a_person_approves(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "digester")
    with start(posthouse, DIGESTER) as digester:
        run_id = posthouse.json("send", "digester", '{"url": "moths"}', "--type", "digest", "--as", "ada")["id"]
        posthouse.wait_until(lambda: run_id in posthouse.run("approvals").stdout)
        posthouse.answer("approve", run_id, "--as", "ada")
        posthouse.wait_until(lambda: "about moths" in posthouse.run("history", "--channel", "news").stdout)
        interrupted(digester)
    assert posthouse.json("run", run_id)["run"]["status"] == "completed"


def test_the_tap_shows_what_is_published(posthouse: Posthouse) -> None:
    with start(posthouse, TAP) as tap:
        shown: list[str] = []

        def is_shown() -> bool:
            """Publish until the program has connected, which nobody is told of."""
            posthouse.answer("publish", "news", "a moth", "--as", "watched")
            shown.extend(tap.lines_now())
            return bool(shown)

        posthouse.wait_until(is_shown)
        assert shown[0] == "watched a moth"


def test_the_test_of_the_guide_passes(tmp_path: Path) -> None:
    (tmp_path / "test_reader.py").write_text(PROVED, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_reader.py"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=4 * TIMEOUT_SECONDS, check=False
    )
    assert "2 passed" in ended.stdout, ended.stdout


def test_a_graph_keeps_its_state(posthouse: Posthouse) -> None:
    needs("langgraph.graph")
    with start(posthouse, GRAPH) as running:
        assert running.line() == "{'n': 2}"
        assert running.exit_code() == 0, running.errors()
