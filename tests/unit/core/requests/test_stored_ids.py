"""`core/requests/stored_ids.py`: the ids by which requests and answers name what an upstream stores."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.stored_ids import (
    is_item_of,
    is_response,
    may_name_another,
    own_item_id,
    referenced_items,
    response_of_item,
    stored_ids,
)
from gai_fast.runtime.ids import new_stream_id
from tests.limits import LIMITS


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"previous_response_id": "resp_1"}, [("previous_response_id", "resp_1")]),
        ({"conversation": "conv_1"}, [("conversation", "conv_1")]),
        ({"conversation": {"id": "conv_1"}}, [("conversation", "conv_1")]),
        ({"prompt": {"id": "pmpt_1", "variables": {"x": {"file_id": "f"}}}}, [("prompt", "pmpt_1"), ("file_id", "f")]),
        ({"container": "c1"}, [("container", "c1")]),
        ({"container": {"id": "c1", "skills": []}}, [("container", "c1")]),
        ({"tools": [{"type": "code_interpreter", "container": "c1"}]}, [("container", "c1")]),
        (
            {"tools": [{"container": {"type": "auto", "file_ids": ["f1", "f2"]}}]},
            [("file_ids", "f1"), ("file_ids", "f2")],
        ),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, [("vector_store_ids", "vs_1")]),
        ({"tools": [{"environment": {"container_id": "c"}}]}, [("container_id", "c")]),
        ({"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]}, [("file_id", "f")]),
        ({"messages": [{"content": [{"source": {"type": "file", "file_id": "f"}}]}]}, [("file_id", "f")]),
        ({"input": [{"content": [{"type": "input_image", "file_id": "f"}]}]}, [("file_id", "f")]),
        ({"fileData": {"fileUri": "gs://b/f"}}, [("fileUri", "gs://b/f")]),
        ({"file_data": {"file_uri": "files/f"}}, [("file_uri", "files/f")]),
        ({"cachedContent": "cachedContents/c"}, [("cachedContent", "cachedContents/c")]),
        ({"cached_content": "cachedContents/c"}, [("cached_content", "cachedContents/c")]),
        (
            {"tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/s"]}}]},
            [("fileSearchStoreNames", "fileSearchStores/s")],
        ),
        ({"tools": [{"retrieval": {"vertexAiSearch": {"datastore": "projects/p"}}}]}, [("datastore", "projects/p")]),
        ({"tools": [{"retrieval": {"vertexAiSearch": {"engine": "projects/p"}}}]}, [("engine", "projects/p")]),
        (
            {"authConfig": {"apiKeyConfig": {"apiKeySecret": "projects/p/secrets/s", "apiKeyString": "mine"}}},
            [("apiKeySecret", "projects/p/secrets/s")],
        ),
        (
            {"api_auth": {"api_key_config": {"api_key_secret_version": "projects/p/secrets/s/versions/1"}}},
            [("api_key_secret_version", "projects/p/secrets/s/versions/1")],
        ),
        (
            {"authConfig": {"httpBasicAuthConfig": {"credentialSecret": "projects/p/secrets/s"}}},
            [("credentialSecret", "projects/p/secrets/s")],
        ),
        (
            {"authConfig": {"googleServiceAccountConfig": {"serviceAccount": "a@p.iam.gserviceaccount.com"}}},
            [("serviceAccount", "a@p.iam.gserviceaccount.com")],
        ),
        ({"ragResources": [{"ragCorpus": "c", "ragFileIds": ["f"]}]}, [("ragCorpus", "c"), ("ragFileIds", "f")]),
        (
            {"thread": {"type": "continue", "previous_message_id": "msg_1"}},
            [("previous_message_id", "msg_1")],
        ),
        ({"prompt_cache_options": {"comparison_response_id": "resp_1"}}, [("comparison_response_id", "resp_1")]),
        ({"container": {"skills": [{"type": "custom", "skill_id": "skill_1"}]}}, [("skill_id", "skill_1")]),
        ({"tools": [{"type": "mcp", "tunnel_id": "t"}]}, [("tunnel_id", "t")]),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, [("audio", "audio_1")]),
        ({"tools": [{"type": "document_library", "library_ids": ["l"]}]}, [("library_ids", "l")]),
        ({"tools": [{"type": "collections_search", "collection_ids": ["c"]}]}, [("collection_ids", "c")]),
        ({"preset": "support"}, [("preset", "support")]),
    ],
)
def test_an_id_is_found_wherever_a_dialect_may_have_it(body: Any, wanted: Any) -> None:
    assert stored_ids(body) == wanted


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a text", "file_id": None, "container": {"type": "auto"}, "file_ids": [None, 5]},
        {"fileData": {"fileUri": "https://a.example/a.pdf"}},
        {"plugins": [{"id": "web", "engine": "exa"}], "audio": {"voice": "alloy", "format": "wav"}},
        {"container": {"skills": [{"type": "anthropic", "skill_id": "pptx"}]}},
        {"prompt": ["resp_1"], "previous_response_id": 5, "conversation": {"id": None}},
        {
            "metadata": {"file_id": "mine"},
            "tools": [{"parameters": {"file_id": "x"}, "input_schema": {"file_id": "x"}}],
        },
        {"messages": [{"content": [{"type": "tool_use", "id": "t", "input": {"file_id": "the model's"}}]}]},
    ],
)
def test_what_only_looks_like_an_id_or_was_written_by_a_model_is_none(body: Any) -> None:
    assert stored_ids(body) == []


OWN = own_item_id("rs", new_stream_id(), 12)


@pytest.mark.parametrize(
    ("item", "is_reference"),
    [
        ({"type": "item_reference", "id": "msg_1"}, True),
        ({"type": "item_reference", "id": "msg_1", "content": "x"}, True),
        ({"id": "msg_1"}, True),
        ({"type": None, "id": "msg_1"}, True),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, True),
        ({"type": "image_generation_call", "id": "ig_1", "status": "completed", "prompt": "x"}, True),
        ({"type": "image_generation_call", "id": "ig_1", "result": "aGk="}, False),
        ({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}]}, True),
        ({"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "x"}]}, True),
        ({"type": "reasoning", "id": "rs_1", "summary": [{"text": "x"}], "encrypted_content": ""}, True),
        ({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}, False),
        ({"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}, False),
        ({"type": "compaction", "id": "cmp_1", "created_by": "x"}, True),
        ({"type": "reasoning", "id": OWN, "summary": [{"type": "summary_text", "text": "x"}]}, False),
        ({"type": "reasoning", "id": "rs_" + "0a" * 25, "summary": [{"type": "summary_text", "text": "x"}]}, True),
        ({"type": ["reasoning"], "id": "rs_1", "summary": [1]}, False),
        ({"type": "message", "id": "msg_1", "role": "assistant", "content": "Hi"}, False),
        ({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}, False),
        ({"type": "item_reference", "id": 5}, False),
        ("msg_1", False),
    ],
)
def test_an_item_without_content_of_its_own_names_a_stored_one(item: Any, is_reference: bool) -> None:
    assert bool(referenced_items([item])) is is_reference
    assert referenced_items(item) == []


def test_an_items_id_tells_its_response_if_the_gateway_has_made_it() -> None:
    stream = "a_b-" + "c" * 18
    assert response_of_item(own_item_id("msg", stream, 0)) == f"resp_{stream}"
    assert response_of_item(own_item_id("msg", stream, LIMITS.input_item)) == f"resp_{stream}"
    for identifier in ("msg_1", "", "msg_short_1", f"msg_{stream}", f"MSG_{stream}_1", f"msg_{stream}_1\n"):
        assert response_of_item(identifier) == ""


def test_an_item_may_name_another_if_it_lacks_content() -> None:
    for item in (
        {"type": "item_reference", "id": "x", "content": "ignored"},
        {"id": "x"},
        {"id": "x", "type": "message", "status": "completed", "content": []},
        {"id": "x", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
    ):
        assert may_name_another(item)
    for item in (
        {"id": "x", "type": "reasoning", "encrypted_content": "e"},
        {"id": "x", "type": "message", "role": "assistant", "content": []},
        {"id": "x", "type": "function_call", "call_id": "c"},
    ):
        assert not may_name_another(item)


@pytest.mark.parametrize(
    "stream", ["a" * 22, "a" * 21, "a" * 100, "a" * 101, "0-_" * 10, "é" * 22, "a.~" * 10, "_1" * 11, ""]
)
@pytest.mark.parametrize("kind", ["msg", "", "Msg", "m_g", "é", "m1"])
@pytest.mark.parametrize("number", ["0", "123456789", "1234567890", "", "1_2", "x", "²", "٣"])
def test_an_item_is_one_of_the_response_that_its_id_names(stream: str, kind: str, number: str) -> None:
    identifier = f"{kind}_{stream}_{number}"
    for response in (f"resp_{stream}", stream, f"resp_{stream}_1", f"resp_{stream[1:]}", "resp_", ""):
        is_one = is_response(response) and is_item_of(identifier, response)
        assert is_one is (response_of_item(identifier) == response != "")
