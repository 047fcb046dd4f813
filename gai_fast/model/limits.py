"""Every size, count and time limit that is not configurable, in one place.

Upstreams and clients are not trusted: everything that grows with their bytes has a bound here, with its reason.
Configurable limits have their defaults in `model/settings.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

OTHER: Final = "other"
"""The name under which everything beyond a limit of names is counted together: clients must not make labels."""


@dataclass(frozen=True, slots=True)
class Limits:
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

    input_items: int = 20_000
    """Items of a request's `input`: twice a conversation of 10,000, which are read in a tenth of a second."""

    json_depth: int = 64
    """Nesting of a request body: a deeper schema exhausts the C stack of some parser on the way (CVE-2025-67221)."""

    json_values: int = 500_000
    """Values of a request body: each is two tokens of a prompt at least, and the longest contexts have a million. Every
    reader takes longer for millions of them than their parsing does."""

    json_containers: int = 120_000
    """Objects and arrays among them: 100,000 messages, as Anthropic takes, and the schemas of a thousand tools. To read
    so many messages takes a third of a second; 10 MiB hold three times as many, or thirty times as many objects."""

    chunk_containers: int = 500_000
    """Objects and arrays of one event of an upstream's, brackets in its texts included: an event of 8 MiB holds half as
    many where each token has the logarithms of twenty, and five times as many empty ones, which hold the loop for
    seconds."""

    arguments_depth: int = 256
    """Nesting of JSON that is still parsed. Tool arguments may have two levels less, as the event around them has two;
    deeper text is passed on as text."""

    json_answer: int = 8 * MIB
    """Characters of a JSON answer that is followed: its value stands in memory, and the longest answers are a tenth."""

    json_levels: int = 255
    """Nesting of a JSON answer that is followed: one less than `arguments_depth`, as an event around it is a level."""

    json_snapshots: int = 256
    """Snapshots of a JSON value while its text doubles, or somewhat more: each costs the size of the value so far."""

    json_prose: int = 64 * KIB
    """Characters held back while a JSON document is looked for behind them: an introduction of ten pages."""

    transcript: int = 32 * MIB
    """Characters of an answer that are kept so that another attempt can go on from it, with the cost of keeping them:
    the longest answers are a tenth. A longer one ends with its failure."""

    collected: int = 128 * MIB
    """Characters of an answer that are collected into one result: as many as `held_answer`."""

    counted_text: int = 1 * MIB
    """Characters whose tokens are counted at once: a token that is cut at the end of such a block counts twice."""

    recorded: int = 256 * MIB
    """Bytes of a recording: twice the longest answer that is gathered, since a read costs its framing besides."""

    waiting_frames: int = 64 * KIB
    """Bytes of frames that wait in passthrough for the first content behind them: more are passed on before it. They
    open parts of the answer, and pings stand between them."""

    early_warnings: int = 16
    """Warnings that wait for the start of their stream: more add nothing."""

    held_beside: int = 256
    """Events that wait beside held text: usage and snapshots come a few times a second, text with them."""

    kept_answer: int = 16 * MIB
    """Bytes that an adapter keeps of one answer until its end: arguments of calls, inputs of tools that the provider
    runs, sources that were sent, identifiers. 128,000 tokens of arguments, each a piece of its own, are 9 MiB."""

    kept_piece: int = 64
    """Bytes that a kept string costs besides its characters: its header (49 to 76) and its place in a list."""

    kept_word: int = 128
    """Characters of an upstream's finish reason that are passed on: the longest in use have thirty."""

    batched_read: int = 64 * KIB
    """Bytes of a read that is not left for the end of the loop's turn: uvloop reads a socket up to 32 times a turn
    while each read fills its buffer, and a slow client must stop it before the second."""

    deferred_reads: int = 4
    """Answers that a turn of the loop reads beside 64 requests while connections are made for newcomers. Of 200 clients
    that come together the last one's request then waits for few answers: first token (p99) 1.37 of nginx, 1.69 with
    64."""

    deferred_by: float = 0.002
    """Seconds for which a newcomer defers answers: longer than a turn that accepts as many as it may."""

    deferred_for: float = 0.02
    """Seconds for which answers wait so at most: under a steady overload streams would be begun and not served."""

    coalesced_sockets: int = 16
    """Different sockets of an upstream over TLS from which on their reads are coalesced. With fewer, a turn of the loop
    reads most of them anyway. They are told apart by their descriptors modulo 64, so that it usually takes 16 to 22."""

    coalesced_reads: float = 2500.0
    """Reads a second from which on that begins: a quarter of what a core can serve. It ends below a quarter of that."""

    coalescing_calls: int = 64
    """Turns of the loop after which it is decided anew: some milliseconds under load, and 64 ms once there is none."""

    coalescing_interval: float = 0.001
    """Seconds, below 1, between such reads. A turn of the loop then reads more sockets and more of each answer: answers
    of 100 deltas in a burst take 14 % less CPU. They come no later where the core is fully used; otherwise each read
    comes up to 1 ms later. 0.4 ms gives a third of that; with 1.6 ms, which gives a little more, answers come later."""

    unflushed_transports: int = 8
    """Connections whose writes wait for the end of a turn of the loop; then they are sent, so that peers work while a
    long turn goes on. With 64, the first token of 200 clients at once (p99) took a tenth longer."""

    unflushed: int = 64 * KIB
    """Bytes that wait so for one connection: a slow client must stop an upstream before its second read."""

    bulk_read: int = 2 * KIB
    """Bytes of a read that is the beginning of more, ten deltas at once: its socket rests. The reads of a stream whose
    tokens come one by one are a tenth of that."""

    bulk_rest: float = 0.0004
    """Seconds until such a socket is read again at the latest, with what has come meanwhile. Bursts of 1,000 deltas of
    an upstream over TLS, which sends records of 4 KiB, take a quarter less CPU so; longer rests bring no more. A read
    has 64 KiB at most, so that such a stream has 160 MB a second."""

    tls_read: int = 64 * KIB
    """Bytes of one read of a TLS connection, after which the other connections are read: four records of the largest
    size, or 2,700 of a byte each, which take 3 ms."""

    plain_read: int = 256 * KIB
    """Bytes of one read of a connection without TLS, after which the other connections are read: as many as the
    transport of uvloop reads at once. With 64 KiB bursts of 1,000 deltas took 11 % more CPU."""

    client_read: int = 64 * KIB
    """Bytes of one read of a client's connection: more than most requests have; as in `kernels/_native/sockets.pyx`."""

    tls_contexts: int = 64
    """Sets of files of TLS whose context is kept: each holds a MiB where it trusts the system's authorities."""

    tls_record: int = 16 * KIB
    """Bytes of text in a TLS record at most (RFC 8446, 5.1). OpenSSL gets no more at a time in either direction, since
    its buffers keep the largest size that they had."""

    tls_steps: int = 4
    """Steps of TLS handshakes in a turn of the loop: some 4 ms of work where each makes a signature with an RSA key of
    2,048 bits, after which other streams go on."""

    tls_session: float = 3600.0
    """Seconds for which a TLS session is resumed, so that a certificate is checked again after an hour."""

    tls_handshake: int = 256 * KIB
    """Bytes of a TLS handshake that wait for their turn: OpenSSL takes certificates of 100 KiB at most. An upstream
    with more is given up; of a client, which may send a request behind, no more is read until then."""

    tls_unsent: int = 16 * KIB
    """Bytes of TLS's own answers that an upstream may provoke and not take: an answer to new keys has some 30."""

    collected_text: int = 64 * KIB
    """Bytes of copied text that wait for an adapter: more are parsed, which hands it over."""

    warnings: int = 100
    """Warnings of one answer that are reported in one place: more add nothing."""

    tool_calls: int = 1024
    """Tool calls of one choice: each has a state of its own."""

    call_id: int = 32 * KIB
    """Characters of the id of a call, which is repeated with each piece of its arguments: gateways put signatures into
    ids, which are some thousands long, and a read holds thousands of pieces."""

    choices: int = 128
    """Choices of one answer, which is what OpenAI lets a request ask for; each has a state of its own."""

    content_blocks: int = 1024
    """Open content blocks of one answer: each has a state of its own."""

    cited_text: int = 8 * MIB
    """Bytes of an answer's text that are kept to place citations whose offsets count bytes; ASCII needs none."""

    betas: int = 64
    """Names of beta features that a request may ask for: they share one header, and clients name a handful."""

    default_max_tokens: int = 4096
    """Tokens asked for where an API demands a bound and the request gives none: every model in use has it."""

    max_tokens: int = 100_000_000
    """The most tokens a request may ask for: ten times the longest context in service, so more is a slip."""

    identifier: int = 128
    """Characters of a request id or an event id: longer event ids make every cross-origin reconnect a preflight."""

    event_name: int = 128
    """Characters of an SSE event name we write."""

    schema: int = 128 * KIB
    """Bytes of a JSON Schema that answers are checked against: it is compiled on the event loop, in some 60 ms, and the
    largest that OpenAI takes have 120,000 characters."""

    schema_patterns: int = 256
    """Regular expressions of a JSON Schema: a short one is compiled in 0.1 ms."""

    schema_pattern_memory: int = 1 * MIB
    """Memory of the compiled patterns of a JSON Schema, together: `.{0,500}` fits, and `a{1000}{300}` would take 10 MiB
    and 30 ms. The time to match a text grows with it as well."""

    schema_parts: int = 1 * MIB
    """Bytes of a JSON Schema, times the members of an answer that are checked alone: whatever a member refers to is
    compiled again. The members beyond are checked with the whole answer."""

    schema_paths: int = 512
    """Subschemas of a JSON Schema that may be evaluated at one place of an answer, each as often as there are ways to
    it: a union of 250 models fits. So many take some 15 µs, and a place takes a model as long as a token."""

    schema_steps: int = 50_000
    """Steps in which the cost of a JSON Schema is determined, in some 60 ms: ordinary schemas of the largest size take
    20,000."""

    cached_schemas: int = 32
    """JSON Schemas that are kept compiled: a service has a dozen. Each takes 2 MiB at most."""

    cached_schema: int = 64 * KIB
    """Bytes of a JSON Schema that is kept compiled: one takes up to twenty times its text."""

    reconnect_most: int = 3_600_000
    """The longest `retry:` that may be configured, in milliseconds: an hour. A client that waits longer has left."""

    client_buffer: int = 64 * MIB
    """The largest `client_buffer`: a thousand slow clients that fill it would take all of a large machine's memory."""

    retry_digits: int = 32
    """Digits of an SSE `retry:`: a decimal of any length costs quadratic time, and no interval needs more."""

    integer_digits: int = 4300
    """Digits of an integer in JSON that is still parsed: CPython's own bound against quadratic time."""

    idempotency_key: int = 255
    """Characters of an idempotency key, as Stripe takes them."""

    chat_id: int = 255
    """Characters of the id that a page gives to a chat, a thread or a run: the longest ids in use, UUIDs with a prefix,
    are a fifth."""

    malformed_chunks: int = 3
    """Malformed chunks in a row that end a stream: one is noise, three are a broken peer."""

    retry_after_ms: int = 120_000
    """The longest `Retry-After` that is passed on: the OpenAI SDK gives up beyond it (`_base_client.py`)."""

    encoder_capacity: int = 4 * KIB
    """First size of an encoder's buffer: twenty text deltas."""

    held_frame: int = 4 * KIB
    """The beginning of a frame that waits for its rest to be copied: longer ones are parsed, so that bytes that come
    one by one are not looked at again and again."""

    leading_blanks: int = 4 * KIB
    """Blanks before the first event of a source whose framing is not known yet: keep-alives of one byte, hours of them.
    A source with more is read as SSE."""

    feed_slice: int = 64 * KIB
    """Bytes that a parser handles between two looks at its limits."""

    stream_turn: int = 256 * KIB
    """Bytes of one stream that are handled in one turn of the loop, so that one fast upstream starves nobody."""

    heap_block: int = 4 * MIB
    """Freed blocks up to this size stay in the process: the largest read is 256 KiB."""

    heap_kept: int = 64 * MIB
    """Freed memory that the process keeps at its end: a burst of some hundred streams."""

    overloaded_ms: int = 1000
    """Milliseconds after which a client that was refused for want of room may ask again."""

    ledger_parts: int = 16
    """A worker keeps this part of what is free of a key's limit: enough requests for the time between two exchanges
    with the ledger, and so little that eight workers leave half of it free."""

    ledger_scarce: int = 64
    """Below this many free uses of a limit nothing is kept: the ledger decides on each request. In a minute a key with
    fewer makes so few requests that a round trip for each is nothing."""

    ledger_tight: float = 1.0
    """Seconds for which nothing of a key is kept, after workers have had to be asked to give it back."""

    ledger_flush: float = 0.05
    """Seconds between two exchanges of a worker with the ledger while there is news: as late as a limit a minute may be
    by 0.1 %."""

    ledger_wait: float = 2.0
    """Seconds until an exchange with the ledger counts as failed: a busy machine may stand still for one."""

    ledger_retry: float = 1.0
    """Seconds between two attempts to reach a ledger that fails."""

    ledger_recall: float = 1.0
    """Seconds within which workers must have given back what they keep; then the limit counts as used. It takes some
    milliseconds, or as long as a worker stands still."""

    ledger_gone: float = 5.0
    """Seconds after which a worker that is not heard loses what it keeps and its streams: ten exchanges."""

    ledger_idle: float = 60.0
    """Seconds after which a worker gives back what it keeps of a key that nobody uses."""

    ledger_batch: int = 500
    """Keys, and entries of spend, in one exchange: 5 ms of a Redis server's time."""

    ledger_kept: float = 3600.0
    """Seconds for which Redis keeps the state of a key's limits that nobody uses. No rate is longer than a minute."""

    ledger_keys: int = 100_000
    """Keys whose state is in memory. Keys come from the configuration only; above this number, those are dropped of
    which nothing is in use."""

    ledger_periods: int = 16
    """Days and months of a key's spend that its limit remembers, so that a clock that jumps back finds them: the rest
    is in the report."""

    spend_entries: int = 100_000
    """Different keys, models, upstreams and days of the spend in memory, 300 bytes each. Above it the spend of new ones
    counts for the model and upstream "other" of its key and day."""

    spend_days: int = 400
    """Days for which spend is kept: a year, and the month before."""

    least_memory: int = 64 * MIB
    """The least memory that can be configured: a server without streams has nearly as much."""

    memory_share: float = 0.8
    """The part of the memory of the machine, or of the container, above which no stream is begun by default."""

    memory_look: float = 0.5
    """Seconds between two looks at the process's memory: at 1 GB/s it grows by half a GB."""

    memory_given_back: float = 30.0
    """Seconds between two times that freed memory is given back to the system: it takes 50 ms for each GiB in use."""

    slow_client: int = 64 * KIB
    """Unsent bytes of a client above which it may be cut off where memory is short: half of what the kernel holds."""

    accepted: int = 32
    """Connections that are accepted in one turn of the loop: other workers have a share, and streams a turn soon."""

    accept_pause: float = 0.25
    """Seconds for which nothing is accepted where there is no room, or no descriptor: a client hardly notices."""

    channel_pause: float = 0.005
    """Seconds for which nothing is accepted where no worker has room for another connection: a channel holds some 270,
    and a worker takes as many in ten milliseconds."""

    refused_connections: int = 64
    """Connections that are refused at a time; more wait in the kernel: each takes a descriptor, for two seconds."""

    files_kept: int = 4
    """A part of the descriptors that clients do not get: one in so many is for upstreams, logs and refusals."""

    backlog: int = 4096
    """Connections the kernel holds before accept: with 128 the 129th of a burst waits a second for its SYN retry."""

    pool_idle: float = 30.0
    """Seconds an idle upstream connection is kept: below the 60 s of most load balancers, which close silently."""

    pool_idle_least: float = 1.0
    """Seconds idle below which a connection that its upstream closes does not shorten the time of others: the upstream
    restarts, or was about to close it anyhow. Connections that are kept for less would hardly ever be used again."""

    pool_look: float = 0.05
    """Seconds idle from which a connection is looked at before it is used, in case its upstream closed it while the
    loop was busy: the system call is a hundredth of a short request, and no upstream closes earlier but at once."""

    ready_connecting: int = 32
    """Connections that a pool makes at a time before requests ask for them: enough for a thousand a second at 30 ms
    each, and requests that come meanwhile do not wait behind hundreds of handshakes."""

    ready_retry_first: float = 0.5
    """Seconds until a connection that was to be ready is tried again; each failure doubles them."""

    ready_retry: float = 30.0
    """The longest of these waits: an upstream that is back has its connections ready half a minute later, and one that
    is gone is asked twice a minute."""

    pool_waiting: int = 1024
    """Requests that wait for a connection of one upstream: as many again as the pool has by default, so that a wait is
    about one answer long; further requests are refused at once."""

    pool_stale: float = 1.0
    """Seconds after the request in which a reused connection that closes without a byte counts as one that had been
    dead: a round trip or two. Later it may have been at work, and the request is not sent again by itself."""

    waiting_events: int = 1024
    """Events that a program in this process has not read yet, above which the upstream is no longer read: some hundred
    KiB of dicts."""

    pushed: int = 256 * KIB
    """Bytes that a program has pushed into a stream and nobody has read, above which it must wait: a few hundred
    events, and as much as a slow client is allowed."""

    pushed_event: int = 256
    """Bytes that a pushed event costs besides its text: its dict, and its place in the queue."""

    pusher_look: float = 1.0
    """Seconds between two looks of a waiting thread at whether the event loop still runs."""

    retries: int = 10
    """Retries of one request that can be configured: each may take as long as the request itself."""

    breaker_failures: int = 1000
    """Failures that can be asked for before a breaker opens: their times are kept."""

    warning_interval: float = 60.0
    """Seconds between two warnings about one upstream: a key that is refused is refused for each request."""

    retry_window: float = 10.0
    """Seconds over which requests and their retries are counted."""

    retry_share: float = 0.1
    """Retries, as a part of all requests: an upstream that fails is asked a tenth more, not three times as much."""

    retry_floor: int = 10
    """Retries that there may always be in a window: a tenth of few requests would be none."""

    retry_first: float = 0.5
    """Seconds before the first retry, doubled for each further one: what the official SDKs do."""

    retry_most: float = 8.0
    """The longest wait before a retry where the upstream named no time."""

    retry_jitter: float = 0.25
    """The random share of a wait, so that requests that failed together are not retried together."""

    targets: int = 64
    """Targets of one model: a request looks at each of them, in a microsecond or two."""

    target_weight: int = 1000
    """The largest weight of a target: a thousandth is the least share that anybody needs."""

    upstream_keys: int = 64
    """Keys of one upstream: a request may be refused once for each."""

    cooling: float = 5.0
    """Seconds for which a target or key is not asked after a 429 that named no time: LiteLLM's default."""

    refused_key: float = 60.0
    """Seconds for which a key that the upstream refuses (401), and a target that has no other, is not asked: operators
    replace it, and a refusal that was a mistake passes."""

    breaker_look: float = 0.5
    """Seconds between two attempts to connect to an upstream whose breaker is open because that failed."""

    slow_start: float = 5.0
    """Seconds in which the share of a target that comes back grows to its whole."""

    slow_start_share: float = 0.1
    """The part of its share that a target has at the beginning of its slow start, and while its requests fail."""

    latency_weight: float = 0.2
    """The weight of the newest time to first token in the average of a target: a change counts in full after ten."""

    latency_requests: int = 150
    """Requests of a model in which the average of a target that gets none of them is halved. One that is ten times
    slower is so tried once in 450 requests: seldom enough for the 99th percentile."""

    latency_memory: float = 600.0
    """Seconds after which an average without a new value is forgotten, and the target measured anew: of one request in
    six seconds a hundredth goes to a slow target."""

    failure_memory: float = 10.0
    """Seconds after which the average of a target whose last request failed is forgotten: as long as a breaker stays
    open by default."""

    failed_first_token: float = 10.0
    """Seconds to first token that a failure counts as where the target has no average yet."""

    latency_tolerance: float = 1.25
    """Averages of two targets up to this ratio count as equal: chance alone makes them differ so much."""

    unmeasured_wait: float = 1.0
    """Seconds for which a request waits for the first token of any target, while nobody knows how fast they are. Until
    then the wait at most doubles its own time to first token; longer would be felt where all targets are slow."""

    unmeasured_look: float = 0.02
    """Seconds between two looks of such a request: little beside a time to first token."""

    affinity_load: float = 1.75
    """The most streams of a target, compared with its part of all, before conversations overflow to others (consistent
    hashing with bounded loads). Of 60 conversations at four targets one target has up to 24 by chance, 1.6 times its
    part; twice the part would be no bound for two targets."""

    affinity_free: int = 8
    """Streams of a target up to which no conversation overflows: many of a few streams may meet at one target."""

    affinity_text: int = 32 * KIB
    """Characters of a conversation's beginning that are hashed, in 60 µs: longer beginnings differ before."""

    hedged: int = 1 * MIB
    """Bytes of a second target's answer that wait for its first event: a target that sends more without one is
    dropped. The chunks in use that stand before any event have a few hundred."""

    upstream_tail: float = 1.0
    """Seconds in which an upstream may end its response after its last event: a round trip or two. Longer, and a new
    connection costs less than the wait."""

    upstream_heads: int = 64
    """Request heads that are kept written: a model of an upstream has one, and each holds its upstream's credential."""

    dns_fresh: float = 30.0
    """Seconds for which an answer of the DNS is used: the shortest that load balancers give their names is 60."""

    dns_stale: float = 600.0
    """Seconds for which the last answer is used while the DNS fails: a resolver's outage is none of the upstream."""

    dns_addresses: int = 32
    """Addresses of one name that are tried: more than any provider gives, and as many sockets at most."""

    connect_stagger: float = 0.25
    """Seconds until the next address of a host is tried beside the first (RFC 8305 §5 recommends 250 ms)."""

    timer_tick: float = 0.05
    """Seconds between two looks at the timers: no timeout here is shorter than a second by default."""

    timer_late: float = 0.1
    """Seconds by which the loop may be late before the timers let the sockets be read first: two ticks, since nobody
    notices a third, and a process that others hold up is late by that much."""

    body_rate: int = 1 * KIB
    """Bytes a second at which a request's body must come at least, taken over the whole of it: a modem's line is seven
    times as fast, and a client that sends one byte at a time would hold a connection for as long as it likes."""

    port_tries: int = 8
    """Free ports that are tried where a host has several addresses: the port must be free at each of them."""

    probe_after: int = 15
    """Seconds of silence on a client's connection until the kernel probes whether the client's machine is still there:
    while a whole answer is made, nothing else would show it."""

    probe_interval: int = 5
    """Seconds between two such probes."""

    probes: int = 3
    """Probes without an answer that end a connection: with the two above, half a minute after the last sign of life."""

    query_fields: int = 64
    """Query parameters of a request: no route knows ten."""

    request_line: int = 8190
    """Bytes of a request's target: the common 8 KiB less two, as most servers and proxies take them."""

    request_head: int = 64 * KIB
    """The headers of a request together: what OpenAI itself accepts."""

    header_field: int = 8 * KIB
    """One header of a request, name and value: as nginx takes them."""

    request_headers: int = 128
    """Headers of a request, its trailers among them: clients and their proxies send some thirty."""

    collected_objects: int = 50_000
    """New objects between two runs of the garbage collector: some MiB, should all of them be garbage. A run in which
    none is takes 2.5 ms for 20,000, and 200 clients that come at once have as many."""

    known_head: int = 2 * KIB
    """Bytes of a head that a connection keeps to know it again: those of the SDKs are a third of it."""

    known_heads: int = 4
    """Heads of which a new connection's may be one. Each that is not costs 0.1 us to tell, where parsing costs 9."""

    known_names: int = 256
    """Names of headers whose spelling is kept: all clients of one kind send the same thirty."""

    lane_head: int = 8 * KIB
    """Bytes of a request's head that the fast lane reads itself: those of the SDKs have less than one KiB. A whole head
    is no longer than one header may be, so the lane needs no limit for single ones."""

    read_ahead: int = 64 * KIB
    """Bytes of a client that are read while its request is answered: as much as one read brings."""

    known_addresses: int = 256
    """Addresses whose verdict is kept: an upstream has a few, and a parsed one takes 1 KiB at most."""

    known_values: int = 64
    """Values of one header, or of several together, whose verdict is kept: clients of one kind all send the same. Each
    is as long as a header may be at most."""

    header_overhead: int = 4
    """Bytes of a header besides its name and value: `: ` and its line end."""

    kernel_unsent: int = 128 * KIB
    """Bytes for a client that the kernel holds beyond those under way: more would only hide whether a slow client
    still takes any, and by its own measure the kernel holds up to 4 MiB."""

    pipelined: int = 16
    """Requests of one client that wait for the answers before them; beyond it is not read."""

    max_body_digits: int = 18
    """Digits of a content length: more are beyond every limit."""

    client_idle: float = 75.0
    """Seconds an idle client connection is kept: longer than the 60 s for which nginx and ALB keep theirs, so that they
    never send a request into a connection that is being closed."""

    closing: float = 0.8
    """Seconds that a server which stops gives its handlers to end, and its clients to take their last bytes: with the
    end of the process less than the second by which it may outlast `grace`."""

    parting: float = 0.05
    """Seconds until a follower is cut off after its last frame: the loop has written it by then."""

    parting_frame: float = 0.45
    """Seconds in which a follower must get a last frame when the server stops; a part of `closing`."""

    parting_retry_ms: int = 1000
    """Milliseconds after which a client that was cut off is to come back at the earliest: a successor has started."""

    parting_retry_spread_ms: int = 4000
    """Milliseconds over which chance spreads the clients that come back, so that not all of them come at once."""

    drain_look: float = 0.02
    """Seconds between two looks at the listening socket of a server that drains. A successor on the same socket is
    faster and takes what comes; where there is none, a client waits for so long."""

    drain_idle: float = 1.0
    """Seconds that an idle connection stays open while the server drains: a client that sends its next request then is
    answered, and told that it is the last."""

    workers: int = 256
    """Workers of a server: more than any machine has use for, each with a connection to each other."""

    worker_number: int = 999_999_999
    """The highest number that a worker may have, for the length of a path: one every second for thirty years."""

    link_message: int = 256 * MIB
    """Bytes of a message between a worker and its supervisor: the counts of 1,000 models are 2 MiB."""

    link_unsent: int = 64 * MIB
    """Bytes that wait until a worker, or the supervisor, reads its messages, beyond which it counts as hung: one that
    works reads at once, and a configuration is far smaller."""

    worker_early: float = 1.0
    """Seconds within which a worker that dies counts as one that could not start."""

    worker_starts: int = 5
    """Workers in a row that could not start, after which the server ends: another try would fail as well."""

    worker_settled: float = 60.0
    """Seconds after which the death of a worker no longer makes its successors wait."""

    worker_wait: float = 0.1
    """Seconds until the second worker in `worker_settled` that died is replaced; doubled for each further one."""

    worker_wait_most: float = 5.0
    """The longest such wait."""

    worker_end: float = 0.95
    """Seconds beyond `grace` after which a worker that has not ended is killed: `closing`, and the end of a process."""

    peer_read: int = 256 * KIB
    """Bytes of one log that a worker tells another at a time: more would hold up its streams."""

    bus_wait: float = 2.0
    """Seconds in which another worker must answer a question: one that is alive and busy does in milliseconds."""

    counts_wait: float = 0.5
    """Seconds in which the workers must tell their counts for a scrape; of one that is late, the last known ones count:
    a scraper waits for ten seconds by default."""

    socket_path: int = 103
    """Bytes of the path of a unix socket: macOS has room for no more, Linux for four more."""

    descriptor: int = 1 << 20
    """The largest number of an inherited descriptor: the most files that Linux lets a process have by default."""

    stdout_blocked: float = 1.0
    """Seconds for which a server's start waits for a standard output that takes nothing, such as a full pipe."""

    stderr_waiting: int = 1 * MIB
    """Bytes that wait until the standard error takes them: some 5,000 lines of the access log."""

    held_records: int = 100
    """Log records that are kept until the format of the log is known: before that there is nothing but warnings."""

    otel_text: int = 16 * KIB
    """Characters of one attribute of a span: only prompts, where they are asked for, are longer, and lose their end."""

    otel_items: int = 16
    """Texts of an attribute that is a list, such as stop sequences: no provider accepts more."""

    otel_state: int = 512
    """Characters of a `tracestate` that is passed on (W3C Trace Context, 3.3.1.5)."""

    otel_waiting: int = 8 * MIB
    """Bytes of spans that wait for their receiver: some 8,000 requests, five seconds of a busy process."""

    otel_batch: int = 512 * KIB
    """Bytes of spans above which they are sent before their time; a request to the receiver has little more."""

    otel_series: int = 1000
    """Series of one metric: a hundred models of ten upstreams. Further ones are counted together."""

    otel_request: float = 10.0
    """Seconds for one request to the receiver, as OpenTelemetry's own exporters have it."""

    otel_answer: int = 64 * KIB
    """Bytes that are read of the receiver's answer: one that goes on costs its connection."""

    otel_attempts: int = 5
    """Attempts to send the same spans: with the waits between them half a minute, in which a receiver restarts."""

    otel_retry: float = 1.0
    """Seconds until spans are sent again that were not taken; doubled each time."""

    otel_retry_most: float = 300.0
    """Seconds of a receiver's `Retry-After` at most: it may say anything."""

    otel_look: float = 0.01
    """Seconds between two looks whether they have been sent."""

    otel_end: float = 0.6
    """Seconds in which the last spans must be sent when a server ends: a part of `closing`."""

    stderr_interval: float = 0.01
    """Seconds in which lines gather after some were written: to wake the thread for each of 6,000 lines a second costs
    25 us a line."""

    stderr_end: float = 1.0
    """Seconds that the end of a process waits for its last log lines, as long as they are taken."""

    stderr_blocked: float = 0.08
    """Seconds that it waits while none is taken: with `closing` less than the second by which it may outlast `grace`,
    and less than `worker_end`."""

    stderr_look: float = 0.01
    """Seconds between two looks at what is left."""

    lingering: float = 2.0
    """Seconds for which the rest of a refused request is read and dropped: closing at once would reset the connection,
    and the client would never see why."""

    tls_answers: int = 16 * KIB
    """Bytes that a client may make us send by TLS itself after its handshake: some 600 key updates, each of which costs
    it less than us. One in 400 GiB is needed."""

    proxy_header: int = 4 * KIB
    """Bytes of a PROXY header: those of load balancers have some hundred, or a thousand with a certificate's names."""

    forwarded_hops: int = 64
    """Proxies that are believed one after the other: more are a loop."""

    forwarded_text: int = 8 * KIB
    """Characters of `Forwarded` that are read, from its end: an element of a proxy has some hundred."""

    log_block: int = 8 * KIB
    """Bytes to which the small pieces of a log are joined: a block's own cost is then 2 % of it."""

    log_piece_cost: int = 64
    """Bytes that a piece costs a log besides its own: the header of a bytes object (33), the allocator's rounding (up
    to 15) and its place in a list, which grows by eighths (9)."""

    kept_piece_cost: int = 128
    """Bytes that a text which is kept with its event costs besides its own: the header of a string (49), the tuple of
    both (56) and its place in a list (9), each rounded up by the allocator."""

    log_block_cost: int = 160
    """Bytes that a block costs besides its own: the header (33), the allocator's own and rounding (up to 23), a tuple
    with its last number (56 + 32) and a place in a deque (8)."""

    log_stream_cost: int = 1536
    """Bytes that an empty log costs: the object, its deque and list, strings and a place in a table are 1.1 KiB,
    and its ending up to 0.4 KiB (measured)."""

    journal_interval: float = 0.03
    """Seconds for which what is new of all logs is gathered for the store: to a client that resumes it is nothing."""

    journal_batch: int = 4 * MIB
    """Bytes of one batch for the store."""

    journal_changes: int = 512
    """Streams of one batch for the store: gathering them takes 2 ms, in which no other stream goes on."""

    journal_stream: int = 256 * KIB
    """Bytes of one stream that wait for the store; of more the log is read when the store answers."""

    journal: int = 16 * MIB
    """Bytes of all streams that wait for the store: four batches."""

    journal_dropped: int = 100_000
    """Streams whose copies are to be removed and which wait for the store: 10 MiB of ids. Copies of more are removed
    when their time is over."""

    copy_life: float = 3600.0
    """Seconds for which the copy of a running stream is kept at least, prolonged as long as its worker lives: of a
    killed worker's streams nothing stays for ever."""

    store_retry_first: float = 0.1
    """Seconds before a batch is written again that the store did not take, doubled for each further time."""

    store_retry: float = 2.0
    """The longest wait before that, and how long a store that failed is not asked for other streams."""

    store_close: float = 3.0
    """Seconds that a server which stops gives its store to take what is gathered."""

    mirror_wait: float = 0.1
    """Seconds for which a store may keep its answer back for something new: a follower that joins waits as long."""

    mirror_streams: int = 64
    """Streams of other workers whose news a store is asked for at a time: with `store_reply` it bounds the answer."""

    mirror_reads: int = 64
    """Reads of a copy before its followers are answered; what is left comes to them afterwards. Of a copy in a file
    they are 64 MiB, and one has 4.5 MiB at most by default."""

    mirror_pause: float = 0.01
    """Seconds between two questions for what is new of other workers' streams."""

    mirror_share: float = 0.000_02
    """Seconds that are added to it for each such stream: asking for one takes about as long."""

    mirror_idle: float = 5.0
    """Seconds for which a stream of another worker is still read that nobody follows: a client that resumes is back."""

    mirror_patience: float = 10.0
    """Seconds for which followers of other workers' streams wait for a store that fails, before they get an error."""

    lease: float = 2.0
    """Seconds after which a worker that does not renew its lease in the store counts as gone: four renewals, so that a
    loop that stands still for a second costs no stream."""

    lease_renewal: float = 0.5
    """Seconds between two renewals of a lease, and between two looks at those of others."""

    cancel_wait: float = 1.0
    """Seconds for which a store may keep its answer back for a stream that is to be cancelled: an idle server asks once
    a second."""

    cancel_poll: float = 0.05
    """Seconds between two looks at a store's file for them: a provider is to be stopped within 0.1 s."""

    cancels: int = 10_000
    """Streams of one worker that others may ask it to cancel at a time: the oldest of more are forgotten, and the
    others' requests to cancel them are answered so."""

    store_busy: float = 2.0
    """Seconds for which another process may hold the lock of a store's file: batches take milliseconds."""

    store_connect: float = 2.0
    """Seconds to connect to a store: it stands near, or every stream of another worker would be slow."""

    store_timeout: float = 5.0
    """Seconds for a store's reply: a slow one takes a fifth of a second, one that saves its data a second or two."""

    store_connections: int = 8
    """Requests to a store that are under way at a time; more wait for one of them."""

    store_pipeline: int = 64
    """Changes, or questions, that are sent to a server at a time: a millisecond of work, after which other streams go
    on."""

    store_entries: int = 16
    """Records of one stream that are asked of a server at a time: 4 MiB, as long as no single piece is larger."""

    store_entries_least: int = 4
    """Records that are asked of each of several streams at a time, at least: 64 MiB of `mirror_streams`, and a record
    of what has just been said is a thousandth of that."""

    store_poll: float = 0.02
    """Seconds between two looks at a store's file for what other processes have written."""

    store_sync: float = 1.0
    """Seconds between two synchronizations of a store's file with the disk: what a loss of power takes at most."""

    store_sweep_interval: float = 5.0
    """Seconds between two removals of what is past its time."""

    claims: int = 400_000
    """Idempotency keys that a process holds: in memory 0.5 KiB each, so 200 MiB. A caller may hold as many as are free,
    so half of them where it is alone: with the default time to live two new ones a second."""

    claim_settling: float = 5.0
    """Seconds for which the stream of an idempotency key that was just taken may be unknown: its first batch is under
    way. A store that takes longer to write it fails."""

    store_read: int = 1 * MIB
    """Bytes of one stream's copy that are read at a time."""

    store_reply: int = 8 * MIB
    """Bytes of several streams' copies that are read at a time, besides a record of each."""

    store_sweep: int = 256
    """Rows past their time that are removed at a time: a transaction of some ms."""

    log_headroom: int = 512 * KIB
    """Bytes that one read of an upstream may add to a log: 256 KiB with uvloop, written in frames twice as long."""

    follower_read: int = 64 * KIB
    """Bytes that a follower which catches up reads of its log in one turn of the loop, which other streams share."""

    replay_gap: float = 10.0
    """The longest pause of a kept answer that is replayed with its recorded pace, in seconds: below the shortest common
    idle limit of proxies, 30 s."""

    shared_patience: float = 1.0
    """Seconds, in all, of pauses of a client that joins a shared answer late, in which the answer waits for it rather
    than drop what comes next: it is given all that there is at once, and needs a moment to take it."""

    shared_call: float = 600.0
    """Seconds for which the key of a call that several processes may share is claimed beyond the time that its answer
    is kept: the default `total_timeout` of an upstream."""

    batch: int = 64 * KIB
    """Characters that a batch may hold: what a read of the socket brings."""

    batched: int = 4096
    """Deltas that a batch may hold: some have no text, and each costs half a KiB of memory."""

    batch_ms: int = 60_000
    """The longest time a batch may hold a delta: beyond it, clients and proxies take the stream for dead."""

    replaced_word: int = 256
    """Characters of a word that is replaced: so many may be held back, and are looked at with every delta."""

    replaced_words: int = 256
    """Words that are replaced: all are looked for with every delta."""

    correlation_keys: int = 16
    """Keys that a correlation adds to `start`: an event is no place for a document."""

    callbacks_waiting: int = 1024
    """Async callbacks of one stream that wait their turn: each holds an event, and a thousand are a long answer."""

    callbacks_end: float = 5.0
    """Seconds for which a stream that has ended waits for its async callbacks: a write to a slow disk or database."""

    asgi_body: int = 10 * MIB
    """Bytes of a request's body that is read for a handler without a web framework: as `max_body` has it by default."""

    reconnecting: float = 60.0
    """Seconds for which a client of a server tries to come back to its stream: a restart or a change of networks."""

    reconnect_first: float = 0.25
    """Seconds before it tries for the second time, doubled for each further one; half of it is chance."""

    reconnect_longest: float = 8.0
    """The longest wait between two tries."""

    server_connect: float = 10.0
    """Seconds in which a server must take a client's connection, and again in which it must begin to answer about a
    stream that runs: it does so in milliseconds, and another try may find another worker."""

    server_head: float = 600.0
    """Seconds in which a server must begin to answer a request: as long as an upstream may take, should the server wait
    for it (`commit_after`)."""

    abandoned: int = 1000
    """Streams whose heads a client of a server awaits in place of their programs, to cancel them: each is a connection,
    for ten seconds at most. Further ones are left to the server (`detach_ttl`)."""

    server_silence: float = 60.0
    """Seconds without a byte after which a client takes its connection for dead: four keep-alives of a server."""

    server_error: int = 64 * KIB
    """Bytes of a server's error that a client reads: ours have a few hundred."""

    source_end: float = 5.0
    """Seconds for which a response waits for its source to clean up, whose client has left: as `callbacks_end`."""

    socket_message: int = 4 * MIB
    """Bytes of a message of a WebSocket's client: a long conversation is a tenth; images fit a POST."""

    socket_frames: int = 1024
    """Frames of one such message: browsers send 4 MiB in 32 of 128 KiB, and each costs more than its bytes."""

    socket_streams: int = 256
    """Streams of one WebSocket: twice what HTTP/2 gives a connection by default."""

    socket_unsent: int = 256 * KIB
    """Bytes of answers to pings and to refused requests that a WebSocket's client may provoke while `client_buffer` is
    full: one that reads nothing may do so without end."""

    socket_control: int = 100
    """Control frames of a WebSocket's client in `socket_control_window`: a browser sends a pong in many seconds."""

    socket_control_window: float = 1.0
    """Seconds in which they are counted."""

    socket_ping: float = 0.1
    """Seconds between two pings to a WebSocket's client at least: each silent stream of it asks for one, and the client
    answers each with a control frame."""

    socket_look: float = 30.0
    """Seconds of silence after which a WebSocket's client is sent a ping, and after which it is given up then; between
    two looks a message must have come to its end, since what has come of it is kept."""

    socket_close: float = 10.0
    """Seconds in which a WebSocket's client must answer a close."""

    socket_extensions: int = 1 * KIB
    """Characters of the extensions that a WebSocket's client offers, above which it gets none: browsers offer 50."""

    socket_early: int = 64 * KIB
    """Bytes that a WebSocket's client may send before it has the answer to its handshake; beyond it is not read."""

    close_reason: int = 123
    """Bytes of the text of a WebSocket's close (RFC 6455, 5.5)."""

    ack_marks: int = 64
    """Places of a stream that its client may acknowledge exactly; others count as the place before them. Each is 100
    bytes of memory."""

    ack_step: int = 4096
    """Bytes that a fast path sends over a borrowed WebSocket between two such places. A stream whose `client_buffer` is
    below `ack_steps` of them does not borrow: a client that acknowledges every tenth event might wait for the next one
    while the server waits for its acknowledgement."""

    ack_steps: int = 16
    """The `ack_step`s that a `client_buffer` must hold for its stream to borrow."""

    shortest_key: int = 8
    """Characters of a caller's key at least, as NIST SP 800-63B has it for any secret: shorter ones are guessed."""

    longest_key: int = 1024
    """Characters of a caller's key at most: a signed token has some hundred, and each is hashed before it is known."""

    key_secrets: int = 8
    """Secrets of one caller: two while one is rotated, and some more for callers that take long to follow."""

    key_limit: int = 1_000_000_000
    """The largest limit of a key: more requests, tokens or streams than any server has, and exact in any store."""

    largest_spend: int = 9_000_000
    """The largest limit of spend: in 10^-12 of the currency it is a signed number of 64 bits, as stores have it."""

    wrong_keys: int = 100
    """Wrong keys of one address within `wrong_keys_time`: a program with an old key notices, and a guesser needs for a
    key of 8 characters more than ten thousand years."""

    wrong_keys_time: float = 60.0
    """Seconds."""

    guessing_addresses: int = 10_000
    """Addresses whose wrong keys are counted, 300 bytes each. The one that has sent the last one longest ago goes
    first: a guesser who has more addresses has as many times 100 guesses a minute anyway."""

    told_addresses: int = 1000
    """Addresses that a worker tells the others of at a time, for wrong keys: a message of 60 KB."""

    link_pause: float = 0.05
    """Seconds after which a worker tells the others of wrong keys, where the supervisor has not read the others."""

    known_callers: int = 10_000
    """Pairs of an address and a key that it has been admitted with, 200 bytes each."""

    secret: int = 8
    """Characters of a header's value that is cut out of recordings: a shorter value may be a word of any answer."""

    usage_models: int = 1024
    """Models whose usage is added up one by one: more than the largest providers offer, each 300 bytes and its name."""

    model_name: int = 256
    """Characters of a model's name in requests, in the configuration, and in sums of usage: the longest in use, ARNs of
    Bedrock, are some 150."""

    audited: int = 1024
    """Characters of a target in the audit log: the longest names of a model, an upstream and an id are half as long,
    while a request for one that is not there may hold as many bytes as a body."""

    streams_shown: int = 1000
    """Running streams that the admin API shows of a server, the newest: 3 ms of work, and more than anybody reads."""

    streams_sampled: int = 200
    """Running streams in each sample for dashboards: 60 KB a second for each that is open."""

    errors_sampled: int = 50
    """Kinds of errors in each sample, the most frequent: there are 13 codes, for each provider."""

    sample_interval: float = 1.0
    """Seconds between two samples for dashboards."""

    watchers: int = 32
    """Dashboards that are open in one worker, and as many streams that admins follow: each takes a connection, and
    60 KB a second at most."""

    spend_interval: float = 5.0
    """Seconds for which dashboards are shown the same spend: to read it asks the store."""

    spend_sampled: int = 20
    """Keys, and models, in the spend of each sample, those with the most."""

    follow_interval: float = 0.1
    """Seconds between two looks at a stream that an admin follows: text that grows ten times a second flows."""

    watched_bytes: int = 1 << 16
    """Bytes of events that are kept of a stream which an admin follows: 6 s of 200 tokens a second."""

    watch_lease: float = 5.0
    """Seconds after which a stream is not watched any more, where no worker has asked for what is new."""

    stream_probes: int = 8
    """Answers of `GET /probe` that run in one worker: they need no key, and a doctor asks once."""

    stream_probe_idle: float = 300.0
    """The longest silence in a probe: proxies cut after 60 s by default, some after 100 s."""

    stream_probe_interval: float = 0.2
    """Seconds between the events of a probe: a hundred times what a network's way takes, so that held events show."""

    doctor: float = 10.0
    """Seconds that `gai-fast doctor` waits for each answer."""

    admin_wait: float = 10.0
    """Seconds without a byte after which `gai-fast top` gives an answer up: a server sends figures each second."""

    admin_again: float = 1.0
    """Seconds after which `gai-fast top` asks again: a key that is refused stays below the limit of wrong keys."""

    admin_body: int = 1 * MIB
    """Bytes of one sample, or of an error, that `gai-fast top` reads: 200 streams are 60 KB."""

    local_server: float = 0.5
    """Seconds in which a model server on this machine answers `config init`: it lists its models in milliseconds."""

    stream_probe_body: int = 64 * KIB
    """Bytes of a probe's answer that the doctor reads: a probe has 300, whatever else answers has more."""

    few_descriptors: int = 4096
    """Open files below which the doctor warns: they are for some 1,300 streams."""

    too_few_descriptors: int = 256
    """Open files below which the doctor sees an error: they are for less than a hundred streams."""

    all_descriptors: int = 1 << 20
    """Open files that an infinite limit stands for: Linux's own limit of a process (`fs.nr_open`)."""

    clock_offset: float = 60.0
    """Seconds by which a clock may differ from that of servers: they tell whole seconds, and answers take some."""

    models_from_zero: int = 200
    """Configured models whose counts are exposed before anybody asks for them, each 190 lines of a scrape."""

    loop_look: float = 0.1
    """Seconds between two looks at how late the event loop is: a loop that is held up for longer is seen, within so
    much of its length."""

    scrape_rows: int = 8
    """Rows of one metric (a histogram of one model is 24 lines) that a scrape writes in one turn of the loop: about
    1.5 ms of work, so that a scrape of 1,000 models (143,000 lines, a second of work) delays no stream by more."""

    suggested_from: int = 100
    """Names that an unknown one is compared with to suggest the nearest: 100 take a millisecond."""

    compared_path: int = 128
    """Characters of an unknown path that routes are compared with, in 0.3 ms at most: the longest route has 25."""

    cost_series: int = 10_000
    """Keys, models, providers and currencies whose cost is counted one by one: a scrape of them is a megabyte."""

    price: int = 1_000_000
    """Units of currency for a million tokens: one for a token. The dearest models cost some hundred dollars, and a
    dollar is 25,000 of the smallest units in use."""

    price_list: int = 8 * KIB
    """Entries of a price list: the longest public lists have 3,000."""

    sound_token: int = 3200
    """Characters of base64 that are estimated as one token of generated sound: 50 ms of it in 16 bits at 24,000 Hz, by
    which OpenAI counts. Compressed sound is estimated too low."""

    image_tokens: int = 1290
    """Tokens that a generated image is estimated as: Gemini's count of one. OpenAI's are 272 to 4,160, by quality."""

    priced_tokens: int = 1_000_000_000
    """Tokens of one kind that an answer is charged for: a hundred times the largest context. A larger count is an
    upstream's mistake, or its lie."""

    charge: int = 100_000
    """Units of currency that one attempt costs at most: 64 bits hold 90 such charges exactly."""

    config_file: int = 1 * MIB
    """Bytes of a configuration file: a larger one is the wrong file."""

    piped_file: float = 5.0
    """Seconds in which the end of a piped file comes: a command that decrypts it may ask a server for the key. A reload
    holds the streams up for as long for each such file, and finds nothing in one that was read at the start."""


LIMITS: Final = Limits()
