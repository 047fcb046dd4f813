"""`gai_fast/providers/sdk/texts.py`: an object that is one text is read by its attributes, any other one is not.

`tests/corpus/test_from_sdk.py` compares the events of objects of any shape with their JSON's events.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gai_fast.providers.sdk.texts import PATHS, text_itself


class Model:
    """A model of pydantic, as far as it is read."""

    __slots__ = ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__")

    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)
        self.__pydantic_extra__: dict[str, Any] | None = None
        self.__pydantic_fields_set__ = {*members}


def chat(index: Any = 0, *, beside: Any = None, **delta: Any) -> Model:
    choice = Model(index=index, delta=Model(**delta), finish_reason=None)
    return Model(id="1", model="m", choices=[choice], usage=beside)


def ollama(*, beside: Any = None, **message: Any) -> Model:
    return Model(model="m", message=Model(**message), done=False, done_reason=beside)


def anthropic(index: Any = 0, *, beside: Any = None, kind: str = "text_delta", **delta: Any) -> Model:
    return Model(type="content_block_delta", index=index, delta=Model(type=kind, **delta), error=beside)


def cohere(*, beside: Any = None, **content: Any) -> Model:
    delta = Model(message=Model(content=Model(type="text", **content)))
    return Model(type="content-delta", index=3, delta=delta, logprobs=beside)


def responses(index: Any = 0, *, beside: Any = None, text: Any = None, **more: Any) -> Model:
    more = {"item_id": "i", "sequence_number": 9, "content_index": 0, "logprobs": beside, **more}
    return Model(type="response.output_text.delta", output_index=index, delta=text, **more)


def gemini(index: Any = 0, *, beside: Any = None, usage: Any = None, **part: Any) -> Model:
    candidate = Model(index=index, content=Model(role="model", parts=[Model(**part)]), finish_reason=beside)
    return Model(candidates=[candidate], response_id="r", model_version="m", usage_metadata=usage)


APIS: dict[str, tuple[Any, str]] = {
    "openai": (chat, "content"),
    "ollama": (ollama, "content"),
    "anthropic": (anthropic, "text"),
    "cohere": (cohere, "text"),
    "openai:responses": (responses, "text"),
    "gemini": (gemini, "text"),
}
"""Makes an object of each API, and the member of its text."""
NUMBERED = ("openai", "anthropic", "openai:responses", "gemini")


def made(api: str, text: Any, *index: Any, **more: Any) -> Any:
    make, name = APIS[api]
    return make(*index, **{name: text}, **more)


@pytest.mark.parametrize("api", APIS)
def test_a_text_is_read_by_its_attributes(api: str) -> None:
    assert APIS.keys() == PATHS.keys()
    read = PATHS[api].read
    first = 0 if api in NUMBERED else None
    for text in ('"\\\n\x00', "Grüße", "\ud83d"):
        assert read(made(api, text)) == (first, text, None)
    if api in NUMBERED:
        for index in (1, None):
            assert read(made(api, "Hi", index)) == (index, "Hi", None)
        assert read(made(api, "Hi", "1")) is None
    for text in (None, "", 5, ["Hi"], {"a": "Hi"}):
        assert read(made(api, text)) is None


@pytest.mark.parametrize("api", APIS)
def test_an_object_that_holds_more_is_not_read(api: str) -> None:
    read = PATHS[api].read
    assert read(made(api, "Hi", beside=["more"])) is None
    for empty in (None, "", [], {}):
        assert read(made(api, "Hi", beside=empty, refusal=empty)) is not None
    assert read(made(api, "Hi", refusal="no")) is None


@pytest.mark.parametrize("api", APIS)
def test_members_that_no_class_declares_hold_more_unless_they_are_empty_or_unread(api: str) -> None:
    read = PATHS[api].read
    item = made(api, "Hi")
    item.__pydantic_extra__ = {"citations": None}
    assert read(item) is not None
    item.__pydantic_extra__ = {"citations": ["https://a.example"]}
    assert read(item) is None
    if api != "gemini":
        item.__pydantic_extra__ = {"obfuscation": "x", "service_tier": "default"}
        assert read(item) is not None


@pytest.mark.parametrize("api", APIS)
def test_members_that_are_not_given_are_not_looked_at(api: str) -> None:
    """A class may have objects for them, as `mistralai` has."""
    item = made(api, "Hi", beside=["by default"])
    for each in (item, *vars(item).get("choices", ()), *vars(item).get("candidates", ())):
        each.__pydantic_fields_set__ -= {"usage", "done_reason", "error", "logprobs", "finish_reason"}
    assert PATHS[api].read(item) is not None


@pytest.mark.parametrize("api", APIS)
def test_an_object_of_another_shape_is_not_read(api: str) -> None:
    read = PATHS[api].read
    item = made(api, "Hi")
    for name, value in vars(item).items():
        if isinstance(value, (list, Model)):
            empty: Any
            for empty in (None, {}, [], Model(), [Model(), Model()], "Hi", ["Hi"]):
                assert read(Model(**{**vars(item), name: empty})) is None
    assert read(Model()) is None
    assert read({"choices": []}) is None


def test_another_type_is_not_read() -> None:
    assert PATHS["anthropic"].read(anthropic(kind="odd_delta", text="Hi")) is None
    for item in (made("anthropic", "Hi"), made("cohere", "Hi"), made("openai:responses", "Hi")):
        vars(item)["type"] = "message_start"
        assert all(PATHS[api].read(item) is None for api in ("anthropic", "cohere", "openai:responses"))


def test_another_part_than_the_first_of_an_item_is_not_read() -> None:
    assert PATHS["openai:responses"].read(made("openai:responses", "Hi", content_index=1)) is None


def test_the_text_so_far_beside_a_delta_is_not_looked_at() -> None:
    """The helper of `openai` adds it to each: to write it each time takes the square of the answer's length."""
    assert PATHS["openai:responses"].read(made("openai:responses", "Hi", snapshot="Oh, Hi")) == (0, "Hi", None)


@pytest.mark.parametrize("count", [None, 0, -1, "many", True])
def test_usage_beside_a_text_is_read_if_it_counts(count: Any) -> None:
    read = PATHS["gemini"].read
    usage = Model(prompt_token_count=7, candidates_token_count=None)
    assert read(gemini(text="Hi", usage=usage)) == (0, "Hi", usage)
    assert read(gemini(text="Hi", usage=Model(prompt_token_count=count))) is None
    assert read(gemini(text="Hi", usage=Model())) is None
    assert read(gemini(text="Hi", usage={"prompt_token_count": 7})) is None


def test_the_object_in_an_event() -> None:
    read = PATHS["openai"].within("data").read
    assert read(SimpleNamespace(data=chat(content="Hi"), snapshot="Hi there")) == (0, "Hi", None)
    for data in (None, Model(), chat(content="Hi", refusal="no"), made("gemini", "Hi")):
        assert read(SimpleNamespace(data=data)) is None
    assert read(SimpleNamespace()) is None


class Words(str):
    """A text of a library's own."""

    __slots__ = ()


def test_texts_and_events_with_nothing_else_are_read_as_they_are() -> None:
    event = {"type": "text.delta", "text": "Hi"}
    for item in ("Hi", event):
        assert text_itself(item) == (None, "Hi", None)
    more = [{**event, "choice": 1}, {**event, "type": "reasoning.delta"}, {**event, "text": ""}, {**event, "text": 5}]
    for item in ("", b"Hi", Words("Hi"), {"type": "text.delta"}, *more):
        assert text_itself(item) is None
