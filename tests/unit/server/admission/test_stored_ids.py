"""`server/admission/stored_ids.py`: which ids of a request its caller must own."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.dialects import STORED
from gai_fast.core.requests.stored_ids import ITEM, StoredId
from gai_fast.model.errors import Error
from gai_fast.model.settings import Settings
from gai_fast.server.admission.stored_ids import ids_in_body, ids_in_raw, not_found
from tests.integration.gateway import settings_for
from tests.limits import LIMITS

NAMED = {"previous_response_id": "resp_1", "input": [{"id": "msg_1"}]}


def settings(**options: Any) -> Settings:
    return settings_for("http://127.0.0.1:1", **options)


def in_body(made: Settings, model: str, body: dict[str, Any]) -> list[str]:
    return [each.identifier for each in ids_in_body(made, made.chosen(model), "responses", body)]


def test_ids_are_checked_if_an_upstream_of_the_dialect_may_get_the_body() -> None:
    made = settings()
    assert in_body(made, "native/x", NAMED) == ["resp_1", "msg_1"]
    assert in_body(made, "native/x", {"input": "hi"}) == []
    assert in_body(made, "claude", NAMED) == []


def test_shared_ids_are_not_checked() -> None:
    made = settings(shared_ids=("resp_*",))
    assert in_body(made, "native/x", NAMED) == ["msg_1"]
    assert in_body(settings(shared_ids=("*",)), "native/x", NAMED) == []


def test_raw_members_and_blocks_of_any_provider_are_checked() -> None:
    made = settings()
    found = ids_in_raw(made, made.chosen("m"), [NAMED, {"prompt": {"id": "p"}}, {}], [])
    assert sorted(each.identifier for each in found) == ["msg_1", "p", "resp_1"]
    assert (
        ids_in_raw(made, made.chosen("m"), [{"seed": 5}], [{"type": "compaction", "id": "c", "encrypted_content": "s"}])
        == []
    )
    blocks = [{"type": "item_reference", "id": "msg_2"}, {"type": "container_upload", "file_id": "file_2"}]
    assert sorted(one.identifier for one in ids_in_raw(made, made.chosen("m"), [], blocks)) == ["file_2", "msg_2"]


def test_a_request_with_too_many_ids_is_refused() -> None:
    made = settings()
    with pytest.raises(Error) as refused:
        in_body(made, "native/x", {"file_ids": ["f"] * (LIMITS.named_ids + 1)})
    assert (refused.value.code, refused.value.reason) == ("invalid_request", "items")


@pytest.mark.parametrize("member", [*STORED, ITEM])
def test_a_refusal_names_the_member_and_no_more_than_the_start_of_an_id(member: str) -> None:
    error = not_found(StoredId(member, "x" * 1000))
    assert error.details is not None
    assert error.details["param"] == member
    assert error.details["code"] == error.reason
    assert str(error.reason).endswith("_not_found")
    assert len(error.message) < 200
