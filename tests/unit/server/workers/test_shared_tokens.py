"""The tokens that workers share: who fetches one, and what the others get."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import IdentitySettings, Secret, Settings, UpstreamSettings
from gai_fast.net.identity.grant import Bearer, Grant, IdentityError, MadeBearer, Signed
from gai_fast.net.identity.sigv4 import AWSKeys, Signer
from gai_fast.runtime.programs import Cancellation
from gai_fast.server.workers.shared_tokens import SupervisorTokens, TokenHome, name_of
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.waiting import until

IDENTITY = IdentitySettings("google")


def settings(*identities: IdentitySettings) -> Settings:
    upstreams = {
        f"u{at}": UpstreamSettings(f"u{at}", "openai", "http://x", identity=each) for at, each in enumerate(identities)
    }
    return Settings(upstreams=upstreams)


class Link:
    """The way to the supervisor: what passes is written and read as by a link."""

    made = 2

    def __init__(self) -> None:
        self.now = 1000.0
        self.home = TokenHome(settings(IDENTITY), lambda: self.now)
        self.is_gone = False
        self.seen = b""
        self.waiting = asyncio.Event()

    async def ask(self, kind: str, *items: Any) -> Any:
        if self.is_gone:
            raise Error("overloaded", "the supervisor of the workers does not answer in time")
        sent = msgspec.msgpack.encode(items)
        self.seen += sent
        answer = msgspec.msgpack.decode(msgspec.msgpack.encode(self.home.answer(kind, msgspec.msgpack.decode(sent))))
        if answer == ["wait"]:
            self.waiting.set()
        return answer


class Worker:
    """A worker, and what it fetches itself."""

    def __init__(self, link: Link, number: int) -> None:
        self.fetched = 0
        self.result: Callable[[], Grant] = lambda: Bearer(f"token-{number}-{self.fetched}", 3600.0)
        self.tokens = SupervisorTokens(link, number, asyncio.get_running_loop(), self._fetch)

    def _fetch(self, identity: IdentitySettings, cancellation: Cancellation) -> Grant:
        self.fetched += 1
        return self.result()

    async def grant(self, identity: IdentitySettings = IDENTITY, cancellation: Cancellation | None = None) -> Grant:
        return await asyncio.to_thread(self.tokens.fetch, identity, cancellation or Cancellation())

    async def token(self) -> str:
        return (await self.grant()).secret.reveal()


@pytest.fixture
async def link() -> Link:
    return Link()


@pytest.fixture(autouse=True)
def _quick(change_limits: ChangeLimits) -> None:
    change_limits(token_pause=0.001)


async def test_a_token_is_fetched_once_for_all_workers(link: Link) -> None:
    one, two = Worker(link, 1), Worker(link, 2)
    assert await one.token() == "token-1-1"
    link.now += 600
    grant = await two.grant()
    assert (grant.secret.reveal(), grant.seconds) == ("token-1-1", 3000.0)
    assert grant.headers("POST", "http://x", "/", b"") == [("authorization", "Bearer token-1-1")]
    assert two.fetched == 0


async def test_workers_that_ask_at_once_wait_for_the_first(link: Link) -> None:
    one, two = Worker(link, 1), Worker(link, 2)
    may_end = threading.Event()
    one.result = lambda: (may_end.wait(), Bearer("slow", 3600.0))[1]
    first = asyncio.create_task(one.token())
    await until(lambda: one.fetched)
    second = asyncio.create_task(two.token())
    await link.waiting.wait()
    may_end.set()
    assert await asyncio.gather(first, second) == ["slow", "slow"]
    assert two.fetched == 0


async def test_each_token_is_replaced_once(link: Link) -> None:
    """Before its end, or refused: a worker then asks for another one than its last."""
    one, two = Worker(link, 1), Worker(link, 2)
    assert [await one.token(), await two.token()] == ["token-1-1", "token-1-1"]
    assert [await two.token(), await one.token()] == ["token-2-1", "token-2-1"]
    assert [await one.token(), await two.token()] == ["token-1-2", "token-1-2"]


async def test_a_token_near_its_end_is_not_handed_on(link: Link) -> None:
    one, two = Worker(link, 1), Worker(link, 2)
    await one.token()
    link.now += 3600 - LIMITS.token_shared
    assert await two.token() == "token-2-1"


async def test_a_token_without_an_end_is_shared_while_it_is_new(link: Link) -> None:
    one, two, three = Worker(link, 1), Worker(link, 2), Worker(link, 3)
    one.result = lambda: Bearer("endless", None)
    await one.token()
    grant = await two.grant()
    assert (grant.secret.reveal(), grant.seconds) == ("endless", None)
    link.now += LIMITS.token_shared
    assert await three.token() == "token-3-1"


async def test_a_failed_fetch_fails_for_those_that_wait(link: Link) -> None:
    one, two = Worker(link, 1), Worker(link, 2)

    def fails() -> Grant:
        raise IdentityError("it says no", "ask it")

    one.result = fails
    for worker in (one, two):
        with pytest.raises(IdentityError, match="it says no") as raised:
            await worker.grant()
        assert (raised.value.fix, raised.value.is_final) == ("ask it", True)
    assert two.fetched == 0
    link.now += LIMITS.token_failure
    assert await two.token() == "token-2-1"


async def test_a_bug_in_a_fetch_frees_those_that_wait(link: Link) -> None:
    one, two = Worker(link, 1), Worker(link, 2)
    one.result = lambda: 1 // 0  # type: ignore[return-value]  # raises
    with pytest.raises(ZeroDivisionError):
        await one.grant()
    with pytest.raises(IdentityError, match="by a bug"):
        await two.grant()


@pytest.mark.parametrize("end", ["dies", "hangs"])
async def test_the_fetch_of_a_worker_without_a_result_passes_to_another(link: Link, end: str) -> None:
    claim = link.home.answer("token", [name_of(IDENTITY), 1, 0])
    assert claim == ("fetch",)
    if end == "dies":
        link.home.forget(2)
        assert link.home.answer("token", [name_of(IDENTITY), 2, 0]) == ("wait",)
        link.home.forget(1)
    else:
        link.now += LIMITS.token_claim
    two = Worker(link, 2)
    assert await two.token() == "token-2-1"


async def test_a_worker_that_gives_up_waits_no_longer(link: Link) -> None:
    link.home.answer("token", [name_of(IDENTITY), 1, 0])
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(IdentityError, match="in time"):
        await Worker(link, 2).grant(cancellation=cancellation)


async def test_a_worker_without_its_supervisor_fetches_alone(link: Link) -> None:
    link.is_gone = True
    worker = Worker(link, 1)
    assert [await worker.token(), await worker.token()] == ["token-1-1", "token-1-2"]


async def test_a_worker_whose_loop_is_closed_fetches_alone(link: Link) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    worker = Worker(link, 1)
    worker.tokens = SupervisorTokens(link, 1, loop, worker._fetch)
    assert await worker.token() == "token-1-1"


async def test_a_token_of_the_environment_is_nobodys_question(link: Link) -> None:
    worker = Worker(link, 1)
    given = IdentitySettings("aws", token=Secret("given"))
    worker.tokens.fetch(given, Cancellation())  # as the loop itself calls it
    assert (worker.fetched, link.seen) == (1, b"")


async def test_tokens_of_a_former_configuration_are_dropped(link: Link) -> None:
    other = IdentitySettings(command=("print",))
    one, two = Worker(link, 1), Worker(link, 2)
    await one.token()
    link.home.use(settings(other))
    link.home.use(settings(IDENTITY))
    assert await two.token() == "token-2-1"
    link.home.use(settings())
    assert await one.token() == "token-1-2", "a worker that has not heard of it yet"


async def test_keys_that_sign_pass_too(link: Link) -> None:
    one, two = Worker(link, 1), Worker(link, 2)
    signed = Signed(Signer(AWSKeys("id", "secret", "session"), "eu-west-1", "bedrock"), Secret("session"), 900.0)
    one.result = lambda: MadeBearer("made", 900.0, signed)
    await one.grant()
    grant = await two.grant()
    other = grant.instead(Error("forbidden", "not authorized to perform bedrock:CallWithBearerToken"))
    assert other is not None
    assert dict(other.headers("POST", "http://x", "/", b""))["x-amz-security-token"] == "session"


def test_the_name_of_an_identity_tells_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    names = {name_of(IdentitySettings(command=(each,))) for each in ("canary", "other")} | {name_of(IDENTITY)}
    assert len(names) == 3
    assert not any("canary" in each for each in names)
