"""A browser's own clients, without a library: fetch, EventSource and WebSocket, cut off in the middle."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.browser.conftest import HELD, PIECES, STORY, Site, Upstream, serving
from tests.browser.driver import Browser, Page
from tests.faults.proxy import FaultProxy
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEST = json.dumps({"query": "hold", "model": "fake"})


@pytest_asyncio.fixture(loop_scope="session")
async def foreign(browser: Browser, site: Site) -> AsyncIterator[Page]:
    """Yields an empty page of another origin."""
    async with browser.page() as page:
        await page.open(f"{site.origin}/")
        yield page


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(origin: str, upstream: tuple[Upstream, int]) -> AsyncIterator[FaultProxy]:
    """Yields the way to the gateway; an answer that is held in its middle goes on at the end at last."""
    upstream[0].go_on.clear()
    async with FaultProxy(origin) as running:
        yield running
    upstream[0].go_on.set()


def check_story(events: list[dict[str, Any]]) -> None:
    """Checks that events are one whole answer, each of them once and in its order."""
    assert [event["type"] for event in events] == ["start", *["text.delta"] * len(PIECES), "finish", "done"]
    assert [event["seq"] for event in events[:-1]] == list(range(1, len(events)))
    assert "".join(event.get("text", "") for event in events) == STORY


FETCH = """((url, body) =>
  fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body }).then((response) => {
    window.text = '';
    window.headers = Object.fromEntries(response.headers);
    const write = (piece) => void (window.text += piece);
    window.end = response.body.pipeThrough(new TextDecoderStream()).pipeTo(new WritableStream({ write }));
  })
)"""


async def check_fetch(page: Page, url: str, upstream: Upstream) -> dict[str, str]:
    """Checks that a held answer in format `simple` comes piece by piece and whole; returns its headers."""
    upstream.go_on.clear()
    await page.evaluate(f"{FETCH}({url!r}, {REQUEST!r})")
    await page.until(f"text.split('content').length > {HELD}")
    assert await page.evaluate("text.split('content').length") == HELD + 1
    upstream.go_on.set()
    await page.evaluate("end")
    lines = [line.removeprefix("data: ") for line in (await page.evaluate("text")).splitlines()]
    assert "".join(json.loads(line)["content"] for line in lines if line.startswith("{")) == STORY
    headers: dict[str, str] = await page.evaluate("headers")
    return headers


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
async def test_fetch_reads_an_answer_while_it_comes(
    foreign: Page, origin: str, upstream: tuple[Upstream, int], framing: str
) -> None:
    headers = await check_fetch(foreign, f"{origin}/api/v1/stream?format=simple&framing={framing}", upstream[0])
    assert len(headers["x-gai-stream-id"]) >= 22


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def compressing(upstream: tuple[Upstream, int], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Yields the URL of a gateway that compresses whatever a client takes compressed."""
    more = '[stream]\ncompression = ["zstd", "br", "gzip"]\n'
    async with serving(tmp_path_factory.mktemp("compressing"), upstream[1], more) as url:
        yield url


async def test_compressed_answers_come_piece_by_piece_too(
    browser: Browser, compressing: str, upstream: tuple[Upstream, int]
) -> None:
    async with browser.page() as page:
        await page.open(f"{compressing}/")
        headers = await check_fetch(page, f"{compressing}/api/v1/stream?format=simple", upstream[0])
        assert headers["content-encoding"] in ("zstd", "br", "gzip")

        upstream[0].go_on.clear()
        requests = [{"stream": "a", "type": "request", "request": {"query": "hold", "model": "fake"}}]
        await page.evaluate(f"{SOCKET}('{compressing.replace('http', 'ws')}/ws/stream', {json.dumps(requests)})")
        await page.until(f"events.a.length === {HELD + 1}")
        upstream[0].go_on.set()
        await page.until("events.a.at(-1).type === 'done'")
        check_story(await page.evaluate("events.a"))


async def test_an_aborted_fetch_ends_the_answer(foreign: Page, origin: str, upstream: tuple[Upstream, int]) -> None:
    body = json.dumps({"query": "endless", "model": "fake"})
    asked = len(upstream[0].prompts)
    thrown = await foreign.evaluate(
        f"""(async () => {{
          const controller = new AbortController();
          const response = await fetch('{origin}/api/v1/stream', {{
            method: 'POST', headers: {{'content-type': 'application/json'}}, body: {body!r}, signal: controller.signal,
          }});
          const reader = response.body.getReader();
          await reader.read();
          controller.abort();
          try {{
            for (;;) await reader.read();
          }} catch (error) {{
            return error.name;
          }}
        }})()"""
    )
    assert thrown == "AbortError"
    await until(lambda: len(upstream[0].prompts) == asked + 1 and upstream[0].closed.is_set())


LISTEN = """((url) => {
  window.events = [];
  window.source = new EventSource(url);
  window.opened = 0;
  source.onopen = () => (opened += 1);
  for (const type of ['start', 'text.delta', 'finish', 'done', 'error']) {
    source.addEventListener(type, ({ data }) => data && events.push(JSON.parse(data)));
  }
})"""


