"""Walks of texts, bytes and headers, each with an input of n."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gai_fast.core.json.object_scan import ObjectScan
from gai_fast.core.json.structure import Structure
from gai_fast.core.processing.text_pace import TextPace
from gai_fast.core.requests.reading import parse_object, parse_request
from gai_fast.core.requests.stored_ids import stored_ids
from gai_fast.core.session import beginning
from gai_fast.core.transcript import Transcript
from gai_fast.guards import pii
from gai_fast.guards.arguments import ArgumentSearch
from gai_fast.guards.automaton import SearchTurn, compile_rules
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import Rule, Words
from gai_fast.guards.restore import Placeholders, Restorer
from gai_fast.guards.waits import read_pattern
from gai_fast.kernels import (
    ArrayFramer,
    ChunkedBody,
    LineFramer,
    NDJSONParser,
    SSEFramer,
    SSEParser,
    compact_json,
    event_messages,
    frame_members,
    frame_messages,
    last_seq,
    parse_exact,
)
from gai_fast.library.collecting import collect
from gai_fast.model.errors import Error
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.model.upstream_errors import for_client
from gai_fast.processors._schema_cost import most_paths
from gai_fast.processors.batch import BatchProcessor
from gai_fast.processors.json_stream import JSONStreamProcessor
from gai_fast.processors.transform import ReplaceProcessor
from gai_fast.processors.usage import UsageProcessor
from gai_fast.providers import get_provider
from gai_fast.providers.answers.argument_pieces import ArgumentPiece, ArgumentWriter, argument_path
from gai_fast.providers.requests.thoughts import without_thoughts
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.admission.negotiation import content_coding, negotiate
from gai_fast.server.pass_through.form_ids import FormIds
from gai_fast.server.pass_through.headers import for_client as headers_for_client
from gai_fast.server.pass_through.upstream_path import read_path, read_query
from gai_fast.server.pass_through.usage import UsageReader, text_characters
from gai_fast.server.requests.fingerprint import sorted_form
from gai_fast.server.websocket.frame_guard import FrameGuard
from tests.linear.requests import CHAT, NATIVE, RESPONSES, SCHEMAS

Work = Callable[[], object]
LINE = b'data: {"a":1}\n\n'
TEXT = "word " * 40


def _named_schemas(n: int) -> dict[str, Any]:
    """Returns a schema whose members refer to others by their names."""
    named = {f"d{at}": {"$id": f"d{at}"} for at in range(n)}
    return {"properties": {f"a{at}": {"$ref": f"d{at}"} for at in range(n)}, "$defs": named}


def _fed(make: Callable[[], Any], pieces: list[bytes]) -> Work:
    """Returns the feeding of a parser."""

    def work() -> None:
        parser = make()
        for piece in pieces:
            parser.feed(piece)
        close = getattr(parser, "close", None)
        if close is not None:
            close()

    return work


def _cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def _processed(make: Callable[[], Any], deltas: list[str]) -> Work:
    """Returns the way of deltas through a processor."""

    def work() -> None:
        processor = make()
        for now, text in enumerate(deltas):
            for _ in processor.process({"type": "text.delta", "text": text}, now):
                pass
        for _ in processor.process({"type": "finish", "finish_reason": "stop"}, len(deltas)):
            pass

    return work


def _followed(text: str, size: int, **options: Any) -> Work:
    deltas = [text[at : at + size] for at in range(0, len(text), size)]
    return _processed(lambda: JSONStreamProcessor(**options), deltas)


def _usage_of(pieces: list[bytes]) -> object:
    """Reads the usage of a passed answer."""
    reader = UsageReader("application/json")
    for piece in pieces:
        reader.feed(piece)
    return reader.usage()


def _refused(function: Callable[..., Any], *arguments: Any) -> Work:
    def work() -> None:
        with suppress(Error, ValueError):
            function(*arguments)

    return work


def _written(paths: list[str]) -> Work:
    def work() -> None:
        writer = ArgumentWriter()
        for path in paths:
            writer.write(ArgumentPiece(argument_path(path), '"a"', True))
        writer.close()

    return work


def _scanned(pieces: list[str]) -> Work:
    def work() -> None:
        scan, so_far = ObjectScan(), []
        for piece in pieces:
            so_far.append(piece)
            scan.is_whole(so_far)

    return work


def _repeated(n: int) -> Work:
    events: list[Any] = [{"type": "text.delta" if at % 2 else "reasoning.delta", "text": TEXT} for at in range(n)]

    def work() -> None:
        transcript = Transcript()
        for event in events:
            transcript.take(event)
        transcript.repeat(Error("network", "x"))
        for event in events:
            transcript.take(event)

    return work


def _echoed(n: int) -> Work:
    def work() -> None:
        transcript = Transcript()
        for _ in range(n):
            transcript.take({"type": "text.delta", "text": TEXT})
        transcript.go_on()
        for _ in range(n):
            transcript.take({"type": "text.delta", "text": TEXT})

    return work


def _collected(n: int) -> Work:
    events: list[Any] = [
        {"type": "start", "provider": "p", "model": "m"},
        *[{"type": "text.delta", "text": TEXT}, {"type": "reasoning.delta", "text": TEXT}] * n,
        {"type": "finish", "finish_reason": "stop"},
        {"type": "done", "finished": True},
    ]
    return lambda: collect(events)


def _scoped(n: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "file", "file_id": f"f{at}"} for at in range(n)]}]}


PART = b'--b\r\ncontent-disposition: form-data; name="file_id"\r\n\r\nf1\r\n'
OBJECTS = '{"a":[%s]}'


def _guarded(rules: list[Rule | Words], pieces: list[str]) -> Work:
    scan = compile_rules(rules).scan()
    return lambda: [[scan.feed(piece) for piece in pieces], scan.end()]


def _turned(letters: str, size: int) -> list[str]:
    return ["".join(random.Random(3).choices(letters, k=size))]


def _by_threads(pattern: str, pieces: list[str]) -> Work:
    turn = SearchTurn()
    turn.kept = LIMITS.request_room
    scan = compile_rules([Rule("", read_pattern(pattern))]).scan(turn=turn)
    return lambda: [[scan.feed_turn(piece, 0, sys.maxsize) for piece in pieces], scan.end()]


def _paced(said: str) -> Work:
    pace = TextPace()
    return lambda: [[*pace.process({"type": "text.delta", "text": said}, 1)], [*pace.flush(2)]]


def _guarded_arguments(pieces: list[str]) -> Work:
    search = ArgumentSearch(compile_rules([Rule("", read_pattern("sk-[a-z]{4}"))]).scan())
    return lambda: [[search.feed(piece) for piece in pieces], search.end()]


def _restored(pieces: list[str]) -> Work:
    placeholders = Placeholders()
    placeholders.issue("email", "a@example.com")
    restorer = Restorer(placeholders)
    return lambda: [[restorer.feed(piece) for piece in pieces], restorer.end()]


SHAPES: dict[str, Callable[[int], Work]] = {
    # guards: attempts that fail late, matches that might be longer, much that is held
    "guard, a long attempt at each place": lambda n: _guarded(
        [Rule("", read_pattern(each)) for each in ("ab", "(?:ab){0,20}c")], ["ab"] * 8 * n
    ),
    "guard, one long piece": lambda n: _guarded([Rule("", read_pattern("a[ab]{20}c"))], ["ab" * 20 * n]),
    "guard, a pattern that needs a state a character": lambda n: _guarded(
        [Rule("", read_pattern("a.{0,30}b.{0,30}c"))], _turned("ab", 8 * n)
    ),
    "guard, the same with threads alone": lambda n: _by_threads("a.{0,30}b.{0,30}c", _turned("ab", 8 * n)),
    "processors, a long delta in turns": lambda n: _paced("x" * 8 * n),
    "guard, a match that goes on": lambda n: _guarded([Rule("", read_pattern("a+"))], ["a"] * 8 * n),
    "guard, cards": lambda n: _guarded([*pii.rules(["card"])], ["4 "] * 8 * n),
    "guard, tokens": lambda n: _guarded([*pii.rules(["jwt"])], ["eyJabcdefghi."] * 8 * n),
    "guard, words": lambda n: _guarded([Words("", ["a b c d e f", "b c d e g"])], ["a b c d e "] * 8 * n),
    "guard, escapes of arguments": lambda n: _guarded_arguments(['"', *["\\u0073"] * 8 * n]),
    "guard, one long string of arguments": lambda n: _guarded_arguments(['"' + "\\nsk-" * 8 * n + '"']),
    "guard, placeholders": lambda n: _restored(["<EMAIL_1> <EMAIL_2> <"] * 8 * n),
    "guard, beginnings of placeholders": lambda n: _restored(["<" * 80 * n]),
    # the kernels: many small events, one large one, byte by byte
    "SSE, events": lambda n: _fed(SSEParser, [LINE * n]),
    "SSE, events one by one": lambda n: _fed(SSEParser, [LINE] * n),
    "SSE, byte by byte": lambda n: _fed(SSEParser, _cut(LINE * n, 1)),
    "SSE, lines of one event": lambda n: _fed(SSEParser, _cut(b"data: a\n" * n + b"\n", 8)),
    "SSE, one long line": lambda n: _fed(SSEParser, _cut(b"data: " + b"a" * 200 * n + b"\n\n", 64)),
    "SSE, comments": lambda n: _fed(SSEParser, _cut(b": ping\n" * n, 7)),
    "SSE, returns": lambda n: _fed(SSEParser, _cut(b"data: a\r\r" * n, 3)),
    "SSE, ids": lambda n: _fed(SSEParser, [b"id: %d\n" % at for at in range(n)]),
    "SSE frames, byte by byte": lambda n: _fed(SSEFramer, _cut(LINE * n, 1)),
    "SSE frames, one long line": lambda n: _fed(SSEFramer, _cut(b"data: " + b"a" * 200 * n + b"\n\n", 64)),
    "NDJSON, byte by byte": lambda n: _fed(NDJSONParser, _cut(b'{"a":1}\n' * n, 1)),
    "NDJSON, one long line": lambda n: _fed(NDJSONParser, _cut(b'"' + b"a" * 200 * n + b'"\n', 64)),
    "lines, empty": lambda n: _fed(LineFramer, _cut(b"\n" * n, 1)),
    "array, elements": lambda n: _fed(ArrayFramer, _cut(b"[" + b'{"a":1},' * n + b"1]", 5)),
    "array, one long element": lambda n: _fed(ArrayFramer, _cut(b'["' + b"a" * 200 * n + b'"]', 64)),
    "array, brackets": lambda n: _fed(ArrayFramer, _cut(b"[" + b"[" * n + b"]" * n + b"]", 64)),
    "chunks of a body": lambda n: _fed(ChunkedBody, [b"1\r\na\r\n" * n]),
    "chunks of a body, byte by byte": lambda n: _fed(ChunkedBody, _cut(b"1\r\na\r\n" * n, 1)),
    "trailers of a body": lambda n: _fed(ChunkedBody, _cut(b"0\r\n" + b"a: b\r\n" * n + b"\r\n", 5)),
    "WebSocket messages": lambda n: (lambda frames=LINE * n: lambda: frame_messages(frames, b'{"stream":"s"'))(),
    "events as messages": lambda n: (
        lambda frames=b"event: x\ndata: {}\n\n" * n: lambda: event_messages(frames, b"event: ")
    )(),
    "members of a frame": lambda n: (
        lambda frame=b'data: {"a":[%b]}\n\n' % b",".join([b'"1"'] * n): lambda: frame_members(frame, (b"a",), ())
    )(),
    "last number": lambda n: (lambda frames=LINE * n: lambda: last_seq(frames))(),
    "blanks of JSON": lambda n: (lambda text=OBJECTS % ", ".join(["1 "] * n): lambda: compact_json(text))(),
    "exact JSON": lambda n: (lambda text=OBJECTS % ",".join(["1.10"] * n): lambda: parse_exact(text))(),
    "exact JSON, repeated names": lambda n: (
        lambda text="{" + ",".join(['"a":1'] * n) + "}": lambda: parse_exact(text)
    )(),
    "WebSocket frames": lambda n: (
        lambda data=[b"\x01\x81\x00\x00\x00\x00a", *[b"\x00\x81\x00\x00\x00\x00a"] * n]: (
            lambda: [FrameGuard.feed(guard, piece, 0.0) for guard in [FrameGuard()] for piece in data]
        )
    )(),
    # bodies of requests
    "structure, deep": lambda n: _refused(Structure(10**9).feed, b"[" * n + b"]" * n),
    "structure, deep in pieces": lambda n: _fed(lambda: Structure(10**9), _cut(b"[" * n + b"]" * n, 7)),
    "structure, wide": lambda n: _fed(Structure, _cut(b"[" + b"{}," * n + b"1]", 7)),
    "structure, members": lambda n: _fed(Structure, _cut(b"{" + b'"a":1,' * n + b"}", 7)),
    "structure, escapes": lambda n: _fed(Structure, _cut(b'"' + b'\\"' * n + b'"', 7)),
    "structure, backslashes": lambda n: _fed(Structure, [b'"', *[b"\\" * 8] * n, b'"']),
    "structure, digits": lambda n: _fed(Structure, _cut(b"[" + b"1" * 70 + b"," * n + b"1]", 64)),
    "object of a dialect": lambda n: _refused(parse_object, json.dumps({f"a{at}": at for at in range(n)}).encode()),
    "native request, unknown member": lambda n: _refused(parse_request, b'{"query":"a","%b":1}' % (b"x" * n * 100)),
    "ids of an upstream": lambda n: (lambda body=_scoped(n): lambda: stored_ids(body))(),
    "ids, deep": lambda n: (
        lambda body=json.loads('{"a":' * min(n, 400) + "1" + "}" * min(n, 400)): lambda: stored_ids(body)
    )(),
    "beginning of a prompt": lambda n: (lambda body=CHAT["systems alone"](n): lambda: beginning(body, 1))(),
    "request without thoughts": lambda n: (lambda body=CHAT["thoughts"](n): lambda: without_thoughts(body))(),
    "native request without thoughts": lambda n: (
        lambda request=parse_request(json.dumps(NATIVE["parts of an answer"](n)).encode()): (
            lambda: without_thoughts(request)
        )
    )(),
    "fingerprint": lambda n: (
        lambda body=json.dumps(RESPONSES["turns"](n)).encode(): lambda: list(sorted_form(body, is_native=False))
    )(),
    "texts of a passed request": lambda n: (
        lambda body=json.dumps({"input": ["a"] * n}).encode(): lambda: text_characters(body)
    )(),
    **{
        f"cost of a schema, {name}": lambda n, make=make: _refused(most_paths, make(n))
        for name, make in {**SCHEMAS, "names": _named_schemas}.items()
    },
    # answers
    "usage of a passed answer": lambda n: lambda: _usage_of([b'{"usage":{"a":' * 4] * n),
    "form, parts": lambda n: _fed(lambda: FormIds("multipart/form-data; boundary=b"), _cut(PART * n, 50)),
    "form, one long part": lambda n: _fed(
        lambda: FormIds("multipart/form-data; boundary=b"),
        _cut(b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\n' + b"a" * 200 * n, 64),
    ),
    "form, pairs": lambda n: _fed(lambda: FormIds("application/x-www-form-urlencoded"), _cut(b"file_id=a&" * n, 50)),
    "retry after": lambda n: (
        lambda headers={f"x-ratelimit-reset-{at}": "1s" for at in range(n)}: (
            lambda: retry_after_ms(headers, TEXT * n, 0)
        )
    )(),
    "error of an upstream": lambda n: (
        lambda body=json.dumps({"error": {"message": TEXT * n, "detail": [{"loc": ["a"], "msg": "b"}] * n}}).encode(): (
            lambda: for_client(get_provider("openai").decode_error(400, {}, body), "up", secrets=(b"secret key",))
        )
    )(),
    "error of an upstream, blanks": lambda n: (
        lambda body=b"<html>" + b" \n" * 100 * n: lambda: get_provider("anthropic").decode_error(500, {}, body)
    )(),
    "headers of an upstream": lambda n: (
        lambda headers=tuple((f"x-a{at}", "b") for at in range(n)): (
            lambda: headers_for_client((*headers, ("connection", ",".join(name for name, _ in headers))), frozenset())
        )
    )(),
    # headers of a client
    "accept": lambda n: _refused(lambda accept: negotiate({}, accept, default_format="gai"), "text/a;q=0.1," * n),
    "codings": lambda n: (lambda text="gzip;q=0.1," * n: lambda: content_coding(text, ("gzip",)))(),
    "forwarded": lambda n: (
        lambda headers={"x-forwarded-for": "10.0.0.1," * n + "10.0.0.1", "forwarded": 'for=10.0.0.1;host="a,b",' * n}: (
            lambda: Forwarding(["10.0.0.0/8"]).client("10.0.0.1", headers)
        )
    )(),
    "path": lambda n: _refused(read_path, "/a%2e" * n),
    "query": lambda n: _refused(read_query, "a=%61&" * n),
    # processors
    "JSON, objects": lambda n: _followed(OBJECTS % ",".join(['{"b":"c"}'] * n), 5),
    "JSON, one long string": lambda n: _followed(OBJECTS % ('"' + "a" * 100 * n + '"'), 5),
    "JSON, snapshots": lambda n: _followed(OBJECTS % ",".join(['{"b":"c"}'] * n * 20), 400, snapshots_ms=1),
    "JSON, snapshots of one string": lambda n: _followed(OBJECTS % ('"' + "a" * 400 * n + '"'), 40, snapshots_ms=1),
    "JSON, fenced": lambda n: _followed("Text { and [ " * n + "```json\n{}\n```", 5, recover=True),
    "JSON, brackets in prose": lambda n: _followed("{ " * n, 5, recover=True),
    "JSON, repeated documents": lambda n: _followed(OBJECTS % ",".join(["1"] * n) * 8, 7),
    "JSON, repeated members, in one delta": lambda n: _followed(
        '{"a":[' + ",".join(["1"] * n) + "]," + '"b":1,' * n + '"a":[' + ",".join(["1"] * n) + "]}",
        10**9,
        schema={"properties": {"a": {"type": "array"}, "b": {"type": "integer"}}},
    ),
    "JSON, repeated members, of a long value": lambda n: _followed(
        '{"a":[' + ",".join(["1"] * n) + "]," + '"a":[1],' * n + '"c":1}',
        10**9,
        schema={"properties": {"a": {"type": "array"}}},
    ),
    "JSON, deep": lambda n: _followed("[" * min(n, 200) + "]" * min(n, 200), 1, snapshots_ms=0),
    "batches": lambda n: _processed(lambda: BatchProcessor(characters=1000), ["a"] * n),
    "replaced words": lambda n: _processed(lambda: ReplaceProcessor({"secret": "*", "se": "+"}), ["se", "cr"] * n),
    "replaced words in one text": lambda n: _processed(
        lambda: ReplaceProcessor({"secret": "*", "ab": "+"}), ["secre " * n]
    ),
    "counted tokens": lambda n: _processed(lambda: UsageProcessor(len, lambda: TEXT * n), [TEXT] * n),
    # the core
    "arguments by paths": lambda n: _written([f"$.a[{at}]" for at in range(n)]),
    "arguments by deep paths": lambda n: _written(["$" + ".a" * 200 + f".b{at}" for at in range(n)]),
    "a call's pieces": lambda n: _scanned(['{"a":[', *["{},"] * n, "1]}"]),
    "a call's closing brackets": lambda n: _scanned(["{" * n, *["}"] * n]),
    "a repeated answer": _repeated,
    "a repeated prefill": _echoed,
    "a collected answer": _collected,
}
