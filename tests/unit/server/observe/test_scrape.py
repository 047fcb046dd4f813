"""`server/observe/scrape.py`: one slice in each turn of the loop, one answer for all that scrape at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gai_fast.model.errors import Error
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.transport import ClientTransport, StreamCallbacks
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.observe.scrape import Scrapes


class Sink(PrometheusSink):
    """Exposes four slices, and counts those that were written."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__([])
        self.written = 0
        self.fails_at = fails_at

    def slices(self, accept: str = "") -> tuple[Iterator[bytes], str]:
        return self._four(), f"type of {accept}"

    def _four(self) -> Iterator[bytes]:
        for number in range(4):
            if number == self.fails_at:
                raise LookupError("a bug")
            self.written += 1
            yield b"%d," % number


class Client(ClientTransport):
    """A client's transport that keeps what it is sent."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.stream: StreamCallbacks | None = None
        self.about: dict[str, float] = {}

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        self.stream, self.about = stream, {"high_water": high_water, "write_timeout": write_timeout}

    def send(self, reply: Reply) -> None:
        self.replies.append(reply)

    @property
    def bodies(self) -> list[tuple[int, bytes]]:
        return [(reply.status, reply.body) for reply in self.replies]


def scrape(scrapes: Scrapes, accept: str = "text") -> Client:
    client = Client()

    def answer(body: bytes, content_type: str) -> Reply:
        assert content_type == f"type of {accept}"
        return Reply(200, body)

    def refuse(error: Error) -> Reply:
        return Reply(error.status, error.code.encode())

    scrapes.begin(accept, client, answer, refuse)
    return client


def scrapes_of(sink: Sink) -> Scrapes:
    return Scrapes(sink, high_water=5, write_timeout=7.0)


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_turn_of_the_loop_writes_one_slice_at_most() -> None:
    sink = Sink()
    client = scrape(scrapes_of(sink))
    assert sink.written == 0
    for number in range(1, 5):
        await asyncio.sleep(0)
        assert sink.written == number
        assert not client.replies
    await asyncio.sleep(0)
    assert client.bodies == [(200, b"0,1,2,3,")]
    assert client.about == {"high_water": 5, "write_timeout": 7.0}


async def test_scrapes_that_come_meanwhile_share_the_answer() -> None:
    sink = Sink()
    scrapes = scrapes_of(sink)
    first = scrape(scrapes)
    await turns(2)
    second, other = scrape(scrapes), scrape(scrapes, "openmetrics")
    await turns()
    assert first.bodies == second.bodies == other.bodies == [(200, b"0,1,2,3,")]
    assert sink.written == 8, "another content type is another text"
    later = scrape(scrapes)
    await turns()
    assert (later.bodies, sink.written) == (first.bodies, 12)


async def test_a_client_that_leaves_takes_no_answer_from_another() -> None:
    sink = Sink()
    scrapes = scrapes_of(sink)
    gone, kept = scrape(scrapes), scrape(scrapes)
    assert gone.stream is not None
    gone.stream.pause_writing()
    gone.stream.resume_writing()
    gone.stream.connection_lost()
    await turns()
    assert not gone.replies
    assert kept.bodies == [(200, b"0,1,2,3,")]


async def test_nothing_is_written_once_all_have_left() -> None:
    sink = Sink()
    scrapes = scrapes_of(sink)
    client = scrape(scrapes)
    await turns(2)
    assert client.stream is not None
    client.stream.connection_lost()
    await turns()
    assert (sink.written, client.replies) == (2, [])
    assert scrape(scrapes).stream is not None
    await turns()
    assert sink.written == 6


async def test_a_bug_is_logged_and_answered_and_nobody_waits_for_ever() -> None:
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context["exception"]))
    scrapes = scrapes_of(Sink(fails_at=2))
    clients = [scrape(scrapes), scrape(scrapes)]
    await turns()
    assert [client.bodies for client in clients] == [[(500, b"internal")]] * 2
    assert [type(each) for each in logged] == [LookupError]


async def test_a_client_that_was_lost_before_the_answer_and_says_so_after_it_harms_nobody() -> None:
    scrapes = scrapes_of(Sink())
    client = scrape(scrapes)
    await turns()
    assert client.stream is not None
    client.stream.connection_lost()
    later = scrape(scrapes)
    await turns()
    assert later.bodies == [(200, b"0,1,2,3,")]
