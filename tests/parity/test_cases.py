"""The shared SSE cases, on both implementations. They are read where they lie: never copied into the repository."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.kernels import cuts, fed

CASES = Path(os.environ.get("GAI_FAST_CORPUS") or Path(__file__).parents[2] / "../shared/streams").parent / "cases"


def cases(name: str) -> list[dict[str, Any]]:
    path = CASES / name
    if not path.is_file():
        pytest.skip(f"no shared cases: {path} is missing (GAI_FAST_CORPUS names the recordings beside them)")
    loaded = json.loads(path.read_text())
    assert loaded
    return list(loaded)


def test_every_parsing_case_however_cut(kernels: ModuleType) -> None:
    for case in cases("sse_parse.json"):
        text = case["bytes_latin1_or_base64"]
        stream = base64.b64decode(text) if case["encoding"] == "base64" else text.encode("latin-1")
        expected = [(event["type"], event["data"], event["lastEventId"]) for event in case["expected_events"]]
        for number, chunks in enumerate(cuts(stream, seed=len(stream))):
            parser, framer = kernels.SSEParser(), kernels.SSEFramer()
            where = f"{case['name']}, cut {number}"
            assert fed(parser, chunks) == expected, where
            assert parser.retry == case["expected_retry"], where
            assert parser.last_event_id == case["expected_final_last_event_id"], where
            assert b"".join(frame.raw for frame in fed(framer, chunks)) == stream, where


def lines_of(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n")


def test_every_writing_case(kernels: ModuleType) -> None:
    refused = {"id": 0, "event": 0, "retry": 0}
    for case in cases("sse_encode.json"):
        name, field, value = case["name"], case["field"], case["value"]
        if field == "comment":
            encoder = kernels.SSEEncoder()
            encoder.comment(value)
            assert all(line.startswith(b":") for line in encoder.take().splitlines()), name
        elif field == "data":
            frame = kernels.encode_sse(value)
            events = kernels.SSEParser().feed(frame)
            assert [event.data for event in events] == [lines_of(value.replace("\ud800", "\ufffd"))], name
            assert frame.count(b"\n") == 2 + lines_of(value).count("\n"), name
        elif name in ("id-leading-space", "id-cors-unsafe"):
            parser = kernels.SSEParser()
            parser.feed(kernels.encode_sse("x", id=value))
            assert parser.last_event_id == value, name
        else:
            with pytest.raises(ValueError, match=field):
                kernels.encode_sse("x", **{field: value})
            refused[field] += 1
    assert all(refused.values())