@pytest.mark.parametrize("steps", [1, 2])
async def test_event_source_goes_on_after_a_cut_and_stops_for_good_at_the_end(
    foreign: Page, proxy: FaultProxy, upstream: tuple[Upstream, int], steps: int
) -> None:
    """One step: its GET starts the stream. Two: it follows a stream that a POST has started."""
    asked = len(upstream[0].prompts)
    url = f"{proxy.url}/api/v1/stream?q=hold&model=fake"
    if steps == 2:
        started = await foreign.evaluate(
            f"""fetch('{proxy.url}/api/v1/streams', {{
              method: 'POST', headers: {{'content-type': 'application/json'}}, body: {REQUEST!r},
            }}).then((response) => response.json())"""
        )
        url = f"{proxy.url}{started['url']}"
    await foreign.evaluate(f"{LISTEN}({url!r})")
    await foreign.until(f"events.length > {HELD}")
    before = proxy.connections
    proxy.cut()
    await until(lambda: proxy.connections > before)  # Firefox opens it with the first byte
    upstream[0].go_on.set()
    await foreign.until("source.readyState === EventSource.CLOSED")  # 204: it asks no more
    check_story(await foreign.evaluate("events"))
    assert await foreign.evaluate("opened") == 2
    assert len(upstream[0].prompts) == asked + 1


SOCKET = """((url, messages) => {
  // An element of the page may have this name.
  if (!window.events?.a) window.events = { a: [], b: [] };
  window.last ??= {};
  window.socket = new WebSocket(url, ['gai.events.v1']);
  socket.onopen = () => messages.forEach((message) => socket.send(JSON.stringify(message)));
  socket.onmessage = ({ data }) => {
    const { stream, id, ...event } = JSON.parse(data);
    events[stream].push(event);
    last[stream] = id ?? last[stream];
  };
})"""


async def test_streams_of_a_web_socket_go_on_over_the_next_one(
    foreign: Page, proxy: FaultProxy, upstream: tuple[Upstream, int]
) -> None:
    asked = len(upstream[0].prompts)
    url = f"{proxy.url.replace('http', 'ws')}/ws/stream"
    request = {"query": "hold", "model": "fake", "resumable": True}
    requests = [{"stream": name, "type": "request", "request": request} for name in "ab"]
    await foreign.evaluate(f"{SOCKET}({url!r}, {json.dumps(requests)})")
    await foreign.until(f"events.a.length > {HELD} && events.b.length > {HELD}")
    assert await foreign.evaluate("socket.protocol") == "gai.events.v1"
    proxy.cut()
    await foreign.until("socket.readyState === WebSocket.CLOSED")
    resumes = "['a', 'b'].map((stream) => ({ stream, type: 'resume', after: last[stream] }))"
    await foreign.evaluate(f"{SOCKET}({url!r}, {resumes})")
    upstream[0].go_on.set()
    for name in "ab":
        await foreign.until(f"events.{name}.at(-1).type === 'done'")
        check_story(await foreign.evaluate(f"events.{name}"))
    assert len(upstream[0].prompts) == asked + 2


async def test_a_web_socket_without_a_subprotocol_gets_the_text_alone(foreign: Page, origin: str) -> None:
    url = f"{origin.replace('http', 'ws')}/ws/stream"
    body = json.dumps({"query": "quick", "model": "fake"})
    messages = await foreign.evaluate(
        f"""new Promise((resolve) => {{
          const socket = new WebSocket({url!r});
          const messages = [];
          socket.onopen = () => socket.send({body!r});
          socket.onmessage = ({{ data }}) => {{
            messages.push(JSON.parse(data));
            if (messages.at(-1).type !== 'chunk') resolve(messages);
          }};
        }})"""
    )
    assert [message["type"] for message in messages] == ["chunk"] * (len(messages) - 1) + ["done"]
    assert "".join(message["content"] for message in messages[:-1]) == STORY


async def test_a_page_whose_origin_is_not_configured_gets_nothing(
    browser: Browser, origin: str, site: Site, upstream: tuple[Upstream, int]
) -> None:
    asked = len(upstream[0].prompts)
    async with browser.page() as page:
        await page.open(f"{site.origin.replace('127.0.0.1', 'localhost')}/")
        refused = await page.evaluate(
            f"""Promise.all([
              fetch('{origin}/api/v1/stream', {{
                method: 'POST', headers: {{'content-type': 'application/json'}}, body: {REQUEST!r},
              }}).then(() => 'answered', (error) => error.name),
              new Promise((resolve) => {{
                const source = new EventSource('{origin}/api/v1/stream?q=quick&model=fake');
                source.onopen = () => resolve('open');
                source.onerror = () => resolve(source.readyState === EventSource.CLOSED ? 'closed' : 'again');
              }}),
              new Promise((resolve) => {{
                const socket = new WebSocket('{origin.replace("http", "ws")}/ws/stream', ['gai.events.v1']);
                socket.onopen = () => resolve('open');
                socket.onclose = ({{ code }}) => resolve(code);
              }}),
            ])"""
        )
    assert refused == ["TypeError", "closed", 1006]
    assert len(upstream[0].prompts) == asked
