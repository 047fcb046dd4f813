"""`formats/responses/pages.py`: pages of the own items of a kept response's request."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseItem
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import TypeAdapter

from gai_fast.core.requests.stored_ids import is_own_item, response_of_item
from gai_fast.formats.responses import kept_values, pages
from gai_fast.formats.responses.chain import ITEMS_OF_LINE, written
from gai_fast.formats.responses.kept_values import value_of, values
from gai_fast.formats.responses.pages import items_page
from gai_fast.stores.responses import KeptResponse
from tests.unit.formats.responses.test_chain import CALL, OUTPUT, RESPONSE, USER, kept


def listed(response: KeptResponse) -> list[dict[str, Any]]:
    found = items_page(response, "asc", None, 100)
    assert found is not None
    data: list[dict[str, Any]] = found["data"]
    return data


def test_a_list_of_items_is_openais_by_the_sdks_types() -> None:
    given = [
        USER,
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "auto"}]},
        CALL,
        {**OUTPUT, "status": "completed"},
        {"role": "assistant", "content": "yo"},
    ]
    items = listed(kept(given=given))
    TypeAdapter(list[ResponseItem]).validate_python(items)
    kinds = ["message", "message", "function_call", "function_call_output", "message"]
    assert [item["type"] for item in items] == kinds
    assert items[0]["content"] == [{"type": "input_text", "text": "hi"}]
    assert [item["id"].partition("_")[0] for item in items] == ["msg", "msg", "fc", "fco", "msg"]
    assert items[2]["id"] == "fc_1", "its own"
    for item in (*items[:2], *items[3:]):
        assert is_own_item(item["id"])
        assert response_of_item(item["id"]) == RESPONSE
    assert len({item["id"] for item in items}) == len(items)


def test_pages_of_items() -> None:
    given = [{"role": "user", "content": str(at)} for at in range(5)]
    response = kept(given=given)

    def page(order: str, after: str | None, limit: int) -> tuple[list[str], bool]:
        found = items_page(response, order, after, limit)
        assert found is not None
        ResponseItemList.model_validate(found)
        assert (found["first_id"], found["last_id"]) == (found["data"][0]["id"], found["data"][-1]["id"])
        return [item["content"][0]["text"] for item in found["data"]], found["has_more"]

    ids = [item["id"] for item in listed(response)]
    assert page("desc", None, 2) == (["4", "3"], True)
    assert page("desc", ids[3], 20) == (["2", "1", "0"], False)
    assert page("asc", None, 5) == (["0", "1", "2", "3", "4"], False)
    assert page("asc", ids[1], 2) == (["2", "3"], True)
    assert items_page(response, "asc", "msg_of_another", 20) is None
    empty = items_page(response, "asc", ids[4], 20)
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert items_page(kept(given=[]), "desc", None, 20) == empty


def test_what_is_no_item_is_listed_as_an_empty_message() -> None:
    assert listed(kept(given=[5]))[0]["content"] == []


def test_the_item_before_a_page_is_found_by_its_place_and_by_an_id_of_its_own() -> None:
    given = [USER, {**USER, "id": "mine"}, {**USER, "id": f"msg_{RESPONSE[5:]}_1000000"}, USER, "\ud800", USER]
    response = kept(given=given)
    own = response._replace(input=response.input.replace(b'"\\ud800"', b'{"id":"odd\\ud800"}'))
    ids = [item["id"] for item in listed(own)]
    assert ids[4] == "odd\ud800"
    for at in (0, 1, 3, 4, 5):
        for order, rest in (("asc", ids[at + 1 :]), ("desc", ids[:at][::-1])):
            page = items_page(own, order, ids[at], 100)
            assert page is not None
            assert [item["id"] for item in page["data"]] == rest
    assert items_page(own, "asc", "msg_other_1000001", 100) is None
    assert items_page(own, "asc", f"msg_{RESPONSE[5:]}_2000000", 100) is None


@pytest.mark.interpreted
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_parses_its_own_items_alone(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    response = kept(given=[USER] * 5_000)
    parsed: list[bytes] = []

    def parse(text: Any) -> Any:
        parsed.append(bytes(text))
        return value_of(text)

    last = listed(response)[50]["id"]
    monkeypatch.setattr(pages, "value_of", parse)
    found = items_page(response, order, last, 3)
    assert found is not None
    assert len(found["data"]) == 3
    assert len(parsed) == 4, "three items, and the one that is named"


ODD = [{**USER, "content": "a,\n[b]"}, {**USER, "id": "own"}, 5, [1, "\n"], "x,\n", {"id": "odd\ud800"}]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 129, 300])
def test_a_list_in_lines_has_the_pages_of_one_without(count: int) -> None:
    given = ([USER] * 60 + ODD + [{**USER, "id": f"i{at}"} for at in range(300)])[:count]
    in_lines = kept(given=[])._replace(input=written(given, 5).text)
    plain = in_lines._replace(input=in_lines.input.replace(b"\n", b""))
    assert (plain != in_lines) == (count > ITEMS_OF_LINE)
    assert values(in_lines.input) == values(plain.input)
    every = [item["id"] for item in listed(plain)]
    for order in ("asc", "desc"):
        for after in (None, "none", "i0", *every[:1], *every[60:70], *every[-1:]):
            for limit in (1, 7, 100):
                assert items_page(in_lines, order, after, limit) == items_page(plain, order, after, limit)


@pytest.mark.interpreted
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_splits_the_lines_of_its_own_items_and_the_last_alone(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = kept(given=[])._replace(input=written([USER] * 98_000, 5).text)
    split: list[int] = []

    def item_texts(text: bytes) -> Any:
        split.append(len(text))
        return kept_values.item_texts(text)

    monkeypatch.setattr(pages, "item_texts", item_texts)
    first = items_page(response, order, None, 1)
    assert first is not None
    following = items_page(response, order, first["last_id"], 1)
    assert following is not None
    assert (len(following["data"]), following["has_more"]) == (1, True)
    assert len(split) <= 4
    assert sum(split) < len(response.input) / 300
