"""Limits of the gRPC server.

Only this folder uses them; limits that several folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    grpc_message: int = 10 * MIB
    """A message of a client: as much as a gateway takes by default (`max_body`)."""

    grpc_metadata: int = 24 * KIB
    """All metadata of a call: the longest token that a gateway takes (16 KiB), and half as much for the rest. A call
    with more is refused by grpcio."""

    grpc_calls: int = 20_000
    """Calls that the gateway answers at a time, at most half of them for one caller; also the most connections. A
    gateway has as many streams by default."""

    grpc_waiting: int = 10_000
    """Calls at a time whose message is not whole, or whose client has not taken their last bytes. Anyone can make them,
    and each takes 36 KiB: all of them 350 MiB. A burst of ten thousand calls of one proxy has room."""

    grpc_last: float = 10.0
    """Seconds in which a client must take the last bytes of a call that has ended."""

    grpc_look: float = 0.5
    """Seconds between two checks for calls whose time is over, and for too many connections."""

    grpc_unasked: int = 16 * KIB
    """Bytes of a message that a client can send before the server asks for it: most requests are no longer, and a
    longer one costs a round trip. The calls without a place have 160 MiB of them."""

    grpc_receive: float = 30.0
    """Seconds in which a message must be whole: a gateway's `body_timeout`. The largest one needs 2.8 Mbit/s."""

    grpc_receiving: int = 20
    """Messages that are received at a time from callers that the gateway accepts. Together with `grpc_unjudged` and
    the calls of the health and the reflection, 48 are received at a time, 480 MiB at most. A gateway's bodies have
    512 MiB by default (`upload_bytes`)."""

    grpc_receiving_wait: float = 10.0
    """Seconds for which a call waits for a place of `grpc_receiving`. A received message is read in less than 1 ms."""

    grpc_unjudged: int = 16
    """Messages that are received at a time from callers whose key was not checked yet: the gateway checks it with the
    request. With more of them, the key is checked first."""

    grpc_unjudged_wait: float = 0.25
    """Seconds for which a call waits for a place of `grpc_unjudged`: enough for a thousand calls at once, which
    then need no second request to the gateway."""

    grpc_judges: int = 16
    """Requests at a time that only check a key at the gateway. Requests for answers use other connections."""

    grpc_accepted: float = 60.0
    """Seconds for which the server knows that the gateway takes a key, or calls without one: their messages are read
    although many others come. The gateway judges each call all the same."""

    grpc_callers: int = 10_000
    """Keys that the server knows so, 1 MiB; above it the oldest is forgotten."""

    grpc_probes: int = 8
    """Messages to the health that are received at a time: anyone can send them."""

    grpc_watchers: int = 64
    """Calls that watch the health, half of them of one address: a balancer has one or two. Anyone can make them, and
    each keeps one of the places of calls and 20 KiB."""

    grpc_reflections: int = 4
    """Calls of the reflection whose next message is awaited at a time. A tool needs one, for a moment."""

    grpc_probe: float = 1.0
    """Seconds in which a message to the health or the reflection, of some 20 bytes, must be whole; another call waits
    as long for its turn. Kubernetes waits as long for a probe by default."""

    grpc_grace: float = 24.0
    """Seconds in which calls may end when the server stops; then it ends them."""

    grpc_stop: float = 4.0
    """Seconds after that, until connections are closed: calls end within 30 seconds, also to clients that read
    nothing."""

    grpc_unread: float = 60.0
    """Seconds between two checks for clients that read nothing. A call is ended if its client has read nothing since
    the last check: a gateway drops such clients after 30 seconds (`write_timeout`)."""

    grpc_age: float = 300.0
    """Seconds after which a client is asked to make its next calls over another connection; a client of gRPC does so
    unseen."""

    grpc_age_grace: float = 3600.0
    """Seconds for the connection's calls to end after that: six times a gateway's longest answer by default
    (`total_timeout`)."""

    grpc_ping: float = 60.0
    """Seconds without a byte of a connection after which its client is asked for a sign of life."""

    grpc_pong: float = 20.0
    """Seconds in which the client must answer that."""

    grpc_pings_apart: float = 10.0
    """The least seconds between two pings of a client: the least value that grpcio accepts for its clients."""

    grpc_words: int = 1536
    """Bytes of an error's message in a status: many clients refuse trailing metadata of more than 8 KiB, in which a
    byte outside ASCII takes 4.4: it is escaped once and is in base64 once more. The event `error` has the whole
    message."""


LIMITS: Final = Limits()
