"""The form of the server's log: text for people, or JSON for collectors of logs.

Owns the fields of a JSON line, its bound, and what is logged before the format is known. `log_queue.py` writes the
lines, `access_log.py` and `audit.py` make entries with fields of their own.

1. A JSON line is one object in ASCII: whatever a caller's text holds, it ends no line and adds no field.
2. Its first fields are `ts` (RFC 3339, UTC), `level` and `msg`; then those of an `Entry`, or the `logger`, and the
   traceback as `exc`.
3. It has at most `PIPE_BUF` bytes, which a pipe takes in one piece: lines of several workers do not mix. The longest
   texts lose their middle.
4. With JSON the warnings of Python, and exceptions that nobody catches, are log records too. What the command line
   itself says, as `error: …`, stays text.
"""

from __future__ import annotations

import json
import logging
import re
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.settings import ServerSettings
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe import log_queue

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_log: Final = logging.getLogger("gai_fast.server")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_CUT: Final = " ... "
_Uncaught = tuple[type[BaseException], BaseException, TracebackType | None]


class Entry:
    """A message of a log record that has fields: as text it is a line for people.

    Args:
        fields: The members of the JSON line, `msg` first; values that JSON has.
        text: Makes the line for people.
    """

    __slots__ = ("_text", "fields")

    def __init__(self, fields: Mapping[str, Any], text: Callable[[], str]) -> None:
        self.fields = fields
        self._text = text

    def __str__(self) -> str:
        return self._text()


class JSONFormatter(logging.Formatter):
    """Formats log records as lines of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, without its line break."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
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


def _bounded(line: dict[str, Any]) -> str:
    """A line as JSON, with its longest texts cut until a pipe takes it in one piece."""
    text = _ascii(line)
    while (excess := len(text) + 1 - select.PIPE_BUF) > 0:
        name = max(line, key=lambda name: len(line[name]) if isinstance(line[name], str) else 0)
        line[name] = _without_middle(line[name], excess)
        text = _ascii(line)
    return text


def _without_middle(text: str, excess: int) -> str:
    """A text that is shorter by about so many bytes of its JSON, and by a character at least."""
    size = len(_ascii({"": text}))
    kept = len(text) * max(0, size - excess) // size - len(_CUT)
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :] if kept > 1 else ""


def _ascii(line: Mapping[str, Any]) -> str:
    # Not `json.dumps` at once: it leaves halves of surrogate pairs, which strict readers refuse.
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], encode_json(line).decode())


class _Handler(logging.StreamHandler[Any]):
    """Writes to the standard error; a record that cannot be formatted is a line as well."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        name = f"{record.name} ({record.filename}:{record.lineno})"
        broken = logging.LogRecord(
            _log.name, logging.ERROR, "", 0, "a record of %s cannot be formatted", (name,), sys.exc_info()
        )
        self.stream.write(self.format(broken) + self.terminator)


# ---- the process -----------------------------------------------------------------------------------------------------


class HeldLog(logging.Handler):
    """Keeps the first records of a process until `use` says how they are written."""

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[logging.LogRecord] = deque(maxlen=LIMITS.held_records)
        logging.captureWarnings(True)
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self._records.append(record)

    def use_format(self, log_format: str | None) -> None:
        """Configures logging where the configuration cannot be used.

        Args:
            log_format: The one of the command line, if any.
        """
        self.use(ServerSettings(log_format=log_format or "auto"))  # type: ignore[arg-type]  # one of the three

    def use(self, server: ServerSettings) -> None:
        """Configures logging: to the standard error, which holds nobody up from now on, and of other packages warnings
        and errors only.

        `access_log` alone decides about the access log: its lines have the level `INFO`, whatever `log_level` is. The
        audit log is always written.

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
            handler.setFormatter(JSONFormatter() if as_json else logging.Formatter(_TEXT))
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
    """Makes log records of exceptions that nobody catches."""

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
