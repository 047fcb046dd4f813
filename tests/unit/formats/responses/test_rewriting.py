"""`gai_fast/formats/responses/rewriting.py`: what an upstream says of its own keeping, and every other byte of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast import IMPLEMENTATION
from gai_fast.formats import KeptAnswer
from gai_fast.formats.responses.rewriting import (
    LastObject,
    members_of,
    read_last,
    rewrite,
    rewrite_frame,
    rewrite_whole,
)

HERE = KeptAnswer(is_kept=True, parent="resp_parent")
ALONE = KeptAnswer(is_kept=True)
SCHEMA = b'[{"parameters":{"properties":{"store":true,"previous_response_id":null},"store":true}}]'
OBJECTS = {
    "compact": b'{"id":"r","store":false,"tools":%b,"previous_response_id":null,"status":"completed"}' % SCHEMA,
    "spaced": b'{ "id" : "r", "store" : false ,\n  "previous_response_id" :null\t, "tools":%b }' % SCHEMA,
    "last": b'{"tools":%b,"previous_response_id":"resp_theirs","store":false}' % SCHEMA,
    "a text with all of it": b'{"user":"\\"store\\":false, \\\\\\" {","store":false,"previous_response_id":null}',
    "other characters": '{"ü":"ü","store":false,"x":"\U0001f600","previous_response_id":null}'.encode(),
    "invalid UTF-8": b'{"x":"\xff\xfe","store":false,"y":["\xc3"],"previous_response_id":null}',
    "lone surrogates": b'{"x":"\\ud800","store":false,"y":"\\\\ud800\\uDFFF","previous_response_id":null}',
    "escapes in a name": b'{"a\\"store":1,"store":false,"previous_response_id":null}',
    "numbers and nothing": b'{"a":-1.5e3,"store":false,"b":[],"c":{},"previous_response_id":null,"d":""}',
}


@pytest.mark.parametrize("name", OBJECTS)
def test_only_two_values_change(name: str) -> None:
    given = OBJECTS[name]
    found = rewrite(given, HERE, is_kept=True)
    assert found is not None
    parent = b'"resp_theirs"' if b"resp_theirs" in given else b"null"
    at = members_of(given, 0)
    assert at is not None
    assert given[slice(*at[b'"store"'])] == b"false"
    begin, end = at[b'"previous_response_id"']
    assert given[begin:end] == parent
    expected = given
    for place, value in sorted([(at[b'"store"'], b"true"), ((begin, end), b'"resp_parent"')], reverse=True):
        expected = expected[: place[0]] + value + expected[place[1] :]
    assert found == expected
    assert rewrite(found, HERE, is_kept=True) == found


@pytest.mark.parametrize(
    ("given", "kept", "is_kept", "expected"),
    [
        (b'{"id":"r"}', ALONE, True, b'{"id":"r"}'),
        (b'{"id":"r" }', ALONE, False, b'{"id":"r","store":false }'),
        (b'{"id":"r"}', HERE, True, b'{"id":"r","previous_response_id":"resp_parent"}'),
        (b"{}", HERE, False, b'{"store":false,"previous_response_id":"resp_parent"}'),
        (b'{"store":null}', ALONE, True, b'{"store":true}'),
        (b'{"store":[{"store":1}]}', ALONE, False, b'{"store":false}'),
    ],
)
def test_what_is_missing_is_added_only_where_it_must_be_said(
    given: bytes, kept: KeptAnswer, is_kept: bool, expected: bytes
) -> None:
    assert rewrite(given, kept, is_kept=is_kept) == expected


@pytest.mark.parametrize(
    "given", [b"", b"[]", b"{", b'{"a":1', b'{"a":1,"a":2}', b'{"store":true,"store":true}', b'{"a":NaN}', b"null"]
)
def test_what_cannot_be_read_stays(given: bytes) -> None:
    assert rewrite(given, HERE, is_kept=True) is None
    assert rewrite_whole(given, HERE, is_kept=True) is None
    assert rewrite_frame(b"data: " + given + b"\n\n", HERE, is_kept=True) is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    "lines",
    [
        [b"event: response.created", b'data: {"type":"x","response":{"store":false,"id":"r"}}', b""],
        [b": a comment", b'data:{"response" : {"id":"r","store": false}, "n": 1}', b"id: 4", b""],
        [b'data: {"type":"x",', b'data:  "response": {', b'data: "store":', b"data: false", b"data: }}", b""],
        [b'\xef\xbb\xbfdata: {"response":{"store":false},"response_id":"\xc3\xbc"}', b""],
        [
            b'data: {"type":"x","sequence_number":1,"response":{"previous_response_id":null,"store":false},"n":[{}]}',
            b"",
        ],
        [b'data: {"item":{"store":false},"response":{"tools":[{"store":false}],"store":false}}', b""],
    ],
)
def test_a_frame_of_any_form(lines: list[bytes], end: bytes) -> None:
    raw = end.join([*lines, b""])
    found = rewrite_frame(raw, ALONE, is_kept=True)
    assert found is not None
    head, _, tail = raw.rpartition(b"false")
    assert found.written == head + b"true" + tail
    assert json.loads(found.response)["store"] is True


def said(last: LastObject | None) -> tuple[str, str, list[str]] | None:
    return None if last is None else (last.identifier, last.status, last.items)


OWN = [
    b'{"id":"r","status":"completed","previous_response_id":null,"store":false,"output":[{"id":"a"}]}',
    b'{"id":"r","status":"completed","store":true,"previous_response_id":null}',
    b'{"id": "r", "status": "completed", "store": false, "previous_response_id": "resp_theirs"}',
    b'{"id":"r","status":"completed","output":[{"text":"\\"store\\":\\n"}],"store":false,"previous_response_id":null}',
    b'{"id":"r","status":"completed","tools":%b,"store":false,"previous_response_id":null}' % SCHEMA,
    b'{"id":"r","status":"completed","user":"\\u0041","store":false,"previous_response_id":null}',
    b'{"id":"r","status":"completed","user":"store","store":null,"previous_response_id":null}',
    b'{"id":"r","status":"completed","x":{"store":false}}',
    b'{"id":"r","status":"completed"}',
    b'{"id":7,"status":"completed","store":false,"previous_response_id":null}',
]


@pytest.mark.parametrize("kept", [HERE, ALONE])
@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("response", OWN)
def test_openais_own_form_says_what_any_other_says(response: bytes, kept: KeptAnswer, is_kept: bool) -> None:
    """A CR makes another form of a frame."""
    head = b'event: response.completed\ndata: {"type":"response.completed","sequence_number":4,"response":'
    own = rewrite_frame(head + response + b"}\n\n", kept, is_kept=is_kept)
    other = rewrite_frame(head + response + b"}\n\r\n", kept, is_kept=is_kept)
    assert own is not None
    assert other is not None
    says = json.loads(own.response)
    assert says.get("store", True) is is_kept
    assert says.get("previous_response_id") == kept.parent
    assert own.written == head + own.response + b"}\n\n"
    assert own.written == other.written.replace(b"\r", b"")
    assert (own.response, said(own.last), own.is_end) == (other.response, said(other.last), other.is_end)


@pytest.mark.parametrize("kept", [ALONE, HERE], ids=["alone", "a parent"])
@pytest.mark.parametrize(
    "response",
    [
        b'{"id":"r","store":true,"previous_response_id":null,"status":"in_progress"}',
        b'{"id":"r", "store": true, "previous_response_id": null}',
        b'{"id":"r"}',
        b'{"store":false}',
        b'{"previous_response_id":"resp_theirs"}',
        b'{"x":{"store":true},"store":false}',
        b'{"x":{"store":true}}',
        b'{"x":["store",true]}',
        b'{"\\u0073tore":false}',
        b'{"x":"\\u0073","store":true}',
    ],
)
def test_an_object_that_begins_an_answer_says_what_any_other_says(response: bytes, kept: KeptAnswer) -> None:
    """A CR makes another form of a frame. A frame that is not read says already what it must."""
    head = b'event: response.created\ndata: {"type":"response.created","response":'
    own = rewrite_frame(head + response + b"}\n\n", kept, is_kept=True)
    other = rewrite_frame(head + response + b"}\n\r\n", kept, is_kept=True)
    if own is None:
        assert other is None
        assert rewrite(response, kept, is_kept=True) == response
        return
    assert other is not None
    assert own.response == other.response == rewrite(response, kept, is_kept=True)
    assert own.written == head + own.response + b"}\n\n" == other.written.replace(b"\r", b"")
    assert (own.given, own.last, own.is_end) == (response, None, False)


def test_an_object_that_equals_the_one_before_is_not_read_again() -> None:
    """Natively: another answer's marks would else be written. In Python it is read, which gives the same."""
    response = b'{"id":"r","store":false,"status":"in_progress","previous_response_id":null}'
    heads = [b'event: response.%b\ndata: {"type":"response.%b","response":' % (name, name) for name in (b"a", b"bc")]
    for kept in (HERE, ALONE):
        first = rewrite_frame(heads[0] + response + b"}\n\n", kept, is_kept=True)
        assert first is not None
        asked, is_kept = (HERE, False) if IMPLEMENTATION == "native" else (kept, True)
        again = rewrite_frame(heads[1] + response + b',"n":1}\n\n', asked, is_kept=is_kept, before=first)
        assert again is not None
        assert again.written == heads[1] + first.response + b',"n":1}\n\n', "as the first one says"
        assert (again.given, again.response, again.last, again.is_end) == (response, first.response, None, False)
        other = rewrite_frame(heads[1] + response.replace(b'"r"', b'"s"') + b"}\n\n", kept, is_kept=True, before=first)
        assert other is not None
        assert json.loads(other.response)["id"] == "s"


