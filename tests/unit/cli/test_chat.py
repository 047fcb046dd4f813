"""`gai-fast chat`: what is printed, and what is remembered. `integration/test_cli.py` talks to a mock."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli import chat
from gai_fast.cli.limits import LIMITS
from gai_fast.core.requests.reading import parse_request
from gai_fast.model.request import Request
from gai_fast.model.settings import Settings

from .conftest import Run

Events = list[dict[str, Any]]
START = {"type": "start", "provider": "openai", "model": "m"}
FINISH = {"type": "finish", "provider": "openai", "model": "m", "finish_reason": "stop"}
DONE = {"type": "done", "finished": True}
ERROR = {"type": "error", "error": {"code": "overloaded", "message": "too busy", "temporary": True}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Request], list[Events]]:
    """Yields the requests to the model, and its answers to come, one list of events for each question."""
    requests: list[Request] = []
    answers: list[Events] = []

    class FakeGateway:
        def __init__(self, settings: Settings) -> None:
            pass

        async def __aenter__(self) -> FakeGateway:
            return self

        async def __aexit__(self, *problem: object) -> None: ...

        @asynccontextmanager
        async def stream(self, request: dict[str, Any]) -> AsyncGenerator[AsyncGenerator[Any, None], None]:
            requests.append(parse_request(json.dumps(request).encode()))
            yield self.answer()

        async def answer(self) -> AsyncGenerator[Any, None]:
            for event in answers.pop(0):
                yield event

    monkeypatch.setattr(chat, "Gateway", FakeGateway)
    return requests, answers


def text(*pieces: str) -> Events:
    return [START, *({"type": "text.delta", "text": piece} for piece in pieces), FINISH, DONE]


Asked = tuple[list[Request], list[Events]]


def test_the_text_is_printed_and_the_line_ended(run: Run, asked: Asked) -> None:
    asked[1].append(text("Hel", "lo"))
    result = run("chat", "hi")
    assert (result.exit_code, result.output) == (0, "Hello\n")
    assert asked[0][0].messages[0].content == "hi"


def test_a_line_that_has_ended_is_not_ended_again(run: Run, asked: Asked) -> None:
    asked[1].append(text("Hello\n"))
    assert run("chat", "hi").output == "Hello\n"


def test_a_dash_reads_the_prompt_from_the_standard_input(run: Run, asked: Asked) -> None:
    asked[1].append(text("ok"))
    run("chat", "-", input="one\ntwo é\n")
    assert asked[0][0].messages[0].content == "one\ntwo é\n"


def test_reasoning_and_control_codes_stay_out_of_a_pipe(run: Run, asked: Asked) -> None:
    asked[1].append([START, {"type": "reasoning.delta", "text": "hm"}, *text("ok")[1:]])
    assert run("chat", "hi", color=True).output == "ok\n"


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ("Tell me a long story", ["Tell me a ", "long story"]),
        ("ab cd\nabcdefgh ij", ["ab cd", "abcdefgh ", "ij"]),
        ("0123456789 next", ["0123456789", "next"]),
        ("see https://a.example/long it is", ["see ", "https://a.example/long it is"]),
        ("a\n```py\nx = 1 + 2 + 3\n```\nand more text", ["a", "```py", "x = 1 + 2 + 3", "```", "and more ", "text"]),
        (
            "1.\n   ```py\n   x = 1 + 2 + 3\n   ```\nand more text",
            ["1.", "   ```py", "   x = 1 + 2 + 3", "   ```", "and more ", "text"],
        ),
        ("世界世界世界", ["世界世界世", "界"]),
        ("a\u0301b c\u200dd efgh ij", ["a\u0301b c\u200dd efgh", "ij"]),
        ("", [""]),
    ],
)
def test_lines_are_broken_at_words_however_the_text_comes(said: str, lines: list[str]) -> None:
    for size in (1, 2, 7, 100):
        wrapped = chat.Wrapped(10)
        pieces = [wrapped.add(said[at : at + size]) for at in range(0, len(said), size)]
        assert "".join([*pieces, wrapped.rest()]).split("\n") == lines


def test_marks_without_width_are_printed_however_many_follow_each_other() -> None:
    said = "a" + "\u0301" * 10 * LIMITS.word_held
    wrapped = chat.Wrapped(10)
    printed = wrapped.add(said)
    assert len(printed) > len(said) - LIMITS.word_held
    assert printed + wrapped.rest() == said


def test_a_terminal_is_told_which_model_answers(
    run: Run, asked: Asked, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "gai-fast.toml").write_text(
        '[[upstream]]\nname = "main"\nprovider = "openai"\nbase_url = "http://127.0.0.1:9"\n'
        '[[model]]\nname = "fast"\nupstream = "main"\nid = "gpt-x"\n'
        '[[model]]\nname = "pool"\ntargets = [{upstream = "main", id = "a"}, {upstream = "main", id = "b"}]\n'
    )
    asked[1].extend([text("ok"), text("ok"), text("ok")])
    assert run("chat", "hi").stderr == ""
    monkeypatch.setattr("gai_fast.cli.chat._is_terminal", lambda: True)
    assert run("chat", "hi").stderr == "[fast: main/gpt-x]\n"
    assert run("chat", "-m", "pool", "hi").stderr == "[pool: main/a or main/b]\n"


def test_on_a_terminal_reasoning_is_dimmed_and_control_characters_are_left_out(
    run: Run, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gai_fast.cli.chat._is_terminal", lambda: True)
    answer = [START, {"type": "reasoning.delta", "text": "h\x1bm"}, *text("o\x1b[31mk\x9b\n\tx")[1:]]
    asked[1].extend([answer, answer])
    assert run("chat", "hi", color=True).stdout == "\x1b[2mhm\x1b[0m\n\no[31mk\n\tx\n"
    assert run("chat", "hi", color=True, env={"NO_COLOR": "1"}).stdout == "hm\n\no[31mk\n\tx\n"


def test_a_refusal_is_text_and_other_choices_are_left_out(run: Run, asked: Asked) -> None:
    other = {"type": "text.delta", "text": "x", "choice": 1}
    asked[1].append([START, other, {"type": "refusal.delta", "text": "No."}, FINISH, DONE])
    assert run("chat", "hi").output == "No.\n"


def test_a_tool_call_is_named_beside_the_answer(run: Run, asked: Asked) -> None:
    call = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "weather", "input": {}}}
    asked[1].append([START, call, FINISH, DONE])
    result = run("chat", "hi")
    assert result.stdout == ""
    assert "weather" in result.stderr


def test_a_tools_name_controls_no_terminal(run: Run, asked: Asked) -> None:
    call = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "\x1b]0;title\x07weather", "input": {}}}
    asked[1].append([START, call, FINISH, DONE])
    assert run("chat", "hi").stderr == "\n[]0;titleweather is called; chat runs no tools of its own]\n"


def test_an_error_is_reported_beside_what_came_before_it(run: Run, asked: Asked) -> None:
    asked[1].append([START, {"type": "text.delta", "text": "Hel"}, ERROR, {"type": "done", "finished": False}])
    result = run("chat", "hi")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "Hel\n", "error: overloaded: too busy\n")


def test_a_cancelled_answer_is_a_failure(run: Run, asked: Asked) -> None:
    asked[1].append([START, {**FINISH, "finish_reason": "cancelled"}, DONE])
    assert run("chat", "hi").exit_code == 1


def test_json_prints_full_events(run: Run, asked: Asked) -> None:
    asked[1].append(text("é"))
    lines = run("chat", "--json", "hi").output.splitlines()
    assert len(lines) == 4
    assert all('"schema":"gai.events.v1"' in line for line in lines[:-1])
    assert lines[-1] == '{"type":"done","finished":true}'


def test_json_has_the_request_id_of_the_request_in_all_events(run: Run, asked: Asked) -> None:
    asked[1].append(text("Hel", "lo"))
    *events, _ = map(json.loads, run("chat", "--json", "hi").output.splitlines())
    assert {event["request_id"] for event in events} == {asked[0][0].request_id}


def test_without_a_prompt_each_line_is_a_turn_of_one_conversation(run: Run, asked: Asked) -> None:
    asked[1].extend([text("one"), [START, ERROR, {"type": "done", "finished": False}], text("three")])
    result = run("chat", input="first\n\nsecond\nthird\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\nthree\n", "error: overloaded: too busy\n")
    roles = [[(message.role_name, message.content) for message in said(request)] for request in asked[0]]
    assert roles == [
        [("UserMessage", "first")],
        [("UserMessage", "first"), ("AssistantMessage", "one"), ("UserMessage", "second")],
        [("UserMessage", "first"), ("AssistantMessage", "one"), ("UserMessage", "third")],
    ]


class Said:
    def __init__(self, message: Any) -> None:
        self.role_name = type(message).__name__
        content = message.content
        self.content = content if isinstance(content, str) else "".join(part.text for part in content)


def said(request: Request) -> list[Said]:
    return [Said(message) for message in request.messages]


def test_an_unknown_model_is_reported_with_the_nearest(run: Run, folder: Path) -> None:
    result = run("chat", "-m", "dmo", "hi")
    assert result.exit_code == 2
    assert "Did you mean 'demo'? Available: " in result.output
    result = run("chat", "hi", env={"GAI_FAST_SERVER__DEMO": "false"})
    assert result.exit_code == 2
    assert "no model is configured" in result.output


def test_an_empty_prompt_is_a_usage_error(run: Run) -> None:
    for arguments, given in ((["chat", " "], None), (["chat", "-"], "\n")):
        result = run(*arguments, input=given)
        assert result.exit_code == 2
        assert "the prompt is empty" in result.output


def test_on_a_terminal_the_demo_says_that_its_answer_is_recorded(
    run: Run, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked[1].extend(text("One stormy night") for _ in range(3))
    assert run("chat", "What is 2 + 2?").stderr == ""
    monkeypatch.setattr("gai_fast.cli.chat._is_terminal", lambda: True)
    result = run("chat", "What is 2 + 2?")
    assert result.stdout == "One stormy night\n"
    assert result.stderr == "[demo: a recorded answer, whatever is asked]\n"
    assert run("chat", "--json", "What is 2 + 2?").stderr == ""
