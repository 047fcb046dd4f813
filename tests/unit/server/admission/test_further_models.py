from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_object
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings
from gai_fast.server.admission.further_models import LongBody, check_further_models, check_passed_models, may_be_json

SOME = KeySettings("some", (), models=("m",))
ALL = KeySettings("all", ())
BODY = {"model": "m"}
NAMING: list[dict[str, Any]] = [
    {"models": ["other"]},
    {"models": []},
    {"Models": ["other"]},
    {"Model": "other"},
    {"MODEL": "m"},
    {"model ": "other"},
    {"\u212aMODELS": ["other"]},
    {"fallbacks": ["other"]},
    {"fallback_models": ["other"]},
    {"context_window_fallbacks": [{"a": ["b"]}]},
    {"model_id": "other"},
    {"modelName": "other"},
    {"tools": [{"type": "image_generation", "model": "gpt-image-1"}]},
    {"tools": [{"type": "advisor_20260301", "name": "advisor", "Model": "claude-opus"}]},
    {"plugins": [{"id": "auto-router", "allowed_models": ["other"]}]},
    {"compound_custom": {"models": {"answering_model": "other"}}},
    {"router_settings_override": {"fallbacks": [{"m": ["other"]}]}},
    {"requests": [{"params": {"model": "other"}}]},
]
WRITTEN: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [{"type": "text", "model": "x"}]}], "input": {"model": "x"}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {}}}}}]},
    {"tools": [{"name": "f", "input_schema": {"properties": {"models": {}}, "model": 1}}]},
    {"response_format": {"json_schema": {"schema": {"properties": {"model": {"type": "string"}}}}}},
    {"text": {"format": {"schema": {"model": {}}}}, "metadata": {"model": "mine"}},
    {"moderation": {"model": "omni-moderation-latest"}},
    {"provider": {"allow_fallbacks": False}, "models": None},
    {"modalities": ["text"], "moderations": 1, "model_": None, "remodeled": "x", "dimensions": 3},
]


@pytest.mark.parametrize("more", NAMING)
def test_a_member_that_names_another_model_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(Error, match="may name no others, as in `") as caught:
        check_further_models(BODY | more, SOME)
    assert (caught.value.code, caught.value.reason) == ("forbidden", "model")
    check_further_models(BODY | more, ALL)
    check_further_models(BODY | more, None)


@pytest.mark.parametrize("more", WRITTEN)
def test_what_people_models_and_tools_have_written_names_none(more: dict[str, Any]) -> None:
    check_further_models(BODY | more, SOME)


def test_a_part_of_a_request_has_no_model_of_its_own() -> None:
    with pytest.raises(Error):
        check_further_models(BODY, SOME, own="")
    with pytest.raises(Error):
        check_further_models({"x": {"model": "m"}}, SOME)


def test_a_request_for_an_upstreams_own_path_names_models_that_the_caller_may_use() -> None:
    def may_use(identifier: str) -> bool:
        return identifier == "a"

    assert check_passed_models(b'{"input": 1, "model": "a"}', may_use) == b'{"input":1,"model":"a"}'
    assert check_passed_models(b'{"model":"b","model":"a"}', may_use) == b'{"model":"a"}'
    for body in (b'{"model":"b"}', b'{"model":["a"]}', b'{"model":"a","Model":"a"}', b'{"x":[{"model":"a"}]}'):
        with pytest.raises(Error):
            check_passed_models(body, may_use)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_is_known_in_any_encoding(encoding: str) -> None:
    assert may_be_json(' \n{"model": "m"}'.encode(encoding))
    assert may_be_json('[{"model": "m"}]'.encode(encoding))
    assert not may_be_json("--xyz".encode(encoding))


def test_json_that_is_sent_on_while_it_arrives_is_refused() -> None:
    for pieces in ((b'{"model"',), (b"", b" \n", b"[1"), (b"\xff\xfe", b"{\x00")):
        with pytest.raises(Error, match="is not read"):
            body = LongBody(pieces[0])
            for piece in pieces[1:]:
                body.check(piece)
    body = LongBody(b"")
    for piece in (b" ", b"RIFF", b"{", b""):
        body.check(piece)


def test_the_work_grows_with_the_request() -> None:
    """Each object is looked at once, however deep or wide the request is."""

    def steps(body: str) -> int:
        looked = 0

        class Counted(dict[str, Any]):
            def items(self) -> Any:
                nonlocal looked
                looked += 1
                return super().items()

        def counted(value: Any) -> Any:
            if isinstance(value, dict):
                return Counted({name: counted(each) for name, each in value.items()})
            return [counted(each) for each in value] if isinstance(value, list) else value

        check_further_models(counted(parse_object(body.encode())), SOME)
        return looked

    for shape in (lambda n: '{"a":' * n + "1" + "}" * n, lambda n: '{"a":[' + ",".join(["{}"] * n) + "]}"):
        assert steps(shape(60)) <= 2.3 * steps(shape(30))


def test_no_path_is_written_that_is_not_told() -> None:
    """A name of 5 MB with 100,000 members was copied for each of them, which stopped the worker for minutes."""

    class Name(str):
        __slots__ = ()

        def __format__(self, spec: str) -> str:
            raise AssertionError("a path is written")

    long = Name("x" * 9)
    check_further_models({long: {Name(f"a{at}"): [{long: {}}] for at in range(9)}}, SOME)
    with pytest.raises(Error, match=r"as in `a\.b\[\]\.c\[\]\[\]\.models`"):
        check_further_models({"a": {"b": [{"c": [[{"models": ["x"]}]]}]}}, SOME)
