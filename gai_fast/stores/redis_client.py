"""The connections to a Redis server, to a cluster, or to a server behind a Sentinel.

Owns the clients of the library, the turns of requests, and the meaning of each failure.
Knows no keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from gai_fast.model.version import installing
from gai_fast.runtime.places import HalvedPlaces
from gai_fast.stores.backend import Fault, StoreError
from gai_fast.stores.health import ASKS, logger
from gai_fast.stores.limits import LIMITS

Command = tuple[Any, ...]
_Result = TypeVar("_Result")

_OLDEST: Final = (7, 0)
"""The first release with `SET … NX GET` and `BLMPOP`."""
_FAULTS: Final[Mapping[str, tuple[Fault, str]]] = {
    "NOAUTH": ("refused", "asks for a password"),
    "WRONGPASS": ("refused", "refuses our password"),
    "NOPERM": ("refused", "does not permit our user a command or key"),
    "DENIED": ("refused", "is in protected mode and refuses other machines"),
    "READONLY": ("read_only", "is a replica, which cannot be written"),
    "UNBLOCKED": ("read_only", "has become a replica"),
    "OOM": ("full", "has no memory left"),
    "MISCONF": ("full", "cannot save its data, and takes no more"),
    "NOREPLICAS": ("full", "lacks the replicas that it must have"),
    "LOADING": ("busy", "is loading its data"),
    "BUSY": ("busy", "runs a long script"),
    "MASTERDOWN": ("busy", "has lost its master"),
    "CLUSTERDOWN": ("busy", "is part of a cluster that is down"),
    "TRYAGAIN": ("busy", "is moving keys between nodes"),
    "WRONGTYPE": ("damaged", "has another kind of value under one of our keys"),
    "EXHAUSTED": ("damaged", "has an entry under one of our keys after which none can be added"),
    "CERTIFICATE": ("refused", "has a certificate that is not trusted"),
    "MAXCLIENTS": ("refused", "has too many clients"),
    "LAYOUT": ("unsuitable", "has the limits of keys of another release, which this one cannot read"),
}
"""Faults by the first word of the server's reply, or by a code of ours from `_KNOWN_TEXTS`."""
_KNOWN_TEXTS: Final = {
    "max number of clients reached": "MAXCLIENTS",
    "invalid password": "WRONGPASS",
    "called without any password configured": "WRONGPASS",
    "The ID specified in XADD is equal or smaller": "THERE",
    "exhausted the last possible ID": "EXHAUSTED",
    "Authentication required": "NOAUTH",
    "certificate verify failed": "CERTIFICATE",
}
"""Codes for replies that begin with `ERR`, or that the client library returns without their first word."""
SENTINEL: Final = "sentinel"
"""The URL parameter with a server's name in a Sentinel."""
_CODE: Final = re.compile(r"[A-Z]{2,}")
_CLOSED: Final = "the handler is closed"
"""The end of uvloop's error text for a write to a connection that was reset. The library does not catch that error."""


