"""A limit of keys is one entry of a table: a server whose table has another one, from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import gai_fast
from gai_fast.runtime.ids import new_key_secret
from tests.integration.stores.servers import RedisServer
from tests.ports import free_port
from tests.waiting import SECONDS

ONE_LINE = """\
    requests_per_hour: int | None = _limit(KeyLimit("Hourly", "asks too often", 9, "requests", 3600.0, "hourly"))
"""
NAME = "requests_per_hour"
ADMIN = new_key_secret()
FILE = """
[server]
port = {port}
cors_origins = ["https://page.example"]
[store]
url = "{store}"
[[upstream]]
name = "demo"
provider = "demo"
[[model]]
name = "demo"
upstream = "demo"
[[key]]
name = "ops"
role = "admin"
secret = "env:OPS"
"""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Copy:
    """A copy of the package with another limit, whose commands run in a folder of their own."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        package = Path(gai_fast.__file__).parent
        shutil.copytree(package, folder / "gai_fast", ignore=shutil.ignore_patterns("*.so", "_native"))
        table = folder / "gai_fast/model/settings.py"
        text, mark = table.read_text(), "    streams: int | None = _limit("
        assert text.count(mark) == 1
        table.write_text(text.replace(mark, ONE_LINE + mark))
        self.port = free_port()
        (folder / "gai-fast.toml").write_text(FILE.format(port=self.port, store=store))

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "GAI_FAST_NO_EXTENSIONS": "1", "OPS": ADMIN}
        command = [sys.executable, "-m", "gai_fast", *arguments]
        with (self.folder / "errors").open("w") as errors:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def run(self, *arguments: str) -> str:
        """Returns what a command prints."""
        process = self.begin(*arguments)
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, (self.folder / "errors").read_text()
        return output

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Runs the server."""
        process = self.begin("serve")
        assert process.stdout is not None
        try:
            assert f":{self.port}" in process.stdout.readline(), (self.folder / "errors").read_text()
            yield
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)

    def ask(self, secret: str, method: str, path: str, body: Any = None) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        headers = {"authorization": f"Bearer {secret}", "origin": "https://page.example"}
        headers["content-type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())
        connection.close()
        return reply


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_new_limit_is_one_line(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """It is a key of the configuration, a flag, a member of the admin API and its description, a count, three headers,
    and an argument of Lua and of SQL, where it refuses."""
    store = f"sqlite:///{tmp_path}/store.db"
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        store = server.url
    copy = Copy(tmp_path, store)
    secret = json.loads(copy.run("key", "new", "bob", "--requests-per-hour", "2", "--json"))["secret"]
    assert f"{NAME} = 2" in (tmp_path / "gai-fast.toml").read_text()
    with copy.serve():
        question = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        replies = [copy.ask(secret, "POST", "/v1/chat/completions", question) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert replies[0].headers["x-ratelimit-limit-hourly"] == "2"
        assert replies[0].headers["x-ratelimit-remaining-hourly"] == "1"
        assert replies[0].headers["x-ratelimit-reset-hourly"].startswith(("30m", "29m"))
        assert replies[0].headers["ratelimit-policy"] == '"hourly";q=2;w=3600'
        assert "x-ratelimit-reset-hourly" in replies[0].headers["access-control-expose-headers"]
        assert replies[2].json["error"]["message"] == f"asks too often ({NAME} = 2)"
        assert 1700 < int(replies[2].headers["retry-after"]) <= 1800
        assert copy.ask(ADMIN, "GET", "/admin/v1/keys/bob").json["limits"][NAME] == 2
        made = copy.ask(ADMIN, "POST", "/admin/v1/keys", {"name": "shop", NAME: 5})
        assert (made.status, made.json["limits"][NAME]) == (201, 5)
        changed = copy.ask(ADMIN, "PATCH", "/admin/v1/keys/shop", {"limits": {NAME: 6}})
        assert changed.json["limits"][NAME] == 6
        assert f'gai_fast_limited_total{{limit="{NAME}"}} 1.0' in copy.ask(ADMIN, "GET", "/metrics").text
        schemas = copy.ask(ADMIN, "GET", "/openapi.json").json["components"]["schemas"]
        assert NAME in schemas["Key"]["properties"]["limits"]["required"]
        assert NAME in schemas["NewKey"]["properties"]
