"""The soak's gateway: `gai-fast serve` with workers, in processes of its own, and what the kernel tells of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.soak.served import COLLECT_AND_COUNT, COUNT, COUNTED, HOSTS, MACHINE, REQUEST_ID, RETRIES

PATIENCE: Final = 60.0
"""Seconds for the start and for the end of the server."""
WRITE_TIMEOUT: Final = 10.0
"""Seconds after which the server cuts off a client that does not read."""
STREAM: Final = {"heartbeat": 2, "write_timeout": WRITE_TIMEOUT, "client_buffer": 65536}
STARVED: Final = 0.7
"""Seconds between two looks, a second apart, for which somebody waits on a machine that is too busy for this test."""
LOOK: Final = 1.0
"""Seconds between two looks."""
BRIEF: Final = "brief"
"""The model whose streams are soon cancelled if nobody follows them."""
_ROOT: Final = Path(__file__).parents[2]
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KILLED: Final = re.compile(r"worker (\d+) \(process (\d+)\) was killed by signal 9")
_BAD: Final = re.compile(r"Traceback|\bERROR\b|\bCRITICAL\b|Exception|\"level\": ?\"(error|critical)\"", re.I)

_CONFIG: Final = """\
[server]
port = 0
grace = 20
demo = false
allow_get_start = true

[stream]
{stream}

[store]
ttl = 120  # longer than any fault: who is refused meanwhile comes back to a stream that has ended

[limits]
streams_per_caller = 20000

[[upstream]]
name = "up"
provider = "openai-compatible"
base_url = "{url}"
max_connections = 5000
idle_timeout = 45
breaker = {{ open = 2 }}
headers = {{ x-soak = "{version}" }}

[[upstream]]
name = "stalling"
provider = "openai-compatible"
base_url = "{url}"
idle_timeout = 5
breaker = false

[[model]]
name = "m"
upstream = "up"

[[model]]
name = "kept"
upstream = "up"
on_disconnect = "detach"

[[model]]
name = "brief"
upstream = "up"
detach_ttl = 2

[[model]]
name = "stalling"
upstream = "stalling"
"""


@dataclass(slots=True)
class Process:
    """One worker, as `/proc` tells of it.

    Attributes:
        pid: The process.
        samples: Pairs of time and resident bytes.
        cpu: Seconds of the processor, at the last look.
        waited: Seconds for which it could have run and no processor was free, at the last look.
    """

    pid: int
    samples: list[tuple[float, int]] = field(default_factory=list)
    cpu: float = 0.0
    waited: float = 0.0


@dataclass(slots=True)
class Holdings:
    """The objects of the workers.

    Attributes:
        kinds: How many there are, by the name of their class.
        tasks: How many of them run each coroutine.
        blocks: Pieces of memory that the interpreter has in use.
        connections: Those to the upstream that were `made`, `reused`, and found dead when they were used (`retried`).
    """

    kinds: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    connections: Counter[str] = field(default_factory=Counter)

    def add(self, reported: Mapping[str, Any]) -> None:
        """Adds a worker's counts, as `served.py` writes them."""
        self.kinds.update(reported["kinds"])
        self.tasks.update(reported["tasks"])
        self.blocks += reported["blocks"]
        self.connections.update({name: reported[name] for name in ("made", "reused", "retried")})


