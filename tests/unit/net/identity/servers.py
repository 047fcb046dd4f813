"""Servers that clouds' libraries ask for credentials, on loopback: one answer for each path."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HTML = "<!DOCTYPE html><html><title>Sign in to the Wi-Fi</title>hidden-canary</html>"

VARIABLES = (
    "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_ROLE_ARN "
    "AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_CREDENTIALS_RELATIVE_URI "
    "AWS_BEARER_TOKEN_BEDROCK GOOGLE_APPLICATION_CREDENTIALS GOOGLE_CLOUD_PROJECT AZURE_TENANT_ID AZURE_CLIENT_ID "
    "AZURE_CLIENT_SECRET IDENTITY_ENDPOINT IDENTITY_HEADER"
).split()
"""Variables that name credentials."""


@dataclass(slots=True)
class Server:
    """What is answered, by method and path, and what was asked."""

    url: str
    answers: dict[str, Any] = field(default_factory=dict)
    """An object is JSON, a text is HTML or plain, a number is a status, and (text, headers) is a text with these."""
    asked: list[tuple[str, Mapping[str, str], str]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Server]:
    """Yields a server; it ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(size).decode()
            path = self.path.partition("?")[0]
            server.asked.append((f"{self.command} {self.path}", {k.lower(): v for k, v in self.headers.items()}, body))
            found = server.answers.get(f"{self.command} {path}", 404)
            headers: dict[str, str] = {}
            if isinstance(found, tuple):
                found, headers = found
            status = found if isinstance(found, int) else 200
            text = found if isinstance(found, str) else "" if isinstance(found, int) else json.dumps(found)
            kind = (
                "text/html" if text.startswith("<!") else "text/plain" if isinstance(found, str) else "application/json"
            )
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(text.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = answer  # noqa: N815  # names of the standard library

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
