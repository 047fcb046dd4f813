"""The end of a log whose owner is gone, as the worker that closes it writes it.

Owns the events of such an end. The store decides who closes a log, and once for all (`stores/mirror.py`).

1. A log that has its `finish` or `error` already ends with that.
2. Otherwise it ends with `error`, reason `worker_lost`, or with `finish {cancelled}` if a client cancels the stream.
3. Clients may have seen events that were not stored. So the end has numbers that no client has, and in the format `gai`
   begins with `stream.gap`, whose text is that of the whole log: what a client has beyond is void. No other format can
   say so: its clients get the error alone.
"""

from __future__ import annotations

import sys
from typing import Any, Final, cast

from gai_fast.formats import get_format
from gai_fast.kernels import parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.events import NO_EVENT, Event, done
from gai_fast.net.logs.publication import ending_of
from gai_fast.net.logs.view import NATIVE, Representation, takeover_gap, written
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.clock import now_ms
from gai_fast.stores import Backlog, Ending, StreamLog
from gai_fast.stores._base import Closing, EndsInstead, add_text, damaged, data_lines

_ENDS: Final = ("finish", "error")
_KEPT: Final = "responses"
"""The format whose answers are kept."""


def closing_of(log: StreamLog, gap: int, end: EndsInstead) -> Closing:
    """Returns the end of a log; as `stores.store.ClosingOf`.

    Args:
        log: The log, with all that is stored.
        gap: The number of the log's `stream.gap`. 0 if no client has seen an event that is not stored.
        end: Why it ends.

    Raises:
        Error: `internal`, reason `log_damaged`: a format or an event of the log is none.
    """
    header, last_seq = log.header, log.last_seq
    is_cancelled = end.is_cancelled
    reason = None if end.error is None else end.error.reason
    error = end.error or Error("network", "the worker that ran this stream is gone", reason="worker_lost")
    lost = error.payload()
    ending = Ending("cancelled", "cancelled") if is_cancelled else Ending("failed", error=lost)
    if header.framing == "json":
        return Closing(b"", last_seq, Ending("finished") if last_seq else ending._replace(has_content=False))
    if header.format == NATIVE and (own := end_in(log)):
        return Closing(b"", last_seq, ending_of(own, has_content=True))
    events: list[Event] = []
    kept: int | None = None
    if gap and header.format == NATIVE:
        events.append(gap_after(log, gap))
        kept = kept_by(events[0])
    seq = max(last_seq, gap) + 1
    last: dict[str, Any] = {"type": "error", "seq": seq, "error": lost}
    if is_cancelled:
        last = {"type": "finish", "seq": seq, "finish_reason": "cancelled"}
        if reason is not None:
            last["reason"] = reason
    if header.format == NATIVE:
        names = ("usage", "steps") if is_cancelled else ("usage",)
        last |= {name: end.told[name] for name in names if end.told.get(name)}
        ending = ending._replace(usage=last.get("usage"))
    if header.dialect == _KEPT:
        last["store"] = False  # as `LoggedKeeping.last`: only the worker that is gone could have kept the answer
    events.append(cast("Event", last))
    try:
        form = Representation(get_format(header.format), header.framing, header.envelope)
    except ValueError:
        raise damaged() from None
    piece = written(header, form, now_ms, *events, done(is_cancelled), ids=True)
    return Closing(piece, seq, ending._replace(has_content=last_seq > 1), kept)  # the first event is `start`


def end_in(log: StreamLog) -> Event:
    """Returns the last event of a log, if it is a `finish` or an `error`. Empty if not. Raises as `closing_of`."""
    for piece in log.read(max(0, log.last_seq - 1), 1).pieces:
        for data in data_lines(piece):
            try:
                event = parse_exact(data.decode())
            except ValueError:
                raise damaged() from None
            if not isinstance(event, dict):
                raise damaged()
            if event.get("type") in _ENDS:
                return cast(Event, event)
    return NO_EVENT


def gap_after(log: StreamLog, number: int) -> Event:
    """Returns the event that voids what clients have beyond a log.

    Args:
        log: The log.
        number: The event's number.
    """
    return gap_behind(log.read(0, sys.maxsize), log.last_seq, number)


def kept_by(gap: Event) -> int:
    """Returns the characters of a log's text, from the output of `gap_after`; 0 if its text is not known."""
    text = gap.get("text")
    return len(text) if isinstance(text, str) else 0


def gap_behind(backlog: Backlog, last_seq: int, number: int) -> Event:
    """Returns the event as `gap_after`; may work beside the loop.

    Args:
        backlog: All that the log has.
        last_seq: The number of its last event.
        number: The event's number.
    """
    text = bytearray((backlog.text or "").encode())
    is_known = not backlog.lost or backlog.text is not None
    for piece in backlog.pieces:
        breathe()
        is_known = add_text(text, piece) and is_known
    return takeover_gap(number, last_seq, text.decode() if is_known else None)
