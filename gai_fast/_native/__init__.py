"""The kernels in C (Cython): the same names, bytes and errors as `gai_fast._pure`, which says what they mean.

Off the hot path both sides share one function: an array in pieces (`ArrayFramer`) is rare, and what the native reader
and writer of JSON meet but do not know (a dataclass, an integer over 64 bits, a value that must be refused) goes to
`_pure`. Import the names from `gai_fast._impl`.
"""

from gai_fast._native.encoders import (
    NDJSONEncoder,
    SSEEncoder,
    compact_json,
    encode_json,
    encode_ndjson,
    encode_sse,
    escape,
    parse_exact,
)
from gai_fast._native.parsers import ChunkedBody, LineFramer, NDJSONParser, Shape, SSEFramer, SSEParser
from gai_fast._native.relay import Bounds, DeltaCopier, FastPath, ReadBatch, StreamCounters
from gai_fast._pure.arrays import ArrayFramer
from gai_fast._pure.fast_path import LendingTransport
from gai_fast._pure.parsers import Frame, SSEEvent
from gai_fast._pure.relay import Part, Piece

__all__ = [
    "ArrayFramer",
    "Bounds",
    "ChunkedBody",
    "DeltaCopier",
    "FastPath",
    "Frame",
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
    "StreamCounters",
    "compact_json",
    "encode_json",
    "encode_ndjson",
    "encode_sse",
    "escape",
    "parse_exact",
]
