"""Removing on the page, in a browser: counted first, confirmed, seen to have its effect, and recorded."""

from __future__ import annotations

from bus.model.erasing import Removal, joined

from .browser import Browser
from .site import Site
from .team import HOSTILE, SEEN, Connect
from .test_guard import form_token


def _records(site: Site) -> list[Removal]:
    async def read(connect: Connect) -> list[Removal]:
        async with connect("reader") as reader:
            return await reader.removals(limit=1000)

    return site.play(read)


def test_who_removed_what_is_shown(browser: Browser, site: Site) -> None:
    async def play(connect: Connect) -> None:
        async with connect("tidy") as tidy:
            await tidy.publish("untidy", 1)
            await tidy.remove_channel("untidy", reference="ticket <b>8</b>")

    site.play(play)
    browser.open(f"{site.origin}/settings").click("a[href='/removals']")
    browser.see("Removals", "h1")
    row = browser.row("ticket <b>8</b>")
    assert "untidy" in row
    assert "tidy" in row
    browser.open(f"{site.origin}/removals?before=1")
    browser.see("None before number 1.", "[data-live]")


def _names(site: Site) -> tuple[set[str], set[str]]:
    async def read(connect: Connect) -> tuple[set[str], set[str]]:
        async with connect("reader") as reader:
            return {each.name for each in await reader.bots()}, {each.name for each in await reader.channels()}

    return site.play(read)


def _confirm(browser: Browser, title: str, *, force: bool = False) -> None:
    browser.see(f"Remove {title}?", "h1")
    if force:
        browser.click("input[name=force]")
    browser.click("button.danger")
    browser.see(f"removed: {title}", ".note")


def test_a_bot_a_subscription_a_group_and_a_channel_are_removed(browser: Browser, site: Site) -> None:
    async def play(connect: Connect) -> None:
        async with connect("old-bot") as old, connect("sender") as sender:
            await old.subscribe("old-news")
            await old.subscribe("old-work", group="team")
            for channel in ("old-news", "old-news", "old-work"):
                await sender.publish(channel, HOSTILE)
            await sender.send("old-bot", "never read")

    site.play(play)
    browser.open(f"{site.origin}/bot?name=old-bot").live()
    browser.wait(lambda: "old-news" in browser.text("table"))
    browser.click("a[href*='channel=old-news'].danger")
    browser.see("Remove the subscription of old-bot to old-news?", "h1")
    assert (browser.fact("subscriptions"), browser.fact("waiting")) == (1, 2)
    browser.click(".actions a")  # keep it
    browser.see("Channel old-news", "h1")
    assert "old-bot" in browser.row("old-bot")
    browser.click("td a.danger")
    _confirm(browser, "the subscription of old-bot to old-news")
    browser.see("None.", "[data-live]")

    browser.open(f"{site.origin}/channel?name=old-work").click("td a[href*='kind=group']")
    browser.see("Remove group team of old-work?", "h1")
    assert (browser.fact("members"), browser.fact("waiting")) == (1, 1)
    _confirm(browser, "group team of old-work", force=True)
    browser.wait(lambda: "team" not in browser.text("[data-live]"))

    browser.click("p.actions a.danger")
    _confirm(browser, "channel old-work")
    browser.see("Channels and bots", "h1")
    assert "old-work" not in _names(site)[1]

    browser.open(f"{site.origin}/bot?name=old-bot").click("p.actions a.danger")
    assert browser.fact("waiting") == 1
    _confirm(browser, "bot old-bot", force=True)
    assert "old-bot" not in _names(site)[0]
    kinds = [record.removed.kind for record in _records(site)[-4:] if record.removed is not None]
    assert kinds == ["subscription", "group", "channel", "bot"]
    assert {record.reference for record in _records(site)[-4:]} == {"ann"}


def test_what_is_in_use_says_what_to_do_first(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/remove?kind=bot&bot=planner").see("This cannot be removed now")
    browser.see("sessions: 1. First stop its program.")
    assert browser.all("button.danger") == []
    browser.open(f"{site.origin}/remove?kind=bot&bot=<b>").see("no bot named '<b>'")
    browser.open(f"{site.origin}/remove?kind=<b>").see("<b>")
    browser.faults()  # it is told by a status, too


def test_delayed_messages_are_listed_and_cancelled(browser: Browser, site: Site) -> None:
    async def play(connect: Connect) -> None:
        async with connect("author") as author, connect("planner-2") as other:
            for number in range(3):
                await author.send("critic", {"number": number, "text": HOSTILE}, delay=3600 + number)
            await other.publish("jobs", "much later", delay=7200)

    site.play(play)
    browser.open(f"{site.origin}/delayed").live()
    rows = [each.text for each in browser.all("tbody tr")]
    assert len(rows) == 4
    assert SEEN.replace('"', '\\"')[:40] in rows[0]
    assert "critic" in rows[0]
    assert "much later" in rows[3]
    browser.click("tbody tr:nth-child(2) input")
    browser.click("tbody tr:nth-child(4) input")
    browser.live()
    browser.click("button.danger")
    browser.see("Remove delayed messages?", "h1")
    assert browser.fact("delayed") == 2
    _confirm(browser, "delayed messages")
    browser.wait(lambda: len(browser.all("tbody tr")) == 2)
    browser.open(f"{site.origin}/delayed?sender=planner-2").see("None.")
    [record] = joined(_records(site)[-2:])
    assert record.removed is not None
    assert record.removed.counts["delayed"] == 2


def test_a_mailbox_is_purged(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/mailbox?name=jobs/workers").live()
    browser.click("a.danger")
    browser.see("Remove what waits in the mailbox of jobs/workers?", "h1")
    count = browser.fact("waiting")
    assert count > 0
    browser.one("input[name=reason]").send_keys("a broken worker")
    browser.click("button.danger")
    browser.see(f"removed: what waits in the mailbox of jobs/workers (waiting: {count})", ".note")
    browser.see("None.")
    assert "no session takes any" not in browser.text()
    record = _records(site)[-1]
    assert record.removed is not None
    assert (record.removed.kind, record.removed.counts) == ("backlog", {"waiting": count})
    assert (record.bot_name, record.reference) == ("web", "ann: a broken worker")


def test_another_selection_of_the_same_page_is_discarded_as_well(site: Site) -> None:
    async def refuses(connect: Connect) -> list[int]:
        async with connect("author") as author, connect("judge") as judge:
            for _ in range(2):
                await author.send("judge", "a case")
            cases = [await judge.receive() for _ in range(2)]
            for case in cases:
                await case.term("not mine")
            return [case.seq for case in cases]

    headers = site.login()
    for seq in site.play(refuses):
        fields = {"form_token": form_token(site, headers), "page": "one", "mailbox": "judge", "seq": str(seq)}
        answer = site.post("/dead-letters/discard", fields, headers)
        assert (answer.status, answer.headers["location"]) == (
            303,
            f"/remove?kind=dead_letters&mailbox=judge&seq={seq}",
        )
        for _ in range(2):  # sent twice, it is done once
            assert site.post("/remove", fields | {"kind": "dead_letters"}, headers).status == 303
            note = site.ask("/dead-letters", headers=headers).text
            assert "removed: dead letters of judge (dead letters: 1)" in note
    of_judge = [each.reference for each in _records(site) if each.removed and each.removed.name == "judge"]
    assert of_judge == ["ann", "ann"]
