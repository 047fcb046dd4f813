"""The form of the server's log: text for people, or JSON for collectors of logs.

Owns the fields of a JSON line, its size limit, and the records that are logged before the format is known.
`log_queue.py` writes the lines, `access_log.py` and `audit.py` make entries with their own fields.

1. A JSON line is one object in ASCII: no caller's text can end the line or add a field.
2. Its first fields are `ts` (RFC 3339, UTC), `level` and `msg`. The fields of an `Entry`, or `logger`, follow, and the
   traceback as `exc`.
3. A JSON line has at most `PIPE_BUF` bytes, which a pipe accepts in one piece, so that lines of several workers do not
   mix. The longest texts are cut in the middle, and lists of texts at their end.
4. A line for people shows unprintable characters as escapes: no caller's text forges a line or controls the terminal.
5. With JSON, Python's warnings and uncaught exceptions are log records, too. Messages of the command line, such as
   `error: …`, stay text.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.settings import ServerSettings
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe import log_queue
from gai_fast.server.observe.said_once import SaidOnce

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_log: Final = logging.getLogger("gai_fast.server")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_CUT: Final = " ... "
_Uncaught = tuple[type[BaseException], BaseException, TracebackType | None]


class Entry:
    """The message of a log record with fields. `str` gives the line for people.

    Args:
        fields: The members of the JSON line, `msg` first, with JSON values.
        text: Makes the line for people.
    """

    __slots__ = ("_text", "fields")

    def __init__(self, fields: Mapping[str, Any], text: Callable[[], str]) -> None:
        self.fields = fields
        self._text = text

    def __str__(self) -> str:
        return self._text()

    def log(self, logger: logging.Logger) -> None:
        """Logs the entry at the level `INFO`, which must be enabled.

        `logging` itself looks up the source line, the thread and the names of each record, of which no line has any:
        three quarters of the cost of a line.
        """
        if logging.getLogRecordFactory() is not logging.LogRecord:  # somebody's own, which may look up more
            logger.info(self)
            return
        known = _LIKE.get(logger.name)
        if known is None:
            level = {"levelno": logging.INFO, "levelname": logging.getLevelName(logging.INFO)}  # a program may name it
            made = logging.makeLogRecord({"name": logger.name, **level})
            known = _LIKE[logger.name] = {**made.__dict__}
        now = time.time()
        record = logging.LogRecord.__new__(logging.LogRecord)
        record.__dict__ = known = known.copy()  # to give a record each attribute costs 10,000 instructions more
        known["msg"] = self
        known["msecs"] = now % 1.0 // _MS
        known["relativeCreated"] += (now - known["created"]) / _MS
        known["created"] = now
        known["process"] = os.getpid()
        logger.handle(record)


_LIKE: Final[dict[str, dict[str, Any]]] = {}
"""By logger, the attributes of a record; an entry's own replace some of them."""
_MS: Final = 1e-3
_MICROSECONDS: Final = 1_000_000


