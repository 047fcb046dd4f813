"""Samples that are pushed to dashboards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from gai_fast.server.admin.feed import Feed
from gai_fast.server.requests.incoming import Incoming
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.server import incoming_requests
from tests.unit.server.admin.pushing import Client
from tests.waiting import until

STREAM = StreamSettings()


class Samples:
    """Counts the samples that were taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.error: Exception | None = None

    async def sample(self) -> Any:
        self.taken += 1
        if self.error is not None:
            raise self.error
        return {"number": self.taken}


def request(client: Client) -> Incoming:
    return incoming_requests.incoming(incoming_requests.http("GET", "/admin/v1/events", client=client))


@pytest.fixture(autouse=True)
def quick(change_limits: ChangeLimits) -> None:
    change_limits(sample_interval=0.005)


async def test_every_dashboard_gets_each_sample_and_it_is_taken_once() -> None:
    samples = Samples()
    feed, clients = Feed(samples), [Client(), Client()]
    for client in clients:
        feed.add(request(client), STREAM)
    await until(lambda: all(client.events("sample") >= 3 for client in clients))
    assert samples.taken <= clients[0].events("sample") + 1
    assert b"content-type: text/event-stream\r\n" in clients[0].sent
    assert b'event: sample\ndata: {"number":1}\n\n' in clients[0].sent
    feed.close()
    assert [client.status for client in clients] == [200, 200]


async def test_without_a_dashboard_no_sample_is_taken() -> None:
    samples = Samples()
    feed, client = Feed(samples), Client()
    feed.add(request(client), STREAM)
    await until(lambda: client.events("sample") > 0)
    client.stream.connection_lost()
    assert not len(feed)
    await asyncio.sleep(4 * LIMITS.sample_interval)
    taken = samples.taken
    await asyncio.sleep(4 * LIMITS.sample_interval)
    assert samples.taken == taken
    feed.add(request(Client()), STREAM)
    await until(lambda: samples.taken > taken)
    feed.close()


async def test_nothing_is_kept_for_a_client_that_is_slow() -> None:
    feed, slow, quick = Feed(Samples()), Client(), Client()
    for client in (slow, quick):
        feed.add(request(client), STREAM)
    await until(lambda: slow.events("sample") > 0)
    slow.stream.pause_writing()
    seen, passed = slow.events("sample"), quick.events("sample")
    await until(lambda: quick.events("sample") >= passed + 3)
    assert slow.events("sample") == seen
    slow.stream.resume_writing()
    await until(lambda: slow.events("sample") > seen)
    assert slow.events("sample") < quick.events("sample")
    feed.close()


async def test_a_sample_that_cannot_be_had_is_reported_and_the_next_one_follows() -> None:
    samples = Samples()
    feed, client = Feed(samples), Client()
    samples.error = Error("overloaded", "late", reason="workers")
    feed.add(request(client), STREAM)
    await until(lambda: b"event: unavailable\n" in client.sent)
    samples.error = None
    await until(lambda: client.events("sample") > 0)
    feed.close()


async def test_a_bug_ends_the_answers_and_the_next_dashboard_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples()
    feed, client, other = Feed(samples), Client(), Client()
    samples.error = RuntimeError("bug")
    feed.add(request(client), STREAM)
    await until(lambda: client.status == 200)
    assert "cannot be had" in caplog.text
    samples.error = None
    feed.add(request(other), STREAM)
    await until(lambda: other.events("sample") > 0)
    feed.close()


async def test_a_client_that_is_gone_already_is_not_kept() -> None:
    class Gone(Client):
        def begin_stream(self, stream: Any, high_water: int, write_timeout: float) -> None:
            stream.connection_lost()

    feed = Feed(Samples())
    feed.add(request(Gone()), STREAM)
    assert len(feed) == 0
    feed.close()


async def test_dashboards_have_a_limit() -> None:
    feed = Feed(Samples())
    for _ in range(LIMITS.watchers):
        feed.add(request(Client()), STREAM)
    with pytest.raises(Error) as caught:
        feed.add(request(Client()), STREAM)
    assert (caught.value.status, caught.value.reason) == (503, "watchers")
    feed.close()


async def test_a_drain_ends_every_answer_and_takes_no_more() -> None:
    feed, client = Feed(Samples()), Client()
    feed.add(request(client), STREAM)
    feed.begin_drain()
    assert (client.status, len(feed)) == (200, 0)
    with pytest.raises(Error) as caught:
        feed.add(request(Client()), STREAM)
    assert caught.value.reason == "draining"
    feed.close()


async def test_a_client_that_was_slow_from_the_start_gets_its_first_sample_later() -> None:
    feed, client = Feed(Samples()), Client()
    client.is_paused = True
    feed.add(request(client), STREAM)
    await asyncio.sleep(4 * LIMITS.sample_interval)
    assert not client.events("sample")
    feed.close()
