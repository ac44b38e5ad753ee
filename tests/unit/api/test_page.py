"""The status page: what it shows, that it escapes, and that a browser keeps it live."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.builders import NOON, a_job, a_node, an_allocation
from tests.require import find_chromium
from tests.unit.api.world import World
from trueup.models.allocation import TaskEvent, TaskState
from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId
from trueup.models.job import Schedule
from trueup.models.revision import Held, Revision, SourceStatus

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[31m{{7*7}}"


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def hold(world: World, text: str) -> None:
    """A revision that is held, an error, a revision: each with *text* wherever a text goes."""
    held = Held(revision=RevisionId(text), reason=text, removes=(text,), confirm=text)
    with world.store.transaction() as transaction:
        transaction.set_revision(RevisionId(text), held)
        transaction.set_errors((SpecError(file=text, line=1, column=2, path=text, message=text, hint=text),))
        transaction.put_revision(
            Revision(id=RevisionId(text), author=text, subject=text, seen_at=NOON, state="held")
        )


def test_empty(world: World) -> None:
    """An empty cluster says what to do."""
    text = world.client.get("/").text
    assert "Commit a document" in text
    assert "No node has joined yet" in text


def test_what_is_shown(world: World) -> None:
    """Jobs, allocations, nodes, revisions, what is held with the document to paste, and errors with their place."""
    web, node = a_job("web"), a_node("node-7")
    failed = an_allocation(
        web,
        node,
        client_status="failed",
        tasks={
            "server": TaskState(
                state="dead", events=(TaskEvent(at=NOON, type="Terminated", message="exit code 1"),)
            )
        },
    )
    world.put(web, node, failed)
    hold(world, "abc123")
    text = world.client.get("/").text
    for shown in (
        "web.app[0]",
        "node-7",
        "Terminated: exit code 1",
        "kind: Cluster",
        "abc123:1:2",
        "Degraded",
    ):
        assert shown in text
    assert re.search(r"confirm: (\"|&#34;)abc123", text)


def test_what_does_not_end_says_since_when(world: World) -> None:
    """Beside why it is to end."""
    web, node = a_job("web"), a_node()
    events = (
        TaskEvent(at=NOON, type="Stopping", message="with SIGTERM"),
        TaskEvent(at=NOON, type="Killing", message="still running after 5s"),
    )
    stuck = an_allocation(
        web,
        node,
        desired_status="stop",
        reason="updating",
        tasks={"s": TaskState(state="running", events=events)},
    )
    world.put(web, node, stuck)
    assert "updating; stopping since 12:00:00 UTC: still running after 5s" in world.client.get("/").text


def test_source_in_trouble(world: World) -> None:
    """A source that cannot be read is told with its cause, and that nothing changes."""
    with world.store.transaction() as transaction:
        transaction.set_source(SourceStatus(kind="git", error="could not resolve host", last_success_at=NOON))
    text = world.client.get("/").text
    assert "could not resolve host" in text
    assert "2026-06-01T12:00:00Z" in text


def test_hostile_texts(world: World) -> None:
    """Names, labels, messages and commit texts are shown, never obeyed."""
    web, node = a_job("web"), a_node(HOSTILE, id="n", labels={HOSTILE: HOSTILE}, region=HOSTILE)
    held = an_allocation(web, node, id="a", healthy=False, reason=HOSTILE)
    world.put(web, node, msgspec.structs.replace(held, name=HOSTILE, ports={HOSTILE: 1}))
    hold(world, HOSTILE)
    text = world.client.get("/").text
    page = Tags(text)
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "{{7*7}}" in text


def test_the_worst_comes_first(world: World) -> None:
    """An allocation whose checks fail stands before those that do well, though it runs as they do."""
    web, node = a_job("web", count=2), a_node()
    world.put(web, node, an_allocation(web, node), an_allocation(web, node, index=1, healthy=False))
    text = world.client.get("/").text
    assert text.index("web.app[1]</a>") < text.index("web.app[0]</a>")


def test_a_schedule_says_when_it_runs_next(world: World) -> None:
    """Of a job that waits for its time, the time is shown; it is noon."""
    world.put(a_job("report", type="batch", schedule=Schedule(cron="30 12 * * *")))
    assert 'next run <time datetime="2026-06-01T12:30:00Z">' in world.client.get("/").text


def test_many_of_all(world: World) -> None:
    """More than a person reads is cut, and the page says where the rest is."""
    web, node = a_job("web", count=300), a_node()
    world.put(web, node, *(an_allocation(web, node, index=index) for index in range(300)))
    assert 'and 100 more: <a href="/allocations">' in world.client.get("/").text


def test_times_without_javascript(world: World) -> None:
    """Without JavaScript, times are readable."""
    web, node = a_job("web"), a_node()
    world.put(web, node, an_allocation(web, node, age=timedelta(hours=1)))
    assert (
        '<time datetime="2026-06-01T11:00:00Z">2026-06-01 11:00:00 UTC</time>' in world.client.get("/").text
    )


def test_nothing_inline(world: World) -> None:
    """The page keeps its own CSP: no inline script or style, nothing from elsewhere."""
    page = Tags(world.client.get("/").text)
    assert "style" not in page.tags
    sources = [value for name, value in page.attributes if name in {"src", "href"} and value is not None]
    assert sources
    assert all(value.startswith("/") and not value.startswith("//") for value in sources)


@pytest.mark.parametrize("name", ["page.css", "page.js", "icon.svg"])
def test_files(world: World, name: str) -> None:
    """The page's files are served with their type, and not again while they are unchanged."""
    answer = world.client.get(f"/page/{name}")
    assert answer.status_code == 200
    again = world.client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["/page/..%2fview.py", "/page/../view.py", "/page/view.py", "/page/%2e%2e/routes.py"]
)
def test_no_other_files(world: World, path: str) -> None:
    """Only the page's own files are served."""
    assert world.client.get(path).status_code == 404


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Debian's chromium, quiet and without a network of its own."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    arguments += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the page's console and errors said, and every dialog that opened."""
    return []


@contextmanager
def looking(browser: "Browser", complaints: list[str], **options: Any) -> "Iterator[Page]":
    page = browser.new_page(**options)
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    try:
        yield page
    finally:
        page.close()


@pytest.mark.browser
def test_live_in_a_browser(world: World, browser: "Browser", complaints: list[str]) -> None:
    """The page shows what happens without being loaded again, and times as people say them."""
    with world.serving() as server, looking(browser, complaints) as page:
        page.goto(server.url)
        page.wait_for_selector("#live.good")
        world.put(a_job("web"), a_node(), an_allocation(a_job("web"), a_node()))
        page.wait_for_selector("text=web.app[0]")
        page.wait_for_selector("td:has-text('ago')")
        assert page.title() == "Unknown, Healthy - trueup"
    assert complaints == []


@pytest.mark.browser
def test_news_elsewhere_keeps_a_selection_in_a_browser(
    world: World, browser: "Browser", complaints: list[str]
) -> None:
    """Who is copying a job's name is not disturbed by a node that joins."""
    world.put(a_job("web"))
    with world.serving() as server, looking(browser, complaints) as page:
        page.goto(server.url)
        page.wait_for_selector("#live.good")
        page.evaluate("getSelection().selectAllChildren(document.querySelector('a[href=\"/jobs/web\"]'))")
        world.put(a_node("node-7"))
        page.wait_for_selector("text=node-7")
        assert page.evaluate("getSelection().toString()") == "web"
    assert complaints == []


