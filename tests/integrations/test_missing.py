"""Without its library, an adapter says which extra has it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("bus.integrations.a2a", "a2a.types", "a2a"),
        ("bus.integrations.langgraph", "langgraph.checkpoint.base", "langgraph"),
        ("bus.integrations.openai_agents", "agents", "openai-agents"),
        ("bus.integrations.pydantic_ai", "pydantic_ai.agent", "pydantic-ai"),
    ],
)
def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str, library: str, extra: str) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'posthouse\[{extra}\]'"):
        importlib.import_module(module)


def test_commands_are_there_without_any_extra() -> None:
    program = (
        "import importlib, sys\n"
        "for library in ('a2a', 'agents', 'google', 'httpx', 'mcp', 'pydantic', 'starlette', 'uvicorn'):\n"
        "    sys.modules[library] = None\n"
        "from bus.cli.commands import COMMANDS\n"
        "for place in COMMANDS.values():\n"
        "    importlib.import_module(place.partition(':')[0])\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
