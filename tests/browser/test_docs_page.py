"""The page of the API in a real browser, served by the real server."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from gai_fast.model.settings import key_digest
from tests.browser.conftest import IN_CHROMIUM, Upstream, required, serving
from tests.browser.driver import Browser
from tests.waiting import SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_page_shows_every_route_and_finds_them_by_word(browser: Browser, origin: str) -> None:
    """On a phone's screen, where nothing may be wider than that."""
    async with browser.page(width=360) as page:
        await page.open(f"{origin}/docs")
        await page.until("document.querySelectorAll('main details:not(.schema)').length > 0")
        paths = "Object.values((await (await fetch('openapi.json')).json()).paths)"
        routes = f"(async () => {paths}.flatMap((path) => Object.keys(path)).length)()"
        shown = await page.evaluate("document.querySelectorAll('main details:not(.schema)').length")
        assert shown == await page.evaluate(routes)
        await page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")
        text = str(await page.evaluate("document.querySelector('main').innerText"))
        for word in ("/v1/chat/completions", "idempotency-key", "AssistantMessage", "rate_limited", "429"):
            assert word in text
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        tables = "[...document.querySelectorAll('main details > div')]"
        assert await page.evaluate(f"{tables}.filter((each) => each.scrollWidth > each.clientWidth).length") == 0
        await page.evaluate(
            "(() => { const find = document.querySelector('#find'); find.value = 'spend';"
            " find.dispatchEvent(new Event('input')); })()"
        )
        assert await page.evaluate("document.querySelectorAll('main details:not([hidden]):not(.schema)').length") == 1
        shown = "[...document.querySelectorAll('main h2:not([hidden])')].map((each) => each.textContent)"
        assert await page.evaluate(shown) == ["Admin", "Schemas"], "a heading without a route goes"
        links = "[...document.querySelectorAll('#groups a:not([hidden])')].map((each) => each.textContent)"
        assert await page.evaluate(links) == ["Admin", "Schemas"]
        assert page.problems == []


async def test_texts_are_public_and_rendered_and_no_heading_is_empty(browser: Browser, origin: str) -> None:
    async with browser.page() as page:
        await page.open(f"{origin}/docs")
        await page.until("document.querySelectorAll('main details:not(.schema)').length > 0")
        await page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")
        text = str(await page.evaluate("document.querySelector('main').innerText"))
        for internal in ("`", "reading.", "Result.", "Args:", "Raises:", "Union", "msgspec"):
            assert internal not in text
        assert await page.evaluate("document.querySelector('main td code, main p code') !== null")
        headings = "[...document.querySelectorAll('main :is(h2, h3, th, summary)')]"
        assert await page.evaluate(f"{headings}.filter((each) => !each.textContent.trim()).length") == 0
        followed = (
            f"{headings}.filter((each) => /^H/.test(each.tagName)"
            " && (!each.nextElementSibling || /^H/.test(each.nextElementSibling.tagName)))"
        )
        assert await page.evaluate(f"{followed}.map((each) => each.textContent)") == []
        empty = "[...document.querySelectorAll('main details > div')].filter((each) => !each.textContent.trim())"
        assert await page.evaluate(f"{empty}.length") == 0
        assert page.problems == []


async def test_with_keys_the_page_asks_for_an_admins(
    browser: Browser, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    tables = "".join(
        f'[[key]]\nname = "{name}"\nrole = "{role}"\nsecret = "sha256:{key_digest(f"sk-{name}-0123456789").hex()}"\n'
        for name, role in (("root", "admin"), ("web", "user"))
    )
    async with serving(tmp_path, upstream[1], tables) as url, browser.page(width=390) as page:
        await page.open(f"{url}/docs")
        await page.until("!document.querySelector('#login').hidden && document.activeElement.id === 'key'")
        assert await page.evaluate("document.querySelector('#why').textContent") == "This server needs an admin's key."
        assert await page.evaluate("document.querySelector('#whole').hidden")
        why = "document.querySelector('#why').textContent"
        for name in ("nobody", "web", "root"):
            before = await page.evaluate(why)
            await page.evaluate(
                f"(document.querySelector('#key').value = 'sk-{name}-0123456789',"
                " document.querySelector('#login').requestSubmit())"
            )
            if name != "root":
                await page.until(f"{why} !== {before!r}")
            if name == "web":
                await page.set_offline(True)
                await page.evaluate(
                    "(document.querySelector('#key').value = 'x', document.querySelector('#login').requestSubmit())"
                )
                await page.until(f"{why}.startsWith('The description cannot be read: ')")
                await page.set_offline(False)
        await page.until("document.querySelectorAll('main details').length > 0")
        assert await page.evaluate("document.querySelector('#login').hidden")
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await page.open(f"{url}/dashboard")  # which has the same key
        await page.until("document.querySelector('#status').textContent === 'Live'")
        await page.open(f"{url}/docs")
        await page.until("document.querySelectorAll('main details').length > 0")


ANSWERED = 0, 28
"""The exits of curl after a whole answer, and in the middle of a stream that goes on (`--max-time`)."""
UNAVAILABLE = 22, 26
"""Its exits after an error of the server, and for a file to upload that is not there."""


@IN_CHROMIUM
async def test_the_examples_run_as_pasted(browser: Browser, origin: str) -> None:
    """Against the demo; those of what is passed through name an upstream of the reader's own."""
    shell, _ = required(shutil.which("bash"), "bash"), required(shutil.which("curl"), "curl")
    async with browser.page() as page:
        await page.open(f"{origin}/docs")
        examples = "[...document.querySelectorAll('main details:not(.schema) pre')].map((each) => each.textContent)"
        await page.until(f"{examples}.length > 0")
        shown: list[str] = await page.evaluate(examples)

    async def run(text: str) -> None:
        command = text.replace("curl ", "curl --fail --max-time 1.5 ")
        process = await asyncio.create_subprocess_exec(
            shell, "-c", command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(SECONDS):
            await process.communicate()
        # Keys are made where the file has an admin's key: this server says so (409), or that it has no such key. No
        # call of the demo asks for an approval (404).
        is_key = "/admin/v1/keys" in text and not text.endswith("/admin/v1/keys'")
        is_refused = "your-" in text or is_key or "/approvals/" in text
        assert process.returncode in (UNAVAILABLE if is_refused else ANSWERED), text

    drains = [text for text in shown if "/targets/" in text]
    assert len(drains) == 2
    turns = asyncio.Semaphore(6)

    async def in_turn(text: str) -> None:
        async with turns:
            await run(text)

    await asyncio.gather(*(in_turn(text) for text in shown if text not in drains))
    for text in drains:  # the second takes back what the first has done
        await run(text)
