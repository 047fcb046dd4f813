"""The answers that show admins a stream."""

from __future__ import annotations

import asyncio

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from gai_fast.server.admin.follow import ShownStreams
from gai_fast.server.admin.watch import WatchedEvents
from gai_fast.server.requests.stream_response import StreamResponse
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.server import incoming_requests
from tests.unit.server.admin.pushing import Client
from tests.waiting import until


class Source:
    """A stream that is asked for its news."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.next: WatchedEvents | Exception | None = WatchedEvents(0, b"", is_over=False)

    async def ask(self, after: int) -> WatchedEvents | None:
        self.asked.append(after)
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


FIRST = WatchedEvents(2, b"first;", is_over=False)


def begin(follows: ShownStreams, client: Client, source: Source, first: WatchedEvents = FIRST) -> None:
    incoming = incoming_requests.incoming(incoming_requests.http("GET", "/admin/v1/streams/s", client=client), "s")
    response = StreamResponse(incoming, "s", "text/event-stream", StreamSettings(), whole=False)
    follows.check()
    follows.begin(response, source.ask, first)


@pytest.fixture(autouse=True)
def quick(change_limits: ChangeLimits) -> None:
    change_limits(follow_interval=0.005)


async def test_what_is_new_is_asked_for_and_sent_until_the_stream_is_over() -> None:
    follows, client, source = ShownStreams(), Client(), Source()
    begin(follows, client, source)
    assert b"content-type: text/event-stream\r\n" in client.sent
    await until(lambda: source.asked[:1] == [2])
    source.next = WatchedEvents(5, b"more;", is_over=True)
    await until(lambda: client.status == 200)
    assert client.sent.endswith(b"\r\n\r\nfirst;more;")
    assert len(follows) == 0


@pytest.mark.parametrize("end", [None, Error("network", "gone", reason="worker_lost")])
async def test_a_stream_whose_worker_is_gone_ends_the_answer(end: Error | None) -> None:
    follows, client, source = ShownStreams(), Client(), Source()
    source.next = end
    begin(follows, client, source)
    await until(lambda: client.status == 200)
    assert client.sent.endswith(b"first;")


async def test_a_bug_ends_the_answer_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    follows, client, source = ShownStreams(), Client(), Source()
    source.next = RuntimeError("bug")
    begin(follows, client, source)
    await until(lambda: client.status == 200 and "cannot be followed" in caplog.text)
    assert len(follows) == 0


async def test_a_client_that_leaves_ends_the_questions() -> None:
    follows, client, source = ShownStreams(), Client(), Source()
    begin(follows, client, source)
    await until(lambda: source.asked)
    client.stream.connection_lost()
    assert len(follows) == 0
    asked = len(source.asked)
    await asyncio.sleep(4 * LIMITS.follow_interval)
    assert len(source.asked) == asked
    assert not client.status


async def test_nothing_is_asked_for_a_client_that_is_slow() -> None:
    follows, client, source = ShownStreams(), Client(), Source()
    client.is_paused = True
    begin(follows, client, source)
    await asyncio.sleep(4 * LIMITS.follow_interval)
    assert not source.asked
    client.stream.resume_writing()
    await until(lambda: source.asked)
    client.stream.pause_writing()
    follows.end_all()
    assert client.status == 200


async def test_a_new_configuration_ends_every_answer_and_a_drain_takes_no_more() -> None:
    follows, client, source = ShownStreams(), Client(), Source()
    begin(follows, client, source)
    follows.end_all()
    assert (client.status, len(follows)) == (200, 0)
    follows.check()
    follows.begin_drain()
    with pytest.raises(Error) as caught:
        follows.check()
    assert caught.value.reason == "draining"


async def test_answers_have_a_limit() -> None:
    follows, source = ShownStreams(), Source()
    for _ in range(LIMITS.watchers):
        begin(follows, Client(), source)
    with pytest.raises(Error) as caught:
        follows.check()
    assert (caught.value.status, caught.value.reason) == (503, "watchers")
    follows.end_all()
    await asyncio.sleep(0)