TOOLS = b'"tools":[{"name":"f","parameters":{"properties":{"store":{}}}}]'


@pytest.mark.parametrize("name", [b"created", b"in_progress", b"queued"])
def test_an_object_that_begins_an_answer_and_says_what_it_must_is_not_read(name: bytes) -> None:
    form = b'event: response.%b\ndata: {"type":"response.%b","response":%%b}\n\n' % (name, name)
    frame = form % b'{"id":"r","store":true,"status":"in_progress","previous_response_id":null}'
    assert rewrite_frame(frame, ALONE, is_kept=True) is None
    for kept, is_kept in ((HERE, True), (ALONE, False)):
        found = rewrite_frame(frame, kept, is_kept=is_kept)
        assert found is not None
        said = json.loads(found.response)
        assert (said["store"], said["previous_response_id"]) == (is_kept, kept.parent)
    for members in (b'"store":false', b'"store": false', b'"store":false,' + TOOLS):
        found = rewrite_frame(form % (b'{"id":"r",%b}' % members), ALONE, is_kept=True)
        assert found is not None, members
        assert json.loads(found.response)["store"] is True, members
    ending = frame.replace(b"response." + name, b"response.completed").replace(b"in_progress", b"completed")
    found = rewrite_frame(ending, ALONE, is_kept=True)
    assert found is not None
    assert found.last is not None


