"""The dashboard in real browsers: with the real server, and with samples that no server would send."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gai_fast.model.settings import key_digest
from tests.browser.conftest import IN_CHROMIUM, Upstream, serving
from tests.browser.driver import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAKE = """
window.opened = window.left = 0;
window.asked = [];
window.refusal = null;
window.keys = [];
window.approvals = [];
window.requests = [];
window.slots = [];
window.reply = null;
const real = window.fetch.bind(window);
window.fetch = (url, options = {}) => {
  const [path, method] = [new URL(url, location.href).pathname, options.method ?? "GET"];
  const json = (value, status = 200) => Promise.resolve(new Response(JSON.stringify(value), { status }));
  window.sent = options.headers?.authorization ?? null;
  if (method === "GET" && path === "/admin/v1/requests") return json({ data: window.requests });
  if (path === "/admin/v1/history") return json({ seconds: 30, data: window.slots });
  if (path === "/admin/v1/approvals") return json({ total: window.approvals.length, data: window.approvals });
  if (method === "GET" && path === "/admin/v1/keys") return json({ data: window.keys });
  if (path !== "/admin/v1/events") {
    window.asked.push(`${method} ${url}${options.body ? ` ${options.body}` : ""}`);
    return window.reply ? json(...window.reply) : real(url, options);
  }
  window.opened += 1;
  if (window.refusal) return Promise.resolve(new Response(JSON.stringify({ error: window.refusal }), window.refusal));
  const body = new ReadableStream({
    start(controller) {
      const encoder = new TextEncoder();
      window.push = (sample) =>
        controller.enqueue(encoder.encode(`event: sample\\ndata: ${JSON.stringify(sample)}\\n\\n`));
      window.lose = () => controller.error(new TypeError("lost"));
      options.signal.addEventListener("abort", () => {
        window.left += 1;
        controller.error(new DOMException("aborted", "AbortError"));
      });
    },
  });
  return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
};
const wait = window.setTimeout.bind(window);
window.setTimeout = (run, ms, ...more) => wait(run, ms === 5000 || ms === 3000 ? window.lingering ?? 0 : ms, ...more);
window.hit = 0;
"""
"""Takes the place of the feed: `push` sends a sample, `lose` breaks the connection, `refusal` refuses the next one.
Hidden pages are left, and ended streams go, at once, or after `lingering` ms."""

HOSTILE = '"><img src=x onerror="window.hit += 1"><script>window.hit += 1</script>'
ROWS = "document.querySelectorAll('[data-stream-id]')"
STATUS = "document.querySelector('#status')"


def row(identifier: str, **more: Any) -> dict[str, Any]:
    """Returns a stream of a sample."""
    return {
        "id": identifier,
        "key": "alice",
        "model": "fast",
        "upstream": "up",
        "endpoint": "/api/v1/stream",
        "transport": "sse",
        "request_id": "r",
        "started_at": "2026-11-22T10:00:00.000Z",
        "duration_ms": 1500.0,
        "ttft_ms": 300.0,
        "deltas": 7,
        "state": "streaming",
        **more,
    }


def sample(*streams: dict[str, Any], **more: Any) -> str:
    """Returns a sample, as JavaScript."""
    rates = {
        "requests": 1.5,
        "errors": 0,
        "client_errors": 0,
        "deltas": 40,
        "input_tokens": 2,
        "output_tokens": 40,
        "bytes": 900,
    }
    buckets = [{"le": le, "count": count} for le, count in ((0.1, 0), (0.5, 9), (1.0, 1), (None, 0))]
    whole = {
        "at": "2026-11-22T10:00:00.000Z",
        "active": len(streams),
        "streams": streams,
        "rates": rates,
        "first_token_seconds": buckets,
        "gap_seconds": buckets,
        "errors": [],
        "breakers": {"up": 0},
        "limited": {},
        "memory_bytes": 1 << 26,
        "spend": {"day": "2026-11-22", "keys": [], "models": []},
        "configuration": None,
        **more,
    }
    return f"void window.push({json.dumps(whole)})"


async def opened(page: Page, origin: str) -> None:
    """Opens the dashboard with the fake feed."""
    await page.prepare(FAKE)
    await page.open(f"{origin}/dashboard")
    await page.until("window.push")


async def texts(page: Page, selector: str) -> str:
    return str(await page.evaluate(f"document.querySelector('{selector}').innerText"))


async def end_streams(origin: str) -> None:
    """Ends what the pages of other tests have left: the server is one for all of them."""
    async with aiohttp.ClientSession(origin) as client:
        async with client.get("/admin/v1/streams") as running:
            streams = (await running.json())["data"]
        for each in streams:
            async with client.delete(f"/admin/v1/streams/{each['id']}") as ended:
                await ended.read()


async def test_a_stream_is_shown_followed_and_cancelled(
    browser: Browser, origin: str, upstream: tuple[Upstream, int]
) -> None:
    """On a phone's screen, where nothing may be wider than that."""
    await end_streams(origin)
    async with browser.page(width=360) as page:
        await page.open(f"{origin}/dashboard")
        await page.until(f"{STATUS}.textContent === 'Live' && !document.querySelector('#streams-empty').hidden")
        assert "/api/v1/stream" in await texts(page, "#streams-empty")
        request = json.dumps({"query": "endless", "model": "fake"})
        headers = '{ "content-type": "application/json" }'
        await page.evaluate(
            f"(async () => {{ window.stream = await fetch('api/v1/stream', {{ method: 'POST', headers: {headers},"
            f" body: {json.dumps(request)} }}); }})()"
        )
        await page.until(f"{ROWS}.length === 1")
        identifier = await page.evaluate("window.stream.headers.get('x-gai-stream-id')")
        assert await page.evaluate(f"{ROWS}[0].dataset.streamId") == identifier
        await page.until(f"{ROWS}[0].innerText.includes('fake') && {ROWS}[0].dataset.state === 'streaming'")
        buttons = f"{ROWS}[0].querySelectorAll('button:not([data-id])')"
        await page.evaluate(f"{buttons}[0].click()")
        await page.until(f"{ROWS}[0].querySelector('pre').textContent.split('on and').length > 4")
        size = await page.evaluate(f"{ROWS}[0].querySelector('pre').textContent.length")
        await page.until(f"{ROWS}[0].querySelector('pre').textContent.length > {size}")
        body = str(await page.evaluate("document.body.innerText")).lower()
        for word in ("stream", "first token", "tokens/s", "error", "breaker", "spend", "up"):
            assert word in body
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

        await page.evaluate("void (window.confirm = (text) => { window.question = text; return false; })")
        assert await page.evaluate(f"{buttons}[1].textContent") == "Cancel"
        await page.evaluate(f"{buttons}[1].click()")
        assert str(identifier) in str(await page.evaluate("window.question"))
        assert not upstream[0].closed.is_set()
        await page.evaluate("void (window.confirm = () => true)")
        await page.evaluate(f"{buttons}[1].click()")
        await page.until(f"{ROWS}[0].dataset.state === 'ended'")
        await page.until(f"{ROWS}[0].innerText.includes('Finished: cancelled')")
        await upstream[0].closed.wait()
        await page.evaluate(f"{buttons}[0].click()")
        assert await page.evaluate(f"{ROWS}.length") == 0
        await page.evaluate("window.stream.body.cancel()")
        assert page.problems == []


