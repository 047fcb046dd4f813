"""JSON lines: their fields, their bound, and what is logged before the format is known."""

from __future__ import annotations

import io
import json
import logging
import select
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gai_fast.server.observe.log_format import Entry, JSONFormatter, TextFormatter, _Handler
from tests.integration.test_cli import environment


def line_of(message: object, *arguments: object, **about: Any) -> dict[str, Any]:
    """Returns the JSON line of a record."""
    record = logging.LogRecord("some.logger", logging.WARNING, "file.py", 3, message, arguments, **about)
    text = JSONFormatter().format(record)
    assert text.isascii()
    assert "\n" not in text
    assert len(text) < select.PIPE_BUF
    read: dict[str, Any] = json.loads(text)
    assert list(read)[:3] == ["ts", "level", "msg"]
    return read


def test_a_record_is_one_object() -> None:
    line = line_of("%s is %d", "x", 3, exc_info=None)
    assert line.pop("ts")[-5] == "."
    assert line == {"level": "warning", "msg": "x is 3", "logger": "some.logger"}


@pytest.mark.parametrize("created", [0.0, 1775237394.123, 1775237394.9996, 1775237394.9999999, 1798761599.999])
def test_a_line_has_its_time_to_a_millisecond(created: float) -> None:
    record = logging.LogRecord("some.logger", logging.INFO, "file.py", 3, "x", (), None)
    record.created = created
    expected = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert json.loads(JSONFormatter().format(record))["ts"] == expected


def test_what_is_said_once_is_one_line_and_other_records_are_a_line_each() -> None:
    handler, written = _Handler(), io.StringIO()
    handler.setStream(written)
    for text, more in (("a", {"once": 60.0}), ("b", {}), ("a", {"once": 60.0}), ("b", {})):
        handler.handle(logging.makeLogRecord({"msg": text, **more}))
    assert written.getvalue().split() == ["a", "b", "b"]


def test_a_traceback_is_a_field() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        line = line_of("failed", exc_info=sys.exc_info())
    assert line["exc"].startswith("Traceback (most recent call last):\n")
    assert line["exc"].endswith("ValueError: first\nsecond")
    assert line_of("here", exc_info=None, sinfo="Stack:\n  a")["exc"] == "Stack:\n  a"


def test_an_entry_has_its_own_fields() -> None:
    line = line_of(Entry({"msg": "stream", "chunks": 3, "cost": None}, lambda: "for people"), exc_info=None)
    assert (line["msg"], line["chunks"], line["cost"]) == ("stream", 3, None)
    assert "logger" not in line
    assert str(Entry({"msg": "stream"}, lambda: "for people")) == "for people"


