"""Limits of processors.

Only this folder uses them. Limits shared by several folders are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    json_answer: int = 8 * MIB
    """Characters of a JSON answer that is parsed as it streams: its value is in memory. The longest known
    answers have a tenth of them."""

    json_levels: int = 255
    """Nesting of a followed JSON answer: one less than `arguments_depth`, because the event adds a level."""

    json_steps: int = 64 * KIB
    """Values and signs of a JSON answer that are read one by one in one delta: 0.1 s on the event loop."""

    json_whole_tries: int = 4
    """Attempts to read a complete object or array within one long delta. A failed attempt reads 4 MiB in 0.1 s. Few
    answers are nested deeper at the point where they are split."""

    json_brackets: int = 256 * KIB
    """Opening brackets of a long delta that is read in this way: an object costs 1 µs, mostly for the snapshot's
    copy."""

    json_repeats: int = 16
    """Repetitions of a JSON answer that are dropped from one delta: models repeat an answer a few times."""

    json_repeated: int = 128 * KIB
    """Characters of a repetition that is held back, compared at once, in 15 to 40 ms, and dropped."""

    json_snapshots: int = 4 * MIB
    """A snapshot of n characters is followed by the next one after n² / `json_snapshots` more: at 10 KB after 24, at
    100 KB after 2,400. All snapshots of an answer of 100 KB then have 16 MB, those of 1.6 MB have 25 MB, which take
    0.1 to 0.6 s."""

    json_snapshot: int = 256 * KIB
    """Characters of a document of which there are snapshots before it is complete: each is copied and written anew."""

    json_last_snapshot: int = 1 * MIB
    """Characters of a document that is told as a snapshot when it is complete: it is written at once, in 10 ms. The
    longest known answers are shorter."""

    json_prose: int = 64 * KIB
    """Characters held back during the search for a JSON document: an introduction of ten pages."""

    counted_text: int = 48 * KIB
    """Characters per call of the token counter. A token cut at the end of a block counts twice. A character has four
    tokens at most, and bpe-openai refuses a text of more than 200,000."""

    counted_whole: int = 1 * MIB
    """Characters of a prompt or of one delta that are counted; the rest is estimated. Counting 1 MiB blocks the event
    loop for 60 ms, and the longest contexts have four times as many."""

    held_beside: int = 256
    """Events that wait with held text. Usage and snapshots come a few times a second, and text comes with them."""

    schema: int = 128 * KIB
    """Bytes of a JSON Schema, whose compilation takes one turn of the event loop (`tests/faults/test_turns.py`). The
    largest schemas that OpenAI accepts have 120,000 characters."""

    schema_patterns: int = 256
    """Regular expressions of a JSON Schema. A short one compiles in 0.1 ms."""

    schema_pattern_memory: int = 1 * MIB
    """Memory of all compiled patterns of a JSON Schema. `.{0,500}` fits; `a{1000}{300}` would need 10 MiB and 30 ms.
    The time to match a text grows with this memory."""

    schema_parts: int = 256 * KIB
    """Bytes of a JSON Schema times the members of an answer that are checked alone: a member's validator compiles all
    its references again, and one turn may compile them all, in 50 ms. Further members are checked with the complete
    answer."""

    schema_paths: int = 512
    """Subschemas of a JSON Schema that may be evaluated at one place of an answer, each once for every path to it. A
    union of 250 models fits. 512 evaluations need some 15 µs; a model needs the time of a token for each place."""

    schema_work: int = 2_000_000
    """Evaluations of a check, which takes one turn of the loop: 10 ns each. An answer of 100 KB with 5,000 values has
    80,000 with four subschemas a place, and 2,000,000 with a union of 390 models."""

    schema_place: int = 12
    """Evaluations for which a value counts besides its own: it is converted for the library, and compared."""

    schema_characters: int = 4
    """Characters of an answer that a pattern reads in the time of an evaluation."""

    schema_steps: int = 50_000
    """Steps to determine the cost of a JSON Schema, of 0.3 µs each. Ordinary ones of the largest size need 20,000."""

    cached_schemas: int = 32
    """Compiled JSON Schemas in the cache: a service has a dozen. Each needs 2 MiB at most."""

    cached_schema: int = 64 * KIB
    """Bytes of a JSON Schema in the cache. A compiled schema needs up to twenty times its text."""

    batch: int = 64 * KIB
    """Characters in a batch: the size of a socket read."""

    batched: int = 4096
    """Deltas in a batch. A delta may have no text, and each needs half a KiB of memory."""

    batch_ms: int = 60_000
    """The longest time a batch may hold a delta. After a longer pause, clients and proxies consider the stream dead."""

    replaced_word: int = 256
    """Characters of a replaced word. That many may be held back, and are searched with every delta."""

    replaced_words: int = 256
    """Replaced words. Every delta is searched for all of them."""

    correlation_keys: int = 16
    """Keys that a correlation adds to `start`: an event is not a document."""

    usage_models: int = 1024
    """Models with totals of their own: more than the largest providers offer. Each needs 300 bytes and its name."""


LIMITS: Final = Limits()
