"""The programs that the README and the client's guide begin with, run as they stand there, but for the address."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .terminal import EXAMPLES, Posthouse, Running

ROOT = EXAMPLES.parent


def programs(page: str) -> list[str]:
    """Return the programs of a page: what imports bus, and runs."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if "import bus" in block and re.search(r"(\banyio\.|bot\.)run\(", block)]


def start(posthouse: Posthouse, code: str) -> Running:
    """Run a program of a page with the address of the test's worker."""
    code, connected = re.subn(r'bus\.connect\(bot="', f'bus.connect("{posthouse.url}", bot="', code)
    code, made = re.subn(r'bus\.Bot\("(\w+)"\)', rf'bus.Bot("\1", "{posthouse.url}")', code)
    assert connected + made == 1
    # A shell's background job ignores Ctrl-C, as do the tests that are one.
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    environment = {**posthouse.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return Running([sys.executable, "-c", code], environment)


GREETER, VISITOR = programs("README.md")
[LOOP] = [program for program in programs("docs/python.md") if 'bot="greeter"' in program]


def until_subscribed(posthouse: Posthouse) -> None:
    posthouse.wait_until(lambda: "visitors" in posthouse.run("subscriptions", "--as", "greeter").stdout)


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
    first = programs("docs/python.md")[0]
    posthouse.answer("bots", "--as", "writer")
    with start(posthouse, first) as writer:
        posthouse.wait_until(lambda: "news" in posthouse.answer("subscriptions", "--as", "writer"))
        answered = posthouse.answer("request", "writer", '{"text": "moths"}', "--type", "question", "--as", "asker")
        assert "about moths: it depends" in answered
        posthouse.answer("publish", "news", "a moth", "--as", "asker")
        assert writer.line() == "asker a moth"
        interrupted(writer)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(f"docs/{path.name}" for path in Path(ROOT, "docs").glob("*.md"))]
)
def test_every_program_of_a_page_can_be_read(page: str) -> None:
    for number, code in enumerate(programs(page)):
        compile(code, f"{page} program {number}", "exec")