async def test_names_are_text_and_ids_of_any_shape_are_rows(browser: Browser, origin: str) -> None:
    identifiers = [HOSTILE, "..", "a/b?c#d", "%2e", "ü 𝒢", "'\"\\", "x" * 300]
    async with browser.page(width=360) as page:
        await opened(page, origin)
        streams = [row(each, model=HOSTILE, key=HOSTILE, upstream=HOSTILE) for each in identifiers]
        change = {"section": HOSTILE, "name": HOSTILE, "change": "added"}
        spend = {"amount": 0.5, "currency": HOSTILE, "requests": 1}
        await page.evaluate(
            sample(
                *streams,
                errors=[{"code": HOSTILE, "provider": "", "upstream": HOSTILE, "side": "upstream", "count": 3}],
                breakers={HOSTILE: 2},
                limited={HOSTILE: 4},
                spend={"day": HOSTILE, "keys": [{"key": HOSTILE, **spend}], "models": [{"model": HOSTILE, **spend}]},
                configuration={"at": HOSTILE, "changes": [change]},
            )
        )
        await page.until(f"{ROWS}.length === {len(identifiers)}")
        shown = await page.evaluate(f"Array.from({ROWS}, (each) => each.dataset.streamId).sort()")
        assert shown == await page.evaluate(f"{json.dumps(identifiers)}.sort()")
        for place in ("#streams", "#errors", "#breakers", "#spend", "#change"):
            assert "<img" in await texts(page, place)
            assert await page.evaluate(f"document.querySelectorAll('{place} :is(img, script)').length") == 0
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await page.evaluate("void (window.confirm = () => true)")
        slash = f"Array.from({ROWS}).find((each) => each.dataset.streamId === 'a/b?c#d')"
        await page.evaluate(f"{slash}.querySelectorAll('button:not([data-id])')[1].click()")
        await page.until("document.querySelector('#announcement').textContent.includes('had ended')")
        assert await page.evaluate("window.asked") == [f"DELETE {origin}/admin/v1/streams/a%2Fb%3Fc%23d"]
        assert await page.evaluate("window.hit") == 0


async def test_live_rows_stand_first_and_ended_ones_have_their_last_figures_and_no_actions(
    browser: Browser, origin: str
) -> None:
    figures = "(id) => Array.from(document.querySelectorAll(`[data-stream-id=${id}] .value`), (e) => e.textContent)"
    buttons = "(id) => document.querySelectorAll(`[data-stream-id=${id}] button:not([data-id])`).length"
    order = f"Array.from({ROWS}).sort((a, b) => a.offsetTop - b.offsetTop).map((each) => each.dataset.streamId)"
    async with browser.page() as page:
        await opened(page, origin)
        await page.evaluate("void (window.lingering = 1e6)")
        assert "No active streams" in await texts(page, "#streams-empty")
        await page.evaluate(sample(row("waits", deltas=0, ttft_ms=None, state="waiting"), row("one")))
        await page.until(f"{ROWS}.length === 2")
        assert await page.evaluate(f"({figures})('one')") == ["300 ms", "7", "5", "1.5 s"]
        assert await page.evaluate(f"({figures})('waits')") == ["–", "0", "0", "1.5 s"]
        assert await page.evaluate(order) == ["one", "waits"]
        await page.evaluate(sample(row("waits"), row("one", deltas=27, duration_ms=2500.0)))
        await page.until(f"({figures})('one')[2] === '20'")
        await page.evaluate(sample(row("new"), row("waits")))
        await page.until(f"{ROWS}.length === 3")
        assert await page.evaluate(order) == ["waits", "new", "one"]
        assert await page.evaluate(f"({figures})('one')") == ["300 ms", "27", "12", "2.5 s"]
        assert [await page.evaluate(f"({buttons})('{each}')") for each in ("one", "waits", "new")] == [0, 2, 2]
        many = [row(f"s{number}") for number in range(98)]
        await page.evaluate(sample(row("new"), row("waits"), *many))
        await page.until(f"{ROWS}.length === 100 && !document.querySelector('[data-stream-id=one]')")
        assert page.problems == []


