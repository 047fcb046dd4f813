"""Limits of stores: logs, copies, leases, replies of Redis and sizes of SQLite's files.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    log_block: int = 8 * KIB
    """Bytes to which the small pieces of a log are joined: a block's own cost is then 2 % of it."""

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

    message: int = 1024
    """Characters of a message about a stream: a word or two."""

    lease_late: float = 1.0
    """Seconds without a renewal of its lease, after which a worker may run streams that the store does not know: two
    renewals. Whoever asks for an unknown stream is then refused for now."""

    message_wait: float = 1.0
    """Seconds for which a store may delay its reply until there is a message: an idle server asks once a second."""

    message_poll: float = 0.05
    """Seconds between two looks for messages in a store's file: a cancelled stream's upstream stops within 0.1 s."""

    messages: int = 10_000
    """Messages to one worker that wait for it. The oldest of more are dropped: their senders hear that the worker did
    not answer."""

    store_busy: float = 2.0
    """Seconds for which another process may hold the lock of a store's file: batches take milliseconds."""

    store_connect: float = 2.0
    """Seconds to connect to a store: it stands near, or every stream of another worker would be slow."""

    store_answer: float = 0.8
    """Seconds for the reply to a question that a client waits for: one that comes later is 503 within a second."""

    store_timeout: float = 5.0
    """Seconds for a store's other replies: a slow one takes a fifth of a second, one that saves its data a second or
    two."""

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

    store_group: int = 256
    """Calls that share one transaction of a store's file: 20 ms of work, in which other processes wait for the file."""

    store_sync: float = 1.0
    """Seconds between two synchronizations of a store's file with the disk: what a loss of power takes at most."""

    clock_step: float = 1.0
    """Seconds by which the machine's clock must jump to count as set: one that is adjusted goes 0.05 % faster."""

    store_sweep_interval: float = 5.0
    """Seconds between two removals of what is past its time."""

    record: int = 64 * KIB
    """Bytes of a record's value: the largest that is planned is a few KiB, and a server answers 4 MiB at a time."""

    records: int = 400_000
    """Records of each kind that a process keeps in its memory: 0.5 KiB each, so 200 MiB. A holder may have as many as
    are free."""

    record_unit: int = 512
    """Bytes of a value that count as one more record: room for many large ones is bounded too."""

    record_times: int = 1000
    """Expiry times of removed records that are kept, besides one for each record: 100 KiB."""

    claims: int = 400_000
    """Idempotency keys that a process holds: in memory 0.5 KiB each, so 200 MiB. A caller may hold as many as are free,
    so half of them where it is alone: with the default time to live two new ones a second."""

    store_read: int = 1 * MIB
    """Bytes of one stream's copy that are read at a time."""

    store_sweep: int = 256
    """Rows past their time that are removed at a time: a transaction of some ms."""


LIMITS: Final = Limits()
