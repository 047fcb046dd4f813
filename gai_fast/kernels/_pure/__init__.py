"""The kernels in pure Python. They define the behaviour; `_native` matches it byte for byte and error for error.

Layer 1: no module here uses asyncio, logging, a clock or the environment. `__all__` is the only list of the kernels;
import the names from `gai_fast.kernels`.
"""

from gai_fast.kernels._pure.arrays import ArrayFramer
from gai_fast.kernels._pure.chunked import ChunkedBody
from gai_fast.kernels._pure.counters import Bounds, Histogram, StreamCounters
from gai_fast.kernels._pure.encoders import NDJSONEncoder, SSEEncoder, encode_ndjson, encode_sse
from gai_fast.kernels._pure.fast_path import Borrower, ChunkWriter, FastPath, FrameLog, LendingTransport, ReadBatch
from gai_fast.kernels._pure.faults import BufferTooSmall, NotJSON
from gai_fast.kernels._pure.jsontext import compact_json, encode_json, escape, join_json, parse_exact
from gai_fast.kernels._pure.messages import event_messages, frame_messages, head_of, last_seq, unmasked
from gai_fast.kernels._pure.parsers import Frame, LineFramer, NDJSONParser, SSEEvent, SSEFramer, SSEParser
from gai_fast.kernels._pure.pieces import frame_chunk, size_of
from gai_fast.kernels._pure.relay import DeltaCopier, Part, Piece
from gai_fast.kernels._pure.requests import body_start, count_opening, timed_id
from gai_fast.kernels._pure.shapes import Shape, closing_counts, cut_member, frame_members
from gai_fast.kernels._pure.socket_set import SocketSet, receive, send
from gai_fast.kernels._pure.tls_records import TLSRecords, make_tls_records

__all__ = [
    "ArrayFramer",
    "Borrower",
    "Bounds",
    "BufferTooSmall",
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
    "NotJSON",
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
    "closing_counts",
    "compact_json",
    "count_opening",
    "cut_member",
    "encode_json",
    "encode_ndjson",
    "encode_sse",
    "escape",
    "event_messages",
    "frame_chunk",
    "frame_members",
    "frame_messages",
    "head_of",
    "join_json",
    "last_seq",
    "make_tls_records",
    "parse_exact",
    "receive",
    "send",
    "size_of",
    "timed_id",
    "unmasked",
]