@pytest.mark.browser
def test_hostile_texts_in_a_browser(world: World, browser: "Browser", complaints: list[str]) -> None:
    """Hostile texts run nothing, when the page is loaded and when it is updated."""
    hold(world, HOSTILE)
    with world.serving() as server, looking(browser, complaints) as page:
        page.goto(server.url)
        page.wait_for_selector("#live.good")
        world.put(a_node(HOSTILE, id="n", labels={HOSTILE: HOSTILE}))
        page.wait_for_selector("th:has-text('onerror')")
        assert page.locator("main img, main script").count() == 0
    assert complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_fits_in_a_browser(world: World, browser: "Browser", complaints: list[str], width: int) -> None:
    """Nothing has to be scrolled sideways, on a desk or on a phone."""
    web, node = a_job("web"), a_node("node-" + "x" * 50, labels={"a" * 60: "b" * 60})
    world.put(web, node, an_allocation(web, node, ports={"http": 20000, "admin": 20001}))
    hold(world, "f" * 40)
    with (
        world.serving() as server,
        looking(browser, complaints, viewport={"width": width, "height": 900}) as page,
    ):
        page.goto(server.url)
        page.wait_for_selector("#live.good")
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.browser
def test_server_comes_back_in_a_browser(
    make_world: Callable[..., World], browser: "Browser", complaints: list[str]
) -> None:
    """When the server is away the page says so, and takes up again when it is back."""
    world = make_world()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with looking(browser, complaints) as page:
        with world.serving(port) as server:
            page.goto(server.url)
            page.wait_for_selector("#live.good")
        page.wait_for_selector("#live.warn")
        world.stopping.clear()
        with world.serving(port):
            page.wait_for_selector("#live.good")


@pytest.mark.browser
def test_without_javascript_in_a_browser(world: World, browser: "Browser", complaints: list[str]) -> None:
    """Without JavaScript the page is whole."""
    world.put(a_job("web"))
    with world.serving() as server, looking(browser, complaints, java_script_enabled=False) as page:
        page.goto(server.url)
        assert page.locator("th:has-text('web')").is_visible()
        assert not page.locator("#live").is_visible()
