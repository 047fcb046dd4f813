"""`gai_fast/library/wire_streams.py`: events beside their JSON. `integration/test_grpc.py` cuts connections."""

from __future__ import annotations

import json

import gai_fast
from gai_fast.cli.mock.command import Mock
from gai_fast.library.wire_streams import WireStream
from gai_fast.server.serving import start
from tests.integration.gateway import QUERY, settings_for


async def test_each_event_has_its_own_text() -> None:
    async with Mock(deltas=8) as mock:
        gateway = await start(settings_for(mock.url))
        try:
            async with gai_fast.connect(gateway.url) as remote:
                async with WireStream(remote, dict(QUERY), headers={"x-request-id": "mine"}) as stream:
                    read = []
                    while events := await stream.read():
                        read += events
                    assert await stream.read() == []
                assert [json.loads(text) for _, text in read] == [event for event, _ in read]
                assert read[0][0]["request_id"] == "mine"
                assert read[-1][0]["type"] == "done"
                async with WireStream(remote, {}, headers={}, stream_id=stream.id, after=9) as rest:
                    assert (await rest.read())[0] == read[9]
        finally:
            await gateway.close()
