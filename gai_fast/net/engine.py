"""Runs streams: from a call to a session with an open upstream.

Owns the pools, the timers and the streams that run in this process. Knows no HTTP server: the command line and the
server both stand on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gai_fast.errors import Error, for_client
from gai_fast.net.pool import UpstreamPool
from gai_fast.net.replay import ReplayExchange, load_recording
from gai_fast.net.session import Client, Clock, Exchange, Output, Session
from gai_fast.net.timers import TimerWheel
from gai_fast.providers import API, Target, UpstreamRequest, get_provider
from gai_fast.relay import DeltaSink, FrameSink, Relay
from gai_fast.settings import ModelSettings, Settings, UpstreamSettings


@dataclass(frozen=True, slots=True)
class Call:
    """One answer that somebody asks for.

    Args:
        model: Whom to ask.
        build: The upstream's request for this call; may raise `Unsupported`.
        output: The relay's sink.
        deltas: The same sink, where it takes deltas that are written already.
        frames: The same sink, where the upstream's bytes are passed on as they are.
        hold: The answer is one JSON object.
        dialect: The name of the format that the client speaks.
        prompt_characters: Length of the request's text, for partial usage.
    """

    model: ModelSettings
    build: Callable[[API, Target], UpstreamRequest]
    output: Output
    deltas: DeltaSink | None = None
    frames: FrameSink | None = None
    hold: bool = False
    dialect: str = ""
    prompt_characters: int | None = None


class Engine:
    """The streams of one process, on one loop.

    Args:
        settings: The configuration.
        loop: The running loop.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.streams: dict[str, Session] = {}
        """The sessions that have not ended for their clients, by stream id."""
        self.timers = TimerWheel(loop)
        self._loop = loop
        self._pools: dict[str, UpstreamPool] = {}

    def start(self, call: Call, client: Client, stream_id: str, clock: Clock) -> Session:
        """Starts a stream.

        Args:
            call: What is asked.
            client: Who follows.
            stream_id: The stream's id, never used before.
            clock: Shared with the call's output.

        Raises:
            Error: The request cannot be made of this upstream; nothing was sent.
        """
        upstream = call.model.upstream
        api = get_provider(upstream.provider)
        key = upstream.api_key.reveal() if upstream.api_key is not None else None
        request = call.build(api, Target(call.model.id, key))
        relay = Relay(
            api.adapter(call.model.id),
            call.output,
            deltas=call.deltas,
            frames=call.frames,
            stream_id=stream_id,
            upstream=upstream.name,
            on_malformed=call.model.stream.on_malformed,
            translate=lambda error: for_client(error, upstream.name, keep_details=api.dialect == call.dialect),
            prompt_characters=call.prompt_characters,
        )
        session = Session(
            relay,
            call.output,
            client,
            clock=clock,
            stream=call.model.stream,
            upstream=upstream,
            timers=self.timers,
            loop=self._loop,
            hold=call.hold,
            on_end=lambda: self._forget(stream_id),
        )
        session.start(lambda receiver: self._open(api, upstream, request, receiver))
        self.streams[stream_id] = session
        return session

    def _open(self, api: API, upstream: UpstreamSettings, request: UpstreamRequest, session: Session) -> Exchange:
        if api.recording:
            return ReplayExchange(load_recording(api.recording), session, self._loop)
        own = {name.lower() for name in upstream.headers}
        headers = [item for item in request.headers if item[0].lower() not in own]
        headers += upstream.headers.items()
        return self._pool(upstream).open(request.method, request.path, headers, request.body, session)

    def _pool(self, upstream: UpstreamSettings) -> UpstreamPool:
        pool = self._pools.get(upstream.name)
        if pool is None:
            pool = self._pools[upstream.name] = UpstreamPool(
                upstream.base_url,
                timers=self.timers,
                connect_timeout=upstream.connect_timeout,
                idle_timeout=upstream.idle_timeout,
                total_timeout=upstream.total_timeout,
                max_connections=upstream.max_connections,
                loop=self._loop,
            )
        return pool

    def _forget(self, stream_id: str) -> None:
        self.streams.pop(stream_id, None)

    async def close(self) -> None:
        """Ends every stream, which is told to its client, and every upstream connection."""
        for session in list(self.streams.values()):
            session.fail(Error("overloaded", "this server is being stopped", reason="shutdown"))
        for pool in self._pools.values():
            await pool.close()
