"""Without its library, an adapter says which extra has it."""

from __future__ import annotations

import importlib
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
