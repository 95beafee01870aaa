"""The page in a browser: each page is opened, each action is done by clicking, and nothing hostile runs."""

from __future__ import annotations

import re

import anyio
import anyio.to_thread

import bus
from bus.model.records import GlobalOwner, WorkflowDefinition, WorkflowStepLog

from .browser import TAB, Browser
from .site import Site
from .team import HOSTILE, SEEN, Connect, began

PAGES = [
    "/",
    "/conversations",
    "/conversation?channel=jobs",
    "/conversation?one=author&other=critic",
    "/message?seq=1",
    "/delayed",
    "/remove?kind=bot&bot=critic",
    "/mailboxes",
    "/mailbox?name=critic",
    "/dead-letters",
    "/runs",
    "/approvals",
    "/bots",
    "/bot?name=critic",
    "/channel?name=jobs",
    "/settings",
    "/removals",
]


def test_a_link_lets_in_once(browser: Browser, site: Site) -> None:
    [cookie] = browser.chrome.get_cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (site.cookie, True, "Strict")
    link = site.link("bob")
    browser.command("Network.clearBrowserCookies")
    browser.open(f"{site.origin}/bots").see("posthouse web link")
    browser.open(link).see("You can log in once with this link")  # looking at it does not use it up
    browser.open(link).click("button.main")
    browser.see("bob", "header")
    browser.open(link).click("button.main")
    browser.see("This link was already used")
    browser.open(f"{site.origin}/").click(".who button")
    browser.see("posthouse web link")
    browser.open(f"{site.origin}/").see("posthouse web link")
    assert browser.chrome.get_cookies() == []
    assert [message.partition(" - ")[2][:52] for message in browser.faults()] == [
        "Failed to load resource: the server responded with a"  # 403, for the link that was used before
    ]


def test_now_is_live(browser: Browser, site: Site) -> None:
    browser.live()
    before = browser.fact("waiting")

    async def more(connect: Connect) -> None:
        async with connect("author") as author:
            await author.send("critic", "one more")

    site.play(more)
    browser.wait(lambda: browser.fact("waiting") == before + 1)
    browser.see("6 dead letters in critic")
    browser.wait(lambda: len(browser.all("svg polyline")) >= 3)
    browser.click(".alarm a[href^='/dead-letters']")
    browser.see("Dead letters of critic", "h1")


