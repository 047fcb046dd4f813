"""Limits of stores: logs, copies, leases, and the requests to Redis and SQLite.

Only this folder uses them. Limits that folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    log_block: int = 8 * KIB
    """Bytes of a block of joined small pieces: its overhead is then 2 %."""

    log_stream_cost: int = 1536
    """Bytes of memory that an empty log takes (measured): 1.1 KiB for the object, its deque, list and strings, and a
    place in a table, and up to 0.4 KiB for its ending."""

    journal_interval: float = 0.03
    """Seconds for which new pieces of all logs are gathered for the store. A client that resumes does not notice."""

    journal_batch: int = 4 * MIB
    """Bytes of one batch for the store."""

    journal_changes: int = 512
    """Streams of one batch for the store: gathering them takes 2 ms, which delays the other streams."""

    journal_stream: int = 256 * KIB
    """Bytes of one stream that wait for the store. Above it, the log is read once the store answers."""

    journal: int = 16 * MIB
    """Bytes of all streams that wait for the store: four batches."""

    journal_dropped: int = 100_000
    """Streams that wait for the removal of their copies: 10 MiB of ids. Further copies expire in the store."""

    copy_life: float = 3600.0
    """Shortest time to live of a running stream's copy, in seconds. Its worker renews it, so the copies of a killed
    worker expire."""

    store_retry_first: float = 0.1
    """Seconds before a failed batch is written again, doubled for each further failure."""

    handover: float = 2.0
    """Seconds in which the store of a server that stops must have its streams, so that others go on with them at once:
    longer than a slow disk takes. Afterwards they count as those of a lost worker."""

    store_close: float = 3.0
    """Seconds for which a server that stops waits for its store to write the pending changes."""

    mirror_wait: float = 0.1
    """Seconds for which a store may delay its reply until there is news: a new follower waits as long."""

    mirror_streams: int = 64
    """Streams of other workers in one request for news: together with `store_reply` it bounds the reply."""

    mirror_news: int = 64 * KIB
    """Bytes of one stream's news in a request for several: 4 MiB for `mirror_streams`. A stream with more is read
    alone, once such a request took the store too long."""

    mirror_reads: int = 64
    """Reads of a copy before its followers get a response. The rest is read afterwards. In a file these reads are
    64 MiB; by default a copy has 4.5 MiB at most."""

    mirror_pause: float = 0.01
    """Seconds between two requests for the news of other workers' streams."""

    mirror_share: float = 0.000_02
    """Seconds that each stream of another worker adds to `mirror_pause`: its part of a request takes about as long."""

    mirror_idle: float = 5.0
    """Seconds for which a stream of another worker is read without followers: a client that resumes is back by then."""

    mirror_patience: float = 10.0
    """Seconds for which a store may fail before the followers of other workers' streams get an error."""

    message: int = 1024
    """Characters of a message about a stream: a word or two."""

    lease_late: float = 1.0
    """Seconds after the last renewal of a lease: two renewals. After them a worker may run streams that are not in the
    store, and requests for unknown streams are refused as `overloaded`."""

    message_wait: float = 1.0
    """Seconds for which a store may delay its reply until there is a message: an idle server sends one request a
    second."""

    message_poll: float = 0.05
    """Seconds between two polls for messages in a store's file: a cancelled stream's upstream stops within 0.1 s."""

    messages: int = 10_000
    """Pending messages to one worker. Above it the oldest are dropped; their senders get the error that the worker did
    not answer."""

    store_busy: float = 2.0
    """Seconds for which another process may hold the lock of a store's file: batches take milliseconds."""

    store_empty: float = 0.05
    """Seconds for which the write-ahead log of a store's file may be waited for, to empty it: writes wait as long."""

    store_connect: float = 2.0
    """Seconds to connect to a store. The store must be near, or every stream of another worker would be slow."""

    store_answer: float = 0.8
    """Seconds for a reply that a client waits for: without it, the client gets 503 within a second."""

    store_timeout: float = 5.0
    """Seconds for a store's other replies: a slow store takes 0.2 s, and a store that saves its data 1 to 2 s."""

    store_connections: int = 8
    """Concurrent requests to a store; further requests wait."""

    store_pipeline: int = 64
    """Changes or reads in one pipeline to a server: 1 ms of work, which delays other streams."""

    store_entries: int = 16
    """Records of one stream in one request to a server: 4 MiB, unless a single piece is larger."""

    store_entries_least: int = 4
    """Smallest number of records of each stream in a request for several streams: 64 MiB for `mirror_streams`. Records
    of recent events are about a thousandth of that."""

    takeover_step: int = 1 << 20
    """The numbers of a new owner's events begin 1 to `takeover_steps` of these steps above the last stored number. So
    they differ from those of the former owner, who may have sent more than was stored, and, should the store lose a
    take-over, from those of another new owner."""

    takeover_steps: int = 1 << 20
    """As above."""

    store_epochs: int = 10_000
    """Copies that were taken over whose epoch a process knows, 2 MiB: of one above them it is read again."""

    store_group: int = 256
    """Calls that share one transaction of a store's file: 20 ms of work, for which other processes wait."""

    slow_callers: int = 1000
    """Callers for whom a store was too slow that a process knows: from two on it is slow for all."""

    store_sync: float = 1.0
    """Seconds between two synchronizations of a store's file with the disk: the most that a power failure can lose."""

    clock_step: float = 1.0
    """Seconds by which the machine's clock must jump to count as set. A clock that is adjusted runs 0.05 % faster."""

    store_sweep_interval: float = 5.0
    """Seconds between two removals of expired copies and records."""

    record: int = 64 * KIB
    """Bytes of a record's value: the largest planned value has a few KiB, and a server's reply 4 MiB."""

    records: int = 400_000
    """Records of each kind that a process keeps in its memory: 0.5 KiB each, so 200 MiB. A holder may hold as many as
    are free."""

    record_unit: int = 512
    """Bytes of a value that count as one more record, so that the memory of many large values is bounded too."""

    record_times: int = 1000
    """Expiry times that may be kept above two for each record, for removed records: 100 KiB."""

    claims: int = 400_000
    """Idempotency keys that a process holds: in memory 0.5 KiB each, so 200 MiB. A caller may hold as many as are free,
    so a lone caller gets half: with the default time to live two new keys a second."""

    id_buckets: int = 256
    """Records that hold the ids of one caller: a digest's first byte names the record."""

    bucket_ids: int = 390
    """Ids in each record of `id_buckets`, 6 KiB: a caller has 100,000 ids at most, 1.6 MiB."""

    ids_kept: float = 30 * 86_400.0
    """Seconds for which ids of upstreams are kept at least, unless newer ones take their place: OpenAI keeps responses
    for 30 days."""

    waiting_ids: int = 10_000
    """Ids that wait for a failing store, 1 MiB: above it the oldest of the caller with the most are dropped."""

    key_record: int = 48 * KIB
    """Bytes of one record of keys made at run time: some 200 keys, and thus some 6,000 in all. It leaves room in
    `record` for a backend that adds to values."""

    keys_reread: float = 30.0
    """Seconds after which all records of keys are read again, because a process may have ended during a change: one
    read each."""

    store_read: int = 1 * MIB
    """Bytes of one stream's copy in one read."""

    seal_keys: int = 16
    """Keys that a program may print for the store: a new one a month for a year, and some more."""

    seal_output: int = 4 * KIB
    """Bytes that a program may print as keys of the store: a key has 45."""

    seal_command: float = 20.0
    """Seconds that a program may take to print the keys of the store: a cloud's key service answers within a few."""

    seal_callers: int = 10_000
    """Streams of which a process knows the caller's digest, 2 MiB: a stream above them is looked up in the store."""

    seal_short: float = 3600.0
    """Seconds for which `/readyz` names a missing key of the store after a read or write failed: most records are gone
    by then."""

    names_checked: float = 30.0
    """Seconds between two looks whether a sealed store still has the key of its names: a Redis may evict it alone."""

    plain_kept: float = 10_000_000.0
    """Seconds for which idempotency keys from before the store was sealed are looked for: the longest `ttl` that a
    configuration can have."""

    lasting: int = 10_000
    """Records without a time to live that are sealed again: some for each key of a caller."""

    store_sweep: int = 256
    """Expired rows that one transaction removes: some ms."""

    response: int = 16 * MIB
    """Bytes of a kept response and its own input: a store moves them within `store_answer`."""

    response_cost: int = 1024
    """Bytes that a kept response counts for beside its own: its names, its places in the order of the oldest and of
    what expires (measured in memory; a file and Redis take less)."""

    response_item_cost: int = 896
    """Bytes that each id counts for by which an item of a kept response is found (measured in memory with the longest
    ids; a file and Redis take less)."""

    response_items: int = 10_000
    """Ids by which items of one kept response are found, the last ones of longer lists: a long session has some
    thousand items."""

    responses_memory: int = 64 * MIB
    """Default of `[responses] max_bytes` in memory: some thousand answers with their conversations."""

    responses_kept: int = 256 * MIB
    """Default of `[responses] max_bytes` in a file or a server."""

    responses_share: int = 10
    """One part in so many of `max_bytes` is the default for one caller."""

    responses_share_least: int = 16 * KIB
    """The least default for one caller: as for the setting."""

    response_times: int = 1000
    """Expiry times that may be kept above two for each response, for removed ones: 100 KiB."""

    chain_turns: int = 64
    """Turns of a chain that one exchange with a store reads."""

    chain: int = 1000
    """Turns of a chain: 16 exchanges."""

    chain_items: int = 32 * MIB
    """Bytes of the items of a chain: the largest body of a request (`[server] max_body`) by default."""

    chain_read: int = 128 * MIB
    """Bytes of a chain with what is not an item: its instructions and tools, which each response repeats."""

    responses_dropped: int = 8 * MIB
    """Bytes of kept responses that one transaction or script removes: 0.1 s, in which others wait. More than one takes
    is removed by further ones."""

    response_batch: int = 64
    """Expired responses that are read at a time to be removed."""

    responses_late: int = 10_000
    """Responses that may have been written too late, and wait for their removal: 1 MiB of names."""

    response_grace: float = 86_400.0
    """Seconds for which Redis keeps an expired response that no gateway has removed: they look every
    `store_sweep_interval`."""


LIMITS: Final = Limits()
