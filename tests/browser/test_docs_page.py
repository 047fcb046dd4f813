"""The page of the API in a real browser, served by the real server."""

from __future__ import annotations

import pytest

from tests.browser.driver import Browser

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
        await page.evaluate(
            "(() => { const find = document.querySelector('#find'); find.value = 'spend';"
            " find.dispatchEvent(new Event('input')); })()"
        )
        assert await page.evaluate("document.querySelectorAll('main details:not([hidden]):not(.schema)').length") == 1
        assert page.problems == []