async def test_of_two_thousand_streams_a_hundred_are_shown_and_the_rest_is_counted(
    browser: Browser, origin: str
) -> None:
    async with browser.page() as page:
        await opened(page, origin)
        for begin in range(0, 1000, 200):
            newest = [
                row(f"s{number}", model="odd" if number % 2 else "even") for number in range(begin + 200, begin, -1)
            ]
            await page.evaluate(sample(*newest, active=2000))
            await page.until(f"{ROWS}[{ROWS}.length - 1]?.dataset.streamId === 's{begin + 200}'")
            assert await page.evaluate(f"{ROWS}.length") == 100
        assert "1,900 more streams" in await texts(page, "#streams-more")
        first = await page.evaluate(f"{ROWS}[0].dataset.streamId")
        await page.evaluate(sample(*newest, active=2000))
        await page.until(f"{ROWS}[0].dataset.streamId === '{first}'")  # what is shown stays where it is
        find = "document.querySelector('#find')"
        await page.evaluate(f"({find}.value = 'odd s9'), {find}.dispatchEvent(new Event('input'))")
        shown = await page.evaluate(f"Array.from({ROWS}, (each) => each.dataset.streamId)")
        assert shown
        assert all(each.startswith("s9") and int(each[1:]) % 2 for each in shown)
        assert "fit the filter" in await texts(page, "#streams-more")
        await page.evaluate(f"({find}.value = ''), {find}.dispatchEvent(new Event('input'))")
        await page.evaluate(sample())
        await page.until(f"{ROWS}.length === 0 && !document.querySelector('#streams-empty').hidden")
        assert page.problems == []


async def test_a_lost_connection_is_reported_and_made_again(browser: Browser, origin: str) -> None:
    async with browser.page() as page:
        await opened(page, origin)
        await page.evaluate(sample(row("one")))
        await page.until(f"{STATUS}.textContent === 'Live'")
        await page.evaluate("window.lose()")
        await page.until(f"{STATUS}.textContent.includes('Next try in')")
        assert await page.evaluate("document.querySelector('#announcement').textContent.includes('lost')")
        await page.evaluate("document.querySelector('#retry').click()")
        await page.until("window.opened === 2")
        await page.evaluate("window.lose()")  # nobody clicks: it comes back by itself
        await page.until("window.opened === 3")
        await page.evaluate(sample(row("one")))
        await page.until(f"{STATUS}.textContent === 'Live'")
        assert await page.evaluate(f"{ROWS}.length") == 1

        await page.evaluate("void (window.refusal = { status: 401, code: 'unauthorized', message: 'unknown key' })")
        await page.evaluate("window.lose()")
        await page.until(f"{STATUS}.textContent === 'A key is needed'")
        assert await texts(page, "#login-why") == "This server needs an admin's key."
        assert await texts(page, "#login code") == "gai-fast key new NAME --role admin", "a shell reads it"
        assert await page.evaluate("document.querySelector('#notice').hidden && document.querySelector('main').hidden")
        for key, status in (("sk-wrong", "A key is needed"), ("sk-right", "Connecting…")):
            count = await page.evaluate("window.opened")
            if key == "sk-right":
                await page.evaluate("void (window.refusal = null)")
            await login(page, key)
            await page.until(f"window.opened === {int(count) + 1} && {STATUS}.textContent === '{status}'")
            assert await page.evaluate("window.sent") == f"Bearer {key}"
        await page.evaluate(sample(row("one")))
        await page.until(f"{STATUS}.textContent === 'Live' && document.querySelector('#login').hidden")
        assert await page.evaluate("Object.values({...sessionStorage}).includes('sk-right')")
        assert "sk-" not in await page.evaluate("JSON.stringify({...localStorage}) + document.body.innerText")


async def test_a_hidden_page_has_no_connection(browser: Browser, origin: str) -> None:
    async with browser.page() as page:
        await page.prepare("Object.defineProperty(document, 'hidden', { get: () => Boolean(window.isHidden) });")
        await opened(page, origin)
        await page.evaluate(sample())
        changed = "document.dispatchEvent(new Event('visibilitychange'))"
        await page.evaluate(f"(window.isHidden = true), {changed}")
        await page.until("window.left === 1")
        assert "hidden" in await texts(page, "#status")
        assert await page.evaluate("window.opened") == 1
        await page.evaluate(f"(window.isHidden = false), {changed}")
        await page.until("window.opened === 2")


async def login(page: Page, key: str) -> None:
    await page.until("!document.querySelector('#login').hidden")
    await page.evaluate(
        f"(document.querySelector('#login-key').value = '{key}', document.querySelector('#login').requestSubmit())"
    )


