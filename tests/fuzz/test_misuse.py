"""The native kernels called as nobody should: half made, with arguments of other types, and without memory.

Invariant: they raise an exception or do what they say; the process goes on. Each script runs in a child process,
since a crash would end this one.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.native


EVERY_METHOD = """
import io
import random
import gai_fast._native as native

SPECIAL = ("__len__", "__enter__", "__exit__", "__init__")
dice = random.Random(1)
made = {
    "Bounds": lambda: native.Bounds((1.0,)),
    "ChunkedBody": native.ChunkedBody,
    "StreamCounters": lambda: native.StreamCounters(native.Bounds((1.0,)), 0.0),
    "DeltaCopier": lambda: native.DeltaCopier(native.SSEFramer(), False, frozenset({"text"})),
    "Shape": lambda: native.Shape({"a": "text"}),
    "FastPath": lambda: native.FastPath(
        native.DeltaCopier(native.SSEFramer(), False), io.BytesIO(), int, native.StreamCounters(native.Bounds(()), 0.0)
    ),
    "ReadBatch": lambda: native.ReadBatch(object(), float),
    "SSEEncoder": native.SSEEncoder,
    "NDJSONEncoder": native.NDJSONEncoder,
    "EncoderView": lambda: native.SSEEncoder().view(),
    "SSEParser": native.SSEParser,
    "NDJSONParser": native.NDJSONParser,
    "SSEFramer": native.SSEFramer,
    "LineFramer": native.LineFramer,
}
event = {"type": "text.delta", "text": "x"}
VALUES = [
    *(None, 0, -1, 2**70, 1.5, "", "text", "\\ud800", b""),
    *(b"5\\r\\nhello\\r\\n", bytearray(30), memoryview(b"x")[::-1]),
    *((), (b"a", "text"), ["seq", "text"], ("seq",) * 9 + ("text",), {}, event, {"type": None}, {1: 2}),
    *(object(), frozenset({"x"}), int, float, native.ChunkedBody(), native.SSEFramer(), io.BytesIO()),
    native.Frame(b"data: {}\\n\\n", "", "{}", None),
]


def names(kind):
    return [name for name in dir(kind) if not name.startswith("__") or name in SPECIAL]


calls = raised = 0
for name, make in made.items():
    kind = type(make())
    fields = names(kind)
    for number in range(250):
        subjects = [make()]
        try:
            subjects.append(kind.__new__(kind, *dice.choices(VALUES, k=dice.randrange(4))))
        except Exception:
            raised += 1
        for subject in subjects:
            for _ in range(12):
                field = dice.choice(fields)
                arguments = dice.choices(VALUES, k=dice.randrange(5))
                try:
                    calls += 1
                    found = getattr(subject, field)
                    if callable(found):
                        found(*arguments)
                    else:
                        setattr(subject, field, arguments[0] if arguments else None)
                except Exception:
                    raised += 1
    print(name)
for name in ("encode_sse", "encode_ndjson", "encode_json", "escape", "compact_json", "parse_exact"):
    for value in VALUES:
        try:
            getattr(native, name)(value)
        except Exception:
            raised += 1
assert 0 < raised < calls
"""

WITHOUT_MEMORY = """
import resource
import gai_fast._native as native

feeds = {
    "SSEParser": (b"data: " + b"x" * 60_000_000, b"x" * 60_000_000, b"\\n\\n"),
    "SSEFramer": (b"data: x\\n" + b"y" * 60_000_000, b"data: " + b"x" * 60_000_000, b"\\n\\n"),
    "NDJSONParser": (b'"' + b"x" * 60_000_000, b"x" * 60_000_000, b'"\\n'),
    "LineFramer": (b"x" * 60_000_000, b"x" * 60_000_000, b"\\n"),
}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, -1))
for name, (first, more, end) in feeds.items():
    parser = getattr(native, name)(1 << 40)
    try:
        parser.feed(first)
        while True:
            parser.feed(more)
    except MemoryError:
        pass
    try:
        raise SystemExit(f"{name} goes on: {len(parser.feed(end))} items")
    except ValueError as refused:
        assert "bytes are lost" in str(refused), refused
    parser.close()
    (item,) = parser.feed(b'data: "x"\\n\\n') if name.startswith("SSE") else parser.feed(b'"x"\\n')
    print(name, "refused and began anew")
"""

MUTATED = """
import gai_fast._native as native
import gai_fast._pure as pure

for kernels in (native, pure):
    for kind in ("SSEEncoder", "NDJSONEncoder"):
        for keys in (["type"], ["type", "text"], ["text"]):
            event = {"type": "usage", "text": "x", "usage": {"input_tokens": 1}}

            def clock():
                for key in keys:
                    event.pop(key, None)
                return 5

            encoder = getattr(kernels, kind)("full", clock=clock)
            for _ in range(50):
                encoder.event({**event, "seq": None} if "type" not in keys else event)
                event.update(type="usage", text="x")
            print(kind, keys, encoder.take())
"""


def run(script: str) -> str:
    command = [sys.executable, "-X", "faulthandler", "-c", script]
    child = subprocess.run(command, capture_output=True, timeout=100, check=False)
    assert child.returncode == 0, child.stderr.decode()[-3000:]
    return child.stdout.decode()


def test_no_call_ends_the_process() -> None:
    assert run(EVERY_METHOD).splitlines()[-1] == "LineFramer"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of a process's memory, as Linux has it")
def test_a_parser_that_had_no_memory_for_its_input_does_not_go_on_as_if_nothing_were_missing() -> None:
    assert run(WITHOUT_MEMORY).count("refused and began anew") == 4


def test_an_event_that_changes_while_it_is_written_is_written_as_python_writes_it() -> None:
    lines = run(MUTATED).splitlines()
    assert len(lines) == 12
    assert lines[:6] == lines[6:]