@lru_cache(1)
def _second(seconds: int) -> str:
    """Returns a second in the form of RFC 3339, in UTC: most lines are of the second of the one before."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class JSONFormatter(logging.Formatter):
    """Formats log records as lines of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, without a line break."""
        seconds, rest = divmod(round(record.created * _MICROSECONDS), _MICROSECONDS)
        line: dict[str, Any] = {
            "ts": f"{_second(seconds)}.{rest // 1000:03}Z",
            "level": record.levelname.lower(),
        }
        if isinstance(record.msg, Entry):
            line |= record.msg.fields
        else:
            line["msg"] = record.getMessage()
            line["logger"] = record.name
        traces = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            traces.append(record.stack_info)
        if traces:
            line["exc"] = "\n".join(traces)
        return _bounded(line)


class TextFormatter(logging.Formatter):
    """Formats log records as lines for people: rule 4."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """Returns the line of a record, without its traceback."""
        return _printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's own name
        """Returns a traceback, whose line breaks stay."""
        return "\n".join([_printable(line) for line in super().formatException(ei).split("\n")])


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else json.dumps(each)[1:-1] for each in text])


def _bounded(line: dict[str, Any]) -> str:
    """Returns a line as JSON. Cuts its longest values until it has at most `PIPE_BUF` bytes with its line break."""
    text = _ascii(line)
    while (excess := len(text) + 1 - select.PIPE_BUF) > 0:
        name = max(line, key=lambda name: _length(line[name]))
        value = line[name]
        line[name] = value[: len(value) // 2] if isinstance(value, list) else _without_middle(value, excess)
        text = _ascii(line)
    return text


def _length(value: Any) -> int:
    """Returns the characters of a text, or of a list of texts; 0 for other values, which are short."""
    if isinstance(value, list):
        return sum(map(len, value)) + len(value)
    return len(value) if isinstance(value, str) else 0


def _without_middle(text: str, excess: int) -> str:
    """Returns a text that is shorter by about `excess` bytes of its JSON, and by at least one character."""
    size = len(_ascii({"": text}))
    kept = len(text) * max(0, size - excess) // size - len(_CUT)
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :] if kept > 1 else ""


def _ascii(line: Mapping[str, Any]) -> str:
    text = encode_json(line).decode()
    if text.isascii():  # a search looks at each character
        return text
    # `json.dumps` alone would leave halves of surrogate pairs, which strict readers refuse.
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


class _Handler(logging.StreamHandler[Any]):
    """Writes to the standard error. If a record cannot be formatted, writes an error line for it."""

    def __init__(self) -> None:
        super().__init__()
        self._said = SaidOnce()

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is logged. Few are marked: a filter would cost each line 2,500 instructions."""
        return "once" not in record.__dict__ or self._said.filter(record)

    def flush(self) -> None:
        """Does nothing: neither a `QueuedStream` nor a stream in memory keeps text back."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        name = f"{record.name} ({record.filename}:{record.lineno})"
        broken = logging.LogRecord(
            _log.name, logging.ERROR, "", 0, "a record of %s cannot be formatted", (name,), sys.exc_info()
        )
        self.stream.write(self.format(broken) + self.terminator)


# ---- the process -----------------------------------------------------------------------------------------------------


class HeldLog(logging.Handler):
    """Keeps the first records of a process until `use` sets the format."""

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[logging.LogRecord] = deque(maxlen=LIMITS.held_records)
        logging.captureWarnings(True)
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self._records.append(record)

    def use_format(self, log_format: str | None) -> None:
        """Configures logging if the configuration cannot be used.

        Args:
            log_format: The format from the command line. `None` if the command line has no format.
        """
        self.use(ServerSettings(log_format=log_format or "auto"))  # type: ignore[arg-type]  # one of three values

    def use(self, server: ServerSettings) -> None:
        """Configures logging: records go to the standard error, which never blocks from now on. Of other packages, only
        warnings and errors are logged.

        Only `access_log` decides whether the access log is written: its lines have the level `INFO` for any
        `log_level`. The audit log is always written.

        Args:
            server: `[server]`.
        """
        root = logging.getLogger()
        root.removeHandler(self)
        log_queue.install()
        as_json = server.log_format == "json" or (server.log_format == "auto" and not sys.stderr.isatty())
        level = logging.getLevelNamesMapping()[server.log_level.upper()]
        if not root.handlers:
            handler = _Handler()
            handler.setFormatter(JSONFormatter() if as_json else TextFormatter())
            root.addHandler(handler)
            root.setLevel(max(level, logging.WARNING))
            if as_json:
                _log_uncaught()
        logging.getLogger("gai_fast").setLevel(level)
        for name, is_off in (("gai_fast.access", not server.access_log), ("gai_fast.audit", False)):
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.disabled = is_off
        logging.captureWarnings(as_json)
        for record in self._records:
            if logging.getLogger(record.name).isEnabledFor(record.levelno):
                root.handle(record)
        self._records.clear()


def _log_uncaught() -> None:
    """Installs hooks that log uncaught exceptions."""

    def uncaught(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
        _log.critical("an exception was not caught", exc_info=(kind, problem, trace))

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        name = "a thread" if found.thread is None else f"thread {found.thread.name}"
        _log.critical("an exception was not caught in %s", name, exc_info=_info(found))

    def unraisable(found: UnraisableHookArgs) -> None:
        _log.error("%s: %r", found.err_msg or "an exception was ignored in", found.object, exc_info=_info(found))

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, uncaught_in_thread, unraisable


def _info(found: threading.ExceptHookArgs | UnraisableHookArgs) -> _Uncaught | None:
    if found.exc_value is None:
        return None
    return found.exc_type, found.exc_value, found.exc_traceback
