"""`posthouse config`: the settings, where each comes from, and files to begin with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bus.cli import configuring
from bus.cli.program import main
from bus.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = "config/posthouse.toml"
CONFIGURATION = """
[limits]
sessions_max = 7

[store]
engine = "postgresql://ann:secret@one,two/house"

[log]
level = "error"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "posthouse.toml").write_text(CONFIGURATION, encoding="utf-8")
    return "posthouse.toml"


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments], env=environment)


def changed(*arguments: str, **environment: str) -> dict[str, tuple[object, str]]:
    ended = run("--changed", "--json", *arguments, **environment)
    assert (ended.exit_code, ended.stderr) == (0, "")
    return {name: (each["value"], each["from"]) for name, each in json.loads(ended.stdout).items()}


def test_without_anything_all_are_the_defaults() -> None:
    ended = run()
    header, *rows = ended.stdout.splitlines()
    assert header.split() == ["setting", "from", "value"]
    assert {row.split()[1] for row in rows} == {"default"}
    assert ["listen.command", "default", '"tcp://127.0.0.1:7710"'] in [row.split() for row in rows]
    assert run("--changed").stderr == "all settings are the defaults\n"


def test_each_setting_says_where_it_comes_from(file: str) -> None:
    assert changed("--config", file, "--tap", "tcp://127.0.0.1:7", POSTHOUSE_LOG_LEVEL="debug") == {
        "listen.tap": ("tcp://127.0.0.1:7", "option"),
        "store.engine": ("postgresql://ann@one,two/house", "file"),
        "limits.sessions_max": (7, "file"),
        "log.level": ("debug", "environment"),
    }
    assert "secret" not in run("--config", file).stdout


def test_what_a_file_says_as_the_defaults_do_is_not_changed(file: str) -> None:
    Path(file).write_text(run("--example").stdout)
    assert changed("--config", file) == {}
    Path(file).write_text("[limits]\nsessions_max = 7\n[log]\nlevel = 'info'\n")
    assert changed("--config", file) == {"limits.sessions_max": (7, "file")}


def test_who_names_a_database_replaces_an_engine(file: str) -> None:
    found = changed("--config", file, POSTHOUSE_STORE_DATABASE="house.db")
    assert found["store.database"] == ("house.db", "environment")
    assert "store.engine" not in found


def test_what_is_wrong_is_told_as_by_serve(file: str) -> None:
    for arguments, fault in (
        (
            ("--config", file, "--log-level", "loud"),
            "`log.level` must be debug, info, warning or error",
        ),
        (("--config", "missing.toml"), "missing.toml cannot be read: No such file or directory"),
    ):
        ended = run(*arguments)
        assert (ended.exit_code, fault in ended.stderr) == (78, True)


def test_the_example_has_every_key_and_is_part_of_the_package() -> None:
    example = run("--example").stdout
    assert example == (ROOT / EXAMPLE).read_text(encoding="utf-8")
    assert {*tomllib.loads(example)} == {*Settings.__struct_fields__}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    included = wheel["force-include"]
    assert all(there == f"bus/{here}" for here, there in included.items()), (
        "where `posthouse config` looks for them"
    )
    for name, path in configuring._EXAMPLES.items():
        assert run("--example", name).stdout == (ROOT / "config" / path).read_text(encoding="utf-8")
        assert f"config/{path}" in included
