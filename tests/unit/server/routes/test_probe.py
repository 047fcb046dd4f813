"""`GET /probe`: events of known timing, a silence, a last event."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from gai_fast.server.routes.probe import EVENTS, Probes
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.server import incoming_requests
from tests.unit.server.admin.test_feed import Client
from tests.waiting import until

STREAM = StreamSettings()


@pytest.fixture(autouse=True)
def quick(change_limits: ChangeLimits) -> None:
    change_limits(stream_probe_interval=0.005)


def begin(probes: Probes, query: str = "") -> Client:
    client = Client()
    probes.begin(incoming_requests.incoming(incoming_requests.http("GET", f"/probe{query}", client=client)), STREAM)
    return client


async def test_events_come_one_by_one_and_the_last_behind_the_silence() -> None:
    probes = Probes()
    client = begin(probes, "?idle=0.05")
    await until(lambda: client.status == 200)
    head, _, body = client.sent.partition(b"\r\n\r\n")
    assert b"content-type: text/event-stream" in head
    assert b"x-accel-buffering: no" in head
    frames = [b'event: probe\ndata: {"number":%d}\n\n' % number for number in range(1, EVENTS + 2)]
    assert body == b"".join(frames)
    assert len(probes) == 0


@pytest.mark.parametrize("idle", ["x", "-1", "", "301", "1e3", "nan", "9" * 5000])
async def test_a_silence_that_is_no_number_or_too_long_is_refused(idle: str) -> None:
    probes = Probes()
    with pytest.raises(Error, match="`idle` must be seconds, at most 300"):
        begin(probes, f"?idle={idle}&x=")
    assert len(probes) == 0


async def test_few_run_at_once_and_one_whose_client_leaves_makes_room() -> None:
    probes = Probes()
    clients = [begin(probes, "?idle=300") for _ in range(LIMITS.stream_probes)]
    with pytest.raises(Error, match="8 probes run in this worker") as refused:
        begin(probes)
    assert (refused.value.code, refused.value.reason) == ("overloaded", "probes")
    clients[0].stream.connection_lost()
    begin(probes)
    probes.begin_drain()


async def test_a_drain_ends_all_and_takes_no_more() -> None:
    probes = Probes()
    client = begin(probes, "?idle=300")
    client.stream.pause_writing()
    client.stream.resume_writing()
    probes.begin_drain()
    assert (client.status, len(probes)) == (200, 0)
    with pytest.raises(Error, match="being stopped"):
        begin(probes)
