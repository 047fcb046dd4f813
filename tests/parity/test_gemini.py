"""The output of a relay for Gemini's streams, with chunks copied and without: citations need the copied text."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import cuts
from tests.parity.test_relay import EDGES, FORMATS, Both, copied_of, cut, relayed, same

TEXT = st.sampled_from(["", " ", "a", "Hello", '"q"', "\\", "é", "豆", "😀", "\x7f", "\ud83d", "\ude00", "line\n"])


def chunk(part: dict[str, Any], count: int = 0, *, escaped: bool = True, **beside: Any) -> bytes:
    usage = {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": count}} if count else {}
    index = {"index": beside.pop("index", 0)}
    candidate = {"content": {"parts": [part], "role": "model"}, **beside, **index}
    whole = {"candidates": [candidate], **usage, "modelVersion": "m", "responseId": "r"}
    text = json.dumps(whole, ensure_ascii=escaped, separators=(",", ": "))
    return f"data: {text}\r\n\r\n".encode("utf-8", "replace")


def citing(start: int, end: int) -> dict[str, Any]:
    support = {"segment": {"startIndex": start, "endIndex": end}, "groundingChunkIndices": [0]}
    return {"groundingMetadata": {"groundingChunks": [{"web": {"uri": "u"}}], "groundingSupports": [support]}}


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """Mostly text and thoughts, and now and then each thing that may stand in their place or beside them."""
    kinds = ["text"] * 12 + ["thought"] * 4 + ["signature", "cite", "call", "piece", "stop", "idle", "second", "error"]
    escaped = draw(st.booleans())
    body = b""
    for number, kind in enumerate(draw(st.lists(st.sampled_from(kinds), max_size=16))):
        text = {"text": draw(TEXT)}
        how: dict[str, Any] = {"count": number + 1, "escaped": escaped}
        match kind:
            case "text":
                body += chunk(text, **how)
            case "thought":
                body += chunk({**text, "thought": True}, **how)
            case "signature":
                body += chunk({**text, "thoughtSignature": "s"}, **how)
            case "cite":
                start = draw(st.integers(0, 20))
                body += chunk(text, **how, **citing(start, start + draw(st.integers(0, 9))))
            case "call":
                body += chunk({"functionCall": {"name": "f", "args": {"a": number}}}, **how)
            case "piece":
                piece = {"jsonPath": "$.a", "stringValue": text["text"], "willContinue": True}
                body += chunk({"functionCall": {"name": "g", "partialArgs": [piece], "willContinue": True}}, **how)
            case "stop":
                body += chunk(text, **how, finishReason=draw(st.sampled_from(["STOP", "MAX_TOKENS"])))
            case "idle":
                body += chunk(text, 0, escaped=escaped)
            case "second":
                body += chunk(text, **how, index=1)
            case "error":
                body += b'{"error": {"code": 503, "status": "UNAVAILABLE", "message": "later"}}\r\n\r\n'
    return body


TRANSLATED = st.sampled_from([how for how in FORMATS if not how[2]])


@given(chunks(), TRANSLATED, EDGES)
def test_streams(both: Both, body: bytes, how: Any, edges: list[float]) -> None:
    same(both, "gemini", cut(body, edges), how)


def made() -> list[bytes]:
    frames = [chunk({"text": word}, n + 1) for n, word in enumerate(["Größe", " ist", ' "7', "\n😀", " m", "."])]
    return [*frames, chunk({"text": ""}, 9, finishReason="STOP", **citing(8, 18))]


def test_a_made_stream_in_every_way_of_cutting(both: Both) -> None:
    for how in FORMATS:
        if not how[2]:
            for pieces in cuts(b"".join(made())):
                same(both, "gemini", pieces, how)


def test_one_byte_that_differs(both: Both) -> None:
    frames = made()
    for at in range(len(frames[3])):
        for octet in b'"\\ :}1\n\xff':
            spoilt = frames[3][:at] + bytes((octet,)) + frames[3][at + 1 :]
            same(both, "gemini", [b"".join([*frames[:3], spoilt, *frames[4:]])], FORMATS[0])


def test_running_answers_are_copied(both: Both) -> None:
    """All but the first two chunks of a run; else all of the above would be true of a copier that never copies."""
    native: ModuleType = both[0]
    thoughts = [chunk({"text": f"{n}", "thought": True}, n + 1) for n in range(20)]
    texts = [chunk({"text": f"{n} é"}, n + 30) for n in range(20)]
    body = b"".join([*thoughts, *texts, chunk({"text": ""}, 60, finishReason="STOP")])
    assert copied_of(native, "gemini", body, FORMATS[0]) == 18 + 18
    outs, _ = relayed(native, "gemini", [body], FORMATS[0])
    assert outs[0].count(b"event: text.delta") == 20