class Gateway:
    """A running server.

    Args:
        folder: For its configuration and its log.
        store: The URL of its store.
        workers: How many.
        upstream: The base URL of its upstream.
        stream: Keys of `[stream]`.
        trusted: The file of the authority that the upstream's certificate must be of.
        machine: The name of its machine; empty: this one. Servers of two names know nothing of each other's processes.

    Attributes:
        killed: The processes of the workers that its log says were killed, by number.
        processes: Every worker that there was, by process.
        longest_wait: The most seconds that somebody waited for a processor between two looks.
        bad_lines: Lines of its log that tell of an error that nobody has caused.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: str,
        workers: int,
        upstream: str,
        stream: Mapping[str, float] = STREAM,
        trusted: Path | None = None,
        machine: str = "",
    ) -> None:
        self.processes: dict[int, Process] = {}
        self.longest_wait = 0.0
        self.bad_lines: list[str] = []
        self._starved_until = float("-inf")
        self.host = ""
        self._folder = folder
        self._store = store
        self._count = workers
        self._upstream = upstream
        self.killed: dict[int, int] = {}
        self._stream = stream
        self._trusted = trusted
        self._machine = machine
        self._hosts: dict[str, str] = {}
        self._version = 0
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts it, and waits until it listens.

        Raises:
            RuntimeError: It has ended; the text is what it said.
        """
        self._configure()
        self._write_hosts()
        (self._folder / MACHINE).write_text(self._machine)
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.soak.served", self._folder, "serve",
            "--workers", str(self._count), "--store", self._store,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=self._folder,
            env=_environment(self._trusted),
            start_new_session=True,  # a Ctrl-C is the soak's: it ends the server
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        self._pumps = [asyncio.create_task(self._read_log(process.stderr))]
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
        if "http://" not in line:
            await process.wait()
            await asyncio.gather(*self._pumps)
            raise RuntimeError((self._folder / "log").read_text() or line)
        self.host = line.rpartition("http://")[2].strip()
        self._pumps.append(asyncio.create_task(_drain(process.stdout)))

    async def stop(self) -> int:
        """Ends it by SIGTERM; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            code = await self._process.wait()
        await asyncio.gather(*self._pumps)
        return code

    async def kill(self) -> None:
        """Ends all of its processes, if they are there."""
        if self._process is not None and self._process.returncode is None:
            workers = self.workers
            self._process.kill()
            await self._process.wait()
            for pid in workers:
                _signal(pid, signal.SIGKILL)
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def workers(self) -> set[int]:
        """The processes of its workers."""
        assert self._process is not None
        pid = self._process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    async def kill_worker(self, pid: int) -> None:
        """Kills a worker; returns when its process is gone."""
        _signal(pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while _is_running(pid):  # noqa: ASYNC110  # the kernel sets no event
                await asyncio.sleep(0.01)

    def reload(self, upstream: str | None = None) -> None:
        """Changes the configuration of an upstream, and lets the server load it.

        Args:
            upstream: Its new base URL. None if it stays as it is.
        """
        assert self._process is not None
        self._upstream = upstream or self._upstream
        self._version += 1
        self._configure()
        self._process.send_signal(signal.SIGHUP)

    def resolve(self, name: str, address: str | None) -> None:
        """Decides to which address a name leads in the server. None if nobody knows it."""
        self._hosts.pop(name, None)
        if address is not None:
            self._hosts[name] = address
        self._write_hosts()

    def _write_hosts(self) -> None:
        file = self._folder / HOSTS
        file.with_suffix(".new").write_text("".join(f"{name} {at}\n" for name, at in self._hosts.items()))
        file.with_suffix(".new").rename(file)

    def retries(self) -> dict[int, int]:
        """Returns the retries of each stream that has ended, by its number, as the metrics of its worker have them."""
        found: dict[int, int] = {}
        for file in self._folder.glob(f"{RETRIES}*"):
            for line in file.read_text().splitlines():
                name, count = line.split()
                found[int(name.removeprefix(REQUEST_ID))] = int(count)
        return found

    async def holdings(self) -> Holdings:
        """Returns the objects that the workers hold, all together."""
        held = Holdings()
        for pid in self.workers:
            held.add(await self._ask_for_objects(pid, COLLECT_AND_COUNT))
        return held

    async def holdings_now(self, pid: int) -> Holdings:
        """The objects of a worker, those included that nobody holds and the garbage collector has not found yet.

        Args:
            pid: The worker's process.
        """
        held = Holdings()
        held.add(await self._ask_for_objects(pid, COUNT))
        return held

    async def _ask_for_objects(self, pid: int, number: signal.Signals) -> dict[str, Any]:
        file = self._folder / f"{COUNTED}{pid}"
        file.unlink(missing_ok=True)
        _signal(pid, number)
        async with asyncio.timeout(PATIENCE):
            while not file.exists():  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        result: dict[str, Any] = json.loads(file.read_text())
        return result

    def look(self) -> None:
        """Notes the memory and the processor time of each worker."""
        now = time.monotonic()
        for pid in self.workers:
            process = self.processes.setdefault(pid, Process(pid))
            try:
                resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                waited = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
            except (OSError, IndexError):
                continue  # it is gone
            process.samples.append((now, resident))
            self.note_wait(waited - process.waited)
            process.waited = waited
            process.cpu = (int(fields[11]) + int(fields[12])) / _TICKS

    def note_wait(self, seconds: float) -> None:
        """Notes that a worker, or the program that is its upstream and its clients, waited for a processor."""
        self.longest_wait = max(self.longest_wait, seconds)
        if seconds > STARVED:
            self._starved_until = time.monotonic()

    def starved_until(self) -> float:
        """Returns the time at which a task last waited for a processor for longer than `STARVED` between two looks."""
        self.look()
        return self._starved_until

    def descriptors(self, pid: int | None = None) -> Counter[str]:
        """The open descriptors by kind: what the kernel calls them, without numbers; `store` are the connections to a
        store.

        Args:
            pid: The process of a worker. None stands for all workers.
        """
        kinds: Counter[str] = Counter()
        port = urlsplit(self._store).port
        for each in self.workers if pid is None else (pid,):
            sockets = _socket_kinds(each, port)
            for path in Path(f"/proc/{each}/fd").iterdir():
                with suppress(OSError):  # it has just been closed
                    kind = str(path.readlink())
                    kinds[sockets.get(kind, kind.partition(":[")[0])] += 1
        return kinds

    def _configure(self) -> None:
        stream = "\n".join(f"{name} = {value}" for name, value in self._stream.items())
        text = _CONFIG.format(url=self._upstream, version=self._version, stream=stream)
        (self._folder / "gai-fast.toml").write_text(text)

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        with (self._folder / "log").open("wb") as file:
            while data := await stream.readline():
                file.write(data)
                file.flush()
                line = data.decode(errors="replace")
                if (found := _KILLED.search(line)) is not None:
                    self.killed[int(found[1])] = int(found[2])
                elif _BAD.search(line):
                    self.bad_lines.append(line.strip())


def _socket_kinds(pid: int, store: int | None) -> dict[str, str]:
    """`tcp` and the like, by what the link of a descriptor says; `store`: connected to its port."""
    kinds = {}
    end = "none" if store is None else f":{store:04X}"
    for name, column in (("tcp", 9), ("tcp6", 9), ("unix", 6)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            kinds[f"socket:[{fields[column]}]"] = "store" if fields[2].endswith(end) else name
    return kinds


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def _environment(trusted: Path | None) -> dict[str, str]:
    """This process's environment without what would configure the gateway, and the authority that it trusts."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "GAI_FAST_NO_EXTENSIONS")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), environment.get("PYTHONPATH"))))
    if trusted is not None:
        environment["SSL_CERT_FILE"] = str(trusted)
    return environment
