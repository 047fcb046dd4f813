"""JSON Schema: judged early if that is cheap, at the end in any case, by the library of the extra `schema`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from gai_fast.model.errors import Error
from gai_fast.processors import StreamInfo, _schema, read_processor
from gai_fast.processors._schema import Schema, compile_schema
from gai_fast.processors.json_stream import JSONStreamProcessor
from tests.limits import LIMITS

from .streams import pieces, stream, text_of, through, types_of

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"$ref": "#/$defs/name"},
        "days": {"type": "integer"},
        "twin": {"$ref": "#/properties/days"},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string", "minLength": 2}},
}


@pytest.fixture(autouse=True)
def library(unavailable: Callable[[str], NoReturn]) -> None:
    if not _schema.is_available():
        unavailable("jsonschema-rs, of the extra `schema`")


def run(text: str, schema: Any = SCHEMA, on_invalid: Any = "error") -> list[Any]:
    return through(JSONStreamProcessor(schema, on_invalid=on_invalid), stream(*pieces(text, 1)))


def test_what_meets_it_passes() -> None:
    text = '{"city": "Oslo", "days": 3, "twin": 4}'
    assert through(JSONStreamProcessor(SCHEMA), stream(text)) == stream(text)
    assert types_of(run(text))[-1] == "done"


@pytest.mark.parametrize(
    ("text", "passed", "expected"),
    [
        ("[1, 2]", "[", "$ is an array"),
        ('{"days": "many", "city": "Oslo"}', '{"days": "many"', "$.days fails 'type'"),
        ('{"city": "O", "days": 1}', '{"city": "O"', "$.city fails 'minLength'"),
        ('{"town": 1, "city": "Oslo"}', '{"town": 1,', "a member of the outermost object is not in the schema"),
        ('{"days": 1}', '{"days": 1}', "$ fails 'required'"),
        ('{"city": "Oslo", "twin": "x", "days": 1}', '{"city": "Oslo", "twin": "x"', "$.twin fails 'type'"),
        ('"Oslo"', '"Oslo"', "$ fails 'type'"),
    ],
)
def test_a_mismatch_ends_the_stream_as_soon_as_it_is_known(text: str, passed: str, expected: str) -> None:
    out = run(text)
    error = out[-1]
    assert isinstance(error, Error)
    assert (error.code, error.reason) == ("provider_unavailable", "schema_mismatch")
    assert error.message == f"the answer of the model does not meet its schema: {expected}"
    assert text_of(out) == passed


def test_or_it_is_reported_once_and_everything_passes() -> None:
    text = '{"days": "many", "town": 1}'
    out = run(text, on_invalid="warn")
    assert text_of(out) == text
    assert [event["reason"] for event in out if event["type"] == "warning"] == ["schema_mismatch"]


def test_a_schema_with_an_id_waits_for_the_whole() -> None:
    out = run('{"a": "x", "c": 1}', {"$id": "x:y", "properties": {"a": {"type": "integer"}}})
    assert types_of(out)[-1] == "raised schema_mismatch"
    assert text_of(out) == '{"a": "x", "c": 1}'


@pytest.mark.parametrize("name", ["children", "a/b~c d%"])
def test_a_member_may_refer_to_the_whole_schema(name: str) -> None:
    """Alone, the member would be its own root."""
    schema = {"type": "object", "properties": {name: {"type": "array", "items": {"$ref": "#"}}}, "required": [name]}
    assert types_of(run(json.dumps({name: [{name: []}]}), schema))[-1] == "done"
    out = run(json.dumps({name: [{"x": 1}], "y": 1}), schema)
    assert out[-1].message.endswith(f"$.{name}[0] fails 'required'")
    assert text_of(out) == json.dumps({name: [{"x": 1}]})[:-1]


@pytest.mark.parametrize(
    "schema", [True, {}, {"type": ["object", "array"]}, {"$id": "x:y", "properties": {"a": False}}]
)
def test_a_schema_that_says_little_is_one(schema: Any) -> None:
    assert types_of(run('{"b": 1}', schema))[-1] == "done"


def test_a_schema_is_compiled_once_and_fetches_nothing() -> None:
    text = json.dumps(SCHEMA).encode()
    assert _schema.compile_schema(text) is _schema.compile_schema(text)
    for unusable in ({"type": 5}, {"$ref": "http://127.0.0.1:1/x"}, {"pattern": "(?=a)b"}):
        with pytest.raises(Error, match="no JSON Schema that can be used here") as raised:
            _schema.compile_schema(json.dumps(unusable).encode())
        assert (raised.value.code, raised.value.reason) == ("invalid_request", "schema")
    with pytest.raises(Error, match="no JSON Schema"):
        _schema.compile_schema(b"{")


def test_patterns_take_linear_time() -> None:
    assert types_of(run(json.dumps({"a": "a" * 5000 + "!"}), {"properties": {"a": {"pattern": "^(a+)+$"}}}))[-1] == (
        "raised schema_mismatch"
    )


def test_a_number_that_no_float_can_hold_cannot_be_validated() -> None:
    assert types_of(run('{"a": 1e999}', {"properties": {"a": {"type": "string"}}}))[-1] == "raised schema_mismatch"


def test_a_stream_is_judged_by_the_schema_of_its_request() -> None:
    stream_info = StreamInfo(wants_json=True, schema=json.dumps(SCHEMA).encode())
    for entry, result in (({}, "warning"), ({"validate": False}, "text.delta")):
        processor = read_processor({"use": "json_stream", **entry}).processor(stream_info)
        assert processor is not None
        assert types_of(through(processor, stream("[]")))[-3] == result


def test_a_schema_larger_than_the_limit_is_refused() -> None:
    largest = b"{}".ljust(LIMITS.schema)
    compile_schema(largest)
    with pytest.raises(Error) as raised:
        compile_schema(largest + b" ")
    assert raised.value.message == (
        f"`response_format.schema` has {LIMITS.schema + 1} bytes, and at most {LIMITS.schema} can be checked here "
        "(limit schema): make it smaller"
    )
    assert (raised.value.code, raised.value.reason) == ("invalid_request", "schema")


@pytest.mark.parametrize(
    "patterns",
    [["a{1000}{300}"], [f"a{{400}}{n}" for n in range(LIMITS.schema_patterns)], ["a"] * (LIMITS.schema_patterns + 1)],
    ids=["one", "together", "many"],
)
def test_patterns_whose_compiled_form_would_be_large_are_refused(patterns: list[str]) -> None:
    with pytest.raises(Error, match="limits schema_patterns, schema_pattern_memory"):
        compile_schema(json.dumps({"allOf": [{"pattern": pattern} for pattern in patterns]}).encode())


def test_patterns_within_the_limits_are_used() -> None:
    schema = {
        "properties": {"pattern": {"type": "string", "pattern": "^.{0,40}$"}},
        "patternProperties": {f"^x{n}$": {"type": "integer"} for n in range(9)},
    }
    assert types_of(run('{"pattern": "a", "x3": 1}', schema))[-1] == "done"
    assert types_of(run('{"pattern": "a", "x3": "b"}', schema))[-1] == "raised schema_mismatch"


def test_definitions_are_compiled_again_for_few_members_only() -> None:
    definition = {"type": "integer", "description": "a" * (LIMITS.schema_parts // 8)}
    members = {f"p{n}": {"$ref": "#/$defs/a"} for n in range(9)}
    schema = Schema(json.dumps({"properties": members, "$defs": {"a": definition}}))
    problems = [schema.member_problem(name, "x") for name in members]
    assert problems == [*(f"$.p{n} fails 'type'" for n in range(7)), None, None]
    assert schema.problem(dict.fromkeys(members, "x")) == "$.p0 fails 'type'"


def test_the_first_error_ends_the_check() -> None:
    """To find every error below a list of alternatives takes 2 to the power of 60 steps, and copies of the answer."""
    schema: Any = {"type": "string"}
    for _ in range(60):
        schema = {"anyOf": [{"items": schema}]}
    value: Any = 1
    for _ in range(60):
        value = [value, value]
    assert Schema(json.dumps(schema)).problem(value) == "$ is not valid"
    assert Schema(json.dumps({"items": {"allOf": [{"type": "string"}]}})).problem(["a", 1]) == "$[1] fails 'type'"


def test_a_schema_whose_check_could_take_long_is_refused() -> None:
    costly = json.dumps({"anyOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}).encode()
    with pytest.raises(Error) as raised:
        compile_schema(costly)
    assert (raised.value.code, raised.value.reason) == ("invalid_request", "schema")
    assert raised.value.message.startswith(
        "`response_format.schema`: more than 512 subschemas may be evaluated at one "
    )
    with pytest.raises(ValueError, match="limit schema_paths"):
        Schema(costly.decode())


def test_a_large_schema_is_not_kept() -> None:
    """64 of the size of a request would hold gigabytes, for any client that sends them."""
    _schema._compiled.cache_clear()
    small = json.dumps(SCHEMA).encode()
    large = small + b" " * LIMITS.cached_schema
    assert compile_schema(large) is not compile_schema(large)
    assert _schema._compiled.cache_info().currsize == 0
    assert compile_schema(small) is compile_schema(small)
