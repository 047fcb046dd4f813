"""Names of processes, by which other processes of the same machine know whether they have ended.

Owns these names. Linux tells what is needed; elsewhere a process has no name, and nothing is known of it.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from hashlib import blake2b
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_ENDED: Final = ("Z", "X")
"""States of a process that has ended and whose parent has not asked for its exit code: proc(5)."""
_START: Final = 19
"""The place of the start time among the fields after the name: field 22 of `stat`, proc(5)."""


def process_name() -> str:
    """Returns the name of this process, `<machine>.<process id>.<start>`. Empty if the system does not offer it.

    Containers with process ids of their own are machines of their own here.
    """
    machine = _machine()
    fields = _fields("self")
    if not machine or fields is None or fields[0] != os.getpid():  # `/proc` may be another container's
        return ""
    return f"{machine}.{fields[0]}.{fields[1][_START]}"


def has_ended(name: str) -> bool:
    """Returns whether a process is known to have ended; never if it is another machine's.

    Args:
        name: From `process_name`, or any other text.
    """
    machine, _, rest = name.partition(".")
    pid, _, start = rest.partition(".")
    if not pid.isdecimal() or not start.isdecimal() or machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's, which `/proc` may hide
        pass
    fields = _fields(pid)
    return fields is not None and (fields[1][_START] != start or fields[1][0] in _ENDED)


def _machine() -> str:
    """Returns a digest that all processes with the same set of process ids share until the machine is restarted."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_bytes()
        ids = str((_PROC / "self/ns/pid").readlink()).encode()
    except OSError:
        return ""
    return urlsafe_b64encode(blake2b(boot + ids, digest_size=9).digest()).decode()


def _fields(process: str) -> tuple[int, list[str]] | None:
    """Returns a process's id, and the fields of its `stat` from its state on. None if they cannot be read."""
    try:
        text = (_PROC / process / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rfind(")") + 2 :].split()  # the name may have spaces and brackets
    return (int(text.partition(" ")[0]), fields) if len(fields) > _START else None
