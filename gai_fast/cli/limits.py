"""Limits of the commands.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    stdout_blocked: float = 1.0
    """Seconds for which a server's start waits for a standard output that takes nothing, such as a full pipe."""

    doctor: float = 10.0
    """Seconds that `gai-fast doctor` waits for each answer."""

    admin_wait: float = 10.0
    """Seconds without a byte after which `gai-fast top` gives an answer up: a server sends figures each second."""

    admin_again: float = 1.0
    """Seconds after which `gai-fast top` asks again: a key that is refused stays below the limit of wrong keys."""

    admin_body: int = 1 * MIB
    """Bytes of one sample, or of an error, that `gai-fast top` reads: 200 streams are 60 KB."""

    local_server: float = 0.5
    """Seconds in which a model server on this machine answers `config init`: it lists its models in milliseconds."""

    stream_probe_body: int = 64 * KIB
    """Bytes of a probe's answer that the doctor reads: a probe has 300, whatever else answers has more."""

    few_descriptors: int = 4096
    """Open files below which the doctor warns: they are for some 1,300 streams."""

    too_few_descriptors: int = 256
    """Open files below which the doctor sees an error: they are for less than a hundred streams."""

    all_descriptors: int = 1 << 20
    """Open files that an infinite limit stands for: Linux's own limit of a process (`fs.nr_open`)."""

    clock_offset: float = 60.0
    """Seconds by which a clock may differ from that of servers: they tell whole seconds, and answers take some."""


LIMITS: Final = Limits()
