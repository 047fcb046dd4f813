"""`gai-fast doctor`: the checks of this machine and of upstreams."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.checks.doctor import check_client_certificate, check_clock, check_descriptors
from gai_fast.model.settings import UpstreamSettings
from gai_fast.providers.openai import OpenAI
from tests.conftest import ChangeLimits
from tests.integration.certificates import Authority
from tests.unit.cli.conftest import Run

NOW = 1_795_000_000.0
AT_NOW = "Wed, 18 Nov 2026 11:06:40 GMT"


@contextmanager
def upstream(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """Yields a server that answers one request after the other with a status; its URL, and the keys that it got."""
    left, keys = iter(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("authorization", ""))
            self.send_response(next(left))
            self.send_header("location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", keys
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def configure(url: str, provider: str = "openai", **more: str) -> None:
    keys = {"api_key": '"env:KEY"', **more}
    lines = [f"{name} = {value}" for name, value in keys.items()]
    table = ["[[upstream]]", 'name = "it"', f'provider = "{provider}"', f'base_url = "{url}"', *lines]
    Path("gai-fast.toml").write_text("\n".join(table))


def checks(run: Run, code: int = 0) -> dict[str, dict[str, str]]:
    result = run("doctor", "--json", env={"KEY": "sk-hidden", "OTHER": "sk-secret"})
    assert result.exit_code == code, result.output
    assert "sk-" not in result.output
    return {check["name"]: check for check in json.loads(result.output)}


@pytest.mark.parametrize(
    ("hard", "status"), [(64, "error"), (255, "error"), (256, "warning"), (4095, "warning"), (4096, "ok")]
)
def test_few_descriptors_are_reported(hard: int, status: str) -> None:
    check = check_descriptors(hard)
    assert (check.name, check.status) == ("limit", status)
    assert ("LimitNOFILE" in check.fix) == (status != "ok")


@pytest.mark.parametrize(
    ("dates", "offset", "status"),
    [
        ([AT_NOW], 0, "ok"),
        ([AT_NOW], 59, "ok"),
        ([AT_NOW], 61, "warning"),
        ([AT_NOW], -61, "warning"),
        (["Wed, 18 Nov 2020 11:06:40 GMT", AT_NOW], 0, "ok"),
        (["", "x", "\udcff", "Wed, 18 Nov 99999 11:06:40 GMT"], 0, "skipped"),
        ([], 0, "skipped"),
    ],
)
def test_the_clock_is_compared_with_the_nearest_of_servers(dates: list[str], offset: int, status: str) -> None:
    check = check_clock(dates, NOW + offset)
    assert check.status == status
    assert ("NTP" in check.fix) == (status == "warning")


@pytest.mark.parametrize(
    ("status", "result"),
    [(200, "ok"), (302, "error"), (401, "error"), (403, "error"), (404, "warning"), (500, "error")],
)
def test_an_upstream_is_judged_by_the_status_of_its_models(run: Run, status: int, result: str) -> None:
    with upstream(status) as (url, keys):
        configure(url)
        check = checks(run, code=int(result == "error"))["upstream.it"]
    assert (check["status"], f"status {status}" in check["detail"]) == (result, True)
    assert ("check base_url of it: " in check["fix"]) == (status == 404)
    assert keys == ["Bearer sk-hidden"]


def test_an_upstream_without_a_key_is_not_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAI, "key_host", "127.0.0.1")
    Path("gai-fast.toml").write_text('[[upstream]]\nname = "it"\nprovider = "openai"\nbase_url = "http://127.0.0.1:9"')
    check = checks(run, code=1)["upstream.it"]
    assert check["detail"] == "it has no key, and openai refuses requests without one"
    assert check["fix"] == 'set `api_key = "env:OPENAI_API_KEY"` in its [[upstream]]'


def test_each_of_several_keys_is_tried(run: Run) -> None:
    with upstream(200, 429) as (url, keys):
        configure(url, api_key='["env:KEY", "env:OTHER"]')
        check = checks(run)["upstream.it"]
    assert sorted(keys) == ["Bearer sk-hidden", "Bearer sk-secret"]
    assert check["status"] == "warning"
    number = 1 + (keys[1] == "Bearer sk-secret")  # they are asked at the same time, and the second to come is limited
    assert f"key {number}: limits this key" in check["detail"]


def test_an_upstream_without_a_list_of_models_is_skipped_with_the_reason(run: Run) -> None:
    configure("http://127.0.0.1:9", "perplexity")
    check = checks(run)["upstream.it"]
    assert check["status"] == "skipped"
    assert "perplexity has no request that costs nothing" in check["detail"]


def test_one_that_hangs_is_waited_for_as_long_as_the_limit(run: Run, change_limits: ChangeLimits) -> None:
    change_limits(doctor=0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts, nobody answers
        configure(f"https://127.0.0.1:{server.getsockname()[1]}")
        found = checks(run, code=1)
    assert found["upstream.it"]["detail"] == "no answer within 0.2 s"
    assert found["tls"]["detail"] == "127.0.0.1: no handshake within 0.2 s"


def test_one_that_is_not_there_or_speaks_no_tls_is_an_error_without_the_proxys_password(run: Run) -> None:
    with upstream() as (url, _):
        configure(url.replace("http:", "https:"))
        found = checks(run, code=1)["tls"]
        assert (found["status"], found["detail"]) == ("error", "127.0.0.1: it does not speak TLS on this port")
    configure("http://127.0.0.1:9")
    found = checks(run, code=1)["upstream.it"]
    assert found["detail"] == "cannot connect (Connection refused)"
    assert found["fix"] == "check base_url of it, and that it is running"
    configure("http://127.0.0.1:9", proxy='"http://me:sk-password@127.0.0.1:9"')
    found = checks(run, code=1)
    assert found["upstream.it"]["status"] == "error"
    assert found["dns"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("status", "why"),
    [(301, "a redirect"), (404, "no gateway of this release"), (502, "a proxy does not reach the gateway")],
)
def test_what_answers_in_place_of_a_gateway_is_reported_by_its_status(run: Run, status: int, why: str) -> None:
    with upstream(status) as (url, _):
        result = run("doctor", "--json", "--url", url.removesuffix("/v1"))
    (check,) = [each for each in json.loads(result.output) if each["name"] == "proxy"]
    assert (result.exit_code, check["status"]) == (1, "error")
    assert check["detail"].startswith(f"GET /probe is answered with status {status}: {why}")


def test_a_name_that_is_unknown_is_an_error_of_dns(run: Run) -> None:
    configure("http://nowhere.invalid")
    assert "nowhere.invalid: " in checks(run, code=1)["dns"]["detail"]


def test_text_has_a_line_for_each_check_and_one_for_each_fix(run: Run) -> None:
    result = run("doctor")
    lines = result.output.splitlines()
    assert [line.split()[1] for line in lines if "->" not in line] == [
        "limit",
        "clock",
        "dns",
        "tls",
        "certificate",
        "store",
        "upstream",
        "proxy",
    ]
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("name", "days", "status", "words"),
    [
        ("expired", -1, "error", "is refused by clients: certificate has expired"),
        ("ending", 3, "warning", "expires on "),
        ("good", 60, "ok", "valid for more than two weeks"),
    ],
)
def test_a_certificate_that_clients_refuse_is_an_error_and_one_that_ends_soon_a_warning(
    run: Run, authority: Authority, name: str, days: int, status: str, words: str
) -> None:
    if name == "ending":
        authority.issue(name, "DNS:localhost", days=days)
    pair = authority.pair(name)
    Path("gai-fast.toml").write_text("[server]\n" + "".join(f'{key} = "{path}"\n' for key, path in pair.items()))
    check = checks(run, code=int(status == "error"))["certificate"]
    assert check["status"] == status
    assert words in check["detail"]


def test_a_wrong_configuration_is_exit_code_2(run: Run) -> None:
    Path("gai-fast.toml").write_text("[server]\nprot = 1\n")
    assert run("doctor").exit_code == 2
    assert run("doctor", "--idle", "301").exit_code == 2
    assert run("doctor", "--idle", "nan").exit_code == 2


def test_the_keys_of_an_issuer_are_fetched(run: Run) -> None:
    """The server knows no such document: it answers with a status, and later not at all."""
    with upstream(200) as (url, _):
        issuer = ["[[issuer]]", 'name = "staff"', f'url = "{url}"', 'audience = "gateway"']
        Path("gai-fast.toml").write_text("\n".join(issuer))
        check = checks(run, code=1)["issuer.staff"]
        assert (check["status"], check["detail"]) == ("error", f"{url}: its discovery document is no JSON object")
    check = checks(run, code=1)["issuer.staff"]
    assert check["detail"].startswith(f"{url}: it cannot be reached")
    assert check["fix"] == "check `url` of staff, and that it is reached from here"


def test_a_certificate_that_the_upstream_refuses_is_an_error_and_one_that_ends_a_warning(authority: Authority) -> None:
    for name, status in (
        ("client", "ok"),
        ("ending-client", "warning"),
        ("expired-client", "error"),
        ("none", "error"),
    ):
        files = [str(authority.folder / f"{name}.{kind}") for kind in ("pem", "key")]
        up = UpstreamSettings("up", "openai", "https://x", client_cert=files[0], client_key=files[1])
        check = check_client_certificate(up)
        assert (check.name, check.status, bool(check.fix)) == ("client_cert.up", status, status != "ok")


def test_the_certificates_of_upstreams_are_among_the_checks(run: Run, authority: Authority, tmp_path: Path) -> None:
    files = [authority.folder / f"expired-client.{kind}" for kind in ("pem", "key")]
    text = '[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "https://127.0.0.1:9/v1"\n'
    (tmp_path / "gai-fast.toml").write_text(f"{text}client_cert = '{files[0]}'\nclient_key = '{files[1]}'\n")
    config = str(tmp_path / "gai-fast.toml")
    result = run("doctor", "--json", "--config", config)
    assert {each["name"]: each["status"] for each in json.loads(result.stdout)}["client_cert.up"] == "error"
    assert "certificate has expired" in run("check", "--config", config).output
