"""The soak's table."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 20


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


def table(rows: Sequence[tuple[str, str]], unexplained: Sequence[str]) -> str:
    """The rows in columns, and below them what nobody has promised."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if unexplained:
        lines += ["", f"unexplained ({len(unexplained)}):", *(f"* {line}" for line in unexplained[:_SHOWN])]
    if len(unexplained) > _SHOWN:
        lines.append(f"* … and {len(unexplained) - _SHOWN} more")
    return "\n".join(lines)
