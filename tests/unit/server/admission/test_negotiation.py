"""The form of an answer, from headers and query parameters."""

from __future__ import annotations

import re

import pytest

from gai_fast.model.errors import Error
from gai_fast.otel.trace import Parent
from gai_fast.server.admission import negotiation
from gai_fast.server.admission.negotiation import content_coding, negotiate, trace_parent
from tests.limits import LIMITS

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize(
    ("accept", "framing"),
    [
        (None, "sse"),
        ("", "sse"),
        ("*/*", "sse"),
        ("text/event-stream", "sse"),
        ("application/json", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("Application/X-NDJSON; charset=utf-8", "ndjson"),
        ("application/x-ndjson;q=0.5, text/event-stream", "sse"),
        ("text/event-stream;q=0.1, application/x-ndjson;q=0.9", "ndjson"),
        ("application/x-ndjson;q=0, */*", "sse"),
        ("image/png, text/event-stream", "sse"),
    ],
)
def test_the_accept_header_chooses_the_framing(accept: str | None, framing: str) -> None:
    assert negotiate({}, accept, default_format="gai").framing == framing


@pytest.mark.parametrize("accept", ["image/png", "application/x-ndjson;q=0", "text/html"])
def test_an_accept_header_without_a_stream_type_is_406(accept: str) -> None:
    with pytest.raises(Error) as refused:
        negotiate({}, accept, default_format="gai")
    assert (refused.value.code, refused.value.status) == ("invalid_request", 406)


def test_however_many_headers_clients_send_each_is_read_and_few_are_kept() -> None:
    for quality in range(2 * LIMITS.known_values):
        accept = f"text/event-stream;q=0.{quality:03}, application/x-ndjson;q=0.0{quality + 1:03}"
        wanted = "ndjson" if quality < 1 else "sse"
        for name in ("gai", "openai"):
            negotiated = negotiate({}, accept, default_format=name)
            assert (negotiated.format.name, negotiated.framing) == (name, wanted), accept
    assert all(len(known) <= LIMITS.known_values for known in negotiation._KNOWN.values())


def test_the_framing_parameter_wins_over_the_accept_header() -> None:
    assert negotiate({"framing": "ndjson"}, "text/event-stream", default_format="gai").framing == "ndjson"
    assert negotiate({"framing": "sse"}, "image/png", default_format="gai").framing == "sse"


def test_the_format_parameter_wins_over_the_routes_own() -> None:
    assert negotiate({}, None, default_format="openai").format.name == "openai"
    assert negotiate({"format": "simple"}, None, default_format="openai").format.name == "simple"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"framing": "websocket"}, "unsupported"),
        ({"envelope": "none"}, "unsupported"),
        ({"format": "gal"}, "unsupported"),
        ({"format": ""}, "unsupported"),
    ],
)
def test_an_unknown_name_is_400_and_the_known_ones_are_named(query: dict[str, str], code: str) -> None:
    with pytest.raises(Error) as refused:
        negotiate(query, None, default_format="gai")
    assert (refused.value.code, refused.value.status) == (code, 400)
    assert "known: " in refused.value.message


@pytest.mark.parametrize("envelope", ["compact", "full"])
def test_the_envelope_parameter_is_passed_on(envelope: str) -> None:
    assert negotiate({"envelope": envelope}, None, default_format="gai").envelope == envelope


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-what-comes-later", TRACE),
        ("", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", None),
        (f"cc-{TRACE}-00f067aa0ba902b7-01x", None),
        (f"00-{TRACE[:-1]}-00f067aa0ba902b7-01", None),
    ],
)
def test_the_trace_is_read_as_w3c_trace_context_says(traceparent: str, expected: str | None) -> None:
    parent = Parent(expected, "00f067aa0ba902b7", is_sampled=True) if expected is not None else None
    assert trace_parent(traceparent) == parent


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_of_the_flags_only_the_sampled_one_counts(flags: str, is_sampled: bool) -> None:
    parent = trace_parent(f"00-{TRACE}-00f067aa0ba902b7-{flags}")
    assert parent is not None
    assert parent.is_sampled is is_sampled


OFFERED = ("zstd", "gzip", "br")


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("", None),
        ("identity", None),
        ("deflate, compress", None),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZip ; Q=0.5", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.9, br;q=0.1", "gzip"),
        ("br;q=0.8, gzip;q=0.8", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("*", "zstd"),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("gzip;q=0.0000", None),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("identity;q=0", None),
        ("gzip;q=nan, br;q=2", "gzip"),
        (",,;;q=1,", None),
    ],
)
def test_the_content_coding_is_the_one_that_the_client_prefers(accept: str | None, coding: str | None) -> None:
    assert content_coding(accept, OFFERED) == coding


def test_without_a_coding_of_ours_an_answer_has_none() -> None:
    assert content_coding("gzip, br", ()) is None
    assert content_coding("gzip, br", ("zstd",)) is None
