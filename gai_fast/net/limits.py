"""Limits of the network: connections to upstreams, attempts, logs, sharing, streams.

Only this folder uses them. Limits shared by several folders are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    recorded: int = 256 * MIB
    """Bytes of a recording: twice the longest collected answer, because each read also costs its framing."""

    unflushed: int = 64 * KIB
    """Bytes that one turn of the loop may collect for a connection before they are sent: a slow client must pause an
    upstream before its second read."""

    plain_read: int = 256 * KIB
    """Bytes of one read of a connection without TLS, after which other connections are read: the size of a read of
    uvloop's transport. With 64 KiB, bursts of 1,000 deltas cost 11 % more CPU."""

    tls_contexts: int = 64
    """Sets of TLS files whose context is cached. A context that trusts the system's authorities needs one MiB."""

    tls_session: float = 3600.0
    """Seconds for which a TLS session may be resumed: the certificate is checked again after an hour."""

    tls_unsent: int = 16 * KIB
    """Bytes of TLS protocol replies that an upstream provokes but does not read. A reply to a key update has some
    30."""

    pool_idle: float = 30.0
    """Seconds for which an idle upstream connection is kept: below the 60 s of most load balancers, which close
    silently."""

    pool_idle_least: float = 1.0
    """If an upstream closes a connection that was idle for fewer seconds, the idle time of the others is not shortened:
    the upstream restarts, or was about to close it. Connections kept for less would hardly ever be reused."""

    pool_warning: float = 60.0
    """Seconds between two warnings that an upstream's connections are all in use."""

    pool_ask: float = 0.1
    """Seconds until a worker asks again for a connection if the others have all: a tenth of the default `pool_wait`,
    and the shortest wait."""

    pool_borrowed_idle: float = 0.2
    """Seconds for which a worker keeps an idle connection beyond its part of `max_connections`. A worker that
    waits for it gets it in a third of the default `pool_wait`; under steady load a connection is used again earlier."""

    pool_check: float = 0.05
    """Seconds idle from which a connection is checked before reuse, in case its upstream closed it while the loop was
    busy. The system call costs a hundredth of a short request. No upstream closes an idle connection earlier, except
    immediately."""

    ready_connecting: int = 32
    """Connections that a pool opens at once in advance: enough for a thousand a second at 30 ms each, and requests need
    not wait for hundreds of handshakes."""

    ready_retry_first: float = 0.5
    """Seconds until a connection in advance is tried again; each failure doubles them."""

    ready_retry: float = 30.0
    """The longest of these pauses: a recovered upstream has its connections half a minute later, and a dead upstream is
    tried twice a minute."""

    pool_waiting: int = 1024
    """Requests that wait for a connection of one upstream. With `max_connections = 1000` a wait lasts about one answer;
    by default a pool has as many connections as `[limits] streams`. Further requests are refused at once."""

    pool_stale: float = 1.0
    """If a reused connection closes without a byte within these seconds after the request, it counts as closed before:
    a round trip or two. Later the upstream may have worked on the request, and the request is not sent again
    automatically."""

    function_turn: int = 64
    """Events of a function of the user's that one turn of the loop may take: about a millisecond, after which other
    streams have their turn."""

    function_end: float = 5.0
    """Seconds in which the functions of the user's must end when the gateway closes: as `callbacks_end`."""

    retry_window: float = 10.0
    """Seconds over which requests and their retries are counted."""

    retry_share: float = 0.1
    """Retries as a share of all requests: a failing upstream gets a tenth more requests, not three times as many."""

    retry_floor: int = 10
    """Retries that are always allowed in a window: a tenth of a few requests would round to zero."""

    retry_first: float = 0.5
    """Seconds before the first retry; doubled for each further retry, as in the official SDKs."""

    retry_most: float = 8.0
    """The longest pause before a retry if the upstream named no time."""

    retry_jitter: float = 0.25
    """The random share of a pause: requests that failed together are not retried together."""

    cooling: float = 5.0
    """Seconds for which a target or key is not used after a 429 without a time: LiteLLM's default."""

    limited_alone: float = 60.0
    """Seconds after which limits without a time that one caller meets concern all callers: the minute over which
    providers count tokens."""

    limited_callers: int = 512
    """Callers that one target or key passes over at a time; the oldest goes. A forgotten one costs one refusal more."""

    refused_key: float = 60.0
    """Seconds for which a key that the upstream refuses (401) is not used, and a target that has no other key:
    operators replace the key, and a mistaken refusal passes."""

    known_places: int = 512
    """Models and paths of one credential at which it is known to be served, or refused: a configuration has some
    hundred models, and a forgotten path costs one refusal more."""

    limited_places: int = 512
    """Models and paths for which one key is set aside at a time. If there are more, the one that ends first goes."""

    refused_tools: int = 4
    """Times that a request is sent once more without tools of the gateway that its target refuses: an error names one,
    and a server with more of them than that has a fault of its own."""

    breaker_check: float = 0.5
    """Seconds between two attempts to connect to an upstream whose breaker opened because connecting failed."""

    slow_start: float = 5.0
    """Seconds in which a recovered target's share grows to its full size."""

    slow_start_share: float = 0.1
    """The part of its share that a target gets at the start of its slow start, and while its requests fail."""

    latency_weight: float = 0.2
    """The weight of the newest time to first token in a target's average: a change counts fully after ten."""

    latency_requests: int = 150
    """Requests of a model after which the average of a target that gets none of them is halved. A target ten times
    slower is thus tried once in 450 requests: rare enough for the 99th percentile."""

    latency_memory: float = 600.0
    """Seconds after which an average without a new value is dropped and the target is measured again: with one request
    every six seconds, a slow target gets a hundredth of them."""

    failure_memory: float = 10.0
    """Seconds after which the average of a target whose last request failed is dropped: the default time that a breaker
    stays open."""

    failed_first_token: float = 10.0
    """Seconds to first token that a failure counts as if the target has no average yet."""

    latency_tolerance: float = 1.25
    """Averages of two targets up to this ratio count as equal: they differ as much by chance."""

    unmeasured_wait: float = 1.0
    """Seconds for which a request waits for the first token of any target while no target is measured. Until then
    the wait at most doubles the request's time to first token. A longer wait would be noticeable if all targets are
    slow."""

    unmeasured_check: float = 0.02
    """Seconds after which a request in `unmeasured_wait` is checked again: a time to first token is much longer."""

    limited_credentials: int = 10_000
    """Credentials of callers that one worker sets aside at a time; the oldest goes. They take one MiB."""

    named_beginning: int = 4096
    """Characters of a request's texts from which its beginning names its session: about the 1,024 tokens below which no
    provider caches a prompt."""

    affinity_load: float = 1.75
    """Maximum streams of a target, relative to its share of all streams, before sessions overflow to other targets
    (consistent hashing with bounded loads). With 60 conversations at four targets, one target has up to 24 by chance,
    1.6 times its share. Twice the share would be no bound for two targets."""

    affinity_free: int = 8
    """Streams of a target, or requests with a key, up to which no session overflows: if there are few, many may meet at
    one."""

    hedged: int = 1 * MIB
    """Bytes of a second target's response that wait for its first event. A target that sends more without an event is
    dropped. Real responses have a few hundred before the first event."""

    upstream_heads: int = 64
    """Cached request heads: a model of an upstream has one, and each contains its upstream's credential."""

    dns_fresh: float = 30.0
    """Seconds for which a DNS answer is used: the shortest time to live of load balancers' names is 60."""

    dns_stale: float = 600.0
    """Seconds for which the last answer is used while DNS fails: a resolver's outage does not affect the upstream."""

    dns_addresses: int = 32
    """Addresses of one name that are tried: more than any provider has, and each may need a socket."""

    connect_stagger: float = 0.25
    """Seconds until the next address of a host is tried in parallel (RFC 8305 §5 recommends 250 ms)."""

    parting: float = 0.05
    """Seconds between a follower's last frame and the end of its connection: the loop has written the frame by then."""

    parting_retry_ms: int = 1000
    """Milliseconds after which a disconnected client may reconnect at the earliest: a successor has started by then."""

    parting_retry_spread_ms: int = 4000
    """Milliseconds over which reconnecting clients are spread at random."""

    token: int = 16 * KIB
    """Characters of a token: servers accept heads of 16 KiB to 64 KiB, and tokens of clouds have up to 4 KiB."""

    token_problem: int = 200
    """Characters of a library's message about a token that are shown."""

    token_output: int = 64 * KIB
    """Bytes that `auth_command` may print: a token and its description."""

    token_command: float = 30.0
    """Seconds that `auth_command` may take: `az` and `gcloud` start within a few."""

    token_request: float = 20.0
    """Seconds for one request to a token endpoint."""

    token_fetch: float = 90.0
    """Seconds after which a fetch is given up: a chain asks several sources, each with its own timeout."""

    token_threads: int = 4
    """Threads that fetch for one identity, those that hang included."""

    token_wait: float = 8.0
    """The longest wait of a request for a token: to import a cloud's library and to ask takes one to three seconds."""

    token_wait_share: float = 0.8
    """The part of the operator's `first_event_timeout` that this wait may take, so that its own message is seen."""

    token_early: float = 300.0
    """Seconds before a token's end at which the next one is fetched, at most a quarter of its life. The clouds'
    libraries take as much."""

    token_least: float = 5.0
    """Seconds before its end from which a token is not used: a request must arrive with it."""

    token_unknown: float = 300.0
    """Seconds after which a token is replaced if its end is not known: Claude Code's default for its `apiKeyHelper`."""

    token_aws: float = 43_200.0
    """Seconds for which a bearer token of Bedrock is valid at most: AWS's own limit, twelve hours."""

    token_retry: float = 1.0
    """Seconds before a failed fetch is repeated; each failure doubles them."""

    token_retry_most: float = 60.0
    """The longest of these pauses."""

    token_secrets: int = 4
    """Tokens of one identity that are cut out of answers: the current one, and former ones that requests under way
    have sent."""

    caller_token: int = 16 * KIB
    """Characters of a caller's token (JWT): tokens that name a user's groups have some KiB."""

    caller_token_header: int = 4 * KIB
    """Characters of the header of a caller's token, which is read before anything else of it: it names an algorithm and
    a key. Some issuers add a certificate, whose text is ignored."""

    caller_claim: int = 128
    """Characters of the claim that names a caller: ids and addresses are shorter. The name is in the log, and part of
    keys in stores."""

    caller_token_leeway: float = 10.0
    """Seconds by which the clock of an issuer may be ahead (`nbf`). An end (`exp`) has no leeway."""

    latest_end: float = 253_402_300_800.0
    """Unix seconds of the year 10000: a token that ends later counts as ending then."""

    issuer_fetch: float = 10.0
    """Seconds for the two requests that bring an issuer's keys; in a second it would have answered both."""

    issuer_document: int = 256 * KIB
    """Bytes of each of an issuer's two documents: they have some KiB, with certificates 50."""

    issuer_keys: int = 64
    """Keys of an issuer that are kept: those of the last rotations, for each algorithm. Of a larger
    set the first ones are kept, and a warning in the log has their issuer and the number of the others."""

    issuer_fresh: float = 300.0
    """Seconds after which an issuer's keys are fetched again: a withdrawn key is used no longer than that."""

    issuer_refresh: float = 30.0
    """Seconds between two fetches that tokens with unknown keys cause: any client can send such tokens."""

    issuer_retry: float = 1.0
    """Seconds before a failed fetch of an issuer's keys is repeated; each failure doubles them."""

    issuer_retry_most: float = 30.0
    """The longest of these pauses."""

    issuer_kept: float = 3600.0
    """Seconds for which an issuer's keys are used after their last fetch, while it is down: most outages are shorter,
    and a withdrawn key must not be used for a day."""

    rsa_least: int = 2048
    """The fewest bits of an issuer's RSA key (RFC 7518, 3.3)."""

    rsa_most: int = 8192
    """The most bits of an issuer's RSA key: a signature of such a key is checked in 0.2 ms."""

    rsa_exponent: int = 2**32
    """The largest public exponent of an RSA key: 65537 is usual, and the time of a check grows with it."""

    takeovers: int = 3
    """Workers that may be lost by one stream before it ends: an answer that ends workers should not end all of them."""

    takeovers_at_once: int = 64
    """Streams that a worker takes over and whose attempt is not sent yet, half of them at most of one caller or for one
    upstream. Others wait: 1,000 prompts at once would stop the loop, and most upstreams would refuse them."""

    takeover_again: float = 0.25
    """Seconds after which a stream that was taken over, and got no connection in `pool_wait`, waits for one again."""

    takeover_request: int = 16 * MIB
    """Bytes of a stream's request that the store keeps until the end. Longer ones end with their worker."""

    takeover_turn: int = 64 * KIB
    """Bytes of a log and a request that are read in one turn of the loop, before their stream goes on: 6 ms. More are
    read beside the loop."""

    takeover_containers: int = 1000
    """Objects and arrays of a request from which on it is translated beside the loop, as for a new one."""

    takeover_options: int = 16 * KIB
    """Bytes of what a client wrote for its provider alone in such a request: it is searched for secrets, at 0.1 ms a
    KiB. With more of it a stream ends with its worker."""

    log_headroom: int = 512 * KIB
    """Bytes that one read of an upstream may add to a log: 256 KiB with uvloop, written in frames twice as long."""

    replay_gap: float = 10.0
    """Maximum pause, in seconds, of a stored answer that is replayed at its recorded pace: below the shortest common
    idle limit of proxies, 30 s."""

    shared_patience: float = 1.0
    """Total seconds of pauses of a client that joins a shared answer late, during which the answer waits for the client
    instead of dropping events. The client gets all earlier events at once, and needs a moment to read them."""

    shared_call: float = 3600.0
    """The most seconds for which the key of a call that several processes may share stays claimed, in addition to the
    time for which its answer is kept: the upstream's `total_timeout` if that is shorter. If a process ends without a
    word, equal requests make calls of their own until then."""

    keep_alive_after: int = 30
    """Seconds of silence after which the system asks an upstream's machine whether it is there (TCP keep-alive). With
    three probes it is lost within a minute, while a model may think for ten. Networks forget a silent connection after
    350 s and less: the probes keep it."""

    keep_alive_every: int = 10
    """Seconds between two probes."""

    keep_alive_probes: int = 3
    """Probes without a reply after which the connection is lost."""

    late_events: float = 2.0
    """Seconds for which an answer that has its finish reason waits for usage and the end mark. Providers send both
    within milliseconds; a server that keeps its connection open would otherwise delay the end for `idle_timeout`."""

    late_end: float = 0.1
    """As `late_events`, for an answer that is kept and whose last event is there: its client waits for that event until
    the upstream's body ends, since only then it is certain that the answer has not failed."""

    callbacks_waiting: int = 1024
    """Waiting async callbacks of one stream. Each holds an event; a thousand are a long answer."""

    callbacks_end: float = 5.0
    """Seconds for which an ended stream waits for its async callbacks: a write to a slow disk or database."""

    spend_part: int = 256
    """Bytes of an upstream's body that are handled at once if a stream's reservation of spend nears its end: about
    one delta of most providers, so that the stream ends within its reservation."""

    uncounted: int = 1024
    """Models whose upstreams are known to count no tokens: more than a configuration has."""

    uncounted_for: float = 3600.0
    """Seconds until an upstream that counts no tokens is asked again: only its next version may count them."""

    refused_members: int = 64
    """Members that one target refuses and that all callers' requests lack: the gateway itself adds few members."""

    refused_of_caller: int = 32
    """Members that any target refuses and that one caller's requests lack: few members of a client are refused."""

    refusing_callers: int = 1000
    """Callers with members of `refused_of_caller`. Of another caller the upstream refuses one request more."""

    logged_changes: int = 20
    """Paths of members that were left out of a request, in the stream's line of the access log."""

    tool_series: int = 2000
    """Tools whose calls are counted one by one; those of further names are counted as `other`. A server may change its
    list for ever."""

    refused_for: float = 3600.0
    """Seconds for which a target does not get a member that it has refused: its next release may take the member."""

    judge_requests: int = 256
    """Requests of one guard that one worker has at its judge at a time: at 300 ms each, 850 in a second. Further ones
    wait within their timeout."""

    judge_threads: int = 8
    """Threads in which one worker calls plain functions that judge texts. More of them would only share the processor
    and the interpreter's lock."""

    judge_answer: int = 64 * KIB
    """Bytes of a judge's answer: a verdict has some hundred, OpenAI's moderation 2,000."""

    judge_input: int = 8
    """Pieces of one request's texts that one judge has at a time: 256 KiB of text, as much as most requests have."""

    tool_texts: int = 64 * KIB
    """Characters of a call's texts that are found in one turn of the loop: 64 KiB of short strings take 20 ms."""

    judge_category: int = 64
    """Characters of a category that a judge names: `safety` and figures have it."""

    judge_spans: int = 1024
    """Spans of one verdict: a judge that finds more may flag the whole piece."""

    record_piece: int = 48 * KIB
    """Bytes of a piece of what is larger than a record of a store: that leaves room for what a backend adds."""

    run: int = 16 * MIB
    """Bytes of a run and its conversation that are kept: as of a request that a worker goes on with. Above it a run
    ends with its worker."""

    parked_request: int = 64 * KIB
    """Bytes of the request of a run that waits in memory without its session: 1,000 of them have 64 MB at most. A run
    with a larger one waits in its session, which has it anyway."""

    decision_reason: int = 1000
    """Characters of the reason of a decision about a call: the model and every client of the run read it."""

    approval_lists: int = 16
    """Records that list the approvals that nobody has decided: 1,000 each, so one for every run that may wait, and
    more than ten thousand in all."""

    approval_look: float = 15.0
    """Seconds between two looks at the approvals that runs here wait for: as long a lost decision keeps its run
    waiting. A thousand of them are as many reads of the store, one after the other."""


LIMITS: Final = Limits()
