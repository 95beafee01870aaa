"""What of foreign texts, times and amounts is shown, and the lines of plots."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bus.web.plots import HEIGHT, WIDTH, plot
from bus.web.shown import BODY_CHARACTERS_MAX, amount, body, clock, one_line, seconds_between, size, span, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("grüße 你好", "grüße 你好"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb\u2066", "a\\u200bb\\u2066"),
        ("a\nb\tc\0", "a\\nb\\tc\\u0000"),
        ("\ud800", "\\ud800"),
        ("<b>", "<b>"),
    ],
)
def test_what_is_not_seen_is_an_escape(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_lines_of_a_text_remain() -> None:
    assert visible("a\nb\u202e", lines=True) == "a\nb\\u202e"


def test_a_body_is_shown_in_part() -> None:
    assert body({"a": [1]}) == ('{\n  "a": [\n    1\n  ]\n}', 0)
    shown = body("x" * 200_000)
    assert (len(shown.text), shown.left_out) == (BODY_CHARACTERS_MAX, 200_002 - BODY_CHARACTERS_MAX)
    assert body("\u202e").text == '"\\u202e"'


def test_a_line_is_short() -> None:
    assert one_line({"a": "x" * 500}, 10) == '{"a":"xxxx…'
    assert one_line("a\nb") == "a\\nb"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250 ms"),
        (5, "5.0 s"),
        (90, "1 min 30 s"),
        (120, "2 min"),
        (7260, "2 h 1 min"),
        (3600, "1 h"),
        (200_000, "2 d 7 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_amounts() -> None:
    assert [amount(each) for each in (None, 0, 0.25, 12, 1234.5, 1_000_000)] == [
        "-",
        "0",
        "0.2",
        "12",
        "1,234",
        "1,000,000",
    ]
    assert [size(each) for each in (0, 1023, 1536, 3 * 1024**2, 5 * 1024**3)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]


def test_times_of_authors() -> None:
    assert clock("2026-11-30T18:00:00.123456Z") == "2026-11-30 18:00:00"
    assert clock("soon\u202e") == "soon\\u202e"
    now = datetime(2026, 11, 30, 18, 1, tzinfo=UTC)
    assert seconds_between("2026-11-30T18:00:00.000000Z", None, now) == 60
    assert seconds_between("soon", None, now) is None


def test_a_plot_has_gaps_and_a_round_top() -> None:
    drawn = plot("x", [0, 5, 10, 15, 20], {"a": [None, 3, 4, None, 0]}, seconds=20)
    [line] = drawn.lines
    assert drawn.top == 5
    assert line.stretches == [f"150.0,{HEIGHT * 0.4:.1f} 300.0,{HEIGHT * 0.2:.1f}", f"{WIDTH:.1f},{HEIGHT:.1f}"]
    assert line.last == 0
    assert plot("x", [], {"a": []}, seconds=20).lines[0].stretches == []
