"""When an issuer's keys are fetched, and how long they are used."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from gai_fast.net.issuers.fetching import IssuerError
from gai_fast.net.issuers.key_set import KeySet
from gai_fast.net.issuers.key_source import KeySource
from tests.conftest import ChangeLimits
from tests.issuer import URL, jwk
from tests.limits import LIMITS

OLD = {"keys": [jwk("P-256")]}
NEW = {"keys": [jwk("P-256"), jwk("P-256", 1)]}


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose time passes as a test says."""

    passed = 0.0

    def time(self) -> float:
        return super().time() + self.passed


class Site:
    """An issuer, and a source of its keys."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.answers: list[object] = []
        self.asked = 0
        self.held: asyncio.Event | None = None
        self.source = KeySource(URL, self.fetch)

    async def fetch(self, url: str) -> KeySet:
        assert url == URL
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return KeySet(answer)

    async def wait(self, seconds: float) -> None:
        """Lets time pass."""
        assert isinstance(self.loop, _Loop)
        self.loop.passed += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def count(self) -> int | None:
        keys = self.source.keys()
        return None if keys is None else len(keys)


def run(scenario: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        site = Site()
        try:
            await scenario(site)
        finally:
            site.source.close()

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(main())


def test_keys_are_fetched_before_anybody_asks_and_again_from_time_to_time() -> None:
    async def scenario(site: Site) -> None:
        site.answers = [OLD, OLD, NEW]
        assert site.count is None
        await site.wait(0)
        first = site.source.keys()
        assert (site.asked, site.count) == (1, 1)
        await site.wait(LIMITS.issuer_fresh - 1)
        assert site.asked == 1
        await site.wait(2)
        assert site.asked == 2
        assert site.source.keys() is first, "nothing has changed"
        await site.wait(LIMITS.issuer_fresh + 1)
        assert (site.asked, site.count) == (3, 2)

    run(scenario)


def test_an_unknown_key_causes_one_fetch_in_a_while() -> None:
    async def scenario(site: Site) -> None:
        site.answers = [OLD, NEW]
        await site.wait(0)
        for _ in range(100):
            assert site.source.may_have_more(), "a fetch is under way"
        await site.wait(0)
        assert (site.asked, site.count) == (2, 2)
        for _ in range(100):
            assert not site.source.may_have_more()
        await site.wait(LIMITS.issuer_refresh - 1)
        assert not site.source.may_have_more()
        assert site.asked == 2
        await site.wait(1)
        assert site.source.may_have_more()
        await site.wait(0)
        assert site.asked == 3

    run(scenario)


def test_keys_above_the_limit_are_warned_about_once_a_set(
    caplog: pytest.LogCaptureFixture, change_limits: ChangeLimits
) -> None:
    change_limits(issuer_keys=1)
    more = {"keys": [*NEW["keys"], jwk("RSA")]}

    async def scenario(site: Site) -> None:
        site.answers = [OLD, NEW, NEW, more]
        for _ in range(4):
            await site.wait(LIMITS.issuer_fresh + 1)
        assert (site.asked, site.count) == (4, 1)

    run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        f"the issuer {URL} has {count} keys, of which the first 1 are used: tokens of the other {count - 1} are refused"
        for count in (2, 3)
    ]


def test_keys_are_kept_while_the_issuer_is_down(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(site: Site) -> None:
        site.answers = [OLD, IssuerError("it is down")]
        await site.wait(0)
        await site.wait(LIMITS.issuer_fresh + 1)
        assert (site.asked, site.count) == (2, 1)
        for pause in (1, 2, 4, 8, 16, 30, 30):
            asked = site.asked
            await site.wait(pause - 0.5)
            assert site.asked == asked
            await site.wait(0.6)
            assert site.asked == asked + 1
        assert site.source.is_failing
        await site.wait(LIMITS.issuer_kept - LIMITS.issuer_fresh - 150)
        assert site.count == 1
        await site.wait(150)
        assert site.count is None
        site.answers = [OLD]
        await site.wait(LIMITS.issuer_retry_most + 1)
        assert site.count == 1
        assert not site.source.is_failing

    run(scenario)
    assert len(caplog.messages) < 15
    assert caplog.messages[0] == f"the keys of the issuer {URL} cannot be fetched: it is down"


def test_after_its_end_nothing_is_fetched() -> None:
    async def scenario(site: Site) -> None:
        site.answers = [OLD]
        site.held = asyncio.Event()
        await site.wait(0)
        site.source.close()
        site.held.set()
        await site.wait(LIMITS.issuer_fresh * 3)
        assert (site.asked, site.count) == (1, None)

    async def idle(site: Site) -> None:
        site.answers = [OLD]
        await site.wait(0)
        site.source.close()
        await site.wait(LIMITS.issuer_fresh * 3)
        assert site.asked == 1

    run(scenario)
    run(idle)


def test_a_bug_ends_no_source() -> None:
    """The loop reports it, and the next fetch comes."""
    reported: list[str] = []

    async def scenario(site: Site) -> None:
        site.loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
        site.answers = [KeyError("bug"), OLD]
        await site.wait(0)
        assert site.count is None
        await site.wait(LIMITS.issuer_retry_most + 1)
        assert (site.asked, site.count) == (2, 1)

    run(scenario)
    gc.collect()
    assert reported == ["'bug'"]


def test_the_end_of_a_fetch_is_waited_for_and_not_longer() -> None:
    async def scenario(site: Site) -> None:
        site.answers = [OLD]
        await site.source.fetched(10)
        assert site.count == 1
        await site.source.fetched(10)
        site.held = asyncio.Event()
        assert site.source.may_have_more()
        await site.source.fetched(0.01)
        site.held.set()
        await site.source.fetched(10)
        assert site.asked == 2

    run(scenario)
