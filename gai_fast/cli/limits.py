"""Limits of the commands.

Only this folder uses them; limits that several folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    stdout_blocked: float = 1.0
    """Seconds for which a server's start waits for a standard output that cannot be written to, such as a full pipe."""

    word_held: int = 256
    """Characters of a word that `gai-fast chat` holds back: no word is longer, and marks without width have no end."""

    least_patience: float = 300.0
    """Seconds of an upstream's silence below which `gai-fast check` warns: models that think are silent for minutes,
    and Codex waits as long."""

    least_total: float = 3600.0
    """Seconds for a whole answer below which it warns: an agent's answer may take half an hour."""

    doctor: float = 10.0
    """Seconds that `gai-fast doctor` waits for each response."""

    admin_wait: float = 10.0
    """Seconds without a byte after which `gai-fast top` closes a connection: a server sends figures each second."""

    admin_again: float = 1.0
    """Seconds after which `gai-fast top` retries: with a refused key it stays below the limit of wrong keys."""

    admin_body: int = 1 * MIB
    """Bytes of one sample, or of an error, that `gai-fast top` reads: 200 streams are 60 KB."""

    admin_keys: int = 16 * MIB
    """Bytes of a list of keys that `gai-fast key` reads: 4,096 keys with some names of models each are 2 MB."""

    local_server: float = 0.5
    """Seconds in which a model server on this machine must answer `config init`: it needs milliseconds for its list."""

    stream_probe_body: int = 64 * KIB
    """Bytes of a probe's body that the doctor reads: a probe has 300, and a larger body is not a probe."""

    few_descriptors: int = 4096
    """Open files below which the doctor warns: they suffice for some 1,300 streams."""

    too_few_descriptors: int = 256
    """Open files below which the doctor reports an error: they suffice for less than a hundred streams."""

    all_descriptors: int = 1 << 20
    """Open files that the doctor assumes for an infinite limit: Linux's limit of a process (`fs.nr_open`)."""

    clock_offset: float = 60.0
    """Seconds by which this clock may differ from servers' clocks: `Date` is in seconds, and responses take time."""

    tool_listing: float = 40.0
    """Seconds that `check --probe` waits for a list of tools: a server that is a process may be installed first."""

    identity: float = 40.0
    """Seconds that `doctor` and `check --probe` wait for a token: more than a program of `auth_command` may take, so
    that its own message is seen."""

    guarded_text: int = 16 * MIB
    """A text that `gai-fast guard test` reads: longer than any conversation."""

    sample_depth: int = 16
    """Levels of the arguments that `gai-fast tools probe --all` makes from a schema: a schema may refer to itself."""

    sample_values: int = 4096
    """Values that it makes: each level of a schema that refers to itself may ask for many."""

    sample_length: int = 1024
    """Characters, or items, that it makes if a schema asks for so many at least."""


LIMITS: Final = Limits()
