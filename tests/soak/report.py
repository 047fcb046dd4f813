"""The soak's table, and what it says of memory and descriptors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_SHOWN = 20
STORE_CONNECTIONS = 20
"""Connections of one worker to the store: eight requests and eight writes at a time, and some that wait for news."""

UPSTREAMS = 2
"""The upstreams in the gateway's configuration."""


def slope(samples: Sequence[tuple[float, int]]) -> float | None:
    """The growth of a process's memory in bytes a second, by least squares over the last three quarters of its time.

    Returns:
        `None` of fewer than twenty samples.
    """
    if len(samples) < 20:
        return None
    begin = samples[0][0] + (samples[-1][0] - samples[0][0]) / 4
    points = [(at - begin, size) for at, size in samples if at >= begin]
    middle = sum(at for at, _ in points) / len(points)
    mean = sum(size for _, size in points) / len(points)
    spread = sum((at - middle) ** 2 for at, _ in points)
    return sum((at - middle) * (size - mean) for at, size in points) / spread


class Moment(NamedTuple):
    """One worker at one time.

    Attributes:
        minute: Since the load began.
        streams: Those of all workers.
        mib: Resident memory.
        descriptors: Open ones.
        timers: Those that are set.
        tasks: Of asyncio.
        connections: To upstreams.
        objects: Of the gateway's own classes.
        blocks: Pieces of memory that the interpreter has in use.
    """

    minute: float
    streams: int
    mib: float
    descriptors: int
    timers: int
    tasks: int
    connections: int
    objects: int
    blocks: int


def course(moments: Sequence[Moment]) -> str:
    """Returns the moments as lines, below their names."""
    lines = ["".join(f"{name:>13}" for name in Moment._fields)]
    for each in moments:
        values = (f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in each)
        lines.append("".join(f"{value:>13}" for value in values))
    return "\n".join(lines)


def table(rows: Sequence[tuple[str, str]], unexplained: Sequence[str]) -> str:
    """Returns the rows in columns, and below them notes about what is not promised."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if unexplained:
        lines += ["", f"unexplained ({len(unexplained)}):", *(f"* {line}" for line in unexplained[:_SHOWN])]
    if len(unexplained) > _SHOWN:
        lines.append(f"* … and {len(unexplained) - _SHOWN} more")
    return "\n".join(lines)


def has_leaked(first: Counter[str], last: Counter[str], workers: int) -> bool:
    """Returns whether there are more descriptors than there may be when everything has ended.

    A worker connects to another one when it first has a question, so that between none and two connections of each pair
    are there; each has two descriptors. It keeps its connections to a store, up to a limit, once it needed them. Each
    upstream that it needed has two sets of sockets and a timer, and for the sockets that connections lend a set and a
    timer.

    Args:
        first: Those of the beginning, by kind.
        last: Those of the end.
        workers: How many workers there are.
    """
    most = {
        "unix": first["unix"] + 2 * workers * (workers - 1),
        "store": workers * STORE_CONNECTIONS,
        "anon_inode": first["anon_inode"] + 5 * workers * UPSTREAMS,
    }
    others = [sum(count for kind, count in each.items() if kind not in most) for each in (first, last)]
    return others[0] < others[1] or any(last[kind] > count for kind, count in most.items())


def most_objects(workers: int) -> dict[str, int]:
    """Returns the kinds of objects that idle workers have no more of than at first, but for this many.

    A worker keeps the task that made its connection to another one, and makes the pool of an upstream when it first
    needs it. The pools of former configurations go with the next one.
    """
    return {
        "TimerHandle": 0,
        "Task": workers * (workers - 1),
        "Exchange": 0,
        "UpstreamConnection": 0,
        "TLSTransport": 0,
        "SSLObject": 0,
        "Attempt": 0,
        "UpstreamPool": workers * UPSTREAMS,
    }


def grown(first: Counter[str], last: Counter[str], workers: int) -> dict[str, int]:
    """Returns the objects of idle workers that are more than there may be, by kind."""
    more = {kind: last[kind] - first[kind] for kind in last}
    return {kind: more[kind] for kind, most in most_objects(workers).items() if more.get(kind, 0) > most}
