"""`gai_fast/stores/_base.py`: a block is cut at the edge of a frame, wherever the asker stands."""

from __future__ import annotations

import pytest

from gai_fast.formats import Framing, StreamContext, get_format
from gai_fast.model.events import JSONText
from gai_fast.stores import LogHeader
from gai_fast.stores._base import add_text, frames_after
from gai_fast.stores.backend import StoreError, header_text, read_header

ID = "AbCdEfGhIjKlMnOpQrStUv"
TEXTS = ["a", 'he said "seq":9 and', f"id: {ID}.1\n\nid: {ID}.9\n", '{"seq":1}', "ü\u2028", ""]


def written(framing: Framing, name: str = "gai", envelope: str = "compact") -> tuple[LogHeader, list[bytes]]:
    """Returns a stream as its encoder writes it, one piece for each event."""
    context = StreamContext(
        stream_id=ID,
        request_id="r",
        trace_id=None,
        model="m",
        clock=lambda: 1,
        envelope="full" if envelope == "full" else "compact",
        ids=True,
        retry_ms=3000,
    )
    encoder = get_format(name).encoder(framing, context)
    pieces = []
    call = {"call_id": "c", "tool_call": {"name": "f", "input": {"seq": 2}}}
    for event in [
        {"type": "start", "model": "m", "provider": "p"},
        *({"type": "text.delta", "text": text} for text in TEXTS),
        {"type": "tool.call.start", "call_id": "c", "index": 0, "tool_call": {"name": "f"}},
        {"type": "tool.call.delta", "call_id": "c", "index": 0, "arguments": '{"seq":2}'},
        {"type": "tool.call", **call},
        {"type": "finish", "finish_reason": "stop"},
        {"type": "done", "finished": True},
    ]:
        encoder.event(event)
        pieces.append(encoder.take())
    pieces[-2:] = [pieces[-2] + pieces[-1]]  # the end is said in one turn
    return LogHeader(ID, "", "m", name, framing, "full" if envelope == "full" else "compact"), pieces


@pytest.mark.parametrize("envelope", ["compact", "full"])
@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_what_comes_after_an_event_is_exactly_the_later_frames(framing: Framing, envelope: str) -> None:
    header, pieces = written(framing, envelope=envelope)
    for after in range(len(pieces)):
        assert frames_after(b"".join(pieces), header, after) == b"".join(pieces[after:])


@pytest.mark.parametrize("name", ["openai", "simple"])
def test_an_event_that_has_no_frame_of_its_own_or_several_is_a_position_too(name: str) -> None:
    header, pieces = written("sse", name)
    for after in range(len(pieces)):
        assert frames_after(b"".join(pieces), header, after) == b"".join(pieces[after:])


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_a_block_that_begins_later_is_wanted_whole_and_is_not_copied(framing: Framing) -> None:
    header, pieces = written(framing)
    block = b"".join(pieces[3:])
    for after in range(4):
        assert frames_after(block, header, after) is block


def test_nothing_is_left_after_the_last_frame_or_beyond_it() -> None:
    header, pieces = written("sse")
    block = b"".join(pieces[:4])
    assert frames_after(block, header, 4) == b""
    assert frames_after(block, header, 10**18) == b""


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_a_block_that_is_damaged_has_no_frames_after_the_damage(framing: Framing) -> None:
    """An exception here ended all who follow other workers' streams."""
    header, pieces = written(framing)
    cut = b"".join(pieces[:4]).rstrip(b"\n")
    assert frames_after(cut, header, 3) == pieces[3].rstrip(b"\n")
    assert frames_after(cut, header, 4) == b""
    endless = b"id: %b.%b\n\n" % (ID.encode(), b"1" * 5000) if framing == "sse" else b'{"seq":%b}\n' % (b"1" * 5000)
    assert frames_after(endless, header, 3) == endless


def test_only_ids_of_the_stream_itself_are_positions() -> None:
    _, pieces = written("sse")
    other = LogHeader(ID.swapcase(), "", "m", "gai", "sse")
    block = b"".join(pieces)
    assert frames_after(block, other, 3) is block


@pytest.mark.parametrize("envelope", ["compact", "full"])
@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_only_events_that_are_text_are_read_for_it(framing: Framing, envelope: str) -> None:
    """Arguments of a tool may look like one, and hold what a strict parser refuses: half of a surrogate pair."""
    header, _ = written(framing, envelope=envelope)
    arguments = r'{"type":"text.delta","text":"\ud83d","seq":1,"then":["stream.reset"]}'
    context = StreamContext(ID, "r", None, "m", lambda: 1, header.envelope)
    encoder = get_format("gai").encoder(framing, context)
    for event in [
        {"type": "start", "model": "m", "provider": "p"},
        {"type": "text.delta", "text": "said"},
        {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": JSONText(arguments, {})}},
    ]:
        encoder.event(event)
    block, text = encoder.take(), bytearray(b"before, ")
    assert arguments.encode() in block
    assert add_text(text, block)
    assert text == b"before, said"


def test_the_text_of_a_stream_with_a_void_step_is_not_known() -> None:
    assert not add_text(bytearray(b"before"), b'{"type":"step.reset","seq":3,"step":2}\n')


def test_text_that_cannot_be_read_is_reported() -> None:
    assert not add_text(bytearray(), b'data: {"type":"text.delta","seq":1,"text":"x\n\n')
    assert not add_text(bytearray(), b'data: {"type":"text.delta","seq":1,"text":7}\n\n')


def test_no_pattern_is_compiled_for_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume would pay for it, and the many streams would displace the patterns that `re` keeps."""
    header, pieces = written("sse")
    monkeypatch.delattr("re.compile")
    monkeypatch.delattr("re._compile")
    assert frames_after(b"".join(pieces), header, 2) == b"".join(pieces[2:])


def test_the_text_of_a_stream_is_what_its_client_would_have() -> None:
    text, said = bytearray(b"before, "), "".join(TEXTS).encode()
    header, pieces = written("sse")
    assert header.is_numbered
    add_text(text, b"".join(pieces))
    assert text == b"before, " + said
    add_text(text, b"".join(written("ndjson", envelope="full")[1]))
    assert text == b"before, " + said + said


def test_a_reset_voids_the_text_and_other_choices_have_none_of_it() -> None:
    frames = [
        b'{"type":"text.delta","seq":2,"text":"void"}\n',
        b'{"type":"stream.reset","seq":3,"reason":"network"}\n',
        b'{"type":"text.delta","seq":4,"text":"a"}\n{"type":"text.delta","seq":5,"text":"no","choice":1}\n',
        b'{"type":"tool.call","seq":6,"tool_call":{"name":"text.delta","input":{"type":"text.delta"}}}\n',
    ]
    text = bytearray(b"before")
    add_text(text, b"".join(frames))
    assert text == b"a"


def test_a_header_of_a_later_release_may_have_more_at_its_end() -> None:
    header = LogHeader("s1", "ann", "m", "gai", "sse", request_id="r", handovers=2, dialect="openai", usage=False)
    for of_earlier in (header, header._replace(usage=True), header._replace(usage=True, dialect="")):
        text = header_text(of_earlier, "w")
        assert read_header(text) == (of_earlier, "w")
    text = header_text(header, "w")
    assert read_header(text[:-1] + b',"more",7]') == (header, "w")
    for damaged in (b"[]", b'["w","s1"]', text[:-1]):
        with pytest.raises(StoreError, match="cannot be read"):
            read_header(damaged)
