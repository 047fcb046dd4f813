"""Limits of processors.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    json_answer: int = 8 * MIB
    """Characters of a JSON answer that is followed: its value stands in memory, and the longest answers are a tenth."""

    json_levels: int = 255
    """Nesting of a JSON answer that is followed: one less than `arguments_depth`, as an event around it is a level."""

    json_steps: int = 64 * KIB
    """Values and signs of a JSON answer that are read one by one in one delta: 0.1 s on the event loop."""

    json_whole_tries: int = 4
    """Tries for a long delta to read an object or array that is whole in it: one that fails reads 4 MiB in 0.1 s, and
    few answers are nested deeper where they are cut."""

    json_brackets: int = 256 * KIB
    """Opening brackets of a long delta that is read so: an object costs 1 µs, most of it for the snapshot's copy."""

    json_repeats: int = 16
    """Repetitions of a JSON answer that are left out of one delta: models repeat an answer a few times."""

    json_snapshots: int = 256
    """Snapshots of a JSON value while its text doubles, or somewhat more: each costs the size of the value so far."""

    json_prose: int = 64 * KIB
    """Characters held back while a JSON document is looked for behind them: an introduction of ten pages."""

    counted_text: int = 48 * KIB
    """Characters whose tokens are counted at once: a token that is cut at the end of such a block counts twice. A
    character has four tokens at most, and bpe-openai refuses a text of more than 200,000."""

    counted_whole: int = 1 * MIB
    """Characters of a prompt, or of one delta, that are counted, in 60 ms; the rest is estimated: the longest contexts
    have four times as many, and the event loop waits meanwhile."""

    held_beside: int = 256
    """Events that wait beside held text: usage and snapshots come a few times a second, text with them."""

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

    usage_models: int = 1024
    """Models whose usage is added up one by one: more than the largest providers offer, each 300 bytes and its name."""


LIMITS: Final = Limits()
