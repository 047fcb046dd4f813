"""`gai-fast doctor` as a user runs it: real upstreams, real proxies, and no secret in what it prints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.certificates import Authority
from tests.integration.gateway import Net, on_uvloop
from tests.integration.processes import run_forked
from tests.integration.test_behind_nginx import in_front_of, nginx
from tests.ports import free_port

PASSES = 'proxy_pass http://{gateway}; proxy_set_header Connection "";'
# nginx passes each chunk of HTTP/1.1 on at once all the same, and holds back what HTTP/1.0 does not divide.
BUFFERS = "proxy_ignore_headers X-Accel-Buffering; proxy_buffering on; proxy_http_version 1.0;"
COMPRESSES = "proxy_http_version 1.1; gzip on; gzip_types text/event-stream; gzip_min_length 0;"
CUTS = " proxy_read_timeout 1s;"


async def doctor(folder: Path, *arguments: str, **environ: str) -> tuple[int, dict[str, Any]]:
    """Returns the exit code, and the checks by name."""
    code, result, errors = await run_forked("doctor", "--json", *arguments, cwd=folder, **environ)
    assert "Traceback" not in errors
    checks = json.loads(result)
    for check in checks:
        assert set(check) == {"name", "status", "detail", "fix"}
        assert check["status"] in ("ok", "warning", "error", "skipped")
        assert bool(check["fix"]) == (check["status"] in ("warning", "error"))
    return code, {check["name"]: check for check in checks}


@on_uvloop
@pytest.mark.parametrize(
    ("location", "bad"),
    [
        ("proxy_http_version 1.1;", {}),
        (BUFFERS, {"buffering": "proxy_buffering"}),
        (COMPRESSES, {"compression": "compression"}),
        (CUTS, {"timeout": "timeout"}),
        (BUFFERS + CUTS, {"buffering": "proxy_buffering", "timeout": "timeout"}),
    ],
    ids=["right", "buffers", "compresses", "cuts", "buffers-and-cuts"],
)
async def test_what_a_proxy_does_to_streams_is_found(
    net: Net, tmp_path: Path, location: str, bad: dict[str, str]
) -> None:
    nginx()
    gateway = await net.gateway(await net.mock())
    block = f"location / {{ {PASSES.format(gateway=gateway.host)} {location} }}"
    async with in_front_of(net, gateway.host, tmp_path, "doctor", block) as host:
        code, checks = await doctor(tmp_path, "--url", f"http://{host}", "--idle", "2.5" if "timeout" in bad else "0.1")
    assert checks["proxy"]["status"] == "ok"
    assert checks["clock"]["status"] == "ok"
    found = {name: checks[f"proxy.{name}"] for name in ("buffering", "compression", "timeout")}
    assert {name for name, check in found.items() if check["status"] != "ok"} == set(bad)
    for name, word in bad.items():
        assert word in found[name]["detail"]
        assert "nginx: " in found[name]["fix"]
    assert code == (1 if {"buffering", "timeout"} & set(bad) else 0)
    assert (checks["proxy.admin"]["status"], "admin's key" in checks["proxy.admin"]["fix"]) == ("warning", True)


@on_uvloop
async def test_a_server_that_is_none_of_ours_or_not_there_is_an_error(net: Net, tmp_path: Path) -> None:
    mock = await net.mock()
    code, checks = await doctor(tmp_path, "--url", mock.url, "--idle", "0")
    assert (code, checks["proxy"]["status"]) == (1, "error")
    code, checks = await doctor(tmp_path, "--url", f"http://127.0.0.1:{free_port()}", "--idle", "0")
    assert (code, checks["proxy"]["detail"]) == (1, "cannot connect (Connection refused)")


async def test_a_server_that_closes_without_an_answer_is_told_apart_from_a_proxy_that_buffers(tmp_path: Path) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        url = "http://{}:{}".format(*server.sockets[0].getsockname())
        code, checks = await doctor(tmp_path, "--url", url, "--idle", "0")
    assert (code, checks["proxy"]["detail"]) == (1, "the connection was lost")
    assert "proxy.buffering" not in checks


async def test_a_certificate_that_nobody_trusts_is_reported_from_a_server_that_is_not_there(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=authority.server("good")) as server:
        url = "https://{}:{}".format(*server.sockets[0].getsockname())
        code, checks = await doctor(tmp_path, "--url", url, "--idle", "0")
    assert (code, "the certificate is not trusted: " in checks["proxy"]["detail"]) == (1, True)
    assert "SSL_CERT_FILE" in checks["proxy"]["fix"]
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = "https://{}:{}".format(*server.sockets[0].getsockname())
        code, checks = await doctor(tmp_path, "--url", url, "--idle", "0")
    assert (code, checks["proxy"]["detail"]) == (1, "no TLS is spoken there")


def configuration(folder: Path, **urls: str) -> None:
    tables = [
        f'[[upstream]]\nname = "{name}"\nprovider = "openai"\nbase_url = "{url}"\napi_key = "env:KEY"\n'
        for name, url in urls.items()
    ]
    (folder / "gai-fast.toml").write_text("".join(tables))


async def test_upstreams_are_asked_for_their_models_and_no_key_is_shown(tmp_path: Path) -> None:
    asked: list[bytes] = []
    statuses = iter((b"200 OK", b"401 Unauthorized"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        body = head.replace(b"\r\n", b" ")  # repeats the key
        status = next(statuses)
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        configuration(tmp_path, it=f"http://{host}:{port}/v1")
        code, checks = await doctor(tmp_path, KEY="sk-hidden")
        assert (code, checks["upstream.it"]["status"], checks["dns"]["status"]) == (0, "ok", "ok")
        assert (checks["tls"]["status"], checks["proxy"]["status"]) == ("skipped", "skipped")
        assert asked[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
        assert b"Bearer sk-hidden" in asked[0]
        code, result, errors = await run_forked("doctor", cwd=tmp_path, KEY="sk-hidden")
    assert code == 1
    assert "the key is refused: status 401" in result
    assert "hidden" not in result + errors


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://u:hidden@x", "http://x/?hidden", "http://x:99999999"])
async def test_a_url_that_cannot_be_asked_is_a_usage_error_and_is_not_repeated(tmp_path: Path, url: str) -> None:
    code, result, errors = await run_forked("doctor", "--url", url, cwd=tmp_path)
    assert (code, result) == (2, "")
    assert "hidden" not in errors
