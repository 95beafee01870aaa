"""The example prints the spans of one trace."""

from __future__ import annotations

from tests.cli.conftest import posthouse
from tests.cli.terminal import Posthouse

__all__ = ["posthouse"]


def test_a_request_is_traced(posthouse: Posthouse) -> None:
    with posthouse.example("traced.py", PYTHONUNBUFFERED="1") as traced:
        lines = [traced.line() for _ in range(5)]
        assert (traced.exit_code(), traced.errors()) == (0, "")
    told = lines.pop(next(at for at, line in enumerate(lines) if "says" in line))
    assert told == "traced-greeter says hello, Ada"
    traces, names = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert len(set(traces)) == 1
    assert sorted(names) == ["process traced-greeter", "reply", "request traced-greeter", "visit"]
