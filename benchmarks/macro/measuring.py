"""Runs scenarios: contenders take turns (A B A B …), every answer is checked, and a wrong one gives no figure.

A result holds a sample for every turn, or the reason why it has none. The figures of a sample are of one load; the
report makes medians of them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import CHAT, Contender, Place, Route, Task
from benchmarks.macro.environments import CACHE, ROOT, tool
from benchmarks.macro.running import Fault, Process, free_port, pinned
from benchmarks.macro.scenarios import WORDS, Scenario
from benchmarks.macro.tls import certificate, front
from benchmarks.websocket import handshake, request_message

LIMIT_SECONDS: Final = 60
WARM_UP_MILLISECONDS: Final = 200
LOOK_SECONDS: Final = 0.1
DIRECT: Final = "no relay"
"""The upstream asked directly: the cost of the tools and the loopback."""

Sample = dict[str, Any]
Result = dict[str, Any]
"""`{"samples": [...]}` or `{"fault": "why"}`."""
Step = Callable[[Scenario, str], None]
"""Called before every turn, with the contender's name."""


TRUSTED: Final = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
"""The variables that name a certificate to trust: OpenSSL's and Go's, and Node's."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The fake provider.

    Args:
        port: Its own port, without TLS.
        url: The URL that relays ask; empty: there is none.
        certificate: The certificate to trust, where `url` is `https`.
    """

    port: int
    url: str
    certificate: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The server that the client asks.

    Args:
        process: The relay, `None` where the upstream itself is asked.
        request: The file of the bytes that are sent.
        message: The file of the message that asks for an answer over a WebSocket, which `request` opens.
        most_streams: Streams it is asked to hold open.
    """

    port: int
    route: Route
    process: Process | None
    request: Path
    most_streams: int
    message: Path | None = None


class Measuring:
    """One run.

    Args:
        contenders: The contenders, each with the interpreter of its environment.
        folder: An empty folder for files of this run.
        step: Called before every turn, with the contender's name.

    Raises:
        Fault: The tools cannot be built.
    """

    def __init__(self, contenders: Sequence[tuple[Contender, Path]], folder: Path, step: Step) -> None:
        self._contenders = {contender.name: (contender, python) for contender, python in contenders}
        self._folder = folder
        self._step = step
        self._load = tool("load")
        self._provider = tool("upstream")
        self._words = folder / "words"
        self._words.write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
        self._certificate = certificate(folder)

    def names(self, scenario: Scenario) -> list[str]:
        """Returns the contenders that take part in a scenario."""
        direct = [DIRECT] if scenario.kind in ("paced", "first") and not scenario.tls else []
        return direct + [name for name, (one, _) in self._contenders.items() if _route(one, scenario) is not None]

    def turns(self, scenario: Scenario) -> int:
        """Returns the number of calls of `step` for a scenario."""
        return len(self.names(scenario)) * scenario.rounds * len(scenario.connections)

    def run(self, scenario: Scenario) -> dict[str, Result]:
        """Returns the results of all contenders.

        Raises:
            Fault: The upstream cannot be started.
        """
        results: dict[str, Result] = {name: {"samples": []} for name in self.names(scenario)}
        with ExitStack() as stack:
            provider = self._start_provider(stack, scenario)
            if scenario.kind == "cold":
                self._run_cold(scenario, results, provider)
                return results
            # Memory is measured in fresh processes, one by one. For all else all run, and all but one are idle.
            groups = [[name] for name in results] if scenario.kind == "streams" else [list(results)]
            for group in groups:
                with ExitStack() as own:
                    self._run(own, scenario, {name: results[name] for name in group}, provider)
        return results

    def _run_cold(self, scenario: Scenario, results: dict[str, Result], provider: Provider) -> None:
        """Every turn is the first of a fresh process."""
        (connections,) = scenario.connections
        for _ in range(scenario.rounds):
            for name, result in results.items():
                if "fault" in result:
                    continue
                self._step(scenario, name)
                with _fault_as_result(result), ExitStack() as own:
                    target = self._start(own, scenario, name, provider)
                    self._await(name, target)
                    result["samples"].append(self._measure_load(scenario, target, _once(connections)))

    def _run(self, stack: ExitStack, scenario: Scenario, results: dict[str, Result], provider: Provider) -> None:
        targets: dict[str, Target] = {}
        for name, result in results.items():
            with _fault_as_result(result):
                targets[name] = self._start(stack, scenario, name, provider)
        for name, target in targets.items():
            with _fault_as_result(results[name]):
                self._warm_up(scenario, name, target)
        for _ in range(scenario.rounds):
            for connections in scenario.connections:
                for name, target in targets.items():
                    if "fault" in results[name]:
                        continue
                    self._step(scenario, name)
                    with _fault_as_result(results[name]):
                        results[name]["samples"].append(self._measure(scenario, target, connections))

    # ---- processes

    def _start_provider(self, stack: ExitStack, scenario: Scenario) -> Provider:
        port = free_port()
        if scenario.kind == "memory":
            return Provider(port, "")
        options = {
            "port": port,
            "events": scenario.events,
            "words": self._words,
            "interval_us": scenario.interval_us,
            "vary": int(scenario.vary),
        }
        command = pinned([self._provider, *assigned(options)], relay=False)
        process = Process("the fake provider", command, self._folder / "provider.log", {}, self._folder)
        stack.callback(process.stop)
        process.wait_until_it_listens(port, LIMIT_SECONDS)
        if not scenario.tls:
            return Provider(port, f"http://127.0.0.1:{port}")
        with_tls = free_port()
        command = front(self._certificate, with_tls, port)
        process = Process("the nginx that ends TLS", command, self._folder / "front.log", {}, self._folder)
        stack.callback(process.stop)
        process.wait_until_it_listens(with_tls, LIMIT_SECONDS)
        return Provider(port, f"https://127.0.0.1:{with_tls}", self._certificate.path)

    def _start(self, stack: ExitStack, scenario: Scenario, name: str, provider: Provider) -> Target:
        key = f"{scenario.key}-{len(list(self._folder.iterdir()))}"
        request = self._folder / f"{key}.http"
        if name == DIRECT:
            request.write_bytes(request_bytes(CHAT, provider.port))
            return Target(provider.port, CHAT, None, request, scenario.connections[-1])
        contender, python = self._contenders[name]
        route = _route(contender, scenario)
        assert route is not None
        folder = self._folder / key
        folder.mkdir()
        url = provider.url
        place = Place(python, free_port(), url, folder, CACHE, provider.certificate)
        task = Task(place.port, f"{url}{CHAT.path}" if url else "", scenario.events, str(self._words))
        variables = {"PYTHONPATH": str(ROOT), **contender.environment, **task.environment}
        if provider.certificate is not None:
            variables |= dict.fromkeys(TRUSTED, str(provider.certificate))
        command = pinned(contender.command(place), relay=True)
        process = Process(name, command, self._folder / f"{key}.log", variables, folder)
        stack.callback(process.stop)
        if not route.is_socket:
            request.write_bytes(request_bytes(route, place.port, url))
            return Target(place.port, route, process, request, contender.most_streams)
        request.write_bytes(handshake(route.path, f"127.0.0.1:{place.port}"))
        message = self._folder / f"{key}.message"
        message.write_bytes(request_message(route.body))
        return Target(place.port, route, process, request, contender.most_streams, message)

    def _await(self, name: str, target: Target) -> None:
        if target.process is not None:
            target.process.wait_until_it_listens(target.port, self._contenders[name][0].start_seconds)

    def _warm_up(self, scenario: Scenario, name: str, target: Target) -> None:
        self._await(name, target)
        connections = min(32, target.most_streams, scenario.connections[-1])
        load = {"conns": connections, "milliseconds": WARM_UP_MILLISECONDS}
        checked(self._drive(scenario, target, load))

    # ---- turns

    def _measure(self, scenario: Scenario, target: Target, connections: int) -> Sample:
        if scenario.kind == "streams":
            return self._measure_streams(scenario, target, min(connections, target.most_streams))
        if scenario.kind == "paced":
            # Not every relay has kept its connections to the provider while the others took their turns, and one over
            # TLS costs what 20 deltas do.
            checked(self._drive(scenario, target, _once(connections)))
        # The streams of many users are not in step: their deltas are spread over the interval.
        ramp = scenario.interval_us // connections
        load = {"conns": connections, "milliseconds": scenario.milliseconds, "ramp_us": ramp}
        return self._measure_load(scenario, target, load)

    def _measure_load(self, scenario: Scenario, target: Target, load: dict[str, int]) -> Sample:
        before = target.process.cpu_seconds if target.process else 0.0
        sample = checked(self._drive(scenario, target, load))
        if target.process is not None:
            target.process.check()
            cpu = target.process.cpu_seconds - before
            sample["cpu_us_per_event"] = cpu * 1e6 / sample["events"]
            sample["cpu_us_per_answer"] = cpu * 1e6 / sample["answers"]
            sample["cpu_share"] = cpu / sample["seconds"]
        return sample

    def _measure_streams(self, scenario: Scenario, target: Target, connections: int) -> Sample:
        process = target.process
        assert process is not None
        before = most = process.resident_kib
        ended = threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(LOOK_SECONDS):
                most = max(most, process.resident_kib)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            sample = checked(self._drive(scenario, target, {**_once(connections), "ramp_us": 300}))
        finally:
            ended.set()
            watcher.join()
        # All levels are compared with the start of the first one: freed memory is kept for the next level.
        return sample | {"resident_kib_before": before, "resident_kib_most": most}

    def _drive(self, scenario: Scenario, target: Target, load: dict[str, int]) -> Sample:
        options = {
            "port": target.port,
            "request": target.request,
            "events": scenario.events,
            "words": self._words,
            "key": target.route.key,
            "end": target.route.end,
            **({} if target.message is None else {"message": target.message}),
            **load,
        }
        return drive(self._load, options)


def drive(load: str, options: dict[str, Any], *, priority: int = 0) -> Sample:
    """Runs the client.

    Args:
        load: Its program.
        options: Its options, without `limit`.
        priority: As for `pinned`.

    Raises:
        Fault: It fails, or does not end.
    """
    command = pinned([load, *assigned({**options, "limit": LIMIT_SECONDS})], relay=False, priority=priority)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Fault(f"the client did not end within {2 * LIMIT_SECONDS} s") from None
    if done.returncode:
        raise Fault(f"the client gave up: {done.stderr.strip()}")
    sample: Sample = json.loads(done.stdout)
    return sample


def checked(sample: Sample) -> Sample:
    """Returns a sample in which every answer was right.

    Raises:
        Fault: An answer was wrong.
    """
    bad, all_of_them = sample["wrong"] + sample["failed"], sample["answers"] + sample["wrong"] + sample["failed"]
    if bad:
        raise Fault(f"WRONG: {bad:,} of {all_of_them:,} answers: {sample['why']}")
    if not sample["answers"]:
        raise Fault("no answer ended in time")
    return sample


@contextlib.contextmanager
def _fault_as_result(result: Result) -> Iterator[None]:
    """Makes a fault the result of the whole scenario, in place of earlier samples."""
    try:
        yield
    except Fault as fault:
        result.clear()
        result["fault"] = str(fault)


def _route(contender: Contender, scenario: Scenario) -> Route | None:
    if scenario.kind == "memory":
        return contender.memory
    return contender.wires.get(scenario.wire) if scenario.wire else contender.route


def _once(connections: int) -> dict[str, int]:
    """One answer on each connection."""
    return {"conns": connections, "requests": connections}


def request_bytes(route: Route, port: int, upstream: str = "") -> bytes:
    """Returns the request of a route.

    Args:
        route: The route.
        port: The port of the server.
        upstream: The URL of the provider, for headers that name it.
    """
    body = json.dumps(route.body).encode()
    head = f"POST {route.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
    head += "".join(f"{name}: {value.format(upstream=upstream)}\r\n" for name, value in route.headers.items())
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def assigned(options: dict[str, Any]) -> list[str]:
    """Options as the programs in C have them."""
    return [f"{name}={value}" for name, value in options.items()]
