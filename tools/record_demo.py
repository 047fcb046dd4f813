"""Makes `gai_fast/providers/demo_recording.ndjson`: one streamed answer of a real model, with its real timing.

Starts the model as `local_model.py` does, asks it once and writes down every read of the HTTP response's body: nothing
is edited, added or smoothed. First line: a header; every other line: `{"at": seconds since the request was sent,
"data": the text of that read}`.
"""

from __future__ import annotations

import argparse
import codecs
import datetime
import http.client
import importlib.metadata
import json
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from tools.local_model import MODEL, llama_server

TARGET = Path(__file__).resolve().parent.parent / "gai_fast" / "providers" / "demo_recording.ndjson"
PROMPT = "Tell me a short story about a lighthouse keeper in five sentences."
TEMPERATURE = 0.3
SEED = 4
"""The prompt with the best of some thirty answers of this small model."""
READ_BYTES = 65536


def reads(base_url: str, request: dict[str, object]) -> Iterator[tuple[float, str]]:
    """Sends one request and yields each read of the answer's body: seconds since it was sent, and its text."""
    url = urllib.parse.urlsplit(base_url)
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        sent = time.perf_counter()
        connection.request(
            "POST", f"{url.path}/chat/completions", json.dumps(request), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise SystemExit(f"error: status {response.status}: {response.read().decode()}")
        while data := response.read1(READ_BYTES):
            yield time.perf_counter() - sent, decoder.decode(data)
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the embedded demo answer.")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=TARGET)
    parser.add_argument("--port", type=int, default=8081, help="port for the model's server (default: %(default)s)")
    arguments = parser.parse_args()
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": arguments.prompt}],
        "temperature": TEMPERATURE,
        "seed": arguments.seed,
        "max_tokens": 400,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with llama_server(arguments.port) as base_url:
        # The first answer of a fresh process also pays for reading the weights; another prompt, since a prompt that
        # was seen before is not evaluated again.
        for _ in reads(base_url, request | {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}):
            pass
        recorded = list(reads(base_url, request))
    version = importlib.metadata.version("llama-cpp-python")
    header = {
        "format": 1,
        "model": "SmolLM2-135M-Instruct (Q4_1)",
        "prompt": arguments.prompt,
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "note": f"llama-cpp-python {version}, /v1/chat/completions, unedited; made by tools/record_demo.py",
    }
    lines = [header, *({"at": round(at, 4), "data": text} for at, text in recorded)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
