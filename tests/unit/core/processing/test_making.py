"""What processors are told of a request, and the order of a chain whose parts are handed in."""

from __future__ import annotations

import pytest

from gai_fast.core.processing.making import chain_of, describe
from gai_fast.core.processing.processor import Preface, StreamInfo
from gai_fast.core.processing.text_pace import TextPace
from gai_fast.core.requests.reading import parse_request
from gai_fast.processors import read_processor
from tests.guarding import Guarding, Stopping


@pytest.mark.parametrize(
    ("form", "wants_json", "schema"),
    [
        ("", False, None),
        (',"response_format":{"type":"text"}', False, None),
        (',"response_format":{"type":"json"}', True, None),
        (',"response_format":{"type":"json_schema","schema":{"type":"object"}}', True, b'{"type":"object"}'),
    ],
)
def test_a_request_says_what_its_processors_need(form: str, wants_json: bool, schema: bytes | None) -> None:
    parts = '[{"type":"text","text":"a "},{"type":"image","url":"https://x"},{"type":"text","text":"b"}]'
    body = f'{{"system":"Be brief.","messages":[{{"role":"user","content":{parts}}}],"json_snapshots":200{form}}}'
    result = describe(
        parse_request(body.encode()), stream_id="s", request_id="r", trace_id="t", model="m", caller="ann"
    )
    assert (result.stream_id, result.request_id, result.trace_id, result.model) == ("s", "r", "t", "m")
    assert result.caller == "ann"
    assert (result.wants_json, result.schema, result.json_snapshots) == (wants_json, schema, 200)
    assert result.prompt is not None
    assert result.prompt() == "Be brief.\na b"
    assert describe(parse_request(b'{"query":"q"}')).json_snapshots is None


def test_what_is_said_of_the_request_stands_behind_the_guards_and_before_all_others() -> None:
    stream = StreamInfo(json_snapshots=0, said=({"type": "warning"},))
    configured = [read_processor({"use": "transform", "replace": {"a": "b"}})]
    guard = Guarding(lambda _: Stopping("text.delta"))
    chain = chain_of(configured, stream, guard, lambda: read_processor({"use": "json_stream"}))
    assert chain is not None
    assert [type(each) for each in chain._processors[:3]] == [Stopping, Preface, TextPace]
    assert chain.size == 5


def unwanted() -> Guarding:
    raise AssertionError


def test_processors_that_see_no_delta_need_no_pace() -> None:
    chain = chain_of([read_processor({"use": "correlation", "labels": {"a": "b"}})], StreamInfo(), None, unwanted)
    assert chain is not None
    assert not any(isinstance(each, TextPace) for each in chain._processors)


def test_snapshots_are_made_only_if_the_request_asks_for_them() -> None:
    assert chain_of((), StreamInfo(), None, unwanted) is None
