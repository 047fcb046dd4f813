"""The kernels in plain Python: the specification that `_native` equals byte for byte, error for error.

Layer 1: no asyncio, logging, clock or environment in here. Import the names from `gai_fast._impl`.
"""

from gai_fast._pure.arrays import ArrayFramer
from gai_fast._pure.chunked import ChunkedBody
from gai_fast._pure.encoders import NDJSONEncoder, SSEEncoder, encode_ndjson, encode_sse
from gai_fast._pure.jsontext import compact_json, encode_json, escape, parse_exact
from gai_fast._pure.parsers import Frame, LineFramer, NDJSONParser, SSEEvent, SSEFramer, SSEParser
from gai_fast._pure.relay import DeltaCopier, Part, Piece
from gai_fast._pure.shapes import Shape
from gai_fast._pure.shortcut import Outlet, Shortcut, Turn
from gai_fast._pure.traffic import Bounds, Traffic

__all__ = [
    "ArrayFramer",
    "Bounds",
    "ChunkedBody",
    "DeltaCopier",
    "Frame",
    "LineFramer",
    "NDJSONEncoder",
    "NDJSONParser",
    "Outlet",
    "Part",
    "Piece",
    "SSEEncoder",
    "SSEEvent",
    "SSEFramer",
    "SSEParser",
    "Shape",
    "Shortcut",
    "Traffic",
    "Turn",
    "compact_json",
    "encode_json",
    "encode_ndjson",
    "encode_sse",
    "escape",
    "parse_exact",
]