def test_an_object_that_ends_an_answer_is_always_read() -> None:
    response = b'{"id":"r","store":true,"status":"in_progress"}'
    head = b'data: {"type":"response.%b","response":'
    before = rewrite_frame(head % b"created" + response + b"}\n\n", ALONE, is_kept=True)
    found = rewrite_frame(head % b"completed" + response + b"}\n\n", ALONE, is_kept=False, before=before)
    assert found is not None
    assert found.is_end
    assert json.loads(found.response)["store"] is False


def test_a_member_after_the_object_is_not_the_objects() -> None:
    raw = b'data: {"type":"x","sequence_number":1,"response":{"previous_response_id":null,"store":false},"store":false}'
    found = rewrite_frame(raw + b"\n\n", ALONE, is_kept=True)
    assert found is not None
    assert found.written == raw.replace(b"false", b"true", 1) + b"\n\n"
    assert found.response == b'{"previous_response_id":null,"store":true}'


@pytest.mark.parametrize(
    "raw",
    [
        b": ping\n\n",
        b"event: x\n\n",
        b'data: {"type":"response"}\n\n',
        b'data: {"x":{"response":{"store":1}}}\n\n',
        b"",
    ],
)
def test_a_frame_without_an_object_passes(raw: bytes) -> None:
    assert rewrite_frame(raw, HERE, is_kept=True) is None


def test_a_whole_answer_keeps_what_is_around_it() -> None:
    found = rewrite_whole(b'\xef\xbb\xbf\n {"id":"r","store":false} \r\n', ALONE, is_kept=True)
    assert found is not None
    assert found.written == b'\xef\xbb\xbf\n {"id":"r","store":true} \r\n'
    assert found.response == b'{"id":"r","store":true}'


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"id": "r", "status": "completed", "output": [{"id": "a"}, {"type": "x"}, {"id": 1}]}, ["a"]),
        ({"id": "r", "status": "cancelled", "output": None}, []),
        ({"id": "r", "status": "failed", "output": [1]}, []),
        ({"id": "r", "status": "incomplete"}, []),
        ({"id": "r", "status": "in_progress"}, None),
        ({"id": "", "status": "completed"}, None),
        ({"id": 7, "status": "completed"}, None),
        ({"status": "completed"}, None),
        ({"id": "r", "status": ["completed"]}, None),
    ],
)
def test_what_the_last_object_says(given: dict[str, Any], expected: list[str] | None) -> None:
    found = read_last(json.dumps(given).encode())
    assert (None if found is None else found.items) == expected
    assert found is None or (found.identifier, found.status) == ("r", given["status"])
