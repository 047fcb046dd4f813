"""Limits of the server: connections, requests, replies, workers, pages.

Only this folder uses them; limits that several folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    client_read: int = 64 * KIB
    """Bytes of one read from a client: more than most requests have; equals the value in
    `kernels/_native/sockets.pyx`."""

    idempotency_key: int = 255
    """Characters of an idempotency key; Stripe's limit."""

    keys_poll: float = 0.25
    """Seconds between two looks for changes of the store's keys: a change counts everywhere within a second."""

    keys_known: float = 60.0
    """Seconds for which keys of the store count while it is out of reach: a restart of a store takes less."""

    key_body: int = 16 * KIB
    """Bytes of an admin's request about a key: a hundred names of models have 4 KiB."""

    approvals_read: int = 16
    """Approvals that are read from the store at a time for the admin API's list."""

    approvals_shown: int = 1000
    """Approvals of the admin API's list: those that expire first."""

    approvals_bytes: int = 16 * MIB
    """Bytes of their calls, of which each may have 256 KiB: the list ends behind the first that has more."""

    approval_answers: int = 128
    """Answers to requests for approvals in one request of the Responses dialect: each is read from the store, and may
    have a call of 256 KiB."""

    approval_id: int = 128
    """Characters of an approval's id that is looked for: a stream's id has 100 at most."""

    run_time_keys: int = 4096
    """Keys of the store: each is in the memory of every worker, 2 KiB, and in the admin API's list."""

    keys_shown: int = 64
    """Keys of the admin API's list that are made in one turn of the loop: two milliseconds."""

    key_grace: float = 30 * 86_400.0
    """The longest time in seconds for which a key may have two secrets."""

    revoked_sweeps: int = 10
    """Times that the streams of a revoked key are ended, one second apart: a request that was admitted before may still
    wait for its limits or its body."""

    reads: int = 600
    """Reads a minute of a key without a limit of requests: a dashboard and ten clients that each ask every second."""

    early_check: int = 16 * KIB
    """Bytes of a body from which on the limits are asked before it is parsed: shorter ones are parsed in 0.1 ms."""

    named_ids: int = 10_000
    """Ids of an upstream in one request, each of which is looked for: as many as the items of a long conversation."""

    long_conversation: int = 4 * MIB
    """Bytes of earlier turns from which on a request is read and written beside the loop, however few its values are:
    writing them takes 10 ms."""

    kept_items: int = 32 * MIB
    """Bytes of the items in place of these references, counted at each place: as many as a chain may have."""

    kept_references: int = 1000
    """Items of earlier responses that a request may name instead of repeating them: one exchange with a store. The AI
    SDK names each item of a conversation, and agents have some hundred."""

    form_head: int = 8 * KIB
    """Bytes of the head of a part of a form, or of an id in it: the head has some hundred, and an id has 70."""

    ids_settling: float = 0.1
    """Seconds until an unknown id of an upstream is looked for again: recording one takes milliseconds."""

    whole_upload: int = MIB
    """Bytes up to which a body that is passed through is read whole: it can be sent again if an attempt fails."""

    unsent_upload: int = 256 * KIB
    """Bytes of a longer body that may wait for its upstream: more than a turn of the loop sends (`net/limits.py`,
    `unflushed`), and less than memory notices with thousands of uploads."""

    short_answer: int = 16 * KIB
    """Bytes of an answer that is passed through up to which it is sent whole, if its length is known, or if it is an
    error that must be looked at: an embedding has 8 KiB."""

    usage_text: int = 4 * KIB
    """Bytes at the beginning and at the end of an answer in which its usage may stand: a usage has 300."""

    usage_looks: int = 8
    """Counts in one of these parts whose place is looked at, 0.1 ms each: an answer may repeat what a caller has sent.
    Without counts, the text of the request is counted."""

    turn_bytes: int = 64 * KIB
    """Bytes of JSON whose values are sorted in one turn of the loop, in 2 ms at most. Splitting an object or array into
    its parts takes one turn whatever its size: 25 ms for `json_containers` items, 15 ms for `object_members` names."""

    checked_bytes: int = 64 * KIB
    """Bytes of a body whose structure is checked in one turn of the loop, in 3 ms at most. Smaller bodies are checked
    and parsed in the turn in which they are complete."""

    kept_turn: int = 16 * KIB
    """Bytes of a durable answer's log that are read at once for what is kept of it: 150 deltas, or 0.5 ms."""

    turn_containers: int = 1000
    """Objects and arrays of a request that is read, and then written for its upstream, in one turn of the loop each:
    10 to 20 ms. One with more is read and written beside the loop."""

    turn_items: int = 1000
    """Items of a conversation that are walked in one turn of the loop, in 1 ms: more are walked beside it."""

    item_containers: int = 8
    """Brackets for each item of a conversation that are taken for objects and arrays, though some may stand in texts:
    an item of text has 1 to 5. An exact count walks each value, a tenth of what a turn of a long chain costs."""

    turn_passed: int = 10_000
    """Objects and arrays of a request that is written in one turn of the loop for an upstream that speaks its dialect,
    in 40 ms at most: only what the upstream does not take is looked for."""

    translated_containers: int = 30_000
    """Objects and arrays of a request that is translated, as native ones are: 0.2 to 0.6 s beside the loop. A
    conversation of 10,000 messages with calls of tools has as many. Requests that are passed on are not walked so."""

    turn_value: int = 8
    """Bytes that a value counts besides its text: reading a number costs as much as reading so many characters."""

    hashed_bytes: int = MIB
    """Bytes that are hashed in one turn of the loop, in 1 ms."""

    known_bodies: int = 1000
    """Bodies whose fingerprints are remembered, 0.3 MB: clients send a request again within seconds."""

    memory_share: float = 0.8
    """The share of the memory of the machine, or of the container, above which no stream is started by default."""

    memory_check: float = 0.5
    """Seconds between two checks of the process's memory: at 1 GB/s it grows by half a GB."""

    memory_given_back: float = 30.0
    """Seconds between two releases of freed memory to the system: a release takes 50 ms per GiB in use."""

    slow_client: int = 64 * KIB
    """Unsent bytes above which a client may be disconnected if memory is short: half of what the kernel holds."""

    accepted: int = 32
    """Connections accepted in one loop iteration: leaves some to other workers, and delays streams little."""

    accept_pause: float = 0.25
    """Seconds without accepting if there is no room or no descriptor: clients hardly notice the delay."""

    channel_pause: float = 0.005
    """Seconds without accepting if no worker has room for another connection: a channel holds some 270, and a worker
    takes as many in ten milliseconds."""

    refused_connections: int = 64
    """Connections refused at a time; more wait in the kernel: each needs a descriptor, for two seconds."""

    evicted: int = 64
    """Idle connections closed at a time if all places are taken: a sweep over 40,000 connections takes 6 ms."""

    evictable_after: float = 1.0
    """Seconds after which a connection without a request counts as idle: a client that has just connected, and whose
    request is under way, is not closed for another one."""

    sweep_pause: float = 0.1
    """Seconds without another sweep if the last one has found fewer than `evicted` idle connections: newcomers cause
    ten sweeps a second at most, 6 % of a core."""

    files_kept: int = 4
    """The share of descriptors kept from clients: one in four is for upstreams, logs and refusals."""

    preflight_names: int = 64
    """Names of headers that a CORS preflight may ask for: SDKs send some thirty."""

    preflight_text: int = 4 * KIB
    """Bytes of all names of `preflight_names`: 64 bytes each."""

    body_rate: int = 1 * KIB
    """The minimum average rate of a request's body, in bytes per second: a modem's line is seven times as fast, and a
    client that sends one byte at a time could hold a connection for any time."""

    port_tries: int = 8
    """Free ports that are tried for a host with several addresses: the port must be free at each address."""

    path_tries: int = 50
    """Attempts to lock a unix socket's folder: another server that starts holds the lock for less than 1 ms."""

    path_wait: float = 0.02
    """Seconds between two attempts of `path_tries`: a server that gets no lock ends within a second."""

    probe_after: int = 15
    """Seconds of silence on a client's connection until the kernel probes whether the client's machine still exists:
    while a whole response is being prepared, nothing else would detect that."""

    probe_interval: int = 5
    """Seconds between two probes of a client's connection."""

    probes: int = 3
    """Unanswered probes that end a connection: with the two limits above, half a minute after the last sign of life."""

    request_line: int = 8190
    """Bytes of a request's target: the common 8 KiB less two, as in most servers and proxies."""

    request_head: int = 64 * KIB
    """Bytes of all headers of a request: OpenAI accepts as many."""

    header_field: int = 8 * KIB
    """Bytes of one header of a request, name and value: nginx's limit."""

    key_header: int = 17 * KIB
    """Bytes of a header that may have a key: the longest token (`caller_token`), its scheme, and a subprotocol."""

    request_headers: int = 128
    """Headers of a request, including its trailers: clients and their proxies send some thirty."""

    known_heads: int = 4
    """Known heads that a new connection's head is compared with. Each mismatch costs 0.1 us; parsing costs 9."""

    known_names: int = 256
    """Header names whose lower-case form is cached: all clients of one kind send the same thirty."""

    lane_head: int = 8 * KIB
    """Bytes of a request's head that the fast lane parses itself: the SDKs send less than one KiB. A whole head is no
    longer than one header may be, so the lane needs no limit for single headers."""

    read_ahead: int = 64 * KIB
    """Bytes read from a client while its request is answered: the size of one read."""

    header_overhead: int = 4
    """Bytes of a header in addition to its name and value: `: ` and its line end."""

    kernel_unsent: int = 128 * KIB
    """Bytes for a client that the kernel holds in addition to those in flight: more would only hide whether a slow
    client still reads. By default the kernel holds up to 4 MiB."""

    closing: float = 0.8
    """Seconds for handlers to end, and for clients to read their last bytes, when the server stops: together with the
    end of the process less than the second by which it may outlast `grace`."""

    final_frame: float = 0.45
    """Seconds in which a follower must get a last frame when the server stops; part of `closing`."""

    drain_check: float = 0.02
    """Seconds between two polls of the listening socket during a drain. A successor on this socket is faster and takes
    the new connections; without one, a client waits this long."""

    drain_idle: float = 1.0
    """Seconds for which an idle connection stays open during a drain: a request in that time is answered, with
    `connection: close`."""

    worker_number: int = 999_999_999
    """The highest number of a worker, for the length of a path: one new worker per second for thirty years."""

    link_message: int = 256 * MIB
    """Bytes of a message between a worker and its supervisor: the counts of 1,000 models are 2 MiB."""

    link_unsent: int = 64 * MIB
    """Unsent bytes after which a worker or the supervisor counts as hung: a working process reads at once, and a
    configuration is far smaller."""

    worker_start: float = 300.0
    """Seconds after its fork after which a worker that accepts no connections is killed: the operator's own functions
    may take minutes, for instance to load a model."""

    worker_early: float = 1.0
    """Seconds within which a dying worker counts as a worker that could not start."""

    worker_starts: int = 5
    """Consecutive workers that could not start, after which the server ends: another attempt would fail too."""

    worker_settled: float = 60.0
    """Seconds after which the death of a worker no longer delays its successors."""

    worker_wait: float = 0.1
    """Seconds until the second worker that died within `worker_settled` is replaced; doubled for each further one."""

    worker_wait_most: float = 5.0
    """The maximum of `worker_wait`, in seconds."""

    worker_beat: float = 0.2
    """Seconds between two signs of life of a worker to its supervisor: five messages of 10 bytes a second."""

    worker_silent: float = 0.7
    """Seconds without one after which a worker gets no new connections: noticed within a beat, so within a second."""

    worker_hung: float = 9.0
    """Seconds without one after which a worker is killed, so within ten: a loop that stands still for some seconds
    costs no stream."""

    worker_end: float = 2.95
    """Seconds after `grace` after which a worker that has not ended is killed: `closing`, the end of a process, and
    `handover` of stores."""

    peer_responses: int = 2
    """Reads of kept responses that a worker has under way: each answer has `store_reply` and one response at most,
    24 MiB, and both less than `link_unsent`."""

    peer_read: int = 256 * KIB
    """Bytes of one log that a worker sends to another at a time: more would delay its streams."""

    counts_wait: float = 0.5
    """Seconds in which the workers must report their counts for a scrape; for a late worker, its last known counts are
    used: a scraper waits for ten seconds by default."""

    stderr_waiting: int = 1 * MIB
    """Unwritten bytes for the standard error: some 5,000 lines of the access log."""

    held_records: int = 100
    """Log records that are held until the format of the log is known: before that there are only warnings."""

    stderr_interval: float = 0.01
    """Seconds for which lines are collected after a write: waking the thread for each of 6,000 lines a second costs
    25 us a line."""

    stderr_end: float = 1.0
    """Seconds that the end of a process waits for its last log lines, while they are being written."""

    stderr_blocked: float = 0.08
    """Seconds that the end of a process waits while no line is written: together with `closing` less than the second by
    which it may outlast `grace`, and less than `worker_end`."""

    stderr_check: float = 0.01
    """Seconds between two checks of the remaining lines."""

    lingering: float = 2.0
    """Seconds for which the rest of a refused request is read and dropped: closing at once would reset the connection,
    and the client would never see the response."""

    texts_said_once: int = 1024
    """Texts of warnings that are remembered, so that one worker alone says each: a server has some dozens, and a text
    whose place another has taken is said again."""

    certificate_warning: float = 14 * 86_400.0
    """Seconds before a certificate's end from which on the server warns of it: two weeks. Certificates of public
    authorities are renewed a month before their end."""

    certificate_check: float = 86_400.0
    """Seconds between two warnings about the server's certificate."""

    tls_answers: int = 16 * KIB
    """Bytes that a client may make TLS itself send after the handshake: some 600 key updates, each of which costs the
    client less than the server. One per 400 GiB is needed."""

    proxy_header: int = 4 * KIB
    """Bytes of a PROXY header: load balancers send some hundred, or a thousand with a certificate's names."""

    forwarded_hops: int = 64
    """Proxies in a chain that are trusted: more are a loop."""

    forwarded_text: int = 8 * KIB
    """Characters of `Forwarded` that are parsed, from its end: a proxy's element has a few hundred."""

    socket_message: int = 4 * MIB
    """Bytes of a message from a WebSocket client: a long conversation has a tenth; images fit in a POST."""

    socket_frames: int = 1024
    """Frames of a message from a WebSocket client: browsers send 4 MiB in 32 frames, and a frame costs more than its
    bytes."""

    socket_streams: int = 256
    """Streams of one WebSocket: twice HTTP/2's usual limit per connection."""

    socket_turns: int = 8
    """Creates that wait on a WebSocket of responses while one is answered: an agent has one answer at a time, and some
    send the next one before they have read the end of the last."""

    socket_chain: int = 1000
    """Turns of the conversation that a WebSocket of responses remembers: as many as a chain may have in the store."""

    socket_conversation: int = 8 * MIB
    """Bytes of the items of the conversation that a WebSocket of responses remembers: a long one has a tenth. What is
    kept in the store may be continued beyond it."""

    socket_conversations: int = 64 * MIB
    """Bytes of the items of the conversations that all WebSockets of a worker remember: as many as the responses that
    are kept in memory. A client whose conversation is forgotten sends it whole, as after a new connection."""

    socket_read: int = 256 * KIB
    """Bytes of responses whose items are read in one turn of the loop, for what a WebSocket remembers, in 5 ms: of more
    they are read beside it."""

    socket_unsent: int = 256 * KIB
    """Bytes of responses to pings and to refused requests that a WebSocket client may cause while `client_buffer` is
    full: a client that reads nothing could cause any number."""

    socket_control: int = 100
    """Control frames from a WebSocket client in `socket_control_window`: a browser sends one pong in many seconds."""

    socket_control_window: float = 1.0
    """The window for `socket_control`, in seconds."""

    socket_ping: float = 0.1
    """The minimum of seconds between two pings to a WebSocket client: each of its silent streams asks for a ping, and
    the client answers each with a control frame."""

    socket_check: float = 30.0
    """Seconds of silence after which a WebSocket client gets a ping, and after which it is then disconnected. A message
    must be complete within two checks, since its received part is held."""

    socket_close: float = 10.0
    """Seconds in which a WebSocket client must answer a close."""

    socket_early: int = 64 * KIB
    """Bytes that a WebSocket client may send before the response to its handshake; the rest is not read."""

    close_reason: int = 123
    """Bytes of the text of a WebSocket's close (RFC 6455, 5.5)."""

    ack_marks: int = 64
    """Positions of a stream that its client may acknowledge exactly; other positions count as the one before them. Each
    needs 100 bytes of memory."""

    ack_steps: int = 16
    """The number of `ack_step`s that a `client_buffer` must hold for its stream to borrow."""

    wrong_keys: int = 100
    """Wrong keys of one address within `wrong_keys_time`: enough for a program with an old key, while guessing a key of
    8 characters takes more than ten thousand years."""

    wrong_keys_time: float = 60.0
    """The time for `wrong_keys`, in seconds."""

    tracked_addresses: int = 10_000
    """Addresses whose wrong keys are counted, 300 bytes each. The address with the oldest last wrong key is dropped
    first: a guesser with more addresses has 100 guesses a minute for each anyway."""

    reported_addresses: int = 1000
    """Addresses in one message to other workers about wrong keys: 60 KB."""

    link_pause: float = 0.05
    """Seconds after which a worker reports wrong keys to others if the supervisor has not read the earlier reports."""

    token_shared: float = 30.0
    """Seconds for which workers share a token without an end; shorter-lived tokens are not handed to other workers."""

    token_failure: float = 0.5
    """Seconds for which a failed fetch counts for all workers: less than the pause before each repeats it."""

    token_claim: float = 100.0
    """Seconds after which a worker that fetches a token counts as hanging: more than its own patience."""

    token_pause: float = 0.1
    """Seconds between two questions of a worker that waits for another's fetch: a fetch takes one to three seconds."""

    token_answer: float = 5.0
    """Seconds that a thread waits for the loop and the supervisor, which has one second, before it fetches alone."""

    verified_tokens: int = 10_000
    """Tokens of callers whose signature is not checked again, 1 KB each. The oldest is dropped first."""

    issuer_start: float = 2.0
    """Seconds for which a server's start waits for the keys of issuers. A slower issuer delays its own tokens alone."""

    issuer_pause_ms: int = 1000
    """Milliseconds after which a request may come again whose token cannot be checked yet: its issuer's keys are being
    fetched."""

    known_callers: int = 10_000
    """Pairs of an address and a key that was valid for it, 200 bytes each."""

    audited: int = 1024
    """Characters of a target in the audit log: the longest names of a model, an upstream and an id are half as long,
    while an unknown one in a request may be as long as a body."""

    streams_shown: int = 1000
    """The newest running streams in the admin API's list: 3 ms of work, and more than a person reads."""

    recent_requests: int = 1000
    """The newest requests in the admin API's list, and in the memory of each worker: 1.5 MB, and 5 ms of work when they
    are listed."""

    errors_sampled: int = 50
    """The most frequent kinds of errors in each sample: there are 13 codes per provider."""

    sample_interval: float = 1.0
    """Seconds between two samples for dashboards."""

    history_slot: float = 30.0
    """Seconds of one slot of the last hour, which a dashboard shows when it is opened: 120 points are a line."""

    history_slots: int = 120
    """Slots in the memory of each worker, an hour: 150 KB, and 25 KB of an answer."""

    watchers: int = 32
    """Open dashboards in one worker, and also streams followed by admins: each needs a connection, and at most 60 KB a
    second."""

    spend_interval: float = 5.0
    """Seconds for which dashboards show one reading of the spend: each reading asks the store."""

    spend_sampled: int = 20
    """Keys, and models, with the highest spend in each sample."""

    follow_interval: float = 0.1
    """Seconds between two checks of a stream that an admin follows: ten updates a second look continuous."""

    watched_bytes: int = 1 << 16
    """Bytes of events that are kept of a stream followed by an admin: 6 s of 200 tokens a second."""

    watch_lease: float = 5.0
    """Seconds after which a stream is no longer watched if no worker has asked for new events."""

    stream_probes: int = 8
    """Running responses of `GET /probe` in one worker: they need no key, and `doctor` sends one request."""

    models_from_zero: int = 200
    """Configured models whose counts are exposed from zero, before any request; each has 151 lines of a scrape."""

    loop_check: float = 0.1
    """Seconds between two checks of the event loop's lag: a longer block is measured with an error of at most this
    length."""

    spend_beat: float = 1.0
    """Seconds between two charges of a running stream: a worker that is killed loses the cost of so long."""

    spend_look: int = 500
    """Running streams that are charged in one turn: 5 ms."""

    spend_turn: float = 0.1
    """Seconds between two such turns: 5,000 streams a beat, for 5 % of the loop. With more a beat takes longer."""

    scrape_rows: int = 8
    """Rows of one metric (a histogram of one model is 24 lines) that a scrape writes in one loop iteration: about
    1.5 ms of work, so that a scrape of 1,000 models (145,000 lines, 1.6 s of work) delays streams by no more."""

    named_callers: int = 8
    """Names of keys and issuers in one line of the log, which stays shorter than a line of the log may be."""

    compared_path: int = 128
    """Characters of an unknown path that are compared with routes, in at most 1 ms: the longest route has 30."""

    cost_series: int = 10_000
    """Combinations of key, model, provider and currency whose cost is counted separately: a megabyte per scrape."""


LIMITS: Final = Limits()
