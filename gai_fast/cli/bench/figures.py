"""Numbers and times as people read them."""

from __future__ import annotations

import math
from typing import Final


def figure(value: float) -> str:
    """Formats a number with three significant digits, or with all digits before its point."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(float(f"{abs(value):.2e}"))))
    return f"{value:,.{digits}f}"


def seconds(value: float) -> str:
    """Formats a time in its natural unit."""
    unit, size = next((one for one in UNITS if value >= one[1]), UNITS[-1])
    return f"{figure(value / size)} {unit}"


UNITS: Final = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
"""The units of a time and their seconds, the largest first."""
