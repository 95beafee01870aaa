"""How a program is left: early releases of Python 3.11 lose an exit code that is raised in an `except*` block."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[2]

SOURCES = [
    ROOT / "worker.py",
    *sorted(
        path for folder in ("bus", "store", "bench", "tests", "examples") for path in (ROOT / folder).rglob("*.py")
    ),
]

EXITS = {"exit", "_exit", "SystemExit"}
"""What ends a program, by the last part of its name; `os._exit` raises nothing, and is not meant."""


def exits_in_groups(tree: ast.AST) -> Iterator[int]:
    """Yield the lines on which an `except*` block leaves the program by itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.TryStar):
            for handler in node.handlers:
                yield from (inner.lineno for inner in ast.walk(handler) if _exits(inner))


def _exits(node: ast.AST) -> TypeGuard[ast.Call | ast.Raise]:
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        return name.rpartition(".")[2] in EXITS and name != "os._exit"
    return isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id == "SystemExit"


def test_no_exit_is_raised_while_a_group_is_handled() -> None:
    texts = ((path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in SOURCES)
    found = [
        f"{path}:{line}" for path, text in texts if "except*" in text for line in exits_in_groups(ast.parse(text))
    ]
    assert found == []


@pytest.mark.parametrize(
    "leaving", ["sys.exit(74)", "_exit(74, errors)", "raise SystemExit(74)", "raise SystemExit"]
)
def test_such_an_exit_is_seen(leaving: str) -> None:
    assert list(exits_in_groups(ast.parse(f"try:\n    f()\nexcept* OSError:\n    {leaving}"))) != []
    assert list(exits_in_groups(ast.parse(f"try:\n    f()\nexcept OSError:\n    {leaving}"))) == []
