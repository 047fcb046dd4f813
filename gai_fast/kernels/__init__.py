"""The native/pure switch: all kernels from one implementation, chosen once at import.

`GAI_FAST_NO_EXTENSIONS=1` runs pure Python, `GAI_FAST_REQUIRE_EXTENSIONS=1` fails rather than fall back.
`GAI_FAST_SIMD=NAME` chooses the form of the native kernels' vector loops in place of the widest. Only a missing
`_native` module means "not built": any other error while importing it is a fault and is raised. Type checkers see the
pure side.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

__all__ = [
    "IMPLEMENTATION",
    "ArrayFramer",
    "Borrower",
    "Bounds",
    "ChunkWriter",
    "ChunkedBody",
    "DeltaCopier",
    "FastPath",
    "Frame",
    "FrameLog",
    "Histogram",
    "LendingTransport",
    "LineFramer",
    "NDJSONEncoder",
    "NDJSONParser",
    "Part",
    "Piece",
    "ReadBatch",
    "SSEEncoder",
    "SSEEvent",
    "SSEFramer",
    "SSEParser",
    "Shape",
    "SocketSet",
    "StreamCounters",
    "TLSRecords",
    "body_start",
    "compact_json",
    "count_opening",
    "encode_json",
    "encode_ndjson",
    "encode_sse",
    "escape",
    "frame_chunk",
    "frame_messages",
    "head_of",
    "join_json",
    "last_seq",
    "make_tls_records",
    "parse_exact",
    "receive",
    "size_of",
    "timed_id",
    "unmasked",
]

IMPLEMENTATION: Literal["native", "pure"] = "pure"
MODULES: Literal["compiled", "interpreted"] = "compiled" if find_spec("gai_fast._compiled__mypyc") else "interpreted"
"""Whether the modules that every request runs through were compiled by mypyc (`COMPILED` in setup.py)."""


def _is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


if TYPE_CHECKING or _is_set("GAI_FAST_NO_EXTENSIONS"):
    from gai_fast.kernels import _pure as _kernels
else:
    try:
        from gai_fast.kernels import _native as _kernels

        IMPLEMENTATION = "native"
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("gai_fast.kernels._native") or _is_set("GAI_FAST_REQUIRE_EXTENSIONS"):
            raise
        from gai_fast.kernels import _pure as _kernels


def _use_form(wanted: str) -> str | None:
    """Uses a form of the vector loops, the widest if none is wanted; returns its name, None in pure Python.

    Raises:
        ImportError: This machine, or this build, does not have the form.
    """
    if IMPLEMENTATION == "pure":
        if wanted:
            raise ImportError(
                f"GAI_FAST_SIMD={wanted!r} names a form of the native kernels, and pure Python is in use: unset it, or "
                "use the native kernels"
            )
        return None
    from gai_fast.kernels._native import encoders

    if wanted and wanted not in encoders.forms():
        raise ImportError(f"GAI_FAST_SIMD={wanted!r}: this machine and build can run {', '.join(encoders.forms())}")
    if wanted:
        encoders.use(wanted)
    form: str = encoders.form()
    return form


SIMD = _use_form(os.environ.get("GAI_FAST_SIMD", ""))
"""The form of the vector loops (docs/installation.md, "Vector instructions"); None in pure Python, which has none."""

ArrayFramer = _kernels.ArrayFramer
Borrower = _kernels.Borrower
Bounds = _kernels.Bounds
ChunkWriter = _kernels.ChunkWriter
ChunkedBody = _kernels.ChunkedBody
DeltaCopier = _kernels.DeltaCopier
Frame = _kernels.Frame
FrameLog = _kernels.FrameLog
Histogram = _kernels.Histogram
LendingTransport = _kernels.LendingTransport
LineFramer = _kernels.LineFramer
NDJSONEncoder = _kernels.NDJSONEncoder
NDJSONParser = _kernels.NDJSONParser
Part = _kernels.Part
Piece = _kernels.Piece
SSEEncoder = _kernels.SSEEncoder
SSEEvent = _kernels.SSEEvent
SSEFramer = _kernels.SSEFramer
SSEParser = _kernels.SSEParser
Shape = _kernels.Shape
SocketSet = _kernels.SocketSet
FastPath = _kernels.FastPath
StreamCounters = _kernels.StreamCounters
ReadBatch = _kernels.ReadBatch
TLSRecords = _kernels.TLSRecords
body_start = _kernels.body_start
compact_json = _kernels.compact_json
count_opening = _kernels.count_opening
encode_json = _kernels.encode_json
encode_ndjson = _kernels.encode_ndjson
encode_sse = _kernels.encode_sse
escape = _kernels.escape
frame_chunk = _kernels.frame_chunk
frame_messages = _kernels.frame_messages
head_of = _kernels.head_of
join_json = _kernels.join_json
last_seq = _kernels.last_seq
parse_exact = _kernels.parse_exact
size_of = _kernels.size_of
timed_id = _kernels.timed_id
make_tls_records = _kernels.make_tls_records
receive = _kernels.receive
unmasked = _kernels.unmasked
