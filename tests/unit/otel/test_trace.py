"""One traced request: its attempts, its events, its attributes."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.request import Request, ResponseFormat, TextPart, Tool, UserMessage
from gai_fast.otel.histograms import DURATION, FIRST_CHUNK, TOKENS, Instrument, Labels
from gai_fast.otel.trace import AnsweredRequest, Parent, Trace, TracedTarget
from tests.limits import LIMITS
from tests.otlp import read, spans_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TARGET = TracedTarget("chat", "openai", "gpt", is_known=True, upstream="up", base_url="https://api.example/v1")


class FakeRecorder:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.figures: list[tuple[Instrument, dict[str, Any], float]] = []
        self._ids = count(1)

    def put(self, spans: bytes, count: int) -> None:
        found = spans_of(spans)
        assert len(found) == count
        self.spans.extend(found)

    def observe(self, instrument: Instrument, labels: Labels, value: float) -> None:
        self.figures.append((instrument, dict(labels), value))

    def new_span_id(self) -> str:
        return f"{next(self._ids):016x}"


def traced(recorder: FakeRecorder, **more: Any) -> Trace:
    about = {"parent_id": PARENT, "state": "a=1", "is_sampled": True, "route": "/r", "with_content": False, **more}
    return Trace(recorder, TRACE, **about)


def answered(**more: Any) -> AnsweredRequest:
    about = {
        "method": "POST", "path": "/p", "status": 200, "scheme": "http", "client": "192.0.2.1", "user_agent": None,
        "request_id": "id", "key": "alice", "code": None, "stream": None,
    }  # fmt: skip
    return AnsweredRequest(**{**about, **more})


def send(trace: Trace, target: TracedTarget = TARGET, request: Any = None) -> None:
    """Makes an attempt."""
    trace.attempted(target, request or {})
    trace.sent()


@pytest.fixture
def recorder() -> FakeRecorder:
    return FakeRecorder()


def test_an_attempt_carries_the_trace_with_an_id_of_its_own(recorder: FakeRecorder) -> None:
    trace = traced(recorder)
    assert trace.attempted(TARGET, {}) == [("traceparent", f"00-{TRACE}-{2:016x}-01"), ("tracestate", "a=1")]
    assert trace.attempted(TARGET, {})[0] == ("traceparent", f"00-{TRACE}-{3:016x}-01")
    unsampled = traced(recorder, is_sampled=False, state="")
    assert unsampled.attempted(TARGET, {}) == [("traceparent", f"00-{TRACE}-{5:016x}-00")]


def test_what_is_not_sampled_has_figures_and_no_spans(recorder: FakeRecorder) -> None:
    trace = traced(recorder, is_sampled=False)
    send(trace)
    trace.stream_ended(StreamMetrics(duration=1.0))
    trace.request_ended(answered())
    assert recorder.spans == []
    assert [figure[0] for figure in recorder.figures] == [DURATION]


def test_an_attempt_that_could_not_be_sent_is_none(recorder: FakeRecorder) -> None:
    trace = traced(recorder)
    trace.attempted(TARGET, {})
    send(trace, TARGET._replace(model="other"))
    trace.sent()
    trace.stream_ended(StreamMetrics(duration=1.0))
    assert [span.name for span in recorder.spans] == ["chat other"]


def test_a_hedge_that_wins_takes_the_place_of_the_first_attempt(recorder: FakeRecorder) -> None:
    trace = traced(recorder)
    send(trace)
    trace.follows("hedge")
    send(trace, TARGET._replace(model="second"))
    trace.hedge_taken()
    trace.hedge_taken()
    trace.stream_ended(StreamMetrics(duration=1.0, finish_reason="stop", upstream_time_to_first_token=0.1))
    first, second = recorder.spans
    assert read(first.attributes)["error.type"] == "cancelled"
    assert [event.name for event in second.events] == ["hedge", "first_token"]
    assert read(second.attributes)["gen_ai.response.finish_reasons"] == ["stop"]


@pytest.mark.parametrize(("error", "expected"), [(None, "cancelled"), (Error("timeout", "late"), "timeout")])
def test_a_hedge_that_loses_has_a_span_of_its_own(recorder: FakeRecorder, error: Error | None, expected: str) -> None:
    trace = traced(recorder)
    send(trace)
    trace.follows("hedge")
    send(trace, TARGET._replace(model="second"))
    trace.hedge_dropped(error)
    trace.stream_ended(StreamMetrics(duration=1.0, finish_reason="stop"))
    first, second = recorder.spans
    assert read(first.attributes)["gen_ai.response.finish_reasons"] == ["stop"]
    assert read(second.attributes)["error.type"] == expected


def test_what_was_planned_and_not_made_is_no_event(recorder: FakeRecorder) -> None:
    trace = traced(recorder)
    send(trace)
    trace.failed(Error("timeout", "late"), has_content=True)
    trace.follows("retry", "resume")
    trace.follows("fallback")
    send(trace)
    trace.stream_ended(StreamMetrics(duration=1.0, upstream_time_to_first_token=0.5))
    first, second = recorder.spans
    assert [event.name for event in first.events] == ["first_token"], "its answer had begun"
    (event,) = second.events
    wanted = {"gai.attempt": 2, "gai.former.upstream": "up", "gai.former.model": "gpt", "error.type": "timeout"}
    assert (event.name, read(event.attributes)) == ("fallback", wanted)
    assert [(figure[0].name[-5:], figure[1].get("error.type")) for figure in recorder.figures] == [
        ("chunk", None),
        ("ation", "timeout"),
        ("ation", None),
    ]


def test_the_end_of_a_stream_is_in_the_span_of_its_last_attempt(recorder: FakeRecorder) -> None:
    trace = traced(recorder)
    send(trace)
    usage = {"input_tokens": 3, "output_tokens": 10**400, "reasoning_tokens": 1, "source": "provider"}
    trace.stream_ended(
        StreamMetrics(
            duration=1.0,
            outcome="failed",
            code="network",
            usage=usage,
            answered_by="gpt-1",
            finish_reason="length",
            response_id="chatcmpl-1",
        )
    )
    (span,) = recorder.spans
    about = read(span.attributes)
    assert (about["gen_ai.response.id"], about["gen_ai.response.model"]) == ("chatcmpl-1", "gpt-1")
    assert about["gen_ai.response.finish_reasons"] == ["length"]
    assert (about["gen_ai.usage.input_tokens"], about["gen_ai.usage.reasoning.output_tokens"]) == (3, 1)
    assert (about["server.address"], about["server.port"]) == ("api.example", 443)
    assert (about["error.type"], span.status.code) == ("network", 2)
    figures = {(figure[0].name, figure[1].get("gen_ai.token.type")): figure[2] for figure in recorder.figures}
    assert figures[TOKENS.name, "input"] == 3
    assert figures[TOKENS.name, "output"] == LIMITS.priced_tokens
    assert (FIRST_CHUNK.name, None) not in figures


def test_a_client_that_leaves_is_the_error_of_its_spans(recorder: FakeRecorder) -> None:
    trace = traced(recorder)
    send(trace)
    metrics = StreamMetrics(duration=1.0, outcome="disconnected")
    trace.stream_ended(metrics)
    trace.request_ended(answered(status=499, stream=metrics))
    client, server = recorder.spans
    assert [read(span.attributes)["error.type"] for span in (client, server)] == ["client_disconnected"] * 2
    assert server.status.code == 0


def test_a_failure_of_the_server_fails_its_span(recorder: FakeRecorder) -> None:
    traced(recorder).request_ended(answered(status=500, code="internal"))
    traced(recorder).request_ended(answered(status=404, code="not_found"))
    assert [span.status.code for span in recorder.spans] == [2, 0]


def test_an_upstreams_refusal_is_the_clients_fault(recorder: FakeRecorder) -> None:
    for status, code in ((400, "invalid_request"), (429, "rate_limited"), (502, "network"), (200, "network")):
        stream = StreamMetrics(duration=1.0, outcome="failed", code=code)
        traced(recorder).request_ended(answered(status=status, stream=stream))
    assert [read(span.attributes)["error.type"] for span in recorder.spans] == [
        "invalid_request",
        "rate_limited",
        "network",
        "network",
    ]
    assert [span.status.code for span in recorder.spans] == [0, 0, 2, 2]


def test_a_method_that_no_standard_has_is_no_name(recorder: FakeRecorder) -> None:
    traced(recorder).request_ended(answered(method="BREW", user_agent="curl/8"))
    (span,) = recorder.spans
    about = read(span.attributes)
    assert span.name == "HTTP /r"
    assert (about["http.request.method"], about["http.request.method_original"]) == ("_OTHER", "BREW")
    assert about["user_agent.original"] == "curl/8"


def test_without_a_request_there_is_no_server_span(recorder: FakeRecorder) -> None:
    trace = traced(recorder, route=None, parent_id="")
    send(trace)
    trace.note("resume", {})
    trace.stream_ended(StreamMetrics(duration=1.0))
    trace.request_ended(answered())
    (span,) = recorder.spans
    assert span.parent_span_id == b""


def test_events_have_a_bound(recorder: FakeRecorder) -> None:
    trace = traced(recorder)
    for _ in range(LIMITS.otel_items + 5):
        trace.note("resume", {})
    trace.request_ended(answered())
    assert len(recorder.spans[0].events) == LIMITS.otel_items


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (Request(max_tokens=5, top_p=0.5, stop=["a"]), {"max_tokens": 5, "top_p": 0.5, "stop_sequences": ["a"]}),
        ({"max_output_tokens": 7, "n": 2, "stop": "a"}, {"max_tokens": 7, "choice.count": 2, "stop_sequences": ["a"]}),
        ({"top_k": 3, "stop_sequences": ["x"] * 99}, {"top_k": 3, "stop_sequences": ["x"] * LIMITS.otel_items}),
        ({"max_tokens": "5", "seed": True, "stop": [1], "temperature": None}, {}),
        ({}, {}),
    ],
)  # fmt: skip
def test_the_parameters_of_a_request_are_attributes(recorder: FakeRecorder, request_: Any, wanted: Any) -> None:
    trace = traced(recorder)
    send(trace, TARGET, request_)
    trace.stream_ended(StreamMetrics(duration=1.0, transport="json"))
    about = read(recorder.spans[0].attributes)
    found = {name.removeprefix("gen_ai.request."): value for name, value in about.items() if "gen_ai.request." in name}
    assert found == {"model": "gpt", **wanted}


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (Request(query="q", response_format=ResponseFormat(type="json")), "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json"),
        ({"text": {"format": {"type": "text"}}}, "text"),
        ({"modalities": ["text", "audio"], "audio": {}}, "speech"),
        *[(body, None) for body in ({}, {"text": "x"}, {"text": {}}, {"response_format": 7}, {"modalities": 1})],
        ({"response_format": {"type": ["json"]}}, None),
        ({"response_format": {"type": "a made up one"}}, None),
    ],
)  # fmt: skip
def test_the_kind_of_output_is_an_attribute_where_it_is_asked_for(
    recorder: FakeRecorder, request_: Any, wanted: str | None
) -> None:
    trace = traced(recorder)
    send(trace, TARGET, request_)
    trace.stream_ended(StreamMetrics(duration=1.0))
    assert read(recorder.spans[0].attributes).get("gen_ai.output.type") == wanted


@pytest.mark.parametrize(
    ("conversation", "wanted"), [("conv_1", "conv_1"), ({"id": "conv_2"}, "conv_2"), ({"id": 3}, None), ([], None)]
)
def test_the_conversation_of_a_request_is_an_attribute(
    recorder: FakeRecorder, conversation: Any, wanted: str | None
) -> None:
    trace = traced(recorder)
    send(trace, TARGET, {"conversation": conversation})
    trace.stream_ended(StreamMetrics(duration=1.0))
    assert read(recorder.spans[0].attributes).get("gen_ai.conversation.id") == wanted


def test_tools_are_attributes_where_prompts_are(recorder: FakeRecorder) -> None:
    native = Request(query="q", tools=[Tool(name="clock")])
    for request in (native, {"messages": [], "tools": [{"type": "function"}]}):
        trace = traced(recorder, with_content=True)
        send(trace, TARGET, request)
        trace.stream_ended(StreamMetrics(duration=1.0))
    first, second = (read(span.attributes)["gen_ai.tool.definitions"] for span in recorder.spans)
    assert ('"clock"' in first, second) == (True, '[{"type":"function"}]')


def test_prompts_are_attributes_where_that_is_asked_for(recorder: FakeRecorder) -> None:
    native = Request(system="be kind", messages=[UserMessage(content=[TextPart(text="hi")])], query="and?")
    for request in (native, {"messages": [{"role": "user", "content": "hi"}], "system": "be kind"}):
        for with_content in (True, False):
            trace = traced(recorder, with_content=with_content)
            send(trace, TARGET, request)
            trace.stream_ended(StreamMetrics(duration=1.0))
    first, without, second, also_without = (read(span.attributes) for span in recorder.spans)
    assert first["gen_ai.input.messages"] == (
        '[{"role":"system","parts":[{"type":"text","content":"be kind"}]},'
        '{"role":"user","parts":[{"type":"text","content":"hi"}]},'
        '{"role":"user","parts":[{"type":"text","content":"and?"}]}]'
    )
    assert second["gen_ai.input.messages"] == '[{"role":"user","content":"hi"}]'
    assert second["gen_ai.system_instructions"] == '"be kind"'
    for each in (without, also_without):
        assert "be kind" not in str(each)


def test_the_answer_is_an_attribute_where_prompts_are(recorder: FakeRecorder) -> None:
    """In the form of the semantic conventions: one message for each choice, parts in their order."""
    for with_content in (True, False):
        trace = traced(recorder, with_content=with_content)
        send(trace, TARGET)
        assert (trace.output is not None) is with_content
        if trace.output is not None:
            for event in (
                {"type": "start"},
                {"type": "text.delta", "text": "void"},
                {"type": "stream.reset"},
                {"type": "reasoning.delta", "text": "Hm"},
                {"type": "text.delta", "text": "It is "},
                {"type": "text.delta", "text": "other", "choice": 1},
                {"type": "text.delta", "text": "4 °C."},
                {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": {"n": 1}}},
                {"type": "finish", "finish_reason": "tool_calls"},
            ):
                trace.output.event(event)  # type: ignore[arg-type]  # an event
        trace.stream_ended(StreamMetrics(duration=1.0))
    result, without = (read(span.attributes) for span in recorder.spans)
    assert json.loads(result["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm"},
                {"type": "text", "content": "It is 4 °C."},
                {"type": "tool_call", "id": "c", "name": "f", "arguments": {"n": 1}},
            ],
            "finish_reason": "tool_call",
        },
        {"role": "assistant", "parts": [{"type": "text", "content": "other"}], "finish_reason": "tool_call"},
    ]
    assert "gen_ai.output.messages" not in without


@pytest.mark.parametrize("text", ["x", '"', "\x00", "豆"])
def test_a_long_answer_loses_its_end_and_stays_valid(recorder: FakeRecorder, text: str) -> None:
    trace = traced(recorder, with_content=True)
    send(trace, TARGET)
    assert trace.output is not None
    for _ in range(300):
        trace.output.event({"type": "text.delta", "text": text * 100})
        trace.output.event({"type": "reasoning.delta", "text": text})
    trace.output.event({"type": "error", "error": {}})
    trace.stream_ended(StreamMetrics(duration=1.0))
    result = read(recorder.spans[0].attributes)["gen_ai.output.messages"]
    assert LIMITS.otel_text * 0.9 < len(result) <= LIMITS.otel_text
    (message,) = json.loads(result)
    assert message["parts"][0] == {"type": "text", "content": text * 100}
    assert message["finish_reason"] == "error"


def test_made_up_models_take_no_memory_for_ever(recorder: FakeRecorder) -> None:
    trace = traced(recorder, is_sampled=False)
    for number in range(LIMITS.otel_series + 10):
        send(trace, TARGET._replace(model=f"m{number}", is_known=False))
        trace.stream_ended(StreamMetrics(duration=1.0))
    assert {figure[1]["gen_ai.request.model"] for figure in recorder.figures} == {"_OTHER"}


def test_a_stream_that_goes_on_has_a_link_to_the_request_of_the_worker_that_is_gone(recorder: FakeRecorder) -> None:
    former = traced(recorder)
    assert former.context == f"00-{TRACE}-{1:016x}-01"
    trace = traced(recorder, route=None, parent_id=f"{1:016x}")
    trace.former = Parent(TRACE, f"{1:016x}", is_sampled=True)
    send(trace)
    trace.stream_ended(StreamMetrics(duration=1.0))
    [span] = recorder.spans
    [link] = span.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, f"{1:016x}")
    assert span.parent_span_id == link.span_id
    assert trace.context == former.context, "who goes on with it next has a link to the same request"
    assert traced(recorder, route=None, parent_id="").context == ""
