"""The order in which a client tries the workers of a house."""

from __future__ import annotations

from bus.client.route import Route


def tried(route: Route, count: int, *, opened: bool = False) -> list[str]:
    urls = []
    for _ in range(count):
        urls.append(route.url)
        route.go_on(opened=opened)
    return urls


def test_one_address_is_tried_again_and_again_at_growing_intervals() -> None:
    route = Route(["a"])
    assert [route.go_on(opened=False) for _ in range(6)] == [0.2, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert route.go_on(opened=True) == 0.05
    assert (route.url, route.patience_seconds) == ("a", 5.0)


def test_several_addresses_take_turns_and_a_round_is_quick_at_first() -> None:
    route = Route(["a", "b", "c"])
    assert tried(route, 2) == ["a", "b"]
    assert route.patience_seconds == 1.0
    assert [route.go_on(opened=False) for _ in range(4)] == [0.2, 0.2, 0.2, 0.5]
    assert route.patience_seconds == 5.0
    assert [route.go_on(opened=True), route.patience_seconds] == [0.05, 1.0]
    assert tried(route, 3, opened=True) == ["b", "c", "a"], "the one that ended a session may be gone"


def test_who_serves_is_followed_and_left_when_nothing_comes_of_it() -> None:
    route = Route(["a", "b"])
    route.hear("x")
    assert route.url == "a", "of this attempt"
    assert route.go_on(opened=False) == 0.0
    assert (route.url, route.patience_seconds) == ("x", 1.0)
    route.go_on(opened=False)
    assert route.url == "b"


def test_workers_that_disagree_are_not_followed_for_ever() -> None:
    route = Route(["a"])
    urls = []
    for _ in range(9):
        urls.append(route.url)
        route.hear("b" if route.url == "a" else "a")
        route.go_on(opened=False)
    assert urls == ["a", "b", "a", "b", "a", "b", "a", "b", "a"]
    route = Route(["a"])
    waits = []
    for _ in range(8):
        route.hear("x")
        waits.append(route.go_on(opened=False))
    assert waits == [0.0, 0.05, 0.05, 2.0, 0.0, 0.05, 0.05, 2.0]


def test_an_opened_session_makes_every_worker_s_word_count_anew() -> None:
    route = Route(["a"])
    for url in ("b", "c", "d", "e", "f"):
        route.hear(url)
        assert route.go_on(opened=True) == 0.0
        assert route.url == url
