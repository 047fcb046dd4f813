"""Limits of the network: connections to upstreams, attempts, logs, sharing, streams.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    recorded: int = 256 * MIB
    """Bytes of a recording: twice the longest answer that is gathered, since a read costs its framing besides."""

    unflushed: int = 64 * KIB
    """Bytes that wait so for one connection: a slow client must stop an upstream before its second read."""

    plain_read: int = 256 * KIB
    """Bytes of one read of a connection without TLS, after which the other connections are read: as many as the
    transport of uvloop reads at once. With 64 KiB bursts of 1,000 deltas took 11 % more CPU."""

    tls_contexts: int = 64
    """Sets of files of TLS whose context is kept: each holds a MiB where it trusts the system's authorities."""

    tls_session: float = 3600.0
    """Seconds for which a TLS session is resumed, so that a certificate is checked again after an hour."""

    tls_unsent: int = 16 * KIB
    """Bytes of TLS's own answers that an upstream may provoke and not take: an answer to new keys has some 30."""

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

    hedged: int = 1 * MIB
    """Bytes of a second target's answer that wait for its first event: a target that sends more without one is
    dropped. The chunks in use that stand before any event have a few hundred."""

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

    parting: float = 0.05
    """Seconds until a follower is cut off after its last frame: the loop has written it by then."""

    parting_retry_ms: int = 1000
    """Milliseconds after which a client that was cut off is to come back at the earliest: a successor has started."""

    parting_retry_spread_ms: int = 4000
    """Milliseconds over which chance spreads the clients that come back, so that not all of them come at once."""

    log_headroom: int = 512 * KIB
    """Bytes that one read of an upstream may add to a log: 256 KiB with uvloop, written in frames twice as long."""

    replay_gap: float = 10.0
    """The longest pause of a kept answer that is replayed with its recorded pace, in seconds: below the shortest common
    idle limit of proxies, 30 s."""

    shared_patience: float = 1.0
    """Seconds, in all, of pauses of a client that joins a shared answer late, in which the answer waits for it rather
    than drop what comes next: it is given all that there is at once, and needs a moment to take it."""

    shared_call: float = 600.0
    """Seconds for which the key of a call that several processes may share is claimed beyond the time that its answer
    is kept: the default `total_timeout` of an upstream."""

    callbacks_waiting: int = 1024
    """Async callbacks of one stream that wait their turn: each holds an event, and a thousand are a long answer."""

    callbacks_end: float = 5.0
    """Seconds for which a stream that has ended waits for its async callbacks: a write to a slow disk or database."""


LIMITS: Final = Limits()
