"""The version stands in pyproject.toml, and whatever else names it agrees."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path

from bus import bot

ROOT = Path(__file__).parents[2]

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_the_installed_version_is_the_one_of_the_project() -> None:
    assert metadata.version("posthouse") == VERSION, "install it again: pip install -e '.[test]'"


def test_the_client_says_its_version() -> None:
    assert f"posthouse-python/{VERSION}.".startswith(f"{bot._VERSION}.")


def test_the_changelog_begins_with_the_version() -> None:
    newest = re.search(
        r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert newest is not None
    assert newest[1] == VERSION


def test_the_typescript_client_has_the_same_version() -> None:
    for name in ("package.json", "package-lock.json"):
        package = json.loads((ROOT / "clients" / "typescript" / name).read_text(encoding="utf-8"))
        assert package["version"] == VERSION, f"set it in clients/typescript/{name}"
