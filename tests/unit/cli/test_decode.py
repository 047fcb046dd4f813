"""`gai-fast decode`: a recorded body as events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gai_fast

from .conftest import Run


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"id": "c-1", "model": "m", "choices": [choice]}).encode() + b"\n\n"


CALL = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": '{ "n" : 12345678901234567890 }'}}
BODY = (
    chunk({"role": "assistant", "content": "He"})
    + chunk({"content": "llo"})
    + chunk({"tool_calls": [CALL]})
    + chunk({}, "tool_calls")
    + b"data: [DONE]\n\n"
)


def test_it_prints_full_events_as_ndjson(run: Run) -> None:
    result = run("decode", "--provider", "openai", input=BODY)
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.output.splitlines()]
    library = list(gai_fast.decode("openai", [BODY], envelope="full"))
    for event in [*events, *library]:
        event.pop("ts", None)
        event.pop("request_id", None)
    assert events == library
    assert events[0]["schema"] == "gai.events.v1"
    assert events[-1] == {"type": "done", "finished": True}


def test_tool_arguments_keep_every_digit(run: Run) -> None:
    output = run("decode", "--provider", "openai", input=BODY).output
    assert '"tool_call":{"name":"f","input":{"n":12345678901234567890}}' in output


def test_a_file_is_read_as_well_as_the_standard_input(run: Run, folder: Path) -> None:
    (folder / "body.sse").write_bytes(BODY)
    for argument in ("body.sse", "-"):
        result = run("decode", "--provider", "openai", "--format", "simple", argument, input=BODY)
        assert result.output.splitlines()[0] == '{"content":"He"}'


def test_a_format_without_ndjson_is_printed_as_it_is(run: Run) -> None:
    assert run("decode", "--provider", "openai", "--format", "vercel", input=BODY).output.startswith('data: {"type":')
    for body in (BODY, BODY + BODY[:40], BODY.rstrip()):
        assert run("decode", "--provider", "openai", "--format", "raw", input=body).stdout_bytes == body
    assert run("decode", "--provider", "openai", "--format", "raw", "--framing", "ndjson", input=BODY).exit_code == 2


def test_framing_sse(run: Run) -> None:
    output = run("decode", "--provider", "openai", "--format", "simple", "--framing", "sse", input=BODY).output
    assert output.startswith('data: {"content":"He"}\n\n')
    assert output.endswith("data: [DONE]\n\n")


def test_the_openai_format_names_the_model_that_answered(run: Run) -> None:
    output = run("decode", "--provider", "openai", "--format", "openai", input=BODY).output
    assert json.loads(output.splitlines()[0])["model"] == "m"


def test_a_name_that_is_no_providers_is_not_guessed(run: Run) -> None:
    result = run("decode", "--provider", "nope", input=BODY)
    assert result.exit_code == 2
    assert "unknown provider 'nope'; known: openai, anthropic" in result.stderr


def test_an_error_that_the_provider_reported_is_data(run: Run) -> None:
    arguments = ["decode", "--provider", "openai", "--status", "429", "--header", "Retry-After: 7"]
    result = run(*arguments, input=b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}')
    assert result.exit_code == 0
    error = json.loads(result.output.splitlines()[0])["error"]
    assert (error["code"], error["message"], error["retry_after_ms"]) == ("rate_limited", "slow down", 7000)


def test_an_empty_body_is_a_truncated_answer(run: Run) -> None:
    result = run("decode", "--provider", "openai", input=b"")
    assert result.exit_code == 0
    assert json.loads(result.output.splitlines()[0])["error"]["reason"] == "truncated"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--provider", "opnai"], "did you mean 'openai'?"),
        ([], "Missing option '--provider'"),
        (["--provider", "openai", "--format", "xml"], "'xml' is not one of"),
        (["--provider", "openai", "--header", "x"], "a header is of the form 'name: value'"),
        (["--provider", "openai", "--status", "99"], "99 is not in the range"),
        (["--provider", "openai", "none.sse"], "No such file or directory"),
    ],
)
def test_wrong_usage_is_reported(run: Run, arguments: list[str], said: str) -> None:
    result = run("decode", *arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_folder_is_no_file(run: Run, folder: Path) -> None:
    result = run("decode", "--provider", "openai", str(folder))
    assert result.exit_code in (1, 2)
    assert "directory" in result.output
