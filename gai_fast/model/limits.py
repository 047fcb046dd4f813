"""Limits that several folders share, and limits of the vocabulary.

Upstreams and clients are not trusted: everything that grows with their bytes has a bound and its reason, in the
`limits.py` of the folder that uses it, or here if several folders do. Configurable limits have their defaults in
`model/settings.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

OTHER: Final = "other"
"""The label for all names beyond a limit of names: clients must not be able to create labels."""


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    response_head: int = 64 * KIB
    """An upstream's status line and headers together: as much as OpenAI accepts as a request head."""

    event: int = 8 * MIB
    """One SSE event, SSE line or NDJSON line: a base64 image of a few MiB fits, an endless line does not."""

    passed_headers: int = 64
    """Headers of an upstream's response that are passed on to the client: Anthropic sends some thirty."""

    passed_value: int = 256
    """Characters of the value of a header in `passed_headers`: the longest in use have fifty, and clients accept
    headers of 8 KiB and more."""

    patience: float = 600.0
    """Seconds of an upstream's silence, before its first event and within its answer: as long as the official SDKs
    wait. A model that thinks may be silent for minutes."""

    patience_with_others: float = 60.0
    """The same where giving up helps: another target or model can be asked, and the request asks for no reasoning."""

    error_body: int = 256 * KIB
    """Bytes of an upstream's error body that are read; the rest is not needed for a message."""

    held_answer: int = 128 * MIB
    """Bytes of an upstream's stream that are gathered into one JSON answer: 128,000 tokens in frames of 400 bytes are
    50 MiB."""

    whole_answer: int = 32 * MIB
    """A whole JSON answer to a streamed request: four events of the largest size."""

    error_message: int = 2 * KIB
    """Characters of an upstream's message that are passed on: an HTML page is not a message."""

    json_depth: int = 64
    """Nesting of a request body: a deeper schema can exhaust the C stack of a parser in the chain (CVE-2025-67221)."""

    arguments_depth: int = 256
    """Nesting of JSON that is parsed; deeper text is passed on as text. Tool arguments may have two levels less,
    because the event around them has two."""

    collected: int = 128 * MIB
    """Characters of an answer that are collected into one result: as many as `held_answer`."""

    stop_sequence: int = 1024
    """Characters of the stop sequence that ended an answer, as its provider names it; longer ones are cut."""

    kept_answer: int = 16 * MIB
    """Bytes that an adapter keeps of one answer until its end: arguments of calls, inputs of tools that the provider
    runs, sources that were sent, identifiers. 128,000 tokens of arguments, each a piece of its own, are 9 MiB."""

    kept_piece: int = 64
    """Bytes that a kept string costs besides its characters: its header (49 to 76) and its place in a list."""

    tls_read: int = 64 * KIB
    """Bytes of one read of a TLS connection, after which the other connections are read: four records of the largest
    size, or 2,700 records of one byte, which take 3 ms."""

    tls_record: int = 16 * KIB
    """The most bytes of text in a TLS record (RFC 8446, 5.1). OpenSSL gets no more at a time in either direction,
    because its buffers never shrink."""

    tls_steps: int = 4
    """Steps of TLS handshakes in a turn of the loop, before other streams continue: some 4 ms of work if each step
    makes a signature with an RSA key of 2,048 bits."""

    tls_handshake: int = 256 * KIB
    """Bytes of a TLS handshake that wait to be processed: OpenSSL accepts certificates of 100 KiB at most. The
    connection to an upstream that sends more is closed. A client may send a request after its handshake: no more of its
    bytes are read until the handshake is processed."""

    choices: int = 128
    """Choices of one answer, the most that OpenAI allows; each choice has its own state."""

    max_tokens: int = 100_000_000
    """The most tokens a request may ask for: ten times the longest context in service, so more is a mistake."""

    identifier: int = 128
    """Characters of a request id or an event id: longer event ids make every cross-origin reconnect a preflight."""

    integer_digits: int = 4300
    """Digits of an integer in JSON that is parsed: CPython's own bound against quadratic time."""

    chat_id: int = 255
    """Characters of the id that a page gives to a chat, a thread or a run: the longest ids in use, UUIDs with a prefix,
    have a fifth of that."""

    request_changes: int = 32
    """Members of a request that are reported as left out, and as many that are reported as changed; the others are
    counted. A header has them all, and a request may have thousands of messages."""

    changed_path: int = 100
    """Characters of a reported path or value: the longest path of a native request has some 40."""

    changes_header: int = 1024
    """Bytes of a header that reports changes: nginx reads 4 KiB of response headers by default."""

    retry_after_ms: int = 120_000
    """The longest `Retry-After` that is passed on: the OpenAI SDK does not retry beyond it (`_base_client.py`)."""

    overloaded_ms: int = 1000
    """Milliseconds after which a client that was refused for lack of capacity may retry."""

    backlog: int = 4096
    """Connections the kernel holds before accept: with 128 the 129th of a burst waits a second for its SYN retry."""

    warning_interval: float = 60.0
    """Seconds between two warnings about one upstream: a refused key is refused again for each request."""

    upstream_tail: float = 1.0
    """Seconds in which an upstream may end its response after its last event: a round trip or two. A new connection
    costs less than a longer wait."""

    query_fields: int = 64
    """Query parameters of a request: no route has ten."""

    known_head: int = 2 * KIB
    """Bytes of a request head that a connection keeps to recognize a repeated head: the SDKs' have a third of it."""

    known_addresses: int = 256
    """Addresses whose check is cached: an upstream has a few, and a parsed address uses 1 KiB at most."""

    known_values: int = 64
    """Values of one header, or of several together, whose check is cached: clients of one kind all send equal values.
    A value is at most as long as a header may be."""

    max_body_digits: int = 18
    """Digits of a content length: a longer number is beyond every limit."""

    workers: int = 256
    """Workers of a server: more than any machine needs. Each worker has a connection to every other one."""

    bus_wait: float = 2.0
    """Seconds in which another worker must answer a question: a busy worker answers in milliseconds."""

    socket_path: int = 103
    """Bytes of the path of a unix socket: the limit on macOS; Linux allows four more."""

    descriptor: int = 1 << 20
    """The largest number of an inherited descriptor: the most files that Linux lets a process have by default."""

    log_piece_cost: int = 64
    """Bytes that a piece costs a log besides its own: the header of a bytes object (33), the allocator's rounding (up
    to 15) and its place in a list, which grows by eighths (9)."""

    log_block_cost: int = 160
    """Bytes that a block costs besides its own: the header (33), the allocator's own and rounding (up to 23), a tuple
    with its last number (56 + 32) and a place in a deque (8)."""

    store_retry: float = 2.0
    """The longest wait before a failed store is tried again; until then other streams do not use the store."""

    lease_lost: float = 30.0
    """Seconds after which a worker of another machine that does not renew its lease in the store counts as gone: a
    machine that cannot reach the store for as long as a failover of Redis takes goes on with its streams."""

    lease_renewal: float = 0.5
    """Seconds between two renewals of a lease, and between two checks of other workers' leases."""

    note_life: float = 2.0
    """Seconds for which a note to another worker counts, that its stream is followed or to be cancelled: four
    renewals, so that a loop that stands still for a second costs no stream."""

    store_poll: float = 0.02
    """Seconds between two checks of a store's file for writes of other processes."""

    claim_settling: float = 5.0
    """Seconds for which the stream of a newly claimed idempotency key may be unknown: its first batch is not yet
    written. A store that needs longer to write it fails."""

    store_reply: int = 8 * MIB
    """Bytes of several streams' copies that are read at a time, in addition to one record of each."""

    follower_read: int = 64 * KIB
    """Bytes that a follower reads from its log in one turn of the loop while it catches up: other streams share the
    turn."""

    ack_step: int = 4096
    """Bytes that a fast path sends over a borrowed WebSocket between two calls of `note_sent`. A stream whose
    `client_buffer` is below `ack_steps` times as many bytes does not borrow: a client that acknowledges every tenth
    event might wait for the next event while the server waits for its acknowledgement."""

    longest_key: int = 1024
    """The most characters of a caller's key: a signed token has some hundred, and every key is hashed before it is
    recognized."""

    tool_description: int = 4 * KIB
    """Bytes of a tool's description: a page of text, which each turn of a model pays for."""

    tool_schema: int = 64 * KIB
    """Bytes of the schema of a tool's arguments: some 16,000 tokens of each turn of a model."""

    tool_depth: int = 64
    """Nesting of a tool's schema and arguments: as of a request's body."""

    tool_arguments: int = 256 * KIB
    """Bytes of the arguments of a call: more than a model writes in one answer."""

    tool_problem: int = 2 * KIB
    """Characters of the text of a call's failure, and of a server's description of one, as of an upstream's."""

    model_tool_name: int = 64
    """Characters of a tool's name for models: the most that every provider takes."""

    tool_result: int = 64 * KIB
    """Bytes that are kept of a tool's result by default: some 16,000 tokens."""

    tool_result_most: int = 1 * MIB
    """The most bytes that can be kept: more than the context of most models."""

    tool_pattern: int = 128
    """Characters of a name or a pattern of tools: as many as a tool's name may have."""

    tool_patterns: int = 128
    """Names and patterns of tools in a request: as many as any provider accepts tools. Each costs up to 0.3 ms."""

    run_steps: int = 10
    """Turns of a run, by default: agents that search and read need some five."""

    run_tool_calls: int = 32
    """Calls of a run, by default: three a turn, and two to spare."""

    run_parallel_tools: int = 4
    """Calls of a run at a time, by default: most models ask for fewer in a turn."""

    run_timeout: float = 3600.0
    """Seconds of a run, by default: as long as a person waits for an agent at work."""

    tool_connect: float = 5.0
    """Seconds to connect to a server of tools by default, with DNS and TLS: as of an upstream."""

    tool_timeout: float = 30.0
    """Seconds of a call of a tool by default, from its start or the last notice of progress."""

    tool_places: int = 16
    """Calls of one server, or of one tool, at a time, by default: each may hold a connection or a thread."""

    secret: int = 8
    """The fewest characters of a header's value that is cut out of recordings: a shorter value may be a word of any
    answer."""

    turn_text: int = 8 * KIB
    """Characters that the processors of a stream get in a turn of the loop. Reading JSON takes up to 2 µs for each."""

    top_logprobs: int = 20
    """The most likely tokens that an answer reports at each place: the most that any provider reports."""

    model_name: int = 256
    """Characters of a model's name in requests, in the configuration, and in sums of usage: the longest in use, ARNs of
    Bedrock, have some 150."""

    streams_sampled: int = 200
    """Running streams in each sample for dashboards: 60 KB a second for each open dashboard."""

    stream_probe_idle: float = 300.0
    """The longest silence in a probe: proxies close silent connections after 60 s by default, some after 100 s."""

    stream_probe_interval: float = 0.2
    """Seconds between the events of a probe: a hundred times a network's latency, so that buffered events show."""

    suggested_from: int = 100
    """Names that an unknown name is compared with to suggest the nearest: 100 comparisons take a millisecond."""

    priced_tokens: int = 1_000_000_000
    """The most tokens of one kind that an answer is charged for: a hundred times the largest context. A larger count is
    an upstream's mistake."""

    window: int = 1_048_576
    """Tokens of the input or the output of an answer whose model's window is unknown: the largest window in wide use.
    A larger count for a short text is an upstream's mistake."""

    tokens_per_character: int = 8
    """Tokens of a character of text that an upstream may count at most: ideographs and emoji have up to 3."""

    usual_tokens: int = 2048
    """Tokens of an answer that are never absurd: the least window of a chat model."""

    charge: int = 100_000
    """The most units of currency that one attempt costs: 64 bits hold 90 such charges exactly."""

    guarded_pairs: int = 1024
    """Pairs of a model and a caller whose guards are remembered, 500 bytes each; then all are chosen once more:
    a server has some ten models, and some ten callers at a time."""

    config_file: int = 1 * MIB
    """Bytes of a configuration file: a larger file was named by mistake."""


SHARED: Final = SharedLimits()