class Script:
    """A Lua script.

    Args:
        text: Its source.

    Attributes:
        text: Its source.
        digest: The SHA-1 digest by which `EVALSHA` runs a script that the server has run before.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """The connections to a server or a cluster.

    Args:
        url: As for `RedisBackend`.
        greet: Called with each new connection, except to a cluster, before its first command.
    """

    def __init__(self, url: str, greet: Callable[[Any], Awaitable[None]]) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self._service = query.pop(SENTINEL, None)
        self._url = parts._replace(query=urlencode(query)).geturl()
        port = "" if parts.port is None else f":{parts.port}"
        self._name = f"{parts.scheme}://{parts.hostname}{port}"
        self._greet = greet
        self.is_cluster = False
        self._opened: list[Any] = []  # all clients that `close` closes
        self._clients: list[Any] = []
        self._held: Any = None  # the connection for scripts; None in a cluster
        self._holding = asyncio.Lock()
        self._turns = HalvedPlaces(LIMITS.store_connections)
        self._failed: tuple[float, StoreError] | None = None  # the last failure to reach the server, and its time

    async def open(self, *write: Any) -> None:
        """Connects.

        Args:
            write: A command that writes.

        Raises:
            StoreError: The server cannot be reached, is too old, or refuses the connection or a write.
        """
        try:
            import redis.asyncio  # noqa: F401  # the extra may not be installed
        except ImportError:
            raise StoreError("unsuitable", f"{self._name} needs the package redis: {installing('redis')}") from None
        await self.close()  # an earlier `open` may have succeeded before its caller failed
        try:
            first = self._new_client()
            self.is_cluster = await self.call(lambda: self._look_at(first))
            journal = self._new_client() if self.is_cluster else first
            self._clients = [journal, self._new_client(is_timed=False)]
            if not self.is_cluster:
                self._held = self._clients[1].connection_pool.get_available_connection()
            await self.call(lambda: self.journal.execute_command(*write))
        except StoreError:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes every connection."""
        opened, self._opened, self._clients, self._held = self._opened, [], [], None
        for client in opened:
            with suppress(StoreError):  # it is gone
                await self.call(client.aclose)

    async def command(self, *words: str | bytes | float) -> Any:
        """Sends one command; returns the reply. For parts of the gateway that have their own keys."""
        client = self.others  # raises if the backend is closed; the library may not be installed then
        return await self.call(lambda: client.execute_command(*words), LIMITS.store_timeout)

    async def run_script(self, script: Script, key: str, *arguments: str | bytes) -> Any:
        """Runs a script; returns its reply. If the server has cached the script, this is one round trip.

        Args:
            script: The script.
            key: One of its keys, which selects a cluster's node.
            arguments: Its arguments.
        """
        from redis.exceptions import NoScriptError

        async def run() -> Any:
            client = self.others
            send = client.execute_command if self._held is None else self._send
            # A request waits for the reply. A timeout here is `unreachable`, not `slow`, so later requests do not wait.
            async with asyncio.timeout(LIMITS.store_answer):
                try:
                    return await send("EVALSHA", script.digest, 1, key, *arguments)
                except NoScriptError:
                    return await send("EVAL", script.text, 1, key, *arguments)

        return await self.call(run)

    async def ask_script(self, script: Script, key: str, *arguments: str | bytes | int) -> Any:
        """Runs a script that a client may wait for; returns its reply. Scripts with large values do not wait for one
        another, as those of `run_script` do.

        Args:
            script: The script.
            key: As for `run_script`.
            arguments: Its arguments.
        """
        from redis.exceptions import NoScriptError

        async def run() -> Any:
            send = self.others.execute_command
            try:
                return await send("EVALSHA", script.digest, 1, key, *arguments)
            except NoScriptError:
                return await send("EVAL", script.text, 1, key, *arguments)

        async with self.turn():
            return await self.call(run, LIMITS.store_answer)

    async def _send(self, *words: str | bytes | int) -> Any:
        """Sends a command over the connection that is held for scripts; returns the reply.

        The library's `execute_command` takes a connection from the pool for each command, returns it, and counts both:
        an exchange of limits then costs 16 % more instructions. If a reply is not read completely, for instance after a
        cancellation, the library closes the connection, and the next command opens it again.
        """
        connection = self._held
        async with self._holding:
            await self.others.connection_pool.ensure_connection(connection)
            await connection.send_packed_command(connection.pack_command(*words), check_health=False)
            return await connection.read_response()

    # -- the library --

    @property
    def journal(self) -> Any:
        """The client that writes copies and renews leases. Reads use another client, so they never delay it."""
        return self._client(0)

    @property
    def others(self) -> Any:
        """The client for everything else."""
        return self._client(1)

    def _client(self, number: int) -> Any:
        if not self._clients:
            raise StoreError("unreachable", f"{self._name} is closed")
        return self._clients[number]

    def _new_client(self, *, is_timed: bool = True) -> Any:
        """Makes a client; it connects with its first command.

        Args:
            is_timed: Whether the library limits the time of a reply; otherwise the caller must. The library starts a
                task for every write to do so, which costs a third of a command's CPU time and a turn of the loop.
        """
        from redis.asyncio import Redis, RedisCluster
        from redis.asyncio.retry import Retry
        from redis.asyncio.sentinel import Sentinel
        from redis.backoff import NoBackoff

        options: dict[str, Any] = {
            "socket_timeout": LIMITS.store_timeout if is_timed else None,
            "socket_connect_timeout": LIMITS.store_connect,
            "protocol": 2,
            "driver_info": None,
        }
        if is_timed and not self.is_cluster:
            options["redis_connect_func"] = self._greet
        if self.is_cluster:
            # The retry finds a key that has moved to another node.
            self._opened.append(RedisCluster.from_url(self._url, retry=Retry(NoBackoff(), 1), **options))
            return self._opened[-1]
        self._opened.append(Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **options))
        if self._service is not None:
            make: Any = Sentinel
            found = dict(self._opened[-1].connection_pool.connection_kwargs)
            sentinel = make([(found.pop("host"), found.pop("port"))], **found)
            self._opened += sentinel.sentinels
            self._opened.append(sentinel.master_for(self._service, ssl=self._url.startswith("rediss://")))
        return self._opened[-1]

    async def _look_at(self, client: Any) -> bool:
        """Returns whether the server is a node of a cluster.

        Raises:
            StoreError: The server is too old.
        """
        about = await client.info("server", "cluster", "memory")
        version = str(about.get("redis_version", "0"))
        if tuple(map(int, re.findall(r"[0-9]+", version)[:2])) < _OLDEST:
            raise StoreError("unsuitable", f"{self._name} is Redis {version}: 7.0 or later is needed")
        policy = str(about.get("maxmemory_policy", ""))
        if policy not in ("", "noeviction"):  # nearly all keys have a time to live: `volatile-…` may evict them too
            text = "%s may evict any key (maxmemory-policy %s): streams can be lost before their time; use noeviction"
            logger.warning(text, self._name, policy, extra={"once": inf})
        return bool(about.get("cluster_enabled"))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn: `limits.store_connections` requests are sent at a time.

        Raises:
            StoreError: Another request found the server out of reach during the wait, or one of the same caller too
                slow. Another try would take as long.
        """
        asked, caller = time.monotonic(), ASKS.get()
        await self._turns.take(caller)
        try:
            if self._failed is not None and asked <= self._failed[0]:
                raise self._failed[1]
            yield
        finally:
            self._turns.give_back(caller)

    async def ask(self, *command: Any) -> Any:
        """Sends a command that a client may wait for; returns the reply."""
        return await self.call(lambda: self.others.execute_command(*command), LIMITS.store_answer)

    async def pipeline(
        self, client: Any, commands: Sequence[Command], seconds: float | None = LIMITS.store_answer
    ) -> list[Any]:
        """Sends commands together; returns their replies, some of which may be exceptions.

        Args:
            client: Sends them.
            commands: The commands.
            seconds: As for `call`.
        """

        async def execute() -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            # The library's own error texts contain the command, and so a conversation: they are not raised.
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

        return await self.call(execute, seconds) if commands else []

    async def call(self, call: Callable[[], Awaitable[_Result]], seconds: float | None = None) -> _Result:
        """Calls the library.

        Args:
            call: The call.
            seconds: The time limit of the call. None if the library limits it.

        Raises:
            StoreError: The call failed.
            asyncio.CancelledError: The task was cancelled, even if the library swallowed the cancellation: it writes
                through `asyncio.wait_for`, which before Python 3.12 returns its result if the result and the
                cancellation arrive in one turn of the loop.
        """
        from redis.exceptions import RedisClusterException, RedisError

        before = _cancellations()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call()
        except (RedisError, RedisClusterException, OSError) as problem:
            is_slow = limit.expired()
            error = StoreError("slow", f"{self._name} does not answer in time") if is_slow else self.error(problem)
            if is_slow:
                self._turns.fail(ASKS.get(), error)
            elif error.fault == "unreachable":
                self._failed = time.monotonic(), error
            raise error from None
        except RuntimeError as problem:
            if not str(problem).endswith(_CLOSED):
                raise
            error = StoreError("unreachable", f"{self._name} cannot be reached")
            self._failed = time.monotonic(), error
            raise error from None
        finally:
            if _cancellations() > before:
                raise asyncio.CancelledError

    def error(self, problem: Exception) -> StoreError:
        """Returns the `StoreError` for a failure of the library or an error reply. Keeps only the code of its text."""
        from redis.exceptions import TimeoutError as RedisTimeoutError

        code = code_of(problem)
        if code in _FAULTS:
            fault, text = _FAULTS[code]
            return StoreError(fault, f"{self._name} {text}")
        if isinstance(problem, RedisTimeoutError | TimeoutError):
            return StoreError("unreachable", f"{self._name} does not answer in time")
        if type(problem).__name__ == "InvalidResponse":
            return StoreError("unsuitable", f"{self._name} does not speak Redis's protocol")
        if code:
            return StoreError("unsuitable", f"{self._name} refuses a command ({code})")
        return StoreError("unreachable", f"{self._name} cannot be reached")


def _cancellations() -> int:
    """Returns the number of pending requests to cancel the running task."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def code_of(problem: Exception) -> str:
    """Returns the first word of the server's reply, or a code from `_KNOWN_TEXTS`. Empty if no server replied."""
    text = str(problem)
    for known, code in _KNOWN_TEXTS.items():
        if known in text:
            return code
    if type(problem).__name__ in ("ResponseError", "ModuleError"):
        word = _CODE.match(text)
        return word[0] if word else "ERR"
    return str(getattr(problem, "status_code", None) or "")
