"""The drivers: what a page complains about is kept, so that a test without complaints means something."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Site
from tests.browser.driver import Browser, Page
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_a_page_complains_about_is_kept(browser: Browser, site: Site) -> None:
    async with browser.page() as page, browser.page() as other:
        await other.open(f"{site.origin}/")
        await page.open(f"{site.origin}/")
        await page.evaluate("console.log('no problem')")
        assert page.problems == []
        await page.evaluate("console.error('said')")
        await page.evaluate("void setTimeout(() => { throw new Error('thrown') })")
        await page.evaluate("void Promise.reject(new Error('rejected'))")
        await until(lambda: len(page.problems) == 3)
        for number, what in enumerate(("said", "thrown", "rejected")):
            assert what in page.problems[number]
        assert other.problems == []


async def test_what_the_policy_of_a_page_refuses_is_kept(page: Page) -> None:
    await page.evaluate("void (document.createElement('img').src = 'http://127.0.0.1:9/image.png')")
    await until(lambda: page.problems)
    assert "Security" in page.problems.pop()
    assert page.problems == []


async def test_an_expression_that_throws_fails_its_test(browser: Browser, site: Site) -> None:
    async with browser.page() as page:
        await page.open(f"{site.origin}/")
        assert await page.evaluate("[1, null, { a: 'ü' }]") == [1, None, {"a": "ü"}]
        assert await page.evaluate("undefined") is None
        with pytest.raises(AssertionError, match="broken"):
            await page.evaluate("(() => { throw new Error('broken') })()")
        with pytest.raises(AssertionError, match="SyntaxError"):
            await page.evaluate("1 +")
