"""The help of every command, on a narrow terminal, and for a command that there is not."""

from __future__ import annotations

from click.testing import CliRunner

from bus.cli.program import main

from .test_numbers import commands


def test_names_of_options_are_whole_at_fifty_columns() -> None:
    for path, command in commands():
        shown = CliRunner().invoke(main, [*path.split(), "--help"], env={"COLUMNS": "50"}).output
        assert "…" not in shown.replace("://…", ""), path
        assert [
            name for each in command.params for name in each.opts if name.startswith("--") and name not in shown
        ] == []


def test_a_span_is_named_alike_everywhere_and_its_default_is_one() -> None:
    spans = [each for _, command in commands() for each in command.params if each.type.name == "span"]
    assert {each.opts[0] for each in spans} >= {
        "--timeout",
        "--ttl",
        "--delay",
        "--every",
        "--grace",
        "--older-than",
    }
    assert {each.metavar for each in spans} <= {None, "SPAN"}
    defaults = {each.default for each in spans if getattr(each, "show_default", None)}
    assert {type(default) for default in defaults} == {str}


def test_a_misspelt_command_is_told_what_is_like_it() -> None:
    misspelt = CliRunner().invoke(main, ["mesage", "1"])
    assert misspelt.exit_code == 2
    assert "no such command 'mesage': did you mean message?" in misspelt.output
    begun = CliRunner().invoke(main, ["dead"])
    assert "no such command 'dead': did you mean dead-letters?" in begun.output
    unlike = CliRunner().invoke(main, ["xyzzy"])
    assert unlike.exit_code == 2
    assert "No such command 'xyzzy'" in unlike.output
