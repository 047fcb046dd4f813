"""Costs beside others, and the bounds of what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Ratio(NamedTuple):
    """A cost, what it is compared with, and how many times as much it may be."""

    cost: float
    beside: float
    most: float


class Added(NamedTuple):
    """A cost, what it is compared with, and how much more it may be."""

    cost: float
    beside: float
    most: float


def compare_bounds(found: Mapping[str, Ratio | Added]) -> tuple[list[str], bool]:
    """Returns the table, and whether nothing costs more than it may."""
    lines = [f"{'':58} {'cost':>12} {'beside':>12} {'':>10} {'most':>10}"]
    all_fine = True
    for name, each in found.items():
        is_ratio = isinstance(each, Ratio)
        figure = each.cost / each.beside if is_ratio else each.cost - each.beside
        note = "" if figure <= each.most else "  too much"
        shown = f"{figure:10.3f} {each.most:10.2f}" if is_ratio else f"{figure:+10,.0f} {each.most:10,.0f}"
        lines.append(f"{name:58} {each.cost:12,.0f} {each.beside:12,.0f} {shown}{note}")
        all_fine = all_fine and not note
    return lines, all_fine
