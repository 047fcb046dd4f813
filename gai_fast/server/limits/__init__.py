"""Limits of the server: connections, requests, replies, workers, pages.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    client_read: int = 64 * KIB
    """Bytes of one read of a client's connection: more than most requests have; as in `kernels/_native/sockets.pyx`."""

    idempotency_key: int = 255
    """Characters of an idempotency key, as Stripe takes them."""

    heap_block: int = 4 * MIB
    """Freed blocks up to this size stay in the process: the largest read is 256 KiB."""

    heap_kept: int = 64 * MIB
    """Freed memory that the process keeps at its end: a burst of some hundred streams."""

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

    known_heads: int = 4
    """Heads of which a new connection's may be one. Each that is not costs 0.1 us to tell, where parsing costs 9."""

    known_names: int = 256
    """Names of headers whose spelling is kept: all clients of one kind send the same thirty."""

    lane_head: int = 8 * KIB
    """Bytes of a request's head that the fast lane reads itself: those of the SDKs have less than one KiB. A whole head
    is no longer than one header may be, so the lane needs no limit for single ones."""

    read_ahead: int = 64 * KIB
    """Bytes of a client that are read while its request is answered: as much as one read brings."""

    header_overhead: int = 4
    """Bytes of a header besides its name and value: `: ` and its line end."""

    kernel_unsent: int = 128 * KIB
    """Bytes for a client that the kernel holds beyond those under way: more would only hide whether a slow client
    still takes any, and by its own measure the kernel holds up to 4 MiB."""

    client_idle: float = 75.0
    """Seconds an idle client connection is kept: longer than the 60 s for which nginx and ALB keep theirs, so that they
    never send a request into a connection that is being closed."""

    closing: float = 0.8
    """Seconds that a server which stops gives its handlers to end, and its clients to take their last bytes: with the
    end of the process less than the second by which it may outlast `grace`."""

    parting_frame: float = 0.45
    """Seconds in which a follower must get a last frame when the server stops; a part of `closing`."""

    drain_look: float = 0.02
    """Seconds between two looks at the listening socket of a server that drains. A successor on the same socket is
    faster and takes what comes; where there is none, a client waits for so long."""

    drain_idle: float = 1.0
    """Seconds that an idle connection stays open while the server drains: a client that sends its next request then is
    answered, and told that it is the last."""

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

    worker_beat: float = 0.2
    """Seconds between two signs of life of a worker to its supervisor: five messages of 10 bytes a second."""

    worker_silent: float = 0.7
    """Seconds without one after which a worker gets no new connections: noticed within a beat, so within a second."""

    worker_hung: float = 9.0
    """Seconds without one after which a worker is killed, so within ten: a loop that stands still for some seconds
    costs no stream."""

    worker_end: float = 0.95
    """Seconds beyond `grace` after which a worker that has not ended is killed: `closing`, and the end of a process."""

    peer_read: int = 256 * KIB
    """Bytes of one log that a worker tells another at a time: more would hold up its streams."""

    counts_wait: float = 0.5
    """Seconds in which the workers must tell their counts for a scrape; of one that is late, the last known ones count:
    a scraper waits for ten seconds by default."""

    stderr_waiting: int = 1 * MIB
    """Bytes that wait until the standard error takes them: some 5,000 lines of the access log."""

    held_records: int = 100
    """Log records that are kept until the format of the log is known: before that there is nothing but warnings."""

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

    ack_steps: int = 16
    """The `ack_step`s that a `client_buffer` must hold for its stream to borrow."""

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

    audited: int = 1024
    """Characters of a target in the audit log: the longest names of a model, an upstream and an id are half as long,
    while a request for one that is not there may hold as many bytes as a body."""

    streams_shown: int = 1000
    """Running streams that the admin API shows of a server, the newest: 3 ms of work, and more than anybody reads."""

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

    models_from_zero: int = 200
    """Configured models whose counts are exposed before anybody asks for them, each 190 lines of a scrape."""

    loop_look: float = 0.1
    """Seconds between two looks at how late the event loop is: a loop that is held up for longer is seen, within so
    much of its length."""

    scrape_rows: int = 8
    """Rows of one metric (a histogram of one model is 24 lines) that a scrape writes in one turn of the loop: about
    1.5 ms of work, so that a scrape of 1,000 models (143,000 lines, a second of work) delays no stream by more."""

    compared_path: int = 128
    """Characters of an unknown path that routes are compared with, in 0.3 ms at most: the longest route has 25."""

    cost_series: int = 10_000
    """Keys, models, providers and currencies whose cost is counted one by one: a scrape of them is a megabyte."""


LIMITS: Final = Limits()
