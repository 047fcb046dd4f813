"""`gai-fast bench` on real endpoints, and the benchmarks' own client, which must see every wrong byte."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import gai_fast
from benchmarks import report
from benchmarks.contenders import EVENTS, Place, Route, load
from benchmarks.contenders.gai_fast import FORMATS, configured
from benchmarks.contenders.versions import PIP, pinned
from benchmarks.macro import tls
from benchmarks.macro.__main__ import check_baseline, exit_code
from benchmarks.macro.environments import tool
from benchmarks.macro.measuring import DIRECT, Measuring, assigned, request_bytes
from benchmarks.macro.probed import Probe
from benchmarks.macro.running import Fault as Missing
from benchmarks.macro.running import free_port
from benchmarks.macro.scenarios import Scenario, scenarios
from benchmarks.websocket import handshake, request_message
from gai_fast.cli.bench.load import Load, endpoint
from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.config import resolution
from gai_fast.kernels._pure.messages import head_of
from tests.integration.gateway import Net, Peer, on_both_loops, on_uvloop
from tests.waiting import SECONDS, until
from tests.wire import chunk

ROOT = Path(gai_fast.__file__).parents[1]
PATIENCE = SECONDS


def a_load(url: str, *, format: str = "openai", **options: Any) -> Load:
    asked = endpoint(url, format=format, model="m", prompt="hi", max_tokens=None, api_key=None, headers={})
    defaults: dict[str, Any] = {"connections": 4, "requests": 12, "rate": None, "duration": None, "timeout": SECONDS}
    return Load(asked, **{**defaults, **options})


# ---- load ------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_closed_loop_asks_as_often_as_configured_over_as_many_connections(net: Net) -> None:
    mock = await net.mock(rate=0, deltas=8)
    made = a_load(mock.url)
    await made.run()
    found = made.measured
    assert (found.requests, found.events, found.output_tokens, found.errors.total()) == (12, 96, 96, 0)
    assert (found.ttft.count, found.gap.count, found.duration.count) == (12, 84, 12)
    assert 1 <= mock.connections <= 4
    assert len(mock.requests) == 12
    assert not found.interrupted


@on_both_loops
@pytest.mark.parametrize("format", ["gai", "openai", "anthropic"])
async def test_every_format_is_read(net: Net, format: str) -> None:
    mock = await net.mock(rate=0, deltas=8)
    url = (await net.gateway(mock)).url if format == "gai" else mock.url
    made = a_load(url, format=format, requests=3)
    await made.run()
    assert (made.measured.requests, made.measured.events, made.measured.output_tokens) == (3, 24, 24)
    assert not made.measured.errors


@on_both_loops
@pytest.mark.parametrize(
    ("fault", "code", "events"),
    [
        ("429", "rate_limited", 0),
        ("500", "internal", 0),
        ("html", "provider_unavailable", 0),
        ("refuse", "network", 0),
        ("error-event@3", "overloaded", 3),
        ("cut@3", "network", 3),
        ("reset@3", "network", 3),
        ("stall@3", "timeout", 3),
    ],
)
async def test_a_failure_is_an_error_wherever_it_comes(net: Net, fault: str, code: str, events: int) -> None:
    mock = await net.mock(rate=0, deltas=8, fault=Fault.parse(fault))
    made = a_load(mock.url, requests=2, timeout=2.0 if code == "timeout" else SECONDS)
    await made.run()
    found = made.measured
    assert found.requests == 2
    assert dict(found.errors) == {code: 2}
    assert found.events == 2 * events
    assert found.duration.count == 0
    assert found.first_error.startswith(f"{code}: ")


@on_both_loops
async def test_a_gateways_errors_keep_their_codes(net: Net) -> None:
    mock = await net.mock(rate=0, deltas=8, fault=Fault.parse("cut@3"))
    made = a_load((await net.gateway(mock)).url, format="gai", requests=2)
    await made.run()
    assert dict(made.measured.errors) == {"network": 2}
    assert made.measured.events == 6


@on_both_loops
async def test_a_rate_asks_on_time_and_not_more_often(net: Net) -> None:
    mock = await net.mock(rate=0, deltas=2)
    made = a_load(mock.url, rate=5.0, requests=11)
    await made.run()
    assert made.measured.requests == 11
    times = [request.at for request in mock.requests]
    assert times[-1] - times[0] >= 0.5, "two seconds, but for those in which the process stood still at first"


@on_both_loops
async def test_a_request_that_had_to_wait_is_timed_from_when_it_fell_due(net: Net) -> None:
    """Or an endpoint that stalls would be asked less often and look better."""
    mock = await net.mock(rate=0, deltas=2, ttft=0.2)
    made = a_load(mock.url, rate=1000.0, requests=3, connections=1)
    await made.run()
    found = made.measured
    assert (found.requests, mock.connections) == (3, 1)
    assert found.ttft.most >= 0.55


@on_both_loops
async def test_a_duration_ends_the_asking_and_waits_for_what_runs(net: Net) -> None:
    mock = await net.mock(rate=0, deltas=2, ttft=0.1)
    made = a_load(mock.url, requests=None, duration=0.15, connections=2)
    await made.run()
    assert made.measured.requests == len(mock.requests) >= 2
    assert not made.measured.errors


@on_both_loops
async def test_with_a_rate_a_duration_leaves_out_what_was_never_sent(net: Net) -> None:
    mock = await net.mock(rate=0, deltas=2, ttft=2.5)
    made = a_load(mock.url, requests=None, duration=1.5, rate=20.0, connections=1)
    await made.run()
    assert made.measured.requests == 1
    assert made.measured.unsent >= 1


@on_both_loops
async def test_a_load_that_is_stopped_drops_what_runs(net: Net) -> None:
    mock = await net.mock(fault=Fault.parse("silent"))
    made = a_load(mock.url)
    running = asyncio.create_task(made.run())
    await until(lambda: made.running >= 4 and len(mock.requests) >= 4)
    made.stop()
    await running
    assert made.measured.interrupted
    assert made.measured.requests == 0


# ---- the command -----------------------------------------------------------------------------------------------------


async def bench(*arguments: str, cwd: Path, **environ: str) -> tuple[int, str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "GAI_FAST_NO_EXTENSIONS") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gai_fast",
        "bench",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **environ},
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_a_run_is_printed_as_a_document_or_a_table(tmp_path: Path) -> None:
    async with Mock(rate=0, deltas=8) as mock:
        given = (mock.url, "--format", "openai", "--requests", "6")
        code, output, errors = await bench(*given, "--json", cwd=tmp_path, GAI_FAST_BENCH_MODEL="m")
        assert (code, errors) == (0, "")
        document = json.loads(output)
        assert (document["model"], document["requests"], document["events"], document["errors"]) == ("m", 6, 48, 0)
        code, output, errors = await bench(*given, "-m", "m", "--fail-on", "p99_ttft>1000s", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "TTFT" in output
    assert "\x1b" not in output
    assert list(tmp_path.iterdir()) == []


async def test_conditions_that_hold_fail_the_run_with_a_line_each(tmp_path: Path) -> None:
    async with Mock(rate=0, deltas=8) as mock:
        conditions = ("--fail-on", "p50_ttft>0us", "--fail-on", "errors>0", "--fail-on", "events_per_second>=0")
        code, output, errors = await bench(
            mock.url, "--format", "openai", "-m", "m", "--requests", "2", *conditions, cwd=tmp_path
        )
    assert code == 1
    assert "TTFT" in output
    assert [line.partition(": it is")[0] for line in errors.splitlines()] == [
        "error: p50_ttft>0us",
        "error: events_per_second>=0",
    ]


async def test_an_endpoint_that_is_not_there_is_a_failure_and_no_figures(tmp_path: Path) -> None:
    async with Mock(fault=Fault.parse("refuse")) as mock:
        code, output, errors = await bench(mock.url, "--requests", "2", cwd=tmp_path)
    assert code == 1
    assert "no answer was complete: network: cannot connect" in errors
    assert "check the URL" in errors
    assert "network 2" in output


# ---- the benchmarks' client: a wrong byte is a failure, never a time -------------------------------------------------


@pytest.fixture(scope="module")
def client(unavailable: Callable[[str], NoReturn]) -> str:
    if not sys.platform.startswith("linux"):
        unavailable("Linux, for the benchmarks' client")
    if shutil.which(os.environ.get("CC") or "cc") is None:
        unavailable("a C compiler, for the benchmarks' client")
    return tool("load")


TEXTS = ["0000000000001 one", "0000000000002 “two”\n", "0000000000003 🌊"]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def frames(texts: list[str]) -> list[bytes]:
    events = [{"type": "text.delta", "text": text} for text in texts]
    return [b"data: %b\n\n" % json.dumps(event, ensure_ascii=False).encode() for event in events]


END = b'event: done\ndata: {"type":"done","finished":true}\n\n'
ESCAPED = [
    frame.decode().replace("“two”", "\\u201Ctwo\\u201d").replace("🌊", "\\ud83c\\uDF0A") for frame in frames(TEXTS)
]
RIGHT = b"".join(frames(TEXTS)) + END


def words_in(folder: Path) -> Path:
    """Returns the file of the words in `TEXTS`."""
    words = folder / "words"
    words.write_text(" one\n “two”\\n\n 🌊\n", encoding="utf-8")
    return words


async def judged(net: Net, client: str, folder: Path, body: bytes, *, head: bytes = HEAD, pieces: int = 1) -> Any:
    """Returns the figures of the client for a server that always gives this answer."""
    answer = (
        chunk(body) if pieces == 1 else b"".join(chunk(body[at : at + pieces]) for at in range(0, len(body), pieces))
    )

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            if pieces == 1:
                await peer.send(head, answer, b"0\r\n\r\n")
            else:
                for at in range(0, len(answer), 7):
                    await peer.send((head if at == 0 else b"") + answer[at : at + 7])
                await peer.send(b"0\r\n\r\n")

    upstream = await net.upstream(handler)
    (folder / "request").write_bytes(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
    return await driven(client, folder, upstream.url.rpartition(":")[2], EVENTS)


async def driven(client: str, folder: Path, port: int | str, route: Route, **more: Any) -> Any:
    """Returns the figures of the client, which sends the file `request`."""
    options = {
        "port": port,
        "request": folder / "request",
        "events": 3,
        "words": words_in(folder),
        "key": route.key,
        "end": route.end,
        "conns": 2,
        "requests": 4,
        "limit": 5,
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        client, *(f"{name}={value}" for name, value in options.items()), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    return json.loads(output)


@on_both_loops
@pytest.mark.parametrize(
    ("body", "pieces"),
    [
        (RIGHT, 1),
        (RIGHT, 3),
        (RIGHT.replace(b"\n", b"\r\n"), 1),
        ("".join(ESCAPED).encode() + END, 5),
        (b": ping\n" + RIGHT.replace(b":true", b": true"), 1),
    ],
    ids=["whole", "in pieces", "crlf", "other escapes", "comments and blanks"],
)
async def test_a_right_answer_is_right_however_it_is_written(
    net: Net, client: str, tmp_path: Path, body: bytes, pieces: int
) -> None:
    result = await judged(net, client, tmp_path, body, pieces=pieces)
    assert (result["answers"], result["wrong"], result["failed"], result["events"]) == (4, 0, 0, 12), result["why"]
    assert result["ttft"]["count"] == 4
    assert result["latency"]["count"] == 12


@on_both_loops
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (RIGHT.replace(b" one", b" onE"), "a changed byte"),
        (RIGHT.replace("🌊".encode(), b"?"), "a changed byte"),
        (RIGHT.replace(b"0001 one", b"0001one"), "a changed byte"),
        (RIGHT.replace(b"0000000000002", b"x000000000002"), "a text that was not sent"),
        (b"".join(frames(TEXTS[:2])) + END, "text is missing"),
        (b"".join(frames([TEXTS[1], TEXTS[0], TEXTS[2]])) + END, "a changed byte"),
        (b"".join(frames([*TEXTS, TEXTS[0]])) + END, "more text than was sent"),
        (b"".join(frames([TEXTS[0] + TEXTS[1], TEXTS[2]])) + END, "deltas were joined or split"),
        (b"".join(frames(TEXTS)), "the end mark is missing"),
        (b"".join(frames(TEXTS)) + END.replace(b"true", b"false"), "the end mark is missing"),
        (RIGHT + frames(TEXTS)[0], "text after the end"),
    ],
)
async def test_a_wrong_answer_is_wrong(net: Net, client: str, tmp_path: Path, body: bytes, why: str) -> None:
    result = await judged(net, client, tmp_path, body)
    assert (result["answers"], result["wrong"]) == (0, 4)
    assert result["why"].startswith(why)


@on_both_loops
async def test_a_refusal_is_reported_with_its_status(net: Net, client: str, tmp_path: Path) -> None:
    result = await judged(net, client, tmp_path, b"busy", head=HEAD.replace(b"200 OK", b"503 Busy"))
    assert (result["answers"], result["wrong"]) == (0, 4)
    assert result["why"].startswith("HTTP/1.1 503 Busy")


def message(text: bytes, first: int = 0x81) -> bytes:
    return head_of(len(text), first) + text


EVENTS_OF_A_SOCKET = [b'{"type":"text.delta","text":%b}' % json.dumps(text).encode() for text in TEXTS]
DONE = message(b'{"type":"done","finished":true}')


@on_both_loops
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"".join(map(message, EVENTS_OF_A_SOCKET)) + DONE, ""),
        (b"".join(message(text + b" " * 70_000) for text in EVENTS_OF_A_SOCKET) + DONE, ""),
        (b"".join(map(message, EVENTS_OF_A_SOCKET[:2])) + DONE, "text is missing"),
        (b"".join(map(message, EVENTS_OF_A_SOCKET[::-1])) + DONE, "a changed byte"),
        (message(b"\x03\xe8", 0x88), "a frame that is no whole message of text"),
    ],
)
async def test_messages_of_a_websocket_are_judged_alike(
    net: Net, client: str, tmp_path: Path, answer: bytes, why: str
) -> None:
    asked = request_message(EVENTS.body)

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n")
        while await peer.reader.readexactly(len(asked)) == asked:
            for at in range(0, len(answer), 50_001):
                await peer.send(answer[at : at + 50_001])

    upstream = await net.upstream(handler)
    (tmp_path / "request").write_bytes(handshake("/ws/stream", "h"))
    (tmp_path / "message").write_bytes(asked)
    result = await driven(client, tmp_path, upstream.url.rpartition(":")[2], EVENTS, message=tmp_path / "message")
    assert (result["answers"], result["wrong"]) == ((0, 4) if why else (4, 0)), result["why"]
    assert result["why"].startswith(why)


# ---- the benchmarks --------------------------------------------------------------------------------------------------


def shortened(scenario: Scenario) -> Scenario:
    connections = tuple(min(4, number) for number in scenario.connections[:1])
    return dataclasses.replace(
        scenario,
        events=5,
        connections=connections,
        rounds=1,
        milliseconds=50,
        interval_us=min(scenario.interval_us, 9999),
    )


def test_every_scenario_measures_gai_fast_and_the_report_shows_it(
    client: str, tmp_path: Path, unavailable: Callable[[str], NoReturn]
) -> None:
    name = "gai-fast" if gai_fast.IMPLEMENTATION == "native" else "gai-fast, pure Python"
    (chosen,) = (one for one in load() if one.name == name)
    measuring = Measuring([(chosen, Path(sys.executable))], tmp_path, lambda scenario, who: None)
    shapes = [one for one in scenarios(quick=True) if not one.wire]
    if any(one.tls for one in shapes) and shutil.which("nginx") is None:
        unavailable("nginx, which ends TLS in front of the fake provider")
    measured = [{**dataclasses.asdict(one), "results": measuring.run(one)} for one in map(shortened, shapes)]
    for scenario in measured:
        for result in scenario["results"].values():
            assert "fault" not in result, result
            assert len(result["samples"]) == 1
            assert result["samples"][0]["answers"] > 0
        assert name in scenario["results"]
    assert {one["key"] for one in measured if DIRECT in one["results"]} == {"paced", "first"}
    results = {**RESULTS, "scenarios": measured, "contenders": [{**CONTENDER, "name": name}]}
    assert name in report.table(results)
    assert report.render(results).count("<svg") == sum(FIGURES[one["kind"]] for one in measured)


@on_uvloop
async def test_the_client_reads_every_format_of_gai_fast(net: Net, client: str, tmp_path: Path) -> None:
    port = free_port()
    options = {"port": port, "events": 3, "words": words_in(tmp_path)}
    provider = await asyncio.create_subprocess_exec(tool("upstream"), *assigned(options))
    try:
        await until(lambda: not is_free(port))
        gateway = await net.gateway(f"http://127.0.0.1:{port}")
        at = gateway.url.rpartition(":")[2]
        wires = [(each.name, route) for each in load() if each.name in OURS for route in each.wires.values()]
        assert len(wires) == len(OURS) + 3
        for name, route in wires:
            asked = dataclasses.replace(route, body={**route.body, "model": MODELS[route.body["model"]]})
            more = {}
            if route.is_socket:
                (tmp_path / "request").write_bytes(handshake(route.path, gateway.host))
                (tmp_path / "message").write_bytes(request_message(asked.body))
                more = {"message": tmp_path / "message"}
            else:
                (tmp_path / "request").write_bytes(request_bytes(asked, int(at)))
            result = await driven(client, tmp_path, at, route, **more)
            assert (result["answers"], result["wrong"], result["failed"]) == (4, 0, 0), (name, result["why"])
    finally:
        provider.kill()
        await provider.wait()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


MODELS = {"bench": "m", "bench-responses": "native/mock", "bench-messages": "claude"}
"""The models of the tests' gateway for those of the benchmarks'."""
OURS = {"gai-fast", "gai-fast, passthrough", "gai-fast, WebSocket", *(f"gai-fast, {name}" for name in FORMATS)}
CONTENDER = {"does": "normalizes", "note": "", "version": "", "missing": ""}
FIGURES = {"burst": 1, "paced": 2, "first": 2, "cold": 3, "streams": 2, "memory": 1}
"""Plots of a scenario of each kind."""
RESULTS: dict[str, Any] = {
    "mode": "quick",
    "started": "2026-11-20T12:00:00+00:00",
    "commit": "abc",
    "implementation": "native",
    "machine": {"cpu": "x"},
}
SAMPLE = {"events": 100, "cpu_us_per_event": 2.0}


def test_a_failed_and_a_missing_contender_have_a_reason_and_no_figure() -> None:
    burst = dataclasses.asdict(scenarios(quick=True)[0])
    burst["results"] = {
        "nginx": {"samples": [{**SAMPLE, "cpu_us_per_event": 1.0}]},
        "right": {"samples": [SAMPLE]},
        "wrong": {"fault": "WRONG: 1 of 9 answers: a changed byte"},
    }
    named = [{**CONTENDER, "name": name} for name in ("nginx", "right", "wrong")]
    results = {
        **RESULTS,
        "scenarios": [burst],
        "contenders": [*named, {**CONTENDER, "name": "gone", "missing": "no go"}],
    }
    lines = {line.partition("  ")[0]: line for line in report.table(results).splitlines()}
    assert lines["right"].endswith("2.00 (2.00×)")
    assert lines["wrong"].endswith("FAILED")
    assert lines["gone"].endswith("missing")
    assert "gone is missing: no go" in lines
    assert report.faults(results) == ["Burst of 1,000: wrong: WRONG: 1 of 9 answers: a changed byte"]
    page = report.render(results)
    assert "a changed byte" in page
    assert "no go" in page


def test_the_gateway_may_hold_as_many_streams_as_it_is_asked_for(tmp_path: Path) -> None:
    place = Place(Path(sys.executable), 0, "http://127.0.0.1:1", tmp_path, tmp_path)
    settings = resolution.load(Path(configured(place)), environ={})
    most = max(max(one.connections) for one in scenarios(quick=False))
    assert most == 4000
    assert settings.limits.streams >= most
    assert settings.limits.streams_per_caller >= most
    assert all((each.max_connections or most) >= most for each in settings.upstreams.values())


def test_every_contender_says_what_it_is() -> None:
    names = [one.name for one in load()]
    assert len(set(names)) == len(names) >= 10
    assert {one.name for one in load() if one.quick} == {
        "gai-fast",
        "gai-fast, passthrough",
        "gai-fast, pure Python",
        "nginx",
        "aiohttp + orjson, by hand",
    }
    for one in load():
        assert one.note
        assert one.route is not None or one.wires
        assert bool(one.distributions) != bool(one.version)


def test_every_package_of_a_contender_has_its_release() -> None:
    for one in load():
        for requirement in one.requirements:
            assert pinned(requirement).count("==") == 1
    assert pinned("litellm[proxy]") == f"litellm[proxy]=={PIP['litellm']}"
    with pytest.raises(KeyError):
        pinned("unheard-of")


def test_a_missing_contender_is_a_failure_where_all_are_required_and_the_baseline_always() -> None:
    there, gone = {**CONTENDER, "name": "nginx"}, {**CONTENDER, "name": "gone", "missing": "no npm"}
    results = {**RESULTS, "scenarios": [], "contenders": [there, gone]}
    assert exit_code(results, requires_all=False) == 0
    assert exit_code(results, requires_all=True) == 1
    assert exit_code({**results, "contenders": [there]}, requires_all=True) == 0
    check_baseline([there, gone])
    with pytest.raises(Missing, match="nginx is missing, which every figure is compared with: not installed"):
        check_baseline([{**there, "missing": "not installed"}, gone])


def test_a_cold_start_and_memory_are_compared_with_the_baseline() -> None:
    """The ratio is the median of those within each turn, not of the medians."""

    def turn(micros: float, first: float) -> dict[str, Any]:
        return {**SAMPLE, "cpu_us_per_event": micros, "ttft": {"p50": first, "p99": first, "buckets": [[first, 9]]}}

    cold, streams = (
        dataclasses.asdict(next(one for one in scenarios(quick=False) if one.key == key))
        for key in ("tls-cold", "tls-streams")
    )
    cold["results"] = {
        "nginx": {"samples": [turn(1, 100), turn(4, 100), turn(1, 1000)]},
        "right": {"samples": [turn(2, 300), turn(4, 300), turn(4, 300)]},
    }
    streams["results"] = {
        name: {"samples": [{"resident_kib_before": 100, "resident_kib_most": most, "open": 10}]}
        for name, most in (("nginx", 400), ("right", 700))
    }
    named = [{**CONTENDER, "name": name} for name in ("nginx", "right")]
    results = {**RESULTS, "scenarios": [cold, streams], "contenders": named}
    (line,) = (line for line in report.table(results).splitlines() if line.startswith("right"))
    assert re.split(" {2,}", line)[1:] == ["4.00 (2.00×)", "300 µs (3.00×)", "60.0 (2.00×)"]


def test_a_header_may_name_the_provider() -> None:
    route = Route("/x", {}, "text", "end", {"x-host": "{upstream}/v1"})
    assert b"\r\nx-host: https://127.0.0.1:5/v1\r\n" in request_bytes(route, 80, "https://127.0.0.1:5")


def test_tls_in_front_of_the_provider_needs_openssl_and_nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="openssl is not installed"):
        tls.certificate(tmp_path)
    with pytest.raises(Missing, match="nginx is not installed"):
        tls.front(tls.Certificate(tmp_path / "certificate.pem", tmp_path / "key.pem"), 1, 2)


# ---- the turns of a loop ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")
async def test_a_stall_of_the_loop_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.macro.probed.REPORT", 0.01)
    file = tmp_path / "turns"
    probe = Probe(file)
    await until(lambda: bool(file.read_text()))
    time.sleep(0.05)  # noqa: ASYNC251  # that is the stall
    await until(lambda: any(float(line.split()[0]) >= 50 for line in file.read_text().splitlines()))
    probe.close()
