"""Patterns over names: what each of them matches, and what is not a pattern."""

from __future__ import annotations

import random
import re
import time

import pytest

from bus.model.patterns import Pattern, pattern_fault


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        ("news", ["news"], ["new", "newsletter", "News", "news.", "news.x", ".news", "news/all"]),
        ("*", ["news", "a-b_c"], ["a.b", "a/b"]),
        ("billing.*", ["billing.x", "billing."], ["billing", "billing.x.y", "xbilling.x"]),
        ("*.x", ["a.x", "billing.x"], ["x", "a.b.x", "a.xx"]),
        ("a.*.c", ["a.b.c", "a..c"], ["a.c", "a.b.d", "a.b.b.c"]),
        ("**", ["a", "a.b.c", "work/team", "a..b."], []),
        ("billing.**", ["billing.x", "billing.x.y", "billing."], ["billing", "billingx.y", "b.billing.x"]),
        ("billing-*", ["billing-", "billing-eu", "billing-eu-2"], ["billing", "billing-eu.x", "xbilling-eu"]),
        ("*-eu", ["billing-eu", "-eu"], ["billing-eu-2", "eu"]),
        ("a*b*c", ["abc", "aXbYc", "abbc"], ["ac", "acb", "abcd", "ab"]),
        ("a*bb*b", ["abbb", "abbXb"], ["abb", "ab"]),
        ("work/team", ["work/team"], ["work", "work/team2", "work.team"]),
        ("work/*", ["work/team"], ["work/a.b", "work", "other/team"]),
        ("*/**", ["work/team", "work/a.b"], ["a.b/team", "work"]),
        ("**/**", ["work/team", "a.b/c.d"], ["work"]),
        ("$bot", ["ann"], ["bob", "$bot", "ann.x"]),
        ("inbox.$bot.*", ["inbox.ann.x"], ["inbox.bob.x", "inbox.ann", "inbox.ann.x.y"]),
    ],
)
def test_a_pattern_matches_these_names_and_no_others(pattern: str, names: list[str], others: list[str]) -> None:
    assert pattern_fault(pattern) is None
    found = Pattern(pattern)
    assert [name for name in names if not found.matches(name, "ann")] == []
    assert [name for name in others if found.matches(name, "ann")] == []


def test_a_bots_name_stands_for_itself_whatever_is_in_it() -> None:
    own = Pattern("$bot.inbox")
    assert own.matches("team.ann.inbox", "team.ann")
    assert not own.matches("team.bob.inbox", "team.ann")
    assert not own.matches("team.inbox", "team.ann")


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("", "empty"),
        ("work/", "side of the / is empty"),
        ("/team", "side of the / is empty"),
        ("**.x", "must be the whole last part"),
        ("x**", "must be the whole last part"),
        ("a.***", "must be the whole last part"),
        ("x$bot", "must be a whole part"),
        ("$bots", "must be a whole part"),
        ("$me.x", "must be a whole part"),
    ],
)
def test_what_is_not_a_pattern_is_said(pattern: str, fault: str) -> None:
    assert fault in (pattern_fault(pattern) or "")


@pytest.mark.parametrize(
    ("pattern", "named"),
    [("board", True), ("board/*", True), ("boar*", False), ("*", False), ("**", False), ("*/team", False)],
)
def test_only_a_pattern_without_a_star_names_a_channel(pattern: str, named: bool) -> None:
    assert Pattern(pattern).names("board", "ann") is named
    assert Pattern(pattern).names("board/team", "ann") is named


def _as_regex(pattern: str, bot: str) -> str:
    parts = pattern.split(".")
    rest = parts[-1] == "**"
    text = r"\.".join(
        re.escape(bot) if part == "$bot" else re.escape(part).replace(r"\*", r"[^./]*")
        for part in (parts[:-1] if rest else parts)
    )
    return f"{text}\\.[^/]+|{text}\\." if rest and text else r"(.|\n)*" if rest else text


def test_patterns_mean_what_a_regular_expression_would() -> None:
    seed = time.time_ns()
    chance = random.Random(seed)
    matched = 0
    for _ in range(20_000):
        words = ["a", "b", "ab", "*", "a*", "*b", "a*b", "$bot", "**"]
        parts = [chance.choice(words[:-1]) for _ in range(chance.randint(0, 2))] + [chance.choice(words)]
        pattern = ".".join(parts)
        name = ".".join(chance.choice(["a", "b", "ab", "aab", "abb", "bot"]) for _ in range(chance.randint(1, 4)))
        expected = re.fullmatch(_as_regex(pattern, "bot"), name) is not None
        assert Pattern(pattern).matches(name, "bot") is expected, (seed, pattern, name)
        matched += expected
    assert matched > 1000, "both outcomes must be seen"


def test_a_pattern_of_stars_takes_no_long_time() -> None:
    """It would take longer than the universe has, if each star were tried with each length."""
    assert not Pattern("*a" * 60 + "*c").matches("a" * 128, "ann")
