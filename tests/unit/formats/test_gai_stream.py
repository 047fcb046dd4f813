"""`gai_fast/formats/_gai_stream.py`: streams of the native format."""

from __future__ import annotations

import pytest

from gai_fast.formats import Framing, get_format
from tests.unit.formats.streams import DONE, NOW_MS, START, STREAM_ID, call, context, encoded, text

GAI = get_format("gai")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def test_sse_is_compact() -> None:
    body = encoded(GAI.encoder("sse", context(trace_id=TRACE_ID)), [START, text("Hi"), DONE])
    first = (
        f'{{"schema":"gai.events.v1","type":"start","ts":{NOW_MS},"seq":1,"trace_id":"{TRACE_ID}","request_id":"req_1",'
        f'"provider":"test","model":"test-model","stream_id":"{STREAM_ID}"}}'
    )
    assert body.decode() == (
        f"event: start\ndata: {first}\n\n"
        'event: text.delta\ndata: {"type":"text.delta","seq":2,"text":"Hi"}\n\n'
        'event: done\ndata: {"type":"done","finished":true}\n\n'
    )


def test_ndjson_is_full() -> None:
    body = encoded(GAI.encoder("ndjson", context()), [START, text("Hi"), DONE])
    lines = body.decode().splitlines()
    assert lines[1] == (
        f'{{"schema":"gai.events.v1","type":"text.delta","ts":{NOW_MS},"seq":2,"request_id":"req_1","text":"Hi"}}'
    )
    assert lines[2] == '{"type":"done","finished":true}'


def test_the_envelope_can_be_chosen() -> None:
    assert (
        b'"schema"'
        not in encoded(GAI.encoder("ndjson", context(envelope="compact")), [START, text("Hi")]).split(b"\n")[1]
    )
    full = encoded(GAI.encoder("sse", context(envelope="full")), [START, text("Hi")])
    assert full.count(b'"schema"') == 2


def test_timestamps_stand_on_every_event_where_asked_for() -> None:
    assert encoded(GAI.encoder("sse", context(timestamps=True)), [START, text("Hi")]).count(b'"ts"') == 2
    assert encoded(GAI.encoder("sse", context()), [START, text("Hi")]).count(b'"ts"') == 1


def test_ids_and_retry_are_written_where_the_stream_is_resumable() -> None:
    body = encoded(GAI.encoder("sse", context(ids=True, retry_ms=3000)), [START, text("Hi"), DONE]).decode()
    assert body.startswith(f"event: start\nid: {STREAM_ID}.1\nretry: 3000\ndata: ")
    assert f"event: text.delta\nid: {STREAM_ID}.2\ndata: " in body
    assert body.endswith('event: done\ndata: {"type":"done","finished":true}\n\n')
    assert body.count("retry:") == 1


def test_a_plain_stream_has_neither_ids_nor_retry() -> None:
    body = encoded(GAI.encoder("sse", context(retry_ms=3000)), [START, text("Hi"), DONE])
    assert b"id: " not in body
    assert b"retry:" not in body


@pytest.mark.parametrize(("framing", "ping"), [("sse", b": ping\n"), ("ndjson", b"\n")])
def test_a_heartbeat_is_a_comment_or_an_empty_line(framing: Framing, ping: bytes) -> None:
    encoder = GAI.encoder(framing, context())
    encoder.heartbeat()
    assert encoder.take() == ping


def test_tool_input_is_written_as_the_model_wrote_it() -> None:
    body = encoded(GAI.encoder("sse", context()), [START, call(arguments='{"n":12345678901234567890,"x":1.10}')])
    assert b'"tool_call":{"name":"weather","input":{"n":12345678901234567890,"x":1.10}}' in body
