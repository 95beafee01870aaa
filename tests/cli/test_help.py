"""The help of every command, on a narrow terminal."""

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