def test_what_happened_before_the_page_was_started_is_shown(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/").see("What happened", "h2:nth-of-type(1)")
    rows = browser.text("table")
    assert "Before this page was started" in rows
    assert "dead letter" in rows[rows.index("Before this page was started") :]


def test_what_happens_is_an_alarm_with_its_time_and_a_place_to_act(browser: Browser, site: Site) -> None:
    def vanishes() -> bool:
        site.worker.session("ghost").close()
        return "ghost vanished" in browser.text("section")

    browser.wait(vanishes)
    [alarm] = [each for each in browser.all(".alarm") if "ghost vanished" in each.text]
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", alarm.text)
    browser.click(".alarm a[href='/bot?name=ghost']")
    browser.see("Bot ghost", "h1")
    browser.open(f"{site.origin}/").see("ghost vanished", "section")
    browser.live()

    async def comes_back(connect: Connect) -> None:
        async with connect("ghost"):
            await anyio.to_thread.run_sync(browser.wait, lambda: "ghost vanished" not in browser.text("section"))

    site.play(comes_back)


def test_a_page_that_nobody_sees_waits(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/bots").live()
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    changed = "document.dispatchEvent(new Event('visibilitychange'))"
    browser.script(hide % "true" + changed)
    browser.see("waits until it is seen", "footer")

    async def comes(connect: Connect) -> None:
        async with connect("latecomer"):
            pass

    site.play(comes)
    browser.script(hide % "false" + changed)
    browser.see("latecomer")


def test_channels_and_bots_are_found(browser: Browser, site: Site) -> None:
    browser.click("nav a[href='/bots']")
    browser.see("Channels and bots", "h1")
    assert "away" in browser.row("critic")
    assert "workers" in browser.row("jobs")
    browser.one("input[name=find]").send_keys("crit")
    browser.click(".find button")
    browser.wait(lambda: "author" not in browser.text())
    browser.click("td a[href='/bot?name=critic']")
    browser.see("Bot critic", "h1")
    assert "jobs" in browser.row("jobs")
    browser.click("td a[href='/channel?name=jobs']")
    browser.see("Channel jobs", "h1")
    assert "workers" in browser.row("worker-1")
    browser.open(f"{site.origin}/bot?name=<b>nobody").see("there is no bot '<b>nobody'")
    browser.faults()  # it is told by a status, too


def test_dead_letters_are_read_and_put_back(browser: Browser, site: Site) -> None:
    browser.click("nav a[href='/dead-letters']")
    browser.live()
    assert SEEN in browser.row("cannot be judged")
    browser.click("td a[href*='seq=1']")
    browser.see("Dead letter 1 of critic", "h1")
    assert SEEN in browser.text("pre:not(.body)")
    assert f'"text": "{SEEN}"'.replace('="', '=\\"').replace('mine"', 'mine\\"').replace(
        '>"', '>\\"'
    ) in browser.text("pre.body")
    assert browser.chrome.title == "Dead letter 1 of critic · posthouse"
    browser.click("button.main")
    browser.see("1 dead letter put back into the mailbox of critic", ".note")
    browser.click("input[value='2']")
    browser.click("input[value='3']")
    browser.live()
    browser.click(".actions button")
    browser.see("2 dead letters put back into the mailbox of critic", ".note")
    assert [each.get_attribute("value") for each in browser.all("input[type=checkbox]")] == ["6", "5", "4"]

    async def takes(connect: Connect) -> list[int]:
        async with connect("critic") as critic:
            return sorted([(await critic.receive()).seq for _ in range(3)])

    assert site.play(takes) == [1, 2, 3]


def test_dead_letters_are_discarded(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/dead-letters?mailbox=critic").live()
    browser.click("input[value='5']")
    browser.click("button.danger")
    browser.see("Remove dead letters of critic?", "h1")
    assert "dead letters\n1" in browser.text(".facts")
    browser.click("button.danger")
    browser.see("removed: dead letters of critic (dead letters: 1)", ".note")
    browser.wait(lambda: browser.all("input[value='5']") == [])
    browser.open(f"{site.origin}/message?seq=5")
    assert "settled" in browser.row("critic")


def test_it_works_without_scripts(browser: Browser, site: Site) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"{site.origin}/dead-letters?mailbox=critic").see("not live", "footer")
    browser.click("input[value='4']")
    browser.click(".actions button")
    browser.see("1 dead letter put back", ".note")


def test_who_may_look_changes_nothing(browser: Browser, site: Site) -> None:
    browser.open(site.link("eve", read_only=True)).click("button.main")
    browser.open(f"{site.origin}/dead-letters?mailbox=critic").see("read-only", "header")
    assert browser.all("main form button, main input") == []
    assert "cannot be judged" in browser.text()
    for path in ("/bot?name=critic", "/channel?name=jobs", "/delayed", "/remove?kind=bot&bot=critic"):
        browser.open(site.origin + path).one("h1")
        assert browser.all("main form[method=post], main a.danger, main button.danger") == []


def test_keys_reach_everything(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/bots")
    browser.press(TAB)
    assert browser.focused() == "Skip to the content"
    seen = []
    for _ in range(12):
        browser.press(TAB)
        seen.append(browser.focused())
        outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", seen
    assert seen[:2] == ["posthouse", "Now"]
    assert "Find" in seen


def test_pages_fit_a_phone(browser: Browser, site: Site) -> None:
    browser.size(360, 740)
    widths = {}
    for path in PAGES:
        browser.open(site.origin + path).one("main")
        widths[path] = browser.script("return document.documentElement.scrollWidth")
    assert {path: width for path, width in widths.items() if width > 360} == {}


def test_dark_and_light(browser: Browser) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        grounds.add(browser.script("return getComputedStyle(document.documentElement).backgroundColor"))
    browser.command("Emulation.setEmulatedMedia", features=[])
    assert grounds == {"rgb(251, 251, 249)", "rgb(21, 25, 24)"}


# ── Talk and mailboxes ───────────────────────────────────────────────────────────────────────────────────


def test_a_channel_is_read_live(browser: Browser, site: Site) -> None:
    browser.click("nav a[href='/conversations']")
    browser.click("td a[href='/conversation?channel=jobs']")
    browser.see("Channel jobs", "h1")
    browser.live()
    assert SEEN.replace('"', '\\"') in browser.text("li pre")

    async def say(connect: Connect) -> None:
        async with connect("author") as author:
            await author.publish("jobs", "said just now")

    site.play(say)
    browser.see("said just now", "li pre")
    assert len(browser.all(".talk li")) == 7


def test_a_pair_and_its_thread_are_read(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/conversations")
    browser.one("input[name=one]").send_keys("author")
    browser.one("input[name=other]").send_keys("critic")
    browser.click("form[action='/conversation'] button")
    browser.see("author and critic", "h1")
    browser.live()
    [question] = [each for each in browser.all(".talk li") if "Is it good?" in each.text]
    question.find_element("link text", "thread").click()
    browser.see("Thread", "h1")
    said = ["Is it good?", "gnp", "Why?", "It is long."]
    drawn = [(each.get_attribute("class"), each.text) for each in browser.all(".tree li")]
    assert [depth for depth, _ in drawn] == ["depth0", "depth1", "depth2", "depth1"]
    assert all(word in text for word, (_, text) in zip(said, drawn, strict=True))


def test_a_message_and_what_became_of_it(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/message?seq=6")
    assert "dead" in browser.row("critic")
    assert SEEN in browser.row("critic")
    assert "waiting" in browser.row("jobs/workers")
    browser.open(f"{site.origin}/mailbox?name=worker-1").see("no session takes any")
    assert "xxx…" in browser.row("xxx")
    browser.click("td[data-of=seq] a")
    browser.see("more characters are not shown")
    browser.click("a[href^='/message/body']")
    body = browser.text("body")
    assert "x" * 100_000 in body
    browser.open(f"{site.origin}/message/body?seq=1")
    assert SEEN.replace('"', '\\"') in browser.text("body")
    assert browser.all("script, img") == []


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────


def start(browser: Browser, site: Site, what: str) -> str:
    """Let the planner begin a run, and open its page."""
    run_id = site.play(lambda connect: began(connect, what, {"city": "Rome"}))
    browser.open(f"{site.origin}/run?id={run_id}").live()
    return run_id


def test_a_run_is_followed_and_approved(browser: Browser, site: Site) -> None:
    run_id = start(browser, site, "trip")
    browser.wait(lambda: "waiting approval" in browser.row("agree"))
    assert len(browser.all("rect.bar.completed")) == 3
    browser.click("td[data-of=outcome] summary")
    browser.see("train to Rome", "details[open]")
    browser.click("nav a[href='/approvals']")
    browser.see(f"Book Rome? {SEEN}", ".prompt")
    browser.one("input[name=comment]").send_keys("with pleasure")
    browser.click("button[value=approve]")
    browser.see(f"step agree of run {run_id} is approved", ".note")
    browser.see("No approval is waiting")
    browser.open(f"{site.origin}/run?id={run_id}")
    browser.wait(lambda: "completed" in browser.text(".facts"))
    assert "with pleasure (ann on the page)" in browser.row("agree")


def test_a_run_is_rejected(browser: Browser, site: Site) -> None:
    run_id = start(browser, site, "trip")
    browser.wait(lambda: "waiting approval" in browser.row("agree"))
    browser.open(f"{site.origin}/approvals").click("button[value=reject]")
    browser.see(f"step agree of run {run_id} is rejected", ".note")
    browser.open(f"{site.origin}/run?id={run_id}")
    browser.wait(lambda: "failed" in browser.text(".facts"))


def test_a_failed_run_is_retried_and_forked(browser: Browser, site: Site) -> None:
    run_id = start(browser, site, "flawed")
    browser.wait(lambda: "failed" in browser.text(".facts"))
    assert SEEN in browser.text("pre.error")
    browser.click("form[action='/run/retry'] button")
    browser.see(f"run {run_id} is pending", ".note")
    browser.wait(lambda: "completed" in browser.text(".facts"))
    assert "mended" in browser.text("#result")
    browser.click("form[action='/run/fork'] select")
    browser.click("form[action='/run/fork'] option[value=fetch]")
    browser.click("form[action='/run/fork'] button")
    browser.see(f"this run is a fork of {run_id}", ".note")
    assert "prepare" in browser.text("table")
    assert "fetch" not in browser.text("table")
    browser.open(f"{site.origin}/runs?status=pending").see("flawed")


def test_a_run_is_paused_resumed_and_cancelled(browser: Browser, site: Site) -> None:
    run_id = start(browser, site, "slow")
    browser.wait(lambda: "begin" in browser.text("main"))
    browser.one("form[action='/run/pause'] input[name=reason]").send_keys("lunch")
    browser.click("form[action='/run/pause'] button")
    browser.see(f"run {run_id} is paused", ".note")
    browser.see("paused by ann: lunch", "pre.error")
    browser.click("form[action='/run/resume'] button")
    browser.see(f"run {run_id} is pending", ".note")
    browser.click("#cancel summary")
    browser.click("#now")
    browser.one("#why-cancel").send_keys("enough")
    browser.click("#cancel button")
    browser.see("cancelled", ".note")
    browser.wait(lambda: "cancelled" in browser.text(".facts"))


def test_hostile_names_of_runs_are_shown_and_acted_on(browser: Browser, site: Site) -> None:
    name, run_id = HOSTILE[:90], '/run?id=<i>"&amp;#%2e'
    definition = WorkflowDefinition(id="hostile", name=name, owner=GlobalOwner(), description=HOSTILE)
    step = WorkflowStepLog(id='"><b id=x>', run_id=run_id, step_id=HOSTILE, step_name=HOSTILE, input=HOSTILE)

    async def create(connect: Connect) -> None:
        async with connect("author") as author:
            await author.workflows.start(
                name, id=run_id, definition=definition, input=HOSTILE, attributes={"<b>": '"><script>'}
            )
            await author.workflows.create_step_log(step)

    site.play(create)
    browser.open(f"{site.origin}/runs?status=pending")
    assert SEEN[:60] in browser.row("<i>")
    browser.click("td a.id[href*='%3Ci%3E']")
    browser.see(f"Run {run_id}", "h1")
    browser.live()
    assert SEEN[:60] in browser.text("table")
    assert '"><script>' in browser.text(".facts")
    assert browser.all("b, i, main script, main img") == []
    browser.click("form[action='/run/pause'] button")
    browser.see(f"run {run_id} is paused", ".note")
    browser.click("#cancel summary")
    browser.click("#cancel button")
    browser.wait(lambda: "cancelled" in browser.text(".facts"))


def test_a_last_will_is_shown_while_it_waits(site: Site) -> None:
    ann = site.login()

    async def read(connect: Connect) -> list[str]:
        async with connect("testator") as bot:
            await bot.will(bus.Draft(channel="deaths", body="gone"), delay=3600)
            [found] = await bot.bots(only=["testator"])
            assert found.will is not None
            pages = ("/bots?find=testator", "/bot?name=testator", f"/message?id={found.will.id}")
            return await anyio.to_thread.run_sync(lambda: [site.ask(page, headers=ann).text for page in pages])

    directory, bot, message = site.play(read)
    assert re.search(r'data-of="last will">to <a [^>]*>deaths</a></td>', directory)
    assert "last will" in bot
    assert "3600 s" in message
    assert "last will" not in site.ask("/bots?find=critic", headers=ann).text


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────


def test_log_ins_and_tokens_end_in_settings(browser: Browser, site: Site) -> None:
    mallory = site.login("mallory")
    site.token("shop", "send:**")
    assert site.ask("/", headers=mallory).status == 200
    browser.open(f"{site.origin}/settings")
    assert "send:**" in browser.row("shop")
    browser.click("button[aria-label='End the token shop']")
    browser.see("access was ended", ".note")
    browser.click("button[aria-label='End the log-in of mallory']")
    browser.wait(lambda: "mallory" not in browser.text())
    assert site.ask("/", headers=mallory).status == 303
    browser.click("form[action='/settings/reload'] button")
    browser.see("no keys", ".note.fault")
