"""Limits that several folders share, and those of the vocabulary.

Upstreams and clients are not trusted: everything that grows with their bytes has a bound, with its reason: in the
`limits.py` of the folder that uses it, or here if several do. Configurable limits have their defaults in
`model/settings.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

OTHER: Final = "other"
"""The name under which everything beyond a limit of names is counted together: clients must not make labels."""


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    response_head: int = 64 * KIB
    """An upstream's status line and headers together: what OpenAI itself accepts as a request head."""

    event: int = 8 * MIB
    """One SSE event, SSE line or NDJSON line: a base64 image of a few MiB fits, an endless line does not."""

    passed_headers: int = 64
    """Headers of an upstream's response that its client gets, too: Anthropic sends some thirty."""

    passed_value: int = 256
    """Characters of such a header's value: the longest in use have fifty, and clients take heads of 8 KiB and more."""

    error_body: int = 256 * KIB
    """Bytes that are read of the body of an upstream's error; the rest adds nothing to a message."""

    held_answer: int = 128 * MIB
    """Bytes of an upstream's stream that is gathered into one JSON answer: 128,000 tokens in frames of 400 bytes are
    50 MiB."""

    whole_answer: int = 32 * MIB
    """A whole JSON answer to a streamed request: four events of the largest size."""

    error_message: int = 2 * KIB
    """Characters of an upstream's message that are passed on: a page of HTML is no message."""

    json_depth: int = 64
    """Nesting of a request body: a deeper schema exhausts the C stack of some parser on the way (CVE-2025-67221)."""

    arguments_depth: int = 256
    """Nesting of JSON that is still parsed. Tool arguments may have two levels less, as the event around them has two;
    deeper text is passed on as text."""

    collected: int = 128 * MIB
    """Characters of an answer that are collected into one result: as many as `held_answer`."""

    kept_answer: int = 16 * MIB
    """Bytes that an adapter keeps of one answer until its end: arguments of calls, inputs of tools that the provider
    runs, sources that were sent, identifiers. 128,000 tokens of arguments, each a piece of its own, are 9 MiB."""

    kept_piece: int = 64
    """Bytes that a kept string costs besides its characters: its header (49 to 76) and its place in a list."""

    tls_read: int = 64 * KIB
    """Bytes of one read of a TLS connection, after which the other connections are read: four records of the largest
    size, or 2,700 of a byte each, which take 3 ms."""

    tls_record: int = 16 * KIB
    """Bytes of text in a TLS record at most (RFC 8446, 5.1). OpenSSL gets no more at a time in either direction, since
    its buffers keep the largest size that they had."""

    tls_steps: int = 4
    """Steps of TLS handshakes in a turn of the loop: some 4 ms of work where each makes a signature with an RSA key of
    2,048 bits, after which other streams go on."""

    tls_handshake: int = 256 * KIB
    """Bytes of a TLS handshake that wait for their turn: OpenSSL takes certificates of 100 KiB at most. An upstream
    with more is given up; of a client, which may send a request behind, no more is read until then."""

    choices: int = 128
    """Choices of one answer, which is what OpenAI lets a request ask for; each has a state of its own."""

    max_tokens: int = 100_000_000
    """The most tokens a request may ask for: ten times the longest context in service, so more is a slip."""

    identifier: int = 128
    """Characters of a request id or an event id: longer event ids make every cross-origin reconnect a preflight."""

    integer_digits: int = 4300
    """Digits of an integer in JSON that is still parsed: CPython's own bound against quadratic time."""

    chat_id: int = 255
    """Characters of the id that a page gives to a chat, a thread or a run: the longest ids in use, UUIDs with a prefix,
    are a fifth."""

    retry_after_ms: int = 120_000
    """The longest `Retry-After` that is passed on: the OpenAI SDK gives up beyond it (`_base_client.py`)."""

    overloaded_ms: int = 1000
    """Milliseconds after which a client that was refused for want of room may ask again."""

    ledger_recall: float = 1.0
    """Seconds within which workers must have given back what they keep; then the limit counts as used. It takes some
    milliseconds, or as long as a worker stands still."""

    backlog: int = 4096
    """Connections the kernel holds before accept: with 128 the 129th of a burst waits a second for its SYN retry."""

    warning_interval: float = 60.0
    """Seconds between two warnings about one upstream: a key that is refused is refused for each request."""

    upstream_tail: float = 1.0
    """Seconds in which an upstream may end its response after its last event: a round trip or two. Longer, and a new
    connection costs less than the wait."""

    query_fields: int = 64
    """Query parameters of a request: no route knows ten."""

    known_head: int = 2 * KIB
    """Bytes of a head that a connection keeps to know it again: those of the SDKs are a third of it."""

    known_addresses: int = 256
    """Addresses whose verdict is kept: an upstream has a few, and a parsed one takes 1 KiB at most."""

    known_values: int = 64
    """Values of one header, or of several together, whose verdict is kept: clients of one kind all send the same. Each
    is as long as a header may be at most."""

    max_body_digits: int = 18
    """Digits of a content length: more are beyond every limit."""

    workers: int = 256
    """Workers of a server: more than any machine has use for, each with a connection to each other."""

    bus_wait: float = 2.0
    """Seconds in which another worker must answer a question: one that is alive and busy does in milliseconds."""

    socket_path: int = 103
    """Bytes of the path of a unix socket: macOS has room for no more, Linux for four more."""

    descriptor: int = 1 << 20
    """The largest number of an inherited descriptor: the most files that Linux lets a process have by default."""

    log_piece_cost: int = 64
    """Bytes that a piece costs a log besides its own: the header of a bytes object (33), the allocator's rounding (up
    to 15) and its place in a list, which grows by eighths (9)."""

    log_block_cost: int = 160
    """Bytes that a block costs besides its own: the header (33), the allocator's own and rounding (up to 23), a tuple
    with its last number (56 + 32) and a place in a deque (8)."""

    store_retry: float = 2.0
    """The longest wait before that, and how long a store that failed is not asked for other streams."""

    lease: float = 2.0
    """Seconds after which a worker that does not renew its lease in the store counts as gone: four renewals, so that a
    loop that stands still for a second costs no stream."""

    lease_renewal: float = 0.5
    """Seconds between two renewals of a lease, and between two looks at those of others."""

    store_poll: float = 0.02
    """Seconds between two looks at a store's file for what other processes have written."""

    claim_settling: float = 5.0
    """Seconds for which the stream of an idempotency key that was just taken may be unknown: its first batch is under
    way. A store that takes longer to write it fails."""

    store_reply: int = 8 * MIB
    """Bytes of several streams' copies that are read at a time, besides a record of each."""

    follower_read: int = 64 * KIB
    """Bytes that a follower which catches up reads of its log in one turn of the loop, which other streams share."""

    ack_step: int = 4096
    """Bytes that a fast path sends over a borrowed WebSocket between two such places. A stream whose `client_buffer` is
    below `ack_steps` of them does not borrow: a client that acknowledges every tenth event might wait for the next one
    while the server waits for its acknowledgement."""

    longest_key: int = 1024
    """Characters of a caller's key at most: a signed token has some hundred, and each is hashed before it is known."""

    secret: int = 8
    """Characters of a header's value that is cut out of recordings: a shorter value may be a word of any answer."""

    model_name: int = 256
    """Characters of a model's name in requests, in the configuration, and in sums of usage: the longest in use, ARNs of
    Bedrock, are some 150."""

    streams_sampled: int = 200
    """Running streams in each sample for dashboards: 60 KB a second for each that is open."""

    stream_probe_idle: float = 300.0
    """The longest silence in a probe: proxies cut after 60 s by default, some after 100 s."""

    stream_probe_interval: float = 0.2
    """Seconds between the events of a probe: a hundred times what a network's way takes, so that held events show."""

    suggested_from: int = 100
    """Names that an unknown one is compared with to suggest the nearest: 100 take a millisecond."""

    priced_tokens: int = 1_000_000_000
    """Tokens of one kind that an answer is charged for: a hundred times the largest context. A larger count is an
    upstream's mistake, or its lie."""

    charge: int = 100_000
    """Units of currency that one attempt costs at most: 64 bits hold 90 such charges exactly."""

    config_file: int = 1 * MIB
    """Bytes of a configuration file: a larger one is the wrong file."""


SHARED: Final = SharedLimits()
