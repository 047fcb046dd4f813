"""The native kernels called as nobody should: half made, with arguments of other types, and without memory.

Invariant: they raise an exception or do what they say; the process goes on. Each script runs in a child process,
since a crash would end this one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import NoReturn

import pytest

pytestmark = pytest.mark.native

Unavailable = Callable[[str], NoReturn]


EVERY_METHOD = """
import io
import random
import ssl
import gai_fast.kernels._native as native

SPECIAL = ("__len__", "__enter__", "__exit__", "__init__")
dice = random.Random(1)
tls = ssl.create_default_context()  # once: it reads all of the system's certificates
made = {
    "Bounds": lambda: native.Bounds((1.0,)),
    "ChunkedBody": native.ChunkedBody,
    "Histogram": lambda: native.Histogram((1.0,)),
    "StreamCounters": lambda: native.StreamCounters(native.Bounds((1.0,)), 0.0),
    "DeltaCopier": lambda: native.DeltaCopier(native.SSEFramer(), False, frozenset({"text"})),
    "Shape": lambda: native.Shape({"a": "text"}),
    "FastPath": lambda: native.FastPath(
        native.DeltaCopier(native.SSEFramer(), False), io.BytesIO(), int, native.StreamCounters(native.Bounds(()), 0.0)
    ),
    "ReadBatch": lambda: native.ReadBatch(object(), float),
    "ChunkWriter": lambda: native.ChunkWriter(io.BytesIO()),
    "SSEEncoder": native.SSEEncoder,
    "NDJSONEncoder": native.NDJSONEncoder,
    "EncoderView": lambda: native.SSEEncoder().view(),
    "SSEParser": native.SSEParser,
    "NDJSONParser": native.NDJSONParser,
    "SSEFramer": native.SSEFramer,
    "LineFramer": native.LineFramer,
    "TLSRecords": lambda: native.make_tls_records(
        tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x"),
        ssl.MemoryBIO(), ssl.MemoryBIO(), io.BytesIO(),
    ),
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
for name in ("encode_sse", "encode_ndjson", "encode_json", "escape", "compact_json", "parse_exact", "size_of"):
    for value in VALUES:
        try:
            getattr(native, name)(value)
        except Exception:
            raised += 1
assert 0 < raised < calls
"""

WITHOUT_MEMORY = """
import resource
import gai_fast.kernels._native as native

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

WITHOUT_ONE_ALLOCATION = """
import _testcapi
import gai_fast.kernels._native as native

FRAME = b'data: {"text":"%b"}\\n\\n'
failures = 0


def fails(call, at):
    global failures
    _testcapi.set_nomemory(at, at + 1)
    try:
        call()
    except (MemoryError, SystemError):
        failures += 1
        return True
    finally:
        _testcapi.remove_mem_hooks()
    return False


class Connection:
    def write(self, data):
        pass

    def lend(self, borrower):
        return -1

    def handle(self, exchange, data, now):
        handled.append(data)

    call_soon = staticmethod(lambda callback: callbacks.append(callback))


class Log:
    def log_frames(self, frames, last_seq):
        logged.append(frames)


class Writing(Connection):
    def write(self, data):
        written.append(data)


def counters():
    return native.StreamCounters(native.Bounds(()), 0.0)


# A copier and its fast path: what is copied after the failure is whole. (A relay ends the stream; only a fast path has
# to drop what the failed call had copied, since that lies on the stack.)
(frame,) = native.SSEFramer().feed(FRAME % b"x")
event = {"type": "text.delta", "text": "x"}
for passes, parts, copied in ((False, (b"<", "text", b">"), b"<z>"), (True, (), FRAME % b"z")):
    for sizes in ((20,), (3000,) * 5, (10,) * 2000, (1, 30_000, 100_000)):
        data = b"".join(FRAME % (b"y" * size) for size in sizes)
        for at in range(30):
            for is_fast in (False, True):
                copier = native.DeltaCopier(native.SSEFramer(), passes, frozenset({"text"}))
                copier.learn(frame, event, "text", parts)
                path = native.FastPath(copier, Connection(), lambda: 0, counters())
                path.chunks = native.ChunkedBody()
                chunk = b"%x\\r\\n%b\\r\\n" % (len(data), data)
                if is_fast:
                    fails(lambda: path.feed(chunk, 1.0), at)
                else:
                    copier.feed(data)
                    fails(lambda: copier.next(0, 0), at)
                copier.settle()
                copier.take_copied()
                copier.close()
                copier.feed(FRAME % b"z")
                frames = copier.next(0, 0)
                out, count, _ = copier.take_copied()
                assert frames or (bytes(out).endswith(copied) and count == 1), (passes, at, is_fast, bytes(out), count)
                assert frames or not is_fast or bytes(out) == copied, (passes, at, bytes(out))
print("copiers", failures > 50)

# The same with a log in place of a connection, which gets whole frames.
for size in (10, 5_000):
    for at in range(30):
        logged = []
        copier = native.DeltaCopier(native.SSEFramer(), False, frozenset({"text"}))
        copier.learn(frame, event, "text", (b"<", "text", b">"))
        path = native.FastPath(copier, Log(), lambda: 0, counters())
        path.chunks = native.ChunkedBody()
        data = (FRAME % (b"y" * size)) * 5
        is_lost = fails(lambda: path.feed(b"%x\\r\\n%b\\r\\n" % (len(data), data), 1.0), at)
        assert b"".join(logged) in ((b"", b"<%b>" % (b"y" * size) * 5) if is_lost else (b"<%b>" % (b"y" * size) * 5,))

# A writer: a chunk is written whole, or in part and then the call fails.
for size in (10, 5_000):
    for at in range(12):
        written = []
        writer = native.ChunkWriter(Writing())
        for number in range(9):
            fails(lambda: writer.write(b"x" * size), at)
        assert set(written) <= {b"%x\\r\\n%b\\r\\n" % (size, b"x" * size)}

# A batch: a read is added whole or not at all.
for before in range(20):
    for at in range(12):
        handled, callbacks = [], []
        batch = native.ReadBatch(Connection(), lambda: 1.0)
        path = native.FastPath(copier, Connection(), lambda: 0, counters())
        connection = Connection()
        for _ in range(before):
            batch.add(connection, "", path, b"")
        is_lost = fails(lambda: batch.add(connection, "", path, b""), at)
        batch.add(connection, "", path, b"")
        callbacks[0]()
        assert len(handled) == before + 2 - is_lost, (before, at)

# Encoders: what is written afterwards is whole.
for kind in ("SSEEncoder", "NDJSONEncoder"):
    for text in ("x", "y" * 10_000, "\\u20ac" * 5_000):
        for at in range(30):
            encoder = getattr(native, kind)("full", request_id="r", clock=lambda: 5)
            for call in (
                lambda: encoder.text_delta(text),
                lambda: encoder.event({"type": "usage", "x": text, "y": [1, {"a": 1}]}),
                lambda: encoder.append_frames(text.encode(), 1),
                lambda: encoder.delta_parts(event, "text"),
                lambda: encoder.text_delta_into(bytearray(99_999), 0, text),
                encoder.take,
                encoder.take_pieces,
            ):
                fails(call, at)
            encoder.take()
            encoder.text_delta("z")
            assert b'"text":"z"' in encoder.take()
print("all", failures > 150)
"""

MUTATED = """
import gai_fast.kernels._native as native
import gai_fast.kernels._pure as pure

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
    child = subprocess.run(command, capture_output=True, timeout=280, check=False)
    assert child.returncode == 0, child.stderr.decode()[-3000:]
    return child.stdout.decode()


def test_no_call_ends_the_process() -> None:
    assert run(EVERY_METHOD).splitlines()[-1] == "TLSRecords"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of a process's memory, as Linux has it")
def test_a_parser_that_had_no_memory_for_its_input_does_not_go_on_as_if_nothing_were_missing() -> None:
    assert run(WITHOUT_MEMORY).count("refused and began anew") == 4


def test_a_kernel_that_lacked_memory_for_one_object_goes_on_with_whole_ones(unavailable: Unavailable) -> None:
    """Each allocation of each call fails once. orjson, which ends the process then, has no part in these calls."""
    if find_spec("_testcapi") is None:
        unavailable("_testcapi")
    assert run(WITHOUT_ONE_ALLOCATION).splitlines() == ["copiers True", "all True"]


def test_an_event_that_changes_while_it_is_written_is_written_as_python_writes_it() -> None:
    lines = run(MUTATED).splitlines()
    assert len(lines) == 12
    assert lines[:6] == lines[6:]