def test_an_entry_is_a_record_like_others(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("gai_fast.of_entries")
    caplog.set_level(logging.INFO, logger.name)
    logger.info("another")
    Entry({"msg": "one"}, lambda: "100 %").log(logger)
    time.sleep(0.002)
    Entry({"msg": "two"}, lambda: "200 %").log(logger)
    other, *own = caplog.records
    assert [record.getMessage() for record in own] == ["100 %", "200 %"]
    for record in own:
        assert record.__dict__.keys() - {"message"} == other.__dict__.keys() - {"message"}
        assert (record.levelname, record.process, record.threadName) == ("INFO", other.process, other.threadName)
        assert 0 <= record.created - other.created < 60
        since = (record.created - other.created) * 1000
        assert record.relativeCreated - other.relativeCreated == pytest.approx(since, abs=0.1)
    logger.disabled = True
    Entry({"msg": "three"}, lambda: "").log(logger)
    logger.disabled = False
    assert len(caplog.records) == 3


def test_an_entry_has_the_program_s_own_name_of_its_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gai_fast.of_named_levels")
    logging.addLevelName(logging.INFO, "note")
    try:
        Entry({"msg": "one"}, lambda: "1").log(logging.getLogger("gai_fast.of_named_levels"))
    finally:
        logging.addLevelName(logging.INFO, "INFO")
    assert [record.levelname for record in caplog.records] == ["note"]


class Marked(logging.LogRecord):
    mark = "own"


def test_an_entry_is_a_record_of_the_program_s_own_factory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gai_fast.of_entries")
    logging.setLogRecordFactory(Marked)
    try:
        Entry({"msg": "one"}, lambda: "1").log(logging.getLogger("gai_fast.of_entries"))
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    assert [getattr(record, "mark", "") for record in caplog.records] == ["own"]


@pytest.mark.parametrize("character", ["a", '"', "\xe9", "\U0001f600"])
def test_lists_of_texts_have_a_part_of_the_bound(character: str) -> None:
    """Paths that a client has made up: nothing but the list is long, so no text can be cut in its place."""
    paths = [character * 100 for _ in range(20)]
    line = line_of(
        Entry({"msg": "stream", "path": "/v1/responses", "dropped": paths, "cost": None}, str), exc_info=None
    )
    assert line["dropped"] == paths[: len(line["dropped"])]
    assert line["dropped"]
    assert line["path"] == "/v1/responses"


@pytest.mark.parametrize(
    "text",
    ['a"b\\c', "a\r\nb", '"}\n{"msg":"audit"', "é\u2028\u0085", "\x00\x1b[31m", "\U0001f600", "a\ud800b"],
    ids=ascii,
)
def test_no_text_of_a_caller_ends_a_line_or_adds_a_field(text: str) -> None:
    line = line_of(Entry({"msg": "request", "path": text}, str), exc_info=None)
    assert set(line) == {"ts", "level", "msg", "path"}
    assert line["path"] == text.replace("\ud800", "\ufffd")
    assert line_of("%s", text, exc_info=None)["msg"] == line["path"]


def test_no_text_of_a_caller_forges_a_line_for_people_or_controls_their_terminal() -> None:
    """A C1 character or a bidirectional override in the name of a model reached the terminal."""
    text = "é\x1b[31m\x9b31m\u202e\u2028\r\n2026-11-26 INFO forged\U0001f600"
    escaped = "é\\u001b[31m\\u009b31m\\u202e\\u2028\\r\\n2026-11-26 INFO forged\U0001f600"
    try:
        raise ValueError(text)
    except ValueError:
        problem = sys.exc_info()
    for message, arguments in (("%s", (text,)), (Entry({"msg": "stream"}, lambda: text), ())):
        record = logging.LogRecord("some.logger", logging.WARNING, "file.py", 3, message, arguments, problem)
        first, *trace = TextFormatter().format(record).split("\n")
        assert first.endswith(f"WARNING some.logger: {escaped}")
        assert trace[0] == "Traceback (most recent call last):"
        assert "".join(trace).isprintable()


@pytest.mark.parametrize("character", ["x", "\x00", "é", "\U0001f600"], ids=ascii)
def test_a_line_has_a_bound_and_its_longest_texts_lose_their_middle(character: str) -> None:
    line = line_of(Entry({"msg": "request", "path": f"/a{character * 9000}z", "model": "m"}, str), exc_info=None)
    assert line["model"] == "m"
    assert line["path"].startswith("/a")
    assert line["path"].endswith("z")
    assert " ... " in line["path"]
    many = {f"field{number}": character * 3000 for number in range(20)}
    assert line_of(Entry({"msg": "m", **many}, str), exc_info=None).keys() >= many.keys()


PROGRAM = """
import logging, sys, threading, warnings
from gai_fast.server.observe.log_format import HeldLog
from gai_fast.model.settings import ServerSettings

held = HeldLog()
warnings.warn("early")
logging.getLogger("other").warning("also early")
logging.getLogger("other").info("not written")
held.use(ServerSettings(log_format=sys.argv[1]))
logging.getLogger("asyncio").error("%d", "no number")
logging.getLogger("gai_fast.audit").info("an action")
logging.getLogger("gai_fast.access").info("a request")
warnings.warn("late")

def fail():
    raise ValueError("in a thread")

thread = threading.Thread(target=fail, name="t")
thread.start()
thread.join()

class Failing:
    def __del__(self):
        raise ValueError("in a finalizer")

Failing()
raise SystemError("at the end")
"""


def run(log_format: str, folder: Path) -> list[str]:
    """Returns the output of a program that logs in several ways."""
    command = [sys.executable, "-W", "always", "-c", PROGRAM, log_format]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment(), timeout=60, check=False
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_everything_that_a_process_says_is_json(log_format: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run(log_format, tmp_path)]
    assert [(line["logger"], line["msg"].splitlines()[0].rpartition(": ")[2]) for line in lines[:2]] == [
        ("py.warnings", "early"),
        ("other", "also early"),
    ]
    assert [line["msg"] for line in lines[2:4]] == [lines[2]["msg"], "an action"]
    assert lines[2]["msg"].startswith("a record of asyncio (<string>:11) cannot be formatted")
    assert "TypeError" in lines[2]["exc"]
    assert "late" in lines[4]["msg"]
    assert [line["exc"].splitlines()[-1] for line in lines[5:]] == [
        "ValueError: in a thread",
        "ValueError: in a finalizer",
        "SystemError: at the end",
    ]


def test_text_stays_as_it_was(tmp_path: Path) -> None:
    lines = run("text", tmp_path)
    assert any(line.endswith("WARNING other: also early") for line in lines)
    assert lines[-1] == "SystemError: at the end"
    assert not any(line.startswith("{") for line in lines)
