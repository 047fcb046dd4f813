"""gai-fast.js in a real browser: another origin, connections that are cut, and EventSource if that is all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.conftest import STORY, Site, Upstream
from tests.browser.driver import Browser, Page
from tests.faults.proxy import FaultProxy, Faults
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CUT = Faults(after=30_000, slice=6_000, pause=0.05)
"""Cuts an answer of 200 KB several times, but no preflight request, which is smaller. The pieces are paced: a page
loses unread bytes when its connection fails, and would never get on if it lost all of them."""


ONLY_EVENT_SOURCE = """(() => {
  delete Response.prototype.body;
  window.sources = 0;
  window.EventSource = class extends EventSource {
    constructor(url) {
      super(url);
      window.sources += 1;
    }
  };
})()"""


async def collect(
    page: Page, origin: str, url: str, prompt: str, transport: str, *, until_event: int = 0
) -> list[dict[str, Any]]:
    """The events of one loop in the page with the client of `origin`; it is left at the event of this number."""
    request, options = json.dumps({"query": prompt, "model": "fake"}), json.dumps({"transport": transport})
    found: list[dict[str, Any]] = await page.evaluate(
        f"""import('{origin}/client.js').then(async ({{ stream }}) => {{
          const events = [];
          for await (const event of stream({url!r}, {request}, {options})) {{
            events.push(event);
            if (events.length === {until_event}) break;
          }}
          return events;
        }})"""
    )
    return found


def text(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text.delta")


def check_whole(events: list[dict[str, Any]]) -> None:
    assert [event["type"] for event in events[-2:]] == ["finish", "done"]
    last = 0
    for event in events[:-1]:  # a page that comes back late gets neighbouring deltas as one
        assert event.get("from_seq", event["seq"]) == last + 1
        last = event["seq"]


@pytest.mark.parametrize("transport", ["sse", "ndjson", "ws", "eventsource"])
async def test_a_page_of_another_origin_gets_each_event_once_although_it_is_cut_off(
    browser: Browser, origin: str, site: Site, upstream: tuple[Upstream, int], transport: str
) -> None:
    async with FaultProxy(origin, CUT) as proxy, browser.page() as page:
        await page.open(f"{site.origin}/")
        if transport == "eventsource":
            await page.evaluate(ONLY_EVENT_SOURCE)
        asked = len(upstream[0].prompts)
        wanted = "sse" if transport == "eventsource" else transport
        events = await collect(page, origin, proxy.url, "many pieces", wanted)
        check_whole(events)
        assert text(events) == "x " * 2500
        assert proxy.connections > 3
        assert len(upstream[0].prompts) == asked + 1
        if transport == "eventsource":
            assert await page.evaluate("window.sources") > 3


@pytest.mark.parametrize("transport", ["sse", "ndjson", "ws"])
async def test_a_loop_that_is_left_in_a_page_ends_the_answer(
    page: Page, origin: str, upstream: tuple[Upstream, int], transport: str
) -> None:
    asked = len(upstream[0].prompts)
    events = await collect(page, origin, origin, "endless", transport, until_event=3)
    assert text(events) == "on and on and "
    await until(lambda: len(upstream[0].prompts) == asked + 1 and upstream[0].closed.is_set())


async def test_a_page_that_goes_offline_goes_on_when_it_is_back(page: Page, origin: str) -> None:
    await page.evaluate(
        f"""import('/client.js').then(({{ stream }}) => {{
          window.events = [];
          window.loop = (async () => {{
            for await (const event of stream({origin!r}, {{ query: 'slowly', model: 'fake' }})) events.push(event);
          }})();
        }})"""
    )
    await page.until("events.length > 1")
    await page.set_offline(True)
    await page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
    await page.set_offline(False)
    await page.evaluate("loop")
    events = await page.evaluate("events")
    check_whole(events)
    assert text(events) == STORY
