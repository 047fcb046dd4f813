"""The kernels in Cython: the same names, bytes and errors as `gai_fast.kernels._pure`, which defines them.

Both implementations share the code off the hot path: `ArrayFramer`, and JSON values that the native reader and writer
do not know (a dataclass, an integer over 64 bits, a value that must be refused). Import the names from
`gai_fast.kernels`.
"""

from gai_fast.kernels._native.encoders import (
    NDJSONEncoder,
    SSEEncoder,
    compact_json,
    encode_json,
    encode_ndjson,
    encode_sse,
    escape,
    join_json,
    parse_exact,
)
from gai_fast.kernels._native.parsers import (
    ChunkedBody,
    LineFramer,
    NDJSONParser,
    Shape,
    SSEFramer,
    SSEParser,
    body_start,
    count_opening,
    timed_id,
)
from gai_fast.kernels._native.relay import (
    Bounds,
    ChunkWriter,
    DeltaCopier,
    FastPath,
    Histogram,
    ReadBatch,
    StreamCounters,
    frame_chunk,
    frame_messages,
    last_seq,
    size_of,
    unmasked,
)
from gai_fast.kernels._native.sockets import SocketSet, receive
from gai_fast.kernels._native.tls import TLSRecords, make_tls_records
from gai_fast.kernels._pure.arrays import ArrayFramer
from gai_fast.kernels._pure.fast_path import Borrower, FrameLog, LendingTransport
from gai_fast.kernels._pure.messages import head_of
from gai_fast.kernels._pure.parsers import Frame, SSEEvent
from gai_fast.kernels._pure.relay import Part, Piece

__all__ = [
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
