"""The figures of a server as lines of text, for `gai-fast top`.

Owns the content and the order of the lines. Names come from the server and its callers: their unprintable characters
never reach the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from gai_fast.server.admin.bodies import Bucket, RunningStream, Sample

BREAKERS: Final = {0: "closed", 1: "probing", 2: "open"}


class Column(NamedTuple):
    """A column of the table of streams.

    Attributes:
        title: The column's title.
        width: The width of a column of numbers, in cells; 0: the column has names, and gets a share of the rest.
        share: The column's share of the rest, relative to the other columns of names.
        text: Returns the text for a stream.
        order: Returns the sort key for a stream.
    """

    title: str
    width: int
    share: int
    text: Callable[[RunningStream], str]
    order: Callable[[RunningStream], Any]


def rate_of(stream: RunningStream) -> float | None:
    """Returns the tokens per second since a stream's first token, or None before its second. A delta counts as one
    token."""
    if stream.ttft_ms is None or stream.deltas < 2 or stream.duration_ms <= stream.ttft_ms:
        return None
    return (stream.deltas - 1) * 1e3 / (stream.duration_ms - stream.ttft_ms)


def printable(text: str) -> str:
    """Returns a server's text with U+FFFD in place of unprintable characters, which could control the terminal.

    Args:
        text: Any text.
    """
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def duration(seconds: float) -> str:
    """Returns a time in at most six characters.

    Args:
        seconds: The time.
    """
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} m"
    return f"{seconds / 3600:.0f} h"


def count(number: float) -> str:
    """Returns a number in at most six characters.

    Args:
        number: At least 0.
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"


def _ttft(stream: RunningStream) -> str:
    return "waits" if stream.ttft_ms is None else duration(stream.ttft_ms / 1e3)


def _rate(stream: RunningStream) -> str:
    rate = rate_of(stream)
    return "" if rate is None else count(rate)


def _or_least(value: float | None) -> float:
    return -1.0 if value is None else value


COLUMNS: Final = (
    Column("age", 7, 0, lambda each: duration(each.duration_ms / 1e3), lambda each: each.duration_ms),
    Column("ttft", 7, 0, _ttft, lambda each: _or_least(each.ttft_ms)),
    Column("tok/s", 7, 0, _rate, lambda each: _or_least(rate_of(each))),
    Column("key", 0, 2, lambda each: printable(each.key), lambda each: each.key),
    Column("model", 0, 3, lambda each: printable(each.model), lambda each: each.model),
    Column("upstream", 0, 2, lambda each: printable(each.upstream), lambda each: each.upstream),
    Column("id", 0, 3, lambda each: printable(each.id), lambda each: each.id),
)


def widths(total: int) -> list[int]:
    """Returns the width of each column; a space separates two columns.

    Args:
        total: The width of the table, in cells.
    """
    rest = max(total - sum(each.width for each in COLUMNS) - (len(COLUMNS) - 1), 0)
    shares = sum(each.share for each in COLUMNS)
    return [each.width or max(rest * each.share // shares, 1) for each in COLUMNS]


def head(url: str, sample: Sample) -> list[str]:
    """Returns the lines above the table.

    Args:
        url: The server's URL.
        sample: The server's figures.
    """
    rates = sample.rates
    memory = "" if sample.memory_bytes is None else f"  memory {count(sample.memory_bytes)}B"
    lines = [f"gai-fast top  {printable(url)}  {printable(sample.at[_TIME])} UTC{memory}"]
    if rates is None:
        lines.append(f"{sample.active} streams  rates follow in a second")
    else:
        shown = {name: count(max(rates.get(name, 0.0), 0.0)) for name in _RATES}
        lines.append(
            f"{sample.active} streams  {shown['requests']} req/s  {shown['errors']} err/s  "
            f"in {shown['input_tokens']} tok/s  out {shown['deltas']} tok/s  {shown['bytes']}B/s"
        )
    first, gaps = _quantiles(sample.first_token_seconds), _quantiles(sample.gap_seconds)
    lines.append(f"first token {first}  gaps {gaps}")
    return lines


def foot(sample: Sample) -> list[str]:
    """Returns the lines below the table.

    Args:
        sample: The figures.
    """
    errors = [f"{printable(each.code)} {printable(each.provider)} {each.count}" for each in sample.errors]
    breakers = [
        f"{printable(name)} {BREAKERS.get(int(state), '?')}" for name, state in sample.breakers.items() if state
    ]
    limited = [f"{printable(name)} {count(number)}" for name, number in sample.limited.items() if number]
    spent = "not known: the store does not answer"
    if sample.spend is not None:
        rows = [f"{printable(str(row.key))} {row.amount:.6g} {printable(row.currency)}" for row in sample.spend.keys]
        spent = f"today: {_listed(rows)}"
    return [
        f"errors    {_listed(errors)}",
        f"breakers  {_listed(breakers, 'all closed')}",
        f"limited   {_listed(limited)}",
        f"spend     {spent}",
    ]


_TIME: Final = slice(11, 19)  # the time of day in an RFC 3339 timestamp
# Output tokens are counted when a stream ends; deltas, one token each, as they come.
_RATES: Final = ("requests", "errors", "input_tokens", "deltas", "bytes")


def _listed(items: Sequence[str], none: str = "none") -> str:
    return ", ".join(items) or none


def _quantiles(buckets: Sequence[Bucket]) -> str:
    """Returns the median and the 99th percentile since the start, as bounds: a histogram has no exact values."""
    total = sum(each.count for each in buckets)
    if not total:
        return "-"
    return " ".join(f"{name} {_quantile(buckets, total * part)}" for name, part in (("p50", 0.5), ("p99", 0.99)))


def _quantile(buckets: Sequence[Bucket], wanted: float) -> str:
    seen, last = 0, 0.0
    for each in buckets:
        seen += each.count
        if seen >= wanted and each.le is not None:
            return f"≤ {duration(each.le)}"
        last = each.le or last
    return f"> {duration(last)}"
