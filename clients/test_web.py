"""The web page in real Chromium, against a real server."""

import re
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from analytics.models import AnalyticsEvent, UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import Message
from conftest import Server, wait_until

pytestmark = pytest.mark.browser
# Nothing but the page: no sandbox as root in a container, and no calls home.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "Chromium is missing; install it (on Debian: apt-get install chromium)."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(10_000)
        complaints: list[str] = []
        page.on(
            "console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        browser.close()
        assert complaints == []


@pytest.fixture
def at_home(page: Page, server: Server) -> Server:
    """The page of a server, with its token entered."""
    page.goto(server.url)
    page.get_by_label("Client token").fill(server.token)
    page.get_by_role("button", name="Start").click()
    return server


def send(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def test_it_works(page: Page, at_home: Server, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(pieces=["echo:", " Hello", " <b>there</b>"], pause=1))

    send(page, "Hello <b>there</b>")

    reply = page.locator("li.assistant")
    expect(reply).to_have_text(re.compile("^echo:( Hello)?$"))  # streamed: the beginning is there before the end
    expect(reply).to_have_text("echo: Hello <b>there</b>")
    expect(page.locator("li.user")).to_have_text("Hello <b>there</b>")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()

    send(page, "And you?")
    expect(page.locator("li.assistant").nth(1)).to_have_text("echo: And you?")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    assert len(upstream.requests[1]["body"]["messages"]) == 3

    page.reload()
    expect(page.locator("li")).to_have_count(4)


def test_a_link_opens_the_page_with_its_token(page: Page, server: Server, upstream: OpenAIDouble) -> None:
    page.goto(f"{server.url}/#token={server.token}")

    send(page, "Hello")

    expect(page.locator("li.assistant")).to_have_text("echo: Hello")
    assert page.url == f"{server.url}/"
    page.goto(f"{server.url}/#token=of-another-client")
    page.reload()
    expect(page.locator("li.assistant")).to_have_count(0)


def test_a_link_gives_no_token_to_a_page_of_another_host(page: Page, server: Server) -> None:
    page.route(
        "http://chat.example.com/**",
        lambda route: route.fulfill(response=route.fetch(url=server.url + route.request.url[23:])),
    )
    page.goto(f"http://chat.example.com/#token={server.token}")

    expect(page.get_by_label("Client token")).to_be_visible()
    assert page.url == "http://chat.example.com/"


def test_what_only_the_page_sees_is_told_once(page: Page, at_home: Server, upstream: OpenAIDouble) -> None:
    send(page, "Hi")
    good, bad = page.get_by_role("button", name="Good reply"), page.get_by_role("button", name="Bad reply")
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(bad).to_be_disabled()
    turn = UsageEvent.objects.get()

    # Nobody waits for the page's next batch: it is sent when the page goes away.
    page.goto("about:blank")

    told = AnalyticsEvent.objects.filter(event_name__startswith="client.").order_by("created_at", "id")
    wait_until(lambda: told.count() == 3)
    assert list(told.values_list("event_name", "request_id")) == [
        ("client.opened", ""),
        ("client.first_token_shown", turn.request_id),
        ("client.thumbs_up", turn.request_id),
    ]


def test_an_error_is_said_and_a_retry_is_the_same_turn(page: Page, at_home: Server, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(status=500), Behaviour(text="one two three", stop_after=2, ending="error"))

    send(page, "Hi")
    alert = page.get_by_role("alert")
    for failures in (1, 2):
        expect(alert).to_contain_text("provider failed")
        assert len(upstream.requests) == failures
        page.get_by_role("button", name="Try again").click()

    expect(page.locator("li.assistant")).to_have_text("echo: Hi")
    expect(alert).to_be_hidden()
    wait_until(lambda: Message.objects.count() == 2)


def test_a_reload_in_the_middle_gets_the_same_reply(page: Page, at_home: Server, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(text="one two three four five", pause=0.3))
    send(page, "Hi")
    expect(page.locator("li.assistant")).to_contain_text("one")

    page.reload()

    expect(page.locator("li.assistant").last).to_have_text("one two three four five")
    assert len(upstream.requests) == 1
    assert UsageEvent.objects.count() == 1


def test_a_wrong_token_is_said_and_the_message_kept(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.get_by_label("Client token").fill("wrong")
    page.get_by_role("button", name="Start").click()

    send(page, "Hi")

    expect(page.get_by_label("Client token")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")

    page.get_by_label("Client token").fill(server.token)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("li.assistant")).to_have_text("echo: Hi")


def test_a_reply_that_thinking_has_eaten_is_explained(page: Page, at_home: Server, upstream: OpenAIDouble) -> None:
    choice = '{"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "length"}]}'
    upstream.plan(Behaviour(raw=f"data: {choice}\n\ndata: [DONE]\n\n".encode()))

    send(page, "Hello")

    expect(page.get_by_text("used up its tokens")).to_be_visible()


@pytest.mark.parametrize("address", ["/bot", "/bot/"])
def test_it_works_below_a_path(page: Page, serve: Callable[..., Server], upstream: OpenAIDouble, address: str) -> None:
    server = serve(SCRIPT_NAME="/bot", WEB_CONCURRENCY="1")
    paths: list[str] = []
    page.on("request", lambda request: paths.append(urlsplit(request.url).path))

    page.goto(server.url + address)
    page.get_by_label("Client token").fill(server.token)
    page.get_by_role("button", name="Start").click()
    send(page, "Hello")

    expect(page.locator("li.assistant")).to_have_text("echo: Hello")
    assert [path for path in paths if not f"{path}/".startswith("/bot/")] == []