async def make_and_revoke_a_key(page: Page, url: str, http: aiohttp.ClientSession) -> None:
    """Makes a key with the real admin API, uses it, rotates and revokes it."""
    form, secret = "document.querySelector('#keys form')", "document.querySelector('#keys .secret code')"
    button = "[...document.querySelectorAll('#keys button')].find((each) => each.textContent === '{}').click()"

    async def models(key: str) -> int:
        async with http.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}) as answer:
            return answer.status

    await page.evaluate(f"void (window.confirm = () => true, {button.format('New key')})")
    await page.evaluate(
        f"(() => {{ const {{ elements: on }} = {form}; on.name.value = 'web.site'; on.models.value = 'fake';"
        f" on.spend.value = '2.5'; on.expires.value = '2100-01-02T03:04'; {form}.requestSubmit(); }})()"
    )
    await page.until(f"{secret} && document.querySelectorAll('#keys .key').length === 2")
    assert "0.00 of 2.50 a day" in await texts(page, '#keys [data-key="web.site"]')
    assert "fake · until 2100-01-02 03:04 UTC" in await texts(page, '#keys [data-key="web.site"]')
    made = str(await page.evaluate(f"{secret}.textContent"))
    assert await models(made) == 200
    await page.evaluate(button.format("Rotate"))
    await page.until(f"{secret} && {secret}.textContent !== '{made}'")
    rotated = str(await page.evaluate(f"{secret}.textContent"))
    assert (await models(made), await models(rotated)) == (200, 200)
    await page.evaluate(button.format("Revoke"))
    await page.until("document.querySelectorAll('#keys .key').length === 1")
    assert await models(rotated) == 401


