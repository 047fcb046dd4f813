"""Limits of configurations.

Only this folder uses them; limits that several folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    reconnect_most: int = 3_600_000
    """The longest configurable `retry:`, in milliseconds: an hour. No client comes back later than that."""

    client_buffer: int = 64 * MIB
    """The largest `client_buffer`: a thousand slow clients with full buffers use all of a large machine's memory."""

    least_memory: int = 64 * MIB
    """The least configurable `memory_high_water`: a server without streams uses nearly this much."""

    retries: int = 10
    """The largest valid number of retries of one request: each may last as long as the request itself."""

    breaker_failures: int = 1000
    """The most failures configurable before a breaker opens: the breaker keeps the time of each."""

    targets: int = 64
    """Targets of one model: each request examines every target, in a microsecond or two."""

    target_weight: int = 1000
    """The largest weight of a target: no share below a thousandth is needed."""

    upstream_keys: int = 64
    """Keys of one upstream: the upstream may refuse a request once for each key."""

    command_arguments: int = 64
    """Words of `auth_command`, or of the store's `command`: a longer command belongs in a script."""

    store_keys: int = 16
    """Keys of the store: a new one a month for a year, and some more."""

    shortest_key: int = 8
    """The fewest characters of a caller's key, after NIST SP 800-63B: shorter secrets can be guessed."""

    key_secrets: int = 8
    """Secrets of one caller: two during a rotation, and some more if a caller is slow to change to the new one."""

    key_limit: int = 1_000_000_000
    """The largest limit of a key: more requests, tokens or streams than any server handles, and exact in any store."""

    largest_spend: int = 9_000_000
    """The largest spend limit: in 10^-12 of the currency it fits a signed 64-bit number, which is what stores hold."""

    price: int = 1_000_000
    """The highest price of a million tokens in units of currency: one unit for a token. The most expensive models cost
    some hundred dollars, and a dollar is 25,000 of the smallest currency in use."""

    least_responses: int = 16 * KIB
    """The least bytes of kept responses: one or two answers of a page each."""

    price_list: int = 8 * KIB
    """Entries of a price list: the longest public lists have 3,000."""

    guard_tables: int = 32
    """`[[guard]]` tables: every text passes those that hold for its request, one behind the other."""

    guard_names: int = 1000
    """Entries of `models` and of `keys`: all are compared with a model and a caller when these are first seen."""

    guard_patterns: int = 10_000
    """Patterns of one guard: ten times the longest public lists of forms of secrets."""

    guard_words: int = 100_000
    """Words of one guard: as many as a large dictionary has."""

    guard_word: int = 256
    """Characters of a word, or of several with blanks between them: a longer text is a passage."""

    guard_list: int = 16 * MIB
    """Bytes of `patterns_file` or `words_file`: 10,000 patterns of the largest size are 10 MiB, and comments some."""

    guard_label: int = 64
    """Characters of `category`, and of a name in `threshold`: every match is reported with its category."""

    guard_thresholds: int = 64
    """Entries of `threshold`: OpenAI has 13 categories, Mistral 9."""

    guard_replacement: int = 256
    """Characters of `replacement`: it is sent for each match."""

    guard_exposure: int = 65_536
    """The largest `max_exposure`, in characters: a long answer. A judge that may lag behind further only watches, and
    that is what `flag` is for."""

    tool_server_name: int = 32
    """Characters of the label of a server of tools: half of a tool's name for models."""

    run_steps_most: int = 1000
    """Turns of a run: an agent that works for a day has some hundreds."""

    run_calls_most: int = 10_000
    """Calls of a run: ten for each turn that it may have."""

    run_parallel_most: int = 64
    """Calls of a run at a time: each may hold a place of its server that other runs wait for."""

    tool_calls_most: int = 1024
    """The largest `max_calls`: each call may hold a connection, or a thread."""


LIMITS: Final = Limits()
