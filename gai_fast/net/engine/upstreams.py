"""Sends requests to upstreams: the connection pools of one process, by upstream.

Owns which settings define a pool, when a pool is made, kept and closed, the TLS contexts, recordings, and what replaces
an upstream: the demo's recording, or a function of the user's. Must not know models, targets or streams. A pool decides
which request gets which connection (`pool.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, FunctionSettings, LimitSettings, ModelSettings, Peer, UpstreamSettings
from gai_fast.net.attempts.function_calls import CallFunction, FunctionCalls
from gai_fast.net.attempts.recording import RecordedExchange, secrets_of
from gai_fast.net.attempts.recording_player import PlayedExchange, load_recording
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import Exchange, OpenExchange, Receiver, Upload
from gai_fast.net.upstream.connection_pool import NoteWait, Shares, ignore_wait, no_share
from gai_fast.net.upstream.pool import UpstreamPool, close_all
from gai_fast.net.upstream.tls import TLSFileError, TLSFiles
from gai_fast.providers import API, UpstreamRequest
from gai_fast.runtime.timers import Timers


class _Pool(Protocol):
    """The part of `UpstreamPool` in use. A protocol: with the class, compiled code would accept no other exchange."""

    def open(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, receiver: Receiver, caller: str
    ) -> OpenExchange:
        """Works as `ConnectionPool.open`."""

    def open_once(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, receiver: Receiver, caller: str
    ) -> OpenExchange:
        """Works as `ConnectionPool.open_once`."""


class Upstreams:
    """The connections to the upstreams of one process, on one loop.

    Args:
        timers: The loop's timers.
        loop: The running loop.
        shares: The shares of this process in the connections to each upstream.

    Attributes:
        configured: The upstreams of the configuration, by name.
        note_wait: Called with the seconds that each request has waited for a connection of a full pool.
        call_function: Calls a function of the user's. None if there is no upstream with a function.
        record: The folder in which every upstream's response is recorded. `None` if nothing is recorded.
    """

    def __init__(self, timers: Timers, loop: asyncio.AbstractEventLoop, shares: Shares = no_share) -> None:
        self.configured: Mapping[str, UpstreamSettings] = {}
        self.record: Path | None = None
        self.call_function: CallFunction | None = None
        self.note_wait: NoteWait = ignore_wait
        self._streams = LimitSettings().streams
        self._timers = timers
        self._loop = loop
        self._shares = shares
        self._pools: dict[_PoolKey, UpstreamPool] = {}
        self._wanted: set[_PoolKey] | None = None  # None before the first configuration
        self._functions: dict[str, FunctionCalls] = {}  # by upstream
        self._look: asyncio.TimerHandle | None = None  # the next look at the pools of former configurations
        self._pool_of: dict[str, tuple[UpstreamSettings, UpstreamPool]] = {}  # by upstream: the last used

    def use(self, configured: Mapping[str, UpstreamSettings], streams: int) -> None:
        """Uses another configuration from now on. Requests under way keep their connections.

        Args:
            configured: The upstreams of the configuration, by name.
            streams: `[limits] streams`: the connections of a new pool whose upstream has no `max_connections`.
        """
        self.configured = configured
        self._streams = streams
        self._wanted = {_pool_key(each) for each in configured.values()}
        for key, pool in self._pools.items():
            pool.keep_idle(key in self._wanted)
        self._close_former()
        for name, calls in list(self._functions.items()):
            if name not in configured and not calls.running and not calls.waiting:
                del self._functions[name]
        self._pool_of.clear()
        self._keep_ready()

    def connections(self) -> dict[str, int]:
        """Returns the number of open connections by upstream."""
        counts = dict.fromkeys(self.configured, 0)
        for key, pool in self._pools.items():
            counts[key[0]] = counts.get(key[0], 0) + pool.stats.open
        for name, calls in self._functions.items():
            counts[name] = calls.running
        return counts

    def waiting(self) -> dict[str, int]:
        """Returns the number of requests that wait for a connection, by upstream."""
        counts = dict.fromkeys(self.configured, 0)
        for key, pool in self._pools.items():
            counts[key[0]] = counts.get(key[0], 0) + pool.stats.pending
        for name, calls in self._functions.items():
            counts[name] = calls.waiting
        return counts

    def _waited(self, seconds: float) -> None:
        self.note_wait(seconds)

    def last_pool(self, upstream: str) -> UpstreamPool | None:
        """Returns the pool of the upstream's last request. `None` if this configuration has sent none."""
        last = self._pool_of.get(upstream)
        return None if last is None else last[1]

    def has_connection(self, upstream: UpstreamSettings, taking: int) -> bool:
        """Returns whether there is a connection for one more request, as far as this process knows.

        Args:
            upstream: The upstream.
            taking: Requests that are about to be sent.
        """
        pool = self.last_pool(upstream.name)
        if pool is not None:
            stats = pool.stats
            taking += stats.open - stats.idle + stats.connecting + stats.pending
        return taking < (upstream.max_connections or self._streams)

    def send(
        self,
        api: API,
        model: ModelSettings,
        request: UpstreamRequest,
        receiver: Receiver,
        stream_id: str,
        number: int,
        key: str | None,
        credential: Sequence[tuple[str, str]] = (),
        caller: str = ANONYMOUS,
    ) -> OpenExchange:
        """Sends a request to the upstream of a model.

        Args:
            api: The upstream's provider.
            model: The model.
            request: The request.
            receiver: Gets the response.
            stream_id: The id of the request's stream.
            number: The number of the attempt, from 1.
            key: The upstream's key; never recorded.
            credential: Headers that an identity gives the request; never recorded.
            caller: The name of its caller: callers take turns.

        Raises:
            Error: The request cannot be sent.
        """
        upstream = model.upstream
        if credential:
            request.headers = [*request.headers, *credential]
        if self.record is None:
            return self._send(api, upstream, request, caller, receiver)
        name = stream_id if number == 1 else f"{stream_id}.{number}"
        about = {
            "provider": upstream.provider,
            "model": model.id,
            "upstream": upstream.name,
            "stream_id": stream_id,
        }
        secrets = secrets_of(key, {**upstream.headers, **dict(credential)})
        recorded = RecordedExchange(self.record / f"{name}.ndjson", about, receiver, self._loop.time, secrets)
        return recorded.open(partial(self._send, api, upstream, request, caller))

    def send_once(
        self,
        upstream: UpstreamSettings,
        request: UpstreamRequest,
        receiver: Receiver,
        caller: str,
        upload: Upload | None = None,
        length: int = -1,
        is_repeatable: bool = True,
    ) -> Exchange:
        """Sends a request that is passed through. It is neither recorded nor given the upstream's configured headers.

        Args:
            upstream: The upstream.
            request: The request, or its beginning if there is an upload.
            receiver: Gets the response.
            caller: As for `ConnectionPool.open`.
            upload: As for `ConnectionPool.open_once`.
            length: As for `ConnectionPool.open_once`.
            is_repeatable: As for `ConnectionPool.open_once`.

        Raises:
            Error: The upstream's TLS files cannot be used.
            ValueError: The request would break its framing.
        """
        method, path, headers, body = request.method, request.path, request.headers, request.body
        pool = self._pool(upstream)
        return pool.open_once(method, path, headers, body, receiver, caller, upload, length, is_repeatable)

    def send_repeated(
        self,
        upstream: UpstreamSettings,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        receiver: Receiver,
        caller: str,
    ) -> Exchange:
        """Sends a request that is passed through, as `send_once`; others have the same headers, so its head is cached.

        Args:
            upstream: The upstream.
            method: As for `ConnectionPool.open`, as the next three.
            path: The path below the base URL.
            headers: The headers.
            body: The body.
            receiver: Gets the response.
            caller: As for `ConnectionPool.open`.

        Raises:
            Error: As `send_once`.
            ValueError: As `send_once`.
        """
        return self._pool(upstream).open(method, path, headers, body, receiver, caller)

    def close(self) -> Coroutine[Any, Any, None]:
        """Returns a coroutine that closes every connection, and ends every call of a function."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        pools, functions = self._pools.values(), self._functions.values()
        return close_all(*[pool.close for pool in pools], *[calls.close for calls in functions])

    def _send(
        self, api: API, upstream: UpstreamSettings, request: UpstreamRequest, caller: str, receiver: Receiver
    ) -> OpenExchange:
        if api.recording:
            recording = load_recording(api.recording)
            played = dataclasses.replace(recording, chunks=api.recorded(request, recording.chunks))
            return PlayedExchange(played, receiver, self._loop)
        if upstream.function is not None:
            return self._call(upstream, upstream.function, request, caller, receiver)
        headers = request.headers
        if upstream.headers:
            own = {name.lower() for name in upstream.headers}
            headers = [item for item in headers if item[0].lower() not in own]
            headers += upstream.headers.items()
        pool: _Pool = self._pool(upstream)
        if request.is_unique:
            return pool.open_once(request.method, request.path, headers, request.body, receiver, caller)
        return pool.open(request.method, request.path, headers, request.body, receiver, caller)

    def _call(
        self,
        upstream: UpstreamSettings,
        function: FunctionSettings,
        request: UpstreamRequest,
        caller: str,
        receiver: Receiver,
    ) -> OpenExchange:
        calls = self._functions.get(upstream.name)
        if calls is None:
            calls = self._functions[upstream.name] = FunctionCalls(self._loop, self._waited)
        most = upstream.max_connections or self._streams
        if calls.most != most:
            calls.use(most, self._shares(upstream.name, most))
        assert self.call_function is not None  # set by the creator of the engine
        return calls.open(upstream, partial(self.call_function, function, request.body), receiver, caller)

    def _pool(self, upstream: UpstreamSettings) -> UpstreamPool:
        last = self._pool_of.get(upstream.name)
        if last is not None and last[0] is upstream:
            return last[1]
        key = _pool_key(upstream)
        pool = self._pools.get(key)
        if pool is None:
            _load_tls(upstream)
            most = upstream.max_connections or self._streams
            pool = self._pools[key] = UpstreamPool(
                upstream.peer,
                timers=self._timers,
                max_connections=most,
                pool_wait=upstream.pool_wait,
                waited=self._waited,
                min_idle=upstream.min_idle,
                share=self._shares(upstream.name, most),
                loop=self._loop,
            )
            if self._wanted is not None and key not in self._wanted:  # for a stream of a former configuration
                pool.keep_idle(False)
                self._look_again()
        self._pool_of[upstream.name] = upstream, pool
        return pool

    def _close_former(self) -> None:
        """Closes the empty pools of former configurations; looks again while there are others."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        former = [each for each in self._pools.items() if self._wanted is not None and each[0] not in self._wanted]
        for key, pool in former:
            stats = pool.stats
            if not (stats.open or stats.connecting or stats.pending):
                del self._pools[key]
                pool.close_empty()
            else:
                self._look_again()

    def _look_again(self) -> None:
        if self._look is None:
            self._look = self._loop.call_later(LIMITS.pool_idle, self._close_former)

    def _keep_ready(self) -> None:
        """Opens each upstream's `min_idle` connections."""
        for upstream in self.configured.values():
            with contextlib.suppress(Error):  # a replaced file may be unusable: requests fail until it can be used
                _load_tls(upstream)  # reading the authorities takes 20 ms; no stream should wait for it
                if upstream.min_idle:
                    self._pool(upstream).keep_ready()


_PoolKey = tuple[str, Peer, int, int, float, tuple[int, ...]]


def _pool_key(upstream: UpstreamSettings) -> _PoolKey:
    """Returns the settings that define a pool: upstreams that differ in any of them share no connection."""
    peer = upstream.peer
    most = upstream.max_connections or 0
    return upstream.name, peer, most, upstream.min_idle, upstream.pool_wait, TLSFiles.of(peer).version


def _load_tls(upstream: UpstreamSettings) -> None:
    """Makes the TLS context of an upstream's connections, if they use TLS: pools with equal files share it.

    Raises:
        Error: A TLS file has become unusable.
    """
    if not upstream.base_url.startswith("https:"):
        return
    try:
        TLSFiles.of(upstream.peer).context()
    except TLSFileError as problem:
        text = f"the file that `{problem.key}` of upstream {upstream.name!r} names cannot be used any more"
        raise Error("network", text, reason="tls", phase="connect") from None
