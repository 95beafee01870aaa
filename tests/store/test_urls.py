"""What the URLs of stores mean, how they are shown, and that a wrong one is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.model.engines import is_engine
from store import described, open_store
from store.urls import check_engine_url, shown

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("postgresql://house@h1,h2:5433,h3/house", "postgresql://house@h1,h2:5433,h3/house"),
        (f"postgresql://house:{SECRET}@h1/house?sslmode=verify-full", "postgresql://house@h1/house"),
        (f"postgresql://h1/house?user=house&password={SECRET}", "postgresql://h1/house"),
        (f"postgres://house:{SECRET}%40@[::1]:5432/house", "postgres://house@[::1]:5432/house"),
        ("postgresql:///house", "postgresql:///house"),
        ("postgresql:///house?host=/run/postgresql", "postgresql:///house"),
        ("postgresql://house@%2Frun%2Fpostgresql/house", "postgresql://house@%2Frun%2Fpostgresql/house"),
    ],
)
def test_an_engine_is_shown_without_its_password(url: str, visible: str) -> None:
    assert is_engine(url)
    check_engine_url(url)
    assert shown(url) == described(url) == visible


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://house:{SECRET}/x@h1/house",
        f"postgresql://house:{SECRET}#x@h1/house",
        f"postgresql://house:{SECRET}?x@h1/house",
        f"postgresql://house:{SECRET}@x@h1/house",
        f"postgresql://house:{SECRET}@h1,,h2/house",
        f"postgresql://house:{SECRET}@h1:port/house",
        f"postgresql://house:{SECRET}@[::1/house",
        f"postgresql://house:12/{SECRET}@h1/house",
        f"mysql://house:{SECRET}@h1/house",
    ],
)
def test_a_url_that_cannot_be_understood_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as refused:
        open_store(url)
    assert SECRET not in str(refused.value)


def test_a_file_is_shown_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert described("sqlite:///x.db") == described("x.db") == str(tmp_path / "x.db")
