"""Answers of upstreams, of n: many small events, one large one, repeated names, many calls, citations.

Each is a list of events as JSON values; for SSE with names, pairs of a name and a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

SAID = "a token "
LONG = "word " * 40
Events = list[Any]


def _chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "model": "m",
        "choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}],
        **more,
    }


def _piece(at: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": at, "function": {"arguments": arguments, **more}}]}


def _begun(at: int, identifier: str, **more: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": "", **more}
    return {"tool_calls": [{"index": at, "id": identifier, "type": "function", "function": function}]}


CHAT: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: [_chunk({"content": SAID})] * n,
    "long texts": lambda n: [_chunk({"content": LONG})] * n,
    "one text": lambda n: [_chunk({"content": "é" * 100 * n})],
    "thoughts": lambda n: [_chunk({"reasoning_content": LONG})] * n,
    "thoughts and texts": lambda n: [_chunk({"reasoning_content": LONG}), _chunk({"content": LONG})] * n,
    "texts and empty ones": lambda n: [_chunk({"content": SAID}), _chunk({"content": ""}), _chunk({})] * n,
    "choices": lambda n: [_chunk({"content": SAID}, index=at % 100) for at in range(n)],
    "halves": lambda n: [_chunk({"content": half}) for _ in range(n) for half in ("\ud83d", "\ude00")],
    "pieces of a call": lambda n: [
        _chunk(_begun(0, "c0")),
        _chunk(_piece(0, '{"a":"')),
        *[_chunk(_piece(0, LONG))] * n,
        _chunk(_piece(0, '"}')),
    ],
    "brackets in pieces of a call": lambda n: [
        _chunk(_begun(0, "c0")),
        _chunk(_piece(0, '{"a":[')),
        *[_chunk(_piece(0, "{},"))] * n,
        _chunk(_piece(0, "1]}")),
    ],
    "pieces that may be whole": lambda n: [_chunk(_begun(0, "c0")), *[_chunk(_piece(0, '{"a":1}'))] * n],
    "pieces of other ids": lambda n: [_chunk(_begun(0, f"c{at}", arguments=LONG)) for at in range(n)],
    "calls": lambda n: [_chunk(_begun(at, f"c{at}", arguments='{"a":1}')) for at in range(n)],
    "calls of one id": lambda n: [_chunk(_begun(at, "c", arguments='{"a":1}')) for at in range(n)],
    "calls of one index": lambda n: [_chunk(_begun(0, f"c{at}", arguments='{"a":1}')) for at in range(n)],
    "calls without ids": lambda n: [
        _chunk({"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}) for _ in range(n)
    ],
    "calls in one event": lambda n: [
        _chunk({"tool_calls": [_begun(at, f"c{at}", arguments="{}")["tool_calls"][0] for at in range(n)]})
    ],
    "calls in turn": lambda n: [
        *(_chunk(_begun(at, f"c{at}")) for at in range(100)),
        *(_chunk(_piece(at % 100, LONG)) for at in range(n)),
    ],
    "a name in pieces": lambda n: [_chunk(_piece(0, "", name="f")) for _ in range(n)],
    "citations": lambda n: [_chunk({"content": SAID, "annotations": [_annotation(at)]}) for at in range(n)],
    "citations of one page": lambda n: [_chunk({"content": SAID, "annotations": [_annotation(0)]}) for at in range(n)],
    "citations in one event": lambda n: [
        _chunk({"content": LONG * n, "annotations": [_annotation(at) for at in range(n)]})
    ],
    "sources": lambda n: (
        [
            _chunk(
                {"content": SAID},
                citations=[f"https://a.example/{at}" for at in range(n)],
                search_results=[{"url": f"https://a.example/{at}", "title": "t"} for at in range(n)],
            )
        ]
        * 2
    ),
    "usages": lambda n: [
        _chunk({"content": SAID}, usage={"prompt_tokens": 1, "completion_tokens": at}) for at in range(n)
    ],
    "logprobs": lambda n: (
        [
            {
                "id": "c",
                "choices": [
                    {
                        "index": 0,
                        "delta": {"content": SAID},
                        "logprobs": {"content": [_score(LONG)] * 3},
                        "finish_reason": None,
                    }
                ],
            }
        ]
        * n
    ),
    "unknown members": lambda n: [{**_chunk({"content": SAID}), **{f"o{at}": [at] for at in range(n)}}],
    "unknown events": lambda n: [{"object": "x", "id": at} for at in range(n)],
    "details": lambda n: [
        _chunk({"reasoning_details": [{"type": "reasoning.text", "text": SAID, "signature": "s", "index": at}]})
        for at in range(n)
    ],
    "images": lambda n: (
        [_chunk({"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200}}]})] * n
    ),
}


def _annotation(at: int) -> dict[str, Any]:
    cited = {"url": f"https://a.example/{at}", "title": "t", "start_index": 0, "end_index": 5}
    return {"type": "url_citation", "url_citation": cited}


def _score(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -1.0, "bytes": None, "top_logprobs": []}


def _block(at: int, block: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "content_block_start", {"type": "content_block_start", "index": at, "content_block": block}


def _delta(at: int, kind: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "content_block_delta", {"type": "content_block_delta", "index": at, "delta": {"type": kind, **more}}


def _stop(at: int) -> tuple[str, dict[str, Any]]:
    return "content_block_stop", {"type": "content_block_stop", "index": at}


TEXT_BLOCK = {"type": "text", "text": ""}
CLAUDE_BEGINS = (
    "message_start",
    {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {"input_tokens": 1}}},
)


def _claude(*events: tuple[str, dict[str, Any]]) -> Events:
    return [
        CLAUDE_BEGINS,
        *events,
        (
            "message_delta",
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        ),
        ("message_stop", {"type": "message_stop"}),
    ]


def _cited(at: int) -> dict[str, Any]:
    return {
        "type": "web_search_result_location",
        "url": f"https://a.example/{at}",
        "title": "t",
        "encrypted_index": "e",
        "cited_text": LONG,
    }


CLAUDE: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: _claude(_block(0, TEXT_BLOCK), *[_delta(0, "text_delta", text=LONG)] * n, _stop(0)),
    "one text": lambda n: _claude(_block(0, TEXT_BLOCK), _delta(0, "text_delta", text="é" * 100 * n), _stop(0)),
    "blocks": lambda n: _claude(
        *(
            event
            for at in range(n)
            for event in (_block(at, TEXT_BLOCK), _delta(at, "text_delta", text=LONG), _stop(at))
        )
    ),
    "open blocks": lambda n: _claude(
        *(_block(at, TEXT_BLOCK) for at in range(min(n, 1000))),
        *(_delta(at % min(n, 1000), "text_delta", text=LONG) for at in range(n)),
    ),
    "thoughts": lambda n: _claude(
        _block(0, {"type": "thinking", "thinking": ""}),
        *[_delta(0, "thinking_delta", thinking=LONG)] * n,
        _delta(0, "signature_delta", signature="s"),
        _stop(0),
    ),
    "calls": lambda n: _claude(
        *(
            event
            for at in range(n)
            for event in (
                _block(at, {"type": "tool_use", "id": f"t{at}", "name": "f", "input": {}}),
                _delta(at, "input_json_delta", partial_json='{"a":1}'),
                _stop(at),
            )
        )
    ),
    "pieces of a call": lambda n: _claude(
        _block(0, {"type": "tool_use", "id": "t", "name": "f", "input": {}}),
        _delta(0, "input_json_delta", partial_json='{"a":"'),
        *[_delta(0, "input_json_delta", partial_json=LONG)] * n,
        _delta(0, "input_json_delta", partial_json='"}'),
        _stop(0),
    ),
    "citations": lambda n: _claude(
        _block(0, TEXT_BLOCK),
        *(
            event
            for at in range(n)
            for event in (_delta(0, "text_delta", text=SAID), _delta(0, "citations_delta", citation=_cited(at)))
        ),
        _stop(0),
    ),
    "searches": lambda n: _claude(
        *(
            event
            for at in range(n)
            for event in (
                _block(2 * at, {"type": "server_tool_use", "id": f"s{at}", "name": "web_search", "input": {}}),
                _delta(2 * at, "input_json_delta", partial_json='{"query":"q"}'),
                _stop(2 * at),
                _block(2 * at + 1, {"type": "web_search_tool_result", "tool_use_id": f"s{at}", "content": []}),
                _stop(2 * at + 1),
            )
        )
    ),
    "results in one block": lambda n: _claude(
        _block(0, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        _stop(0),
        _block(
            1,
            {
                "type": "web_search_tool_result",
                "tool_use_id": "s",
                "content": [
                    {
                        "type": "web_search_result",
                        "url": f"https://a.example/{at}",
                        "title": "t",
                        "encrypted_content": "e",
                    }
                    for at in range(n)
                ],
            },
        ),
        _stop(1),
    ),
    "pings": lambda n: _claude(*[("ping", {"type": "ping"})] * n),
    "usages": lambda n: _claude(
        *[("message_delta", {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}})] * n
    ),
}


def _item(at: int, item: dict[str, Any], kind: str = "added") -> dict[str, Any]:
    return {"type": f"response.output_item.{kind}", "output_index": at, "item": item}


def _message(at: int, text: str | None = None) -> dict[str, Any]:
    parts = [] if text is None else [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": f"m{at}", "role": "assistant", "content": parts}


def _said(at: int, text: str, part: int = 0) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta",
        "item_id": f"m{at}",
        "output_index": at,
        "content_index": part,
        "delta": text,
    }


def _ended(part: int, text: str) -> dict[str, Any]:
    whole = {"type": "output_text", "text": text, "annotations": []}
    place = {"item_id": "m0", "output_index": 0, "content_index": part}
    return {"type": "response.content_part.done", **place, "part": whole}


def _called(at: int, arguments: str = "") -> dict[str, Any]:
    return {"type": "function_call", "id": f"i{at}", "call_id": f"c{at}", "name": "f", "arguments": arguments}


def _arguments(at: int, text: str) -> dict[str, Any]:
    return {"type": "response.function_call_arguments.delta", "item_id": f"i{at}", "output_index": at, "delta": text}


def _response(*events: dict[str, Any], output: list[Any] | None = None) -> Events:
    whole = {"id": "r", "model": "m", "status": "completed", "output": output or [], "usage": {"input_tokens": 1}}
    return [
        {"type": "response.created", "response": {"id": "r", "model": "m", "output": []}},
        *events,
        {"type": "response.completed", "response": whole},
    ]


RESPONSES: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: _response(_item(0, _message(0)), *[_said(0, LONG)] * n, output=[_message(0, LONG * n)]),
    "one text": lambda n: _response(_item(0, _message(0)), _said(0, "é" * 100 * n)),
    "text at the end alone": lambda n: _response(output=[_message(0, LONG * n)]),
    "items": lambda n: _response(
        *(
            event
            for at in range(n)
            for event in (_item(at, _message(at)), _said(at, LONG), _item(at, _message(at, LONG), "done"))
        ),
        output=[_message(at, LONG) for at in range(n)],
    ),
    "open items": lambda n: _response(
        *(_item(at, _message(at)) for at in range(min(n, 1000))),
        *({**_said(at % min(n, 1000), LONG)} for at in range(n)),
    ),
    "items without index": lambda n: _response(
        *({key: value for key, value in _item(at, _called(at)).items() if key != "output_index"} for at in range(n)),
        *[{"type": "response.output_text.delta", "delta": SAID}] * n,
    ),
    "items of one id": lambda n: _response(
        *(
            event
            for at in range(n)
            for event in (_item(0, _message(0)), _said(0, LONG), _item(0, _message(0, LONG), "done"))
        )
    ),
    "items at the end alone": lambda n: _response(output=[_message(at, LONG) for at in range(n)]),
    "items of other ids at the end": lambda n: _response(
        *(event for at in range(n) for event in (_item(at, _message(at)), _said(at, LONG))),
        output=[_message(at + n, LONG) for at in range(n)],
    ),
    "parts": lambda n: _response(
        _item(0, _message(0)),
        *(_said(0, LONG, at) for at in range(n)),
        output=[{**_message(0), "content": [{"type": "output_text", "text": LONG}] * n}],
    ),
    "parts at their ends alone": lambda n: _response(  # an item has 1,024 parts at most, and each is compared with them
        *(
            event
            for at in range(n)
            for event in ([_item(at // 16, _message(at // 16))] if at % 16 == 0 else [])
            + [
                {
                    "type": "response.content_part.done",
                    "item_id": f"m{at // 16}",
                    "output_index": at // 16,
                    "content_index": at % 16,
                    "part": {"type": "output_text", "text": f"{at} {LONG}", "annotations": []},
                }
            ]
        ),
    ),
    "parts that end without a text": lambda n: _response(
        _item(0, _message(0)),
        *(_said(0, f"{at} {LONG}", at) for at in range(n)),
        *[_ended(n, "")] * n,
    ),
    "parts that end under another index": lambda n: _response(
        _item(0, _message(0)),
        *(_said(0, f"{at} {LONG}", at) for at in range(n)),
        *[_ended(n, f"{n - 1} {LONG}")] * n,
    ),
    "texts without index before calls": lambda n: _response(
        _item(0, _message(0)),
        *(_item(at + 1, _called(at)) for at in range(n)),
        *[{"type": "response.output_text.delta", "delta": SAID}] * n,
    ),
    "ends of items without index": lambda n: _response(
        *(_item(at + 1, _message(at)) for at in range(n)),
        {"type": "response.output_item.added", "item": {"type": "message", "role": "assistant", "content": []}},
        *[{"type": "response.output_text.done", "output_index": 9999, "text": ""}] * n,
    ),
    "calls": lambda n: _response(
        *(
            event
            for at in range(n)
            for event in (_item(at, _called(at)), _arguments(at, "{}"), _item(at, _called(at, "{}"), "done"))
        ),
        output=[_called(at, "{}") for at in range(n)],
    ),
    "pieces of a call": lambda n: _response(
        _item(0, _called(0)), _arguments(0, '{"a":"'), *[_arguments(0, LONG)] * n, _arguments(0, '"}')
    ),
    "thoughts": lambda n: _response(
        _item(0, {"type": "reasoning", "id": "rs", "summary": []}),
        *[
            {
                "type": "response.reasoning_summary_text.delta",
                "item_id": "rs",
                "output_index": 0,
                "summary_index": 0,
                "delta": LONG,
            }
        ]
        * n,
    ),
    "summaries": lambda n: _response(
        _item(0, {"type": "reasoning", "id": "rs", "summary": []}),
        *(
            {
                "type": "response.reasoning_summary_text.delta",
                "item_id": "rs",
                "output_index": 0,
                "summary_index": at,
                "delta": LONG,
            }
            for at in range(n)
        ),
    ),
    "citations": lambda n: _response(
        _item(0, _message(0)),
        _said(0, LONG),
        *(
            {
                "type": "response.output_text.annotation.added",
                "item_id": "m0",
                "output_index": 0,
                "content_index": 0,
                "annotation_index": at,
                "annotation": _page(at),
            }
            for at in range(n)
        ),
        output=[
            {
                **_message(0),
                "content": [{"type": "output_text", "text": LONG, "annotations": [_page(at) for at in range(n)]}],
            }
        ],
    ),
    "searches": lambda n: _response(
        *(
            event
            for at in range(n)
            for event in (
                _item(at, {"type": "web_search_call", "id": f"w{at}", "status": "in_progress"}),
                {"type": "response.web_search_call.completed", "item_id": f"w{at}", "output_index": at},
                _item(at, {"type": "web_search_call", "id": f"w{at}", "status": "completed", "action": {}}, "done"),
            )
        )
    ),
}


def _page(at: int) -> dict[str, Any]:
    return {"type": "url_citation", "url": f"https://a.example/{at}", "title": "t", "start_index": 0, "end_index": 4}


def _candidate(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [*parts]}, **more}], "modelVersion": "m"}


GEMINI: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: [_candidate({"text": LONG})] * n,
    "one text": lambda n: [_candidate({"text": "é" * 100 * n})],
    "parts": lambda n: [_candidate(*[{"text": LONG}] * n)],
    "thoughts": lambda n: [_candidate({"text": LONG, "thought": True}, {"text": SAID})] * n,
    "calls": lambda n: [_candidate({"functionCall": {"name": "f", "args": {"a": at}}}) for at in range(n)],
    "calls in one event": lambda n: [
        _candidate(*({"functionCall": {"name": "f", "args": {"a": at}}} for at in range(n)))
    ],
    "pieces of a call": lambda n: [
        _candidate({"functionCall": {"name": "f", "partialArgs": [], "willContinue": True}}),
        *[
            _candidate(
                {
                    "functionCall": {
                        "partialArgs": [{"jsonPath": "$.a", "stringValue": LONG, "willContinue": True}],
                        "willContinue": True,
                    }
                }
            )
        ]
        * n,
    ],
    "members of a call": lambda n: [
        _candidate({"functionCall": {"name": "f", "partialArgs": [], "willContinue": True}}),
        *(
            _candidate(
                {
                    "functionCall": {
                        "partialArgs": [{"jsonPath": f"$.a[{at}]", "stringValue": SAID}],
                        "willContinue": True,
                    }
                }
            )
            for at in range(n)
        ),
    ],
    "runs": lambda n: [
        _candidate({"executableCode": {"code": "1", "language": "PYTHON", "id": f"r{at}"}}) for at in range(n)
    ],
    "runs and results": lambda n: [
        chunk
        for at in range(n)
        for chunk in (
            _candidate({"executableCode": {"code": "1", "language": "PYTHON"}}),
            _candidate({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}),
        )
    ],
    "results of other runs": lambda n: [
        *(_candidate({"executableCode": {"code": "1", "id": f"r{at}"}}) for at in range(n)),
        *(_candidate({"codeExecutionResult": {"outcome": "OUTCOME_OK", "id": f"s{at}"}}) for at in range(n)),
    ],
    "citations": lambda n: [_candidate({"text": LONG}, groundingMetadata=_grounding(at)) for at in range(n)],
    "citations in one event": lambda n: [
        _candidate({"text": "é" * 10 * n}),
        _candidate(
            groundingMetadata={
                "groundingChunks": [{"web": {"uri": f"https://a.example/{at}", "title": "t"}} for at in range(n)],
                "groundingSupports": [
                    {"segment": {"startIndex": 2 * at, "endIndex": 2 * at + 2}, "groundingChunkIndices": [at]}
                    for at in range(n)
                ],
            }
        ),
    ],
    "all citations so far": lambda n: [
        _candidate({"text": LONG}, groundingMetadata=_grounding(0, 40)) for _ in range(n)
    ],
    "safety": lambda n: [
        _candidate({"text": SAID}, safetyRatings=[{"category": f"c{at}", "probability": "HIGH"}]) for at in range(n)
    ],
    "images": lambda n: [_candidate({"inlineData": {"mimeType": "image/png", "data": "A" * 200}})] * n,
}


def _grounding(at: int, count: int = 1) -> dict[str, Any]:
    return {
        "groundingChunks": [{"web": {"uri": f"https://a.example/{at + each}", "title": "t"}} for each in range(count)],
        "groundingSupports": [
            {"segment": {"startIndex": each, "endIndex": each + 4}, "groundingChunkIndices": [each]}
            for each in range(count)
        ],
    }


def _cohere(kind: str, at: int | None = None, **message: Any) -> dict[str, Any]:
    return {"type": kind, **({} if at is None else {"index": at}), "delta": {"message": message}}


COHERE: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: [
        _cohere("content-start", 0, content={"type": "text", "text": ""}),
        *[_cohere("content-delta", 0, content={"text": LONG})] * n,
        _cohere("content-end", 0),
    ],
    "blocks": lambda n: [
        event
        for at in range(n)
        for event in (
            _cohere("content-start", at, content={"type": "text", "text": ""}),
            _cohere("content-delta", at, content={"text": LONG}),
            _cohere("content-end", at),
        )
    ],
    "plan": lambda n: [_cohere("tool-plan-delta", tool_plan=LONG)] * n,
    "calls": lambda n: [
        event
        for at in range(n)
        for event in (
            _cohere("tool-call-start", at, tool_calls={"id": f"c{at}", "function": {"name": "f", "arguments": ""}}),
            _cohere("tool-call-delta", at, tool_calls={"function": {"arguments": '{"a":1}'}}),
            _cohere("tool-call-end", at),
        )
    ],
    "pieces of a call": lambda n: [
        _cohere("tool-call-start", 0, tool_calls={"id": "c", "function": {"name": "f", "arguments": '{"a":"'}}),
        *[_cohere("tool-call-delta", 0, tool_calls={"function": {"arguments": LONG}})] * n,
        _cohere("tool-call-delta", 0, tool_calls={"function": {"arguments": '"}'}}),
        _cohere("tool-call-end", 0),
    ],
    "citations": lambda n: [
        _cohere("content-start", 0, content={"type": "text", "text": ""}),
        _cohere("content-delta", 0, content={"text": LONG}),
        *(
            {
                "type": "citation-start",
                "index": at,
                "delta": {
                    "message": {
                        "citations": {
                            "start": 0,
                            "end": 4,
                            "text": "word",
                            "content_index": 0,
                            "sources": [
                                {"type": "document", "id": f"d{each}", "document": {"title": "t"}} for each in range(4)
                            ],
                        }
                    }
                },
            }
            for at in range(n)
        ),
    ],
}

OLLAMA: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: [{"model": "m", "message": {"role": "assistant", "content": LONG}, "done": False}] * n,
    "one text": lambda n: [{"model": "m", "message": {"role": "assistant", "content": "é" * 100 * n}, "done": False}],
    "thoughts": lambda n: [{"model": "m", "message": {"role": "assistant", "thinking": LONG}, "done": False}] * n,
    "calls": lambda n: [
        {"model": "m", "message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": at}}}]}, "done": False}
        for at in range(n)
    ],
}

COMPLETIONS: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: [{"id": "c", "choices": [{"index": 0, "text": LONG, "finish_reason": None}]}] * n,
    "one text": lambda n: [{"id": "c", "choices": [{"index": 0, "text": "é" * 100 * n, "finish_reason": None}]}],
}

GENERATE: dict[str, Callable[[int], Events]] = {
    "texts": lambda n: [{"model": "m", "response": LONG, "done": False}] * n,
}


def answers_of(api: str) -> dict[str, Callable[[int], Events]]:
    """Returns the answers in the dialect of an API."""
    provider, _, kind = api.partition(":")
    if kind == "responses":
        return RESPONSES
    if kind == "completions":
        return COMPLETIONS
    if api == "ollama:generate":
        return GENERATE
    return {"anthropic": CLAUDE, "gemini": GEMINI, "cohere": COHERE, "ollama": OLLAMA}.get(provider, CHAT)


def frames(events: Events, framing: str) -> list[bytes]:
    """Returns events as the bytes of an upstream, one piece for each."""
    found = []
    for event in events:
        name, value = event if isinstance(event, tuple) else ("", event)
        data = json.dumps(value).encode()
        if framing == "ndjson":
            found.append(data + b"\n")
        else:
            found.append((b"event: %b\n" % name.encode() if name else b"") + b"data: %b\n\n" % data)
    return found
