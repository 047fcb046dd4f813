"""Passthrough in any dialect: what holds for frames with `event:` lines, here with a dialect of content blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from gai_fast.core.relay import Relay
from gai_fast.formats._passthrough import DialectEncoder, Passthrough, is_own_end
from gai_fast.kernels import SSEParser
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.providers import get_provider
from tests.limits import LIMITS
from tests.unit.formats.messages_reader import ANSWER, BEGIN, CLOSE, OPEN, OVERLOADED, PING, STOP, delta
from tests.unit.formats.relays import cut, received, relay_to
from tests.unit.formats.streams import context


class Blocks(DialectEncoder):
    """Writes the type of each event of ours."""

    opens_parts: ClassVar[bool] = True
    has_start = False

    def _encode(self, event: Event) -> None:
        if event["type"] != "start" or not self.has_start:
            self._frame(b"translated " + event["type"].encode())

    def complete(self, event: Event) -> None:
        if event["type"] in ("warning", "error") or is_own_end(event):
            self._frame(b"own " + event["type"].encode())

    def note(self, raw: bytes) -> None:
        pass

    def restart(self) -> None:
        self.has_start = True

    def is_end(self, raw: bytes) -> bool:
        return b"message_stop" in raw

    def is_error(self, raw: bytes) -> bool:
        return raw.startswith(b"event: error")

    def end_mark(self) -> bytes:
        return b"event: message_stop\ndata: added\n\n"


DELTAS = b"".join(delta(f"wörd {at} ") for at in range(20))


def started(failed: Any = None) -> tuple[Relay, Passthrough]:
    sink = Passthrough(Blocks("sse", context()))
    return relay_to(sink, "anthropic", failed=failed), sink


def relayed(pieces: Iterable[bytes]) -> bytes:
    relay, sink = started()
    return received(relay, sink, pieces)


@pytest.mark.parametrize("size", [1, 3, 64, 1000, len(ANSWER)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_frames_with_event_lines_are_byte_exact_however_they_are_cut(size: int, end: bytes) -> None:
    body = ANSWER.replace(b"\n", end)
    # The LF of the last CRLF comes after the end if it comes alone.
    late = b"\n" if end == b"\r\n" and len(body) % size == 1 % size else b""
    assert relayed(cut(body, size)) + late == body


@pytest.mark.parametrize("size", [1, 64, 10_000])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98"])
def test_what_is_not_utf_8_reaches_clients_as_a_replacement(bad: bytes, size: int) -> None:
    body = BEGIN + OPEN + delta("w\xf6rd") + delta("BAD").replace(b"BAD", bad) + delta("w\xf6rd") * 5 + CLOSE + STOP
    written = relayed(cut(body, size))
    assert written.decode() == body.decode("utf-8", "replace")


def test_a_malformed_frame_is_left_out_and_reported_by_a_frame_of_ours() -> None:
    bad = b'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": 0}\n\n'
    assert relayed([ANSWER.replace(CLOSE, bad + CLOSE)]) == ANSWER.replace(CLOSE, b"data: own warning\n\n" + CLOSE)


def test_a_missing_end_mark_is_added_after_a_finish_only() -> None:
    assert relayed([ANSWER.removesuffix(STOP)]) == ANSWER.removesuffix(STOP) + b"event: message_stop\ndata: added\n\n"
    cut_off = BEGIN + OPEN + DELTAS
    assert relayed([cut_off]) == cut_off + b"data: own error\n\n"


def test_nothing_follows_an_error_of_the_upstream() -> None:
    assert relayed([BEGIN + OPEN + DELTAS + OVERLOADED + ANSWER]) == BEGIN + OPEN + DELTAS + OVERLOADED


def test_frames_that_open_a_part_wait_for_the_first_content() -> None:
    relay, sink = started()
    relay.receive_data(BEGIN)
    assert sink.take() == BEGIN
    relay.receive_data(OPEN + PING)
    assert sink.take() == b""
    relay.receive_data(delta("Hi") + PING)
    assert sink.take() == OPEN + PING + delta("Hi") + PING


def test_an_attempt_that_fails_before_content_leaves_its_parts_behind() -> None:
    relay, sink = started(failed=lambda error: True)
    relay.receive_data(BEGIN + OPEN + PING + OVERLOADED)
    assert sink.take() == BEGIN
    relay.begin(get_provider("anthropic").adapter(), sink, deltas=sink, frames=sink)
    relay.receive_head(200, {"content-type": "text/event-stream"})
    relay.receive_data(ANSWER)
    assert sink.take() == ANSWER.removeprefix(BEGIN)


def again(relay: Relay, sink: Passthrough, body: bytes) -> bytes:
    """Returns the bytes of the attempt after a failed attempt."""
    relay.begin(get_provider("anthropic").adapter(), sink, deltas=sink, frames=sink)
    relay.receive_head(200, {"content-type": "text/event-stream"})
    relay.receive_data(body)
    return sink.take()


def test_a_ping_before_the_start_of_the_next_attempt_repeats_no_start() -> None:
    relay, sink = started(failed=lambda error: True)
    relay.receive_data(BEGIN + OVERLOADED)
    assert sink.take() == BEGIN
    assert again(relay, sink, PING + ANSWER) == ANSWER.removeprefix(BEGIN)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("rest", [b": comm", b"event: er", b"event: error\n", b"event: error\r\n", b": comment\r"])
def test_an_attempt_that_ends_amid_a_frame_leaves_the_next_ones_whole(rest: bytes, begun: bool) -> None:
    relay, sink = started(failed=lambda error: True)
    relay.receive_data((BEGIN if begun else b"") + rest)
    relay.receive_eof()
    body = sink.take() + again(relay, sink, ANSWER)
    result = [event for event in SSEParser().feed(body) if event.data]
    assert result == SSEParser().feed(ANSWER)


def test_an_attempt_that_fails_for_good_before_content_is_reported_in_order() -> None:
    assert relayed([BEGIN + OPEN + OVERLOADED]) == BEGIN + OPEN + OVERLOADED


def test_frames_do_not_wait_beyond_their_limit() -> None:
    relay, sink = started()
    pings = PING * (LIMITS.waiting_frames // len(PING) + 1)
    relay.receive_data(BEGIN + pings)
    assert sink.take() == BEGIN + pings


def test_a_keep_alive_beside_waiting_frames_is_written_at_once() -> None:
    relay, sink = started()
    relay.receive_data(BEGIN + OPEN)
    sink.heartbeat()
    assert sink.take() == BEGIN + b": ping\n"


def test_a_cancelled_answer_gets_an_end_of_ours() -> None:
    relay, sink = started()
    relay.receive_data(BEGIN + OPEN + delta("Hi"))
    relay.stop("cancelled")
    assert sink.take() == BEGIN + OPEN + delta("Hi") + b"data: own finish\n\nevent: message_stop\ndata: added\n\n"


def test_an_answer_that_a_limit_stops_gets_an_end_of_ours() -> None:
    relay, sink = started()
    relay.receive_data(BEGIN + OPEN + delta("Hi"))
    relay.stop("length", "spend")
    assert sink.take() == BEGIN + OPEN + delta("Hi") + b"data: own finish\n\nevent: message_stop\ndata: added\n\n"


def test_an_error_that_no_frame_reported_is_reported_by_us() -> None:
    relay, sink = started()
    relay.receive_data(BEGIN + OPEN + delta("Hi"))
    relay.fail(Error("timeout", "slow"))
    assert sink.take() == BEGIN + OPEN + delta("Hi") + b"data: own error\n\n"


def test_an_answer_without_frames_is_translated() -> None:
    relay, sink = started()
    relay.stop("cancelled")
    assert sink.take() == b"".join(b"data: translated %b\n\n" % kind for kind in (b"start", b"finish", b"done"))
