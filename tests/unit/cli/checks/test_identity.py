"""Identities in `gai-fast doctor` and `gai-fast check --probe`, as a user runs them; no token is shown."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.checks import identity as module
from gai_fast.cli.checks.identity import check_identity
from gai_fast.model.settings import IdentitySettings, UpstreamSettings
from gai_fast.net.identity.grant import Grant
from tests.integration.processes import run_forked
from tests.limits import replaced

CANARY = "tok-canary-0123456789"


async def checked(script: str) -> tuple[Any, Grant | None]:
    identity = IdentitySettings(command=(sys.executable, "-S", "-c", script))
    return await check_identity(UpstreamSettings("it", "openai", "http://x", identity=identity), identity)


async def test_a_token_is_reported_with_its_time_and_not_shown() -> None:
    check, grant = await checked(f"print({CANARY!r}, 3600)")
    assert grant is not None
    assert (check.name, check.status, check.fix) == ("identity.it", "ok", "")
    assert check.detail.startswith("auth_command: a token in ")
    assert check.detail.endswith(" ms, valid for 60 minutes")
    assert "canary" not in check.detail


async def test_what_gives_no_token_is_reported_with_what_to_do() -> None:
    check, grant = await checked(f"print({CANARY!r}); raise SystemExit(3)")
    assert grant is None
    assert (check.status, check.detail) == ("error", "auth_command exited with code 3")
    assert check.fix == "run `auth_command` by hand"


async def test_a_source_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMITS", replaced(identity=0.2))
    check, grant = await checked("import time; time.sleep(1e6)")
    assert grant is None
    assert (check.status, check.detail) == ("error", "auth_command has given no token within 0.2 s")


async def test_doctor_and_check_use_the_token_and_name_what_is_wrong(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    tables = [
        f"""[[upstream]]
name = "{name}"
provider = "openai"
base_url = "http://{host}:{port}/v1"
auth_command = [{json.dumps(sys.executable)}, "-S", "-c", "print('{CANARY}', 60); raise SystemExit({code})"]
"""
        for name, code in (("good", 0), ("bad", 1))
    ]
    (tmp_path / "gai-fast.toml").write_text("".join(tables))
    sent = f"authorization: bearer {CANARY}".encode()
    async with server:
        code, result, errors = await run_forked("doctor", "--json", cwd=tmp_path)
        assert code == 1
        checks = {check["name"]: check for check in json.loads(result)}
        assert checks["identity.good"]["status"] == "ok"
        assert checks["upstream.good"]["detail"].startswith("takes the token: status 200")
        assert checks["identity.bad"]["detail"] == "auth_command exited with code 1"
        assert checks["upstream.bad"]["status"] == "skipped"
        assert [sent in head for head in asked] == [True]
        assert "canary" not in result + errors
        code, result, errors = await run_forked("check", "--probe", "--json", cwd=tmp_path)
    assert code == 1
    probes = {probe["upstream"]: probe for probe in json.loads(result)["probes"]}
    assert probes["bad"]["message"] == "auth_command exited with code 1 -> run `auth_command` by hand"
    assert sent in asked[-1]
    assert "canary" not in result + errors
    code, result, errors = await run_forked("config", "show", cwd=tmp_path)
    assert (code, "canary" in result + errors) == (0, False)