@IN_CHROMIUM
async def test_a_page_asks_for_the_key_and_again_when_it_is_taken_away(
    browser: Browser, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    def key(name: str) -> str:
        return (
            f'[[key]]\nname = "{name}"\nrole = "admin"\nsecret = "sha256:{key_digest(f"sk-{name}-0123456789").hex()}"\n'
        )

    headers = {"Authorization": "Bearer sk-first-0123456789"}
    async with (
        serving(tmp_path, upstream[1], key("first")) as url,
        aiohttp.ClientSession(headers=headers) as http,
        browser.page(width=360) as page,
    ):
        await page.open(f"{url.rstrip('/')}/dashboard")
        await page.until(f"{STATUS}.textContent === 'A key is needed'")
        assert await page.evaluate("document.activeElement.id") == "login-key"
        await login(page, "sk-first-0123456789")
        await page.until(f"{STATUS}.textContent === 'Live'")
        await page.reload()
        await page.until(f"{STATUS}.textContent === 'Live'")
        await page.until("document.querySelector('#keys .key')?.innerText.startsWith('first')")
        await make_and_revoke_a_key(page, url.rstrip("/"), http)
        file = tmp_path / "gai-fast.toml"
        file.write_text(file.read_text().replace(key("first"), key("first") + key("second")))
        async with http.post(f"{url}/admin/v1/reload", json={}) as answer:
            assert answer.status == 200
        await page.until("document.querySelector('#change').innerText.includes('second')")
        file.write_text(file.read_text().replace(key("first"), ""))
        async with http.post(f"{url}/admin/v1/reload", json={}) as answer:
            assert answer.status == 200
        await page.until(f"{STATUS}.textContent === 'A key is needed'")
        assert await texts(page, "#login-why") != ""
        await login(page, "sk-second-0123456789")
        await page.until(f"{STATUS}.textContent === 'Live'")


def ended(identifier: str, **more: Any) -> dict[str, Any]:
    """Returns a request that has ended."""
    return {
        "ended_at": "2026-11-22T10:00:00.000Z",
        "key": "alice",
        "model": "fast",
        "upstream": "up",
        "endpoint": "/api/v1/stream",
        "transport": "sse",
        "request_id": identifier,
        "stream_id": "s",
        "session": "0123456789abcdef",
        "outcome": "finished",
        "status": None,
        "code": None,
        "finish_reason": "stop",
        "duration_ms": 1500.0,
        "ttft_ms": 300.0,
        "input_tokens": 7,
        "cached_input_tokens": 6,
        "output_tokens": 1234,
        "cost": 0.25,
        "currency": "USD",
        **more,
    }


async def test_requests_that_have_ended_are_listed_filtered_and_added_up(browser: Browser, origin: str) -> None:
    minutes = "(minutes) => new Date(Date.now() - minutes * 60000).toISOString()"
    async with browser.page(width=390) as page:
        await opened(page, origin)
        nothing = {
            "input_tokens": None,
            "cached_input_tokens": None,
            "output_tokens": None,
            "cost": None,
            "currency": None,
            "ttft_ms": None,
        }
        rows = [
            ended("one"),
            ended("two", model="slow", outcome="failed", code="timeout", ttft_ms=500.0, cached_input_tokens=0),
            ended("three", model="", outcome="refused", code="not_found", status=404, **nothing),
            ended("four", key=HOSTILE, model=HOSTILE, code=HOSTILE, outcome="failed", currency=HOSTILE),
        ]
        await page.evaluate(
            f"(window.requests = {json.dumps(rows)}, [1, 30, 90, 3000].forEach((each, at) =>"
            f" {{ window.requests[at].ended_at = ({minutes})(each); }}))"
        )
        await page.evaluate(sample())
        table = "[...document.querySelectorAll('#requests tbody tr')]"
        await page.until(f"{table}.length === 4")
        cells = await page.evaluate(f"{table}.map((row) => [...row.cells].map((cell) => cell.textContent))")
        ids = "requeststream"
        assert cells[0][1:] == ["alice", "fast", "finished", "7 → 1,234", "86 %", "0.25 USD", "300 ms", "1.50 s", ids]
        assert cells[1][3] == "timeout"
        assert cells[2][1:] == ["alice", "–", "not_found 404", "–", "–", "–", "–", "1.50 s", ids]
        total = await texts(page, "#requests .head .hint")
        assert total.startswith("4 requests · 3 failed · 3,702 tokens out · fast 86 % cached · slow 0 % cached · ")
        assert " · 0.50 USD · " in total
        assert "first token p50 300 ms" in total
        for span, number in ((5, 1), (60, 2), (1440, 3), (0, 4)):
            await page.evaluate(f"document.querySelector('[data-minutes=\"{span}\"]').click()")
            assert await page.evaluate(f"{table}.length") == number
        find = "document.querySelector('#requests input')"
        await page.evaluate(f"({find}.value = 'SLOW timeout', {find}.dispatchEvent(new Event('input')))")
        assert await page.evaluate(f"{table}.length") == 1
        await page.evaluate(f"({find}.value = '', {find}.dispatchEvent(new Event('input')))")
        outcome = "document.querySelector('#requests select')"
        await page.evaluate(f"({outcome}.value = 'cancelled', {outcome}.dispatchEvent(new Event('change')))")
        assert await texts(page, "#requests .more") == "No request fits."
        await page.evaluate(f"({outcome}.value = '', {outcome}.dispatchEvent(new Event('change')))")
        assert await page.evaluate("document.querySelectorAll('#requests :is(img, script)').length") == 0
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert (await page.evaluate("window.hit"), page.problems) == (0, [])


async def test_one_range_covers_requests_times_and_errors_and_outlasts_a_reload(browser: Browser, origin: str) -> None:
    def counted(late: int, slow: int) -> str:
        errors = [{"code": "timeout", "provider": "", "upstream": "up", "side": "upstream", "count": late}]
        buckets = [{"le": le, "count": count} for le, count in ((0.1, 3), (0.5, slow), (1.0, 0), (None, 0))]
        return sample(errors=errors, limited={"streams": late}, first_token_seconds=buckets, gap_seconds=buckets)

    pick = "document.querySelector('[data-minutes=\"{}\"]').click()"
    pressed = "document.querySelector('[data-minutes][aria-pressed=true]').textContent"
    begins = "[...document.querySelectorAll('[data-since]')].map((each) => each.textContent)"
    picture = "document.querySelector('#first-token svg')?.getAttribute('aria-label')"
    async with browser.page() as page:
        await opened(page, origin)
        await page.evaluate(counted(late=4, slow=8))
        await page.until("document.querySelector('#errors').innerText.includes('timeout')")
        await page.evaluate("void (Date.now = ((now) => () => now() + 7200000)(Date.now))")  # two hours later
        for late in (9, 10):
            await page.evaluate(counted(late=late, slow=8 + late))
            await page.until(f"document.querySelector('#errors .value').textContent === '{late}'")
        assert await page.evaluate(begins) == ["since the server started"] * 2
        await page.evaluate(pick.format(60))
        assert await texts(page, "#errors .value") == "1"
        assert await texts(page, "#errors .none") == "Refused by limits: streams 1"
        assert str(await page.evaluate(picture)).endswith("1 values")
        assert all(re.fullmatch(r"since .*\d\d:\d\d:\d\d", each) for each in await page.evaluate(begins))
        await page.evaluate(pick.format(1440))
        assert await texts(page, "#errors .value") == "6"
        await page.evaluate(counted(late=0, slow=0))  # a new server
        await page.until("document.querySelector('#errors').innerText === 'No error.'")
        assert await page.evaluate(begins) == ["since the server started"] * 2
        await page.reload()
        assert await page.evaluate(pressed) == "24 h"
        assert page.problems == []


def slot(at: str, **more: Any) -> dict[str, Any]:
    """Returns half a minute of the last hour."""
    sums = dict.fromkeys(("active", "requests", "errors", "client_errors", "deltas"), 0)
    return {
        "at": at,
        **sums,
        "first_token_seconds": [0, 0, 0, 0],
        "gap_seconds": [0, 0, 0, 0],
        "limited": {},
        "kinds": [],
        **more,
    }


@IN_CHROMIUM
async def test_the_lines_and_ranges_begin_with_the_servers_last_hour(browser: Browser, origin: str) -> None:
    timeout = {"code": "timeout", "provider": "", "upstream": "up", "side": "upstream"}
    async with browser.page() as page:
        await opened(page, origin)
        slots = [
            slot("2026-11-22T09:40:00.000Z", requests=300, kinds=[{**timeout, "count": 4}], errors=4),
            slot("2026-11-22T09:58:30.000Z", requests=30, first_token_seconds=[0, 2, 0, 0]),
            slot("2026-11-22T09:59:00.000Z", requests=60, kinds=[{**timeout, "count": 3}], limited={"streams": 1}),
            slot("2026-11-22T10:00:00.000Z"),
        ]
        await page.evaluate(f"void (window.slots = {json.dumps(slots)})")
        await page.evaluate(sample(errors=[{**timeout, "count": 10}], limited={"streams": 2}))
        line = "document.querySelector('[data-tile={}] .line').getAttribute('d')"
        # The minutes in which nobody looked are gaps: a line begins anew, with `M`.
        await page.until(f"{line.format('requests')}.split('M').length === 4")
        points = await page.evaluate(
            f"{line.format('requests')}.match(/[ML][^ML]+/g).map((each) => +each.split(' ')[1])"
        )
        assert points[0] == min(points), "10 requests a second, of which 1 and 2 are a part"
        assert points[1] > points[2]
        assert await texts(page, "#errors .value") == "10"
        for minutes, late, limited in ((5, "3", "1"), (60, "7", "1")):
            await page.evaluate(f"document.querySelector('[data-minutes=\"{minutes}\"]').click()")
            assert await texts(page, "#errors .value") == late
            assert await texts(page, "#errors .none") == f"Refused by limits: streams {limited}"
        assert page.problems == []


async def test_the_last_hour_is_the_real_servers(
    browser: Browser, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    async with serving(tmp_path, upstream[1]) as url, aiohttp.ClientSession() as http, browser.page() as page:
        for query in ("quick", "refuse"):
            async with http.post(f"{url}/api/v1/stream", json={"query": query, "model": "fake"}) as answer:
                await answer.read()
        async with http.get(f"{url}/admin/v1/history") as answer:
            rows = (await answer.json())["data"]
        assert sum(row["requests"] for row in rows) == 2
        assert [(each["side"], each["code"]) for row in rows for each in row["kinds"]] == [
            ("client", "context_length_exceeded")
        ]
        await page.open(f"{url}/dashboard")
        await page.until(f"{STATUS}.textContent === 'Live'")
        await page.evaluate("document.querySelector('[data-minutes=\"5\"]').click()")
        await page.until("document.querySelector('#errors').innerText.includes('Of clients')")
        assert page.problems == []


@IN_CHROMIUM
async def test_errors_of_clients_stand_apart_from_those_of_upstreams(browser: Browser, origin: str) -> None:
    async with browser.page() as page:
        await opened(page, origin)
        sides = (("timeout", "up", "upstream"), ("internal", "", "gateway"), ("unauthorized", "", "client"))
        errors = [
            {"code": code, "provider": "", "upstream": upstream, "side": side, "count": 2}
            for code, upstream, side in sides
        ]
        rates = {"requests": 9, "errors": 5, "client_errors": 3, "deltas": 0}
        await page.evaluate(sample(errors=errors, rates=rates))
        await page.until("document.querySelectorAll('#errors h3').length === 3")
        words = (await texts(page, "#errors")).split("\n")
        assert [word for word in words if word.startswith("Of ")] == ["Of upstreams", "Of this gateway", "Of clients"]
        assert words.index("timeout") < words.index("internal") < words.index("unauthorized")
        tile = "[data-tile=errors] {}"
        assert await texts(page, tile.format(".figure")) == "2"
        assert await texts(page, tile.format(".hint")) == "and 3 of clients"


@pytest.mark.parametrize("width", [1120, 1280, 1540, 1920])
async def test_the_table_of_requests_is_not_cut(browser: Browser, origin: str, width: int) -> None:
    refused = {"outcome": "refused", "code": "invalid_request", "reason": "content_length", "status": 400}
    long = {"model": "openrouter/anthropic/claude-opus-5-5-20261120", "key": "website-production", "cost": 0.123456}
    figures = {"input_tokens": 123_456, "output_tokens": 12_345, "cached_input_tokens": 123_456, "duration_ms": 123_456}
    rows = [ended("req-1"), ended("req-2", **long, **figures), ended("req-3", **long, **refused)]
    rows[2]["ended_at"] = "2026-11-22T10:00:00.000Z"
    async with browser.page(width=width) as page:
        await opened(page, origin)
        await page.evaluate(f"void (window.requests = {json.dumps(rows)})")
        await page.evaluate(sample())
        await page.until("document.querySelectorAll('#requests tbody tr').length === 3")
        table = "document.querySelector('#requests .table')"
        assert await page.evaluate(f"[{table}.scrollWidth - {table}.clientWidth]") == [0]
        cells = "[...document.querySelectorAll('#requests td')]"
        cut = f"{cells}.filter((each) => each.scrollWidth > each.clientWidth).length"
        assert await page.evaluate(cut) == 0 or width > 1300


@IN_CHROMIUM
async def test_ids_are_copied_and_the_example_names_the_key(browser: Browser, origin: str) -> None:
    async with browser.page() as page:
        await opened(page, origin)
        await page.evaluate(f"void (window.requests = {json.dumps([ended('req-1')])})")
        await page.evaluate(sample(row("stream-1")))
        await page.bring_to_front()
        for place, identifier in (("#requests tbody", "req-1"), ("#streams", "stream-1")):
            button = f"document.querySelector('{place} [data-id={identifier}]')"
            await page.until(button)
            await page.evaluate(f"{button}.click()")
            await page.until(f"{button}.textContent === 'Copied'")
            assert await page.evaluate("navigator.clipboard.readText()") == identifier
        curl = "document.querySelector('#curl').textContent"
        assert "authorization" not in await page.evaluate(curl)
        await page.evaluate(f"void (window.keys = {json.dumps([ROOT])})")
        await page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject())")  # as without TLS
        copying = "document.querySelector('#requests [data-id=req-1]')"
        await page.evaluate(f"({copying}.textContent = '', {copying}.focus(), {copying}.click())")
        await page.until(f"{copying}.textContent === 'Copied'")
        focused = "document.activeElement.dataset.id"
        assert await page.evaluate(focused) == "req-1"
        await page.evaluate(f"void (window.requests = {json.dumps([ended('req-2'), ended('req-1')])})")
        await page.evaluate("(window.lose(), document.querySelector('#retry').click())")
        await page.until("window.opened === 2")
        for _ in range(2):
            await page.evaluate(sample())
            await page.until("document.querySelector('#keys .key')")
        await page.until("document.querySelectorAll('#requests tbody tr').length === 2")
        assert await page.evaluate(focused) == "req-1", "a new list takes the focus of nobody"
        await page.until(f"""{curl}.includes('-H "authorization: Bearer $GAI_API_KEY"')""")
        texts_of = "[...document.querySelectorAll('#requests option')].map((each) => each.textContent)"
        assert (await page.evaluate(texts_of))[0] == "any end"
        marks = "[...document.querySelectorAll('#first-token text')].map((each) => each.textContent)"
        assert "9 of 10 at most" in await page.evaluate(marks)


def key(name: str, **more: Any) -> dict[str, Any]:
    """Returns a key of the admin API."""
    return {
        "name": name,
        "role": "user",
        "models": ["*"],
        "expires": None,
        "spent": 1.5,
        "spent_period": "day",
        "source": "store",
        "created": "2026-11-22T10:00:00.000Z",
        "grace_until": None,
        "lane": [],
        "limits": {"requests_per_minute": None, "tokens_per_minute": None, "streams": None, "spend": None},
        **more,
    }


ROOT = key("root", role="admin", source="file")


async def test_keys_are_made_limited_rotated_and_revoked(browser: Browser, origin: str) -> None:
    """Against answers of the admin API; a secret is shown once."""
    limits = {"requests_per_minute": 60, "tokens_per_minute": None, "streams": 2}
    web = key("a/b?c", models=["fast"], limits={**limits, "spend": {"amount": 5, "period": "day"}})
    async with browser.page(width=390) as page:
        await opened(page, origin)

        async def replies(*reply: Any) -> None:
            await page.evaluate(
                f"(window.asked = [], window.reply = {json.dumps(reply)}, window.confirm = () => true) && 1"
            )

        async def asked() -> list[str]:
            await page.until("window.asked.length")
            return [each.replace(f"{origin}/", "") for each in await page.evaluate("window.asked")]

        async def press(text: str) -> None:
            await page.evaluate(
                "[...document.querySelectorAll('#keys button')]"
                f".find((each) => each.textContent === '{text}' && !each.closest('[hidden]')).click()"
            )

        form = "document.querySelector('#keys form')"
        secret = "document.querySelector('#keys .secret')"
        await page.evaluate(f"void (window.keys = {json.dumps([ROOT, web, key(HOSTILE)])})")
        spend = {"key": "a", "amount": 1, "currency": "USD", "requests": 1}
        await page.evaluate(sample(spend={"day": "2026-11-22", "keys": [spend], "models": [{**spend, "model": "m"}]}))
        await page.until("document.querySelectorAll('#keys .key').length === 3")
        shown = await page.evaluate("[...document.querySelectorAll('#keys .key')].map((each) => each.innerText)")
        assert "1.50 USD of 5.00 a day" in shown[1]
        assert "fast · 60 requests/min · 2 streams" in shown[1]
        buttons = "[...document.querySelectorAll('#keys .key')].map((each) => each.querySelectorAll('button').length)"
        assert await page.evaluate(buttons) == [0, 3, 3]

        await replies({**key("site"), "secret": "sk-made-once"}, 201)
        await press("New key")
        assert await page.evaluate("document.activeElement.name") == "name"
        await page.evaluate(
            f"(() => {{ const {{ elements: on }} = {form}; on.name.value = 'site'; on.models.value = 'fast, slow';"
            " on.streams.value = '3'; on.spend.value = '0.5'; on.period.value = 'month';"
            f" on.expires.value = '2027-01-02T03:04'; {form}.requestSubmit(); }})()"
        )
        (made,) = await asked()
        assert made.startswith("POST admin/v1/keys {")
        assert json.loads(made.split(" ", 2)[2]) == {
            "name": "site",
            "models": ["fast", "slow"],
            "expires": "2027-01-02T03:04:00Z",
            "streams": 3,
            "spend": {"amount": 0.5, "period": "month"},
        }
        await page.until(f"{secret}.textContent.includes('sk-made-once') && {form}.hidden")
        await page.bring_to_front()
        await press("Copy")
        await page.until(f"{secret}.querySelector('button').textContent === 'Copied'")

        await replies(web)
        await press("Limits")
        assert await page.evaluate(f"{secret}.hidden && {secret}.textContent === ''")
        assert await page.evaluate(f"[{form}.elements.models.value, {form}.elements.spend.value]") == ["fast", "5"]
        await page.evaluate(f"({form}.elements.spend.value = '', {form}.requestSubmit())")
        (changed,) = await asked()
        method, path, body = changed.split(" ", 2)
        assert (method, path) == ("PATCH", "admin/v1/keys/a%2Fb%3Fc")
        assert json.loads(body) == {"spend": None}

        await page.until(f"{form}.hidden")
        await replies({**web, "secret": "sk-rotated"})
        await press("Rotate")
        assert await asked() == ["POST admin/v1/keys/a%2Fb%3Fc/rotate"]
        await page.until(f"{secret}.textContent.includes('sk-rotated')")
        await replies({"name": "a/b?c", "revoked": True})
        await press("Revoke")
        assert await asked() == ["DELETE admin/v1/keys/a%2Fb%3Fc"]
        await page.until(f"{secret}.hidden")

        error = {"code": "invalid_request", "message": "`streams` must be 1 or more", "reason": "streams"}
        await replies({"error": error}, 400)
        await press("New key")
        await page.evaluate(f"({form}.elements.name.value = 'x', {form}.requestSubmit())")
        await page.until(f"{form}.innerText.includes('must be 1 or more')")
        assert not await page.evaluate(f"{form}.hidden")
        assert await page.evaluate("document.querySelectorAll('#keys :is(img, script)').length") == 0
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert await page.evaluate("window.hit") == 0


@IN_CHROMIUM
async def test_only_what_has_changed_in_the_form_is_sent(browser: Browser, origin: str) -> None:
    """A key of no model does not get all of them, and one that has ended, or may not ask at all, can be changed."""
    none = {"tokens_per_minute": None, "spend": None}
    key_of_none = key("shut", models=[], expires="2026-01-02T03:04:05+00:00")
    key_of_none["limits"] = {**none, "requests_per_minute": 0, "streams": 3}
    async with browser.page() as page:
        await opened(page, origin)
        await page.evaluate(f"void (window.keys = {json.dumps([ROOT, key_of_none])})")
        await page.evaluate(sample())
        await page.until("document.querySelectorAll('#keys .key').length === 2")
        shown = await page.evaluate("document.querySelector('#keys [data-key=shut]').innerText")
        assert "no models · 0 requests/min · 3 streams" in shown
        await page.evaluate(f"void (window.reply = {json.dumps([key_of_none])})")
        await page.evaluate("document.querySelector('#keys [data-key=shut] button').click()")
        form = "document.querySelector('#keys form')"
        await page.evaluate(f"({form}.elements.streams.value = '4', {form}.requestSubmit())")
        await page.until("window.asked.length")
        (changed,) = await page.evaluate("window.asked")
        assert json.loads(changed.split(" ", 2)[2]) == {"streams": 4}


@pytest.mark.parametrize("status", [404, 405, 409])
@IN_CHROMIUM
async def test_where_keys_cannot_be_made_the_panel_says_why(browser: Browser, origin: str, status: int) -> None:
    async with browser.page() as page:
        await opened(page, origin)
        why = "document.querySelector('#keys .why')"
        opener = "document.querySelector('#keys [data-new]')"
        await page.evaluate(f"void (window.keys = {json.dumps([ROOT])})")
        await page.evaluate(sample())
        await page.until(f"!{opener}.hidden")
        reason = {404: "route", 405: "method", 409: "no_admin"}[status]
        error = {"code": "invalid_request", "message": "no admin is there", "reason": reason}
        await page.evaluate(f"void (window.reply = {json.dumps([{'error': error}, status])})")
        await page.evaluate(f"{opener}.click()")
        form = "document.querySelector('#keys form')"
        await page.evaluate(f"({form}.elements.name.value = 'x', {form}.requestSubmit())")
        await page.until(f"{form}.hidden && {opener}.hidden && !{why}.hidden")
        assert await texts(page, "#keys .why") == (
            "no admin is there" if status == 409 else "This server makes no keys at run time: they are in its file."
        )


async def test_calls_that_wait_are_shown_as_text_and_decided(browser: Browser, origin: str) -> None:
    waiting = {
        "id": "s-1", "stream_id": "s", "key": "alice", "call_id": "c", "server": "docs", "tool": HOSTILE,
        "input": {"to": "\u202eAda" + HOSTILE}, "digest": "d1", "expires": 1796004585007,
    }  # fmt: skip
    rows = "document.querySelectorAll('#approvals [data-approval]')"
    async with browser.page() as page:
        await opened(page, origin)
        await page.evaluate(sample())
        await page.until("document.querySelector('#approvals').hidden")
        await page.evaluate(f"void (window.approvals = {json.dumps([waiting, {**waiting, 'id': 's-2'}])})")
        await page.evaluate(
            "void (window.reply = [{}, 200], window.said = [], window.confirm = (text) => said.push(text))"
        )
        for _ in range(2):
            await page.until(f"(({sample()}), {rows}.length === 2)")
        shown = await texts(page, "#approvals code")
        assert "\\u202eAda" in shown
        assert HOSTILE.replace('"', '\\"') in shown
        assert await page.evaluate("window.hit") == 0
        await page.evaluate(f"{rows}[0].querySelector('.actions button').click()")
        await page.until("window.asked.length === 1")
        [asked] = await page.evaluate("window.asked")
        assert asked.endswith('/api/v1/streams/s/approvals/s-1 {"decision":"approve","digest":"d1"}')
        assert "docs." in (await page.evaluate("window.said"))[0], "a click is asked back with the whole call"
        await page.evaluate("void (window.approvals = window.approvals.slice(1))")
        await page.evaluate(f"{rows}[1].querySelectorAll('.actions button')[1].click()")
        await page.until(f"{rows}.length === 1")
        assert (await page.evaluate("window.asked"))[1].endswith('approvals/s-2 {"decision":"deny","digest":"d1"}')


@IN_CHROMIUM
async def test_without_an_admins_key_in_the_file_no_key_is_made_here(browser: Browser, origin: str) -> None:
    for keys, why in (
        (
            [],
            'Keys can be made here once the file has a [[key]] with role = "admin".',
        ),
        (
            [{k: v for k, v in ROOT.items() if k != "source"}],
            "This server makes no keys at run time: they are in its file.",
        ),
    ):
        async with browser.page() as page:
            await opened(page, origin)
            await page.evaluate(f"void (window.keys = {json.dumps(keys)})")
            await page.evaluate(sample())
            await page.until("!document.querySelector('#keys .why').hidden")
            assert await texts(page, "#keys .why") == why
            assert await page.evaluate("document.querySelector('#keys [data-new]').hidden")


@IN_CHROMIUM
async def test_the_theme_follows_the_system_or_the_switch(browser: Browser, origin: str) -> None:
    async with browser.page() as page:
        await page.open(f"{origin}/dashboard")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(ground)
        button = "document.querySelector('#theme')"
        for theme, is_light in (("light", True), ("dark", False)):
            await page.evaluate(f"{button}.click()")
            assert (await page.evaluate(f"{button}.textContent")) == f"Theme: {theme}"
            assert (await page.evaluate(ground) == light) is is_light
        await page.reload()
        await page.until(f"{button}.textContent === 'Theme: dark'")
