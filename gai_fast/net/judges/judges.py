"""The judges of one worker, by guard.

Owns which settings make a judge, and its way: a moderation at an upstream, a web hook, a function. Equal settings keep
their judge, with its breaker and its connections. A stream keeps the judge that it began with: a judge of a former
configuration closes its connections once it has answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakSet

from gai_fast.guards.verdicts import JudgeVerdict, Question
from gai_fast.model.settings import JudgeSettings, Peer, UpstreamSettings
from gai_fast.net.judges.dialects import hook_body, moderation_body, read_json, read_moderation, read_verdict
from gai_fast.net.judges.functions import FunctionWay
from gai_fast.net.judges.judge import Judge, Way
from gai_fast.net.judges.servers import ServerWay
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.tls import TLSFiles
from gai_fast.providers import get_provider
from gai_fast.providers.requests.routes import MODERATIONS
from gai_fast.runtime.functions import import_function
from gai_fast.runtime.thread_pool import ThreadPool
from gai_fast.runtime.timers import Timers


class Judges:
    """The judges of one worker, on one loop.

    Args:
        timers: The loop's timers.
        loop: The running loop.
    """

    def __init__(self, timers: Timers, loop: asyncio.AbstractEventLoop) -> None:
        self._timers = timers
        self._loop = loop
        self._threads = ThreadPool(LIMITS.judge_threads, "gai-fast-judge")
        self._current: dict[str, tuple[JudgeSettings, tuple[int, ...], Judge]] = {}  # by guard
        self._former: WeakSet[Judge] = WeakSet()  # those that a stream still refers to
        self._closing: set[asyncio.Task[None]] = set()

    def use(self, guards: Mapping[str, JudgeSettings]) -> dict[str, Judge]:
        """Uses another configuration for new streams.

        Args:
            guards: The settings of each judge, by its guard.

        Returns:
            The judges, by guard.

        Raises:
            ValueError: A judge cannot be made; the configuration before stays in use. The text names the guard.
        """
        used: dict[str, tuple[JudgeSettings, tuple[int, ...], Judge]] = {}
        for guard, settings in guards.items():
            version = _version(settings)
            known = self._current.get(guard)
            if known is not None and known[0] == settings and known[1] == version:
                used[guard] = known
                continue
            try:
                judge = Judge(guard, self._way(settings), settings.timeout, self._timers, self._loop)
            except ValueError as problem:
                for other in used:
                    if self._current.get(other) is not used[other]:
                        self._retire(used[other][2])
                raise ValueError(f"guard {guard!r}: {problem}") from None
            used[guard] = settings, version, judge
        for guard, known in self._current.items():
            if used.get(guard) is not known:
                self._retire(known[2])
        self._current = used
        return {guard: judge for guard, (_, _, judge) in used.items()}

    async def close(self) -> None:
        """Fails all questions, and closes what they have used."""
        judges = [judge for _, _, judge in self._current.values()] + list(self._former)
        self._current.clear()
        await asyncio.gather(*[judge.close() for judge in judges])
        await asyncio.gather(*self._closing)
        self._threads.close()

    def _retire(self, judge: Judge) -> None:
        judge.retire()
        self._former.add(judge)

    def _way(self, settings: JudgeSettings) -> Way:
        if settings.function is not None:
            function = import_function(settings.function.reference, Path(settings.function.folder))
            return FunctionWay(function, self._threads, self._loop)
        upstream = settings.upstream
        if upstream is None:
            parts = urlsplit(settings.url)
            peer = Peer(f"{parts.scheme}://{parts.netloc}", ca_file=settings.ca_file)
            headers = [(name, value.reveal()) for name, value in settings.headers.items()]
            return self._server(peer, parts.path or "/", headers, hook_body, _read_hook, "url")
        write = partial(_write_moderation, settings.model)
        read = partial(_read_moderation, settings.threshold)
        path = get_provider(upstream.provider).routes.path(MODERATIONS)
        if path is None:
            raise ValueError(f"{upstream.name!r} has no {MODERATIONS}")
        return self._server(upstream.peer, path, _headers(upstream), write, read)

    def _server(
        self,
        peer: Peer,
        path: str,
        headers: Sequence[tuple[str, str]],
        write: Callable[[Question], bytes],
        read: Callable[[bytes, Question], JudgeVerdict],
        key: str = "base_url",
    ) -> ServerWay:
        return ServerWay(peer, path, headers, write, read, self._closing, self._timers, self._loop, key)


def _headers(upstream: UpstreamSettings) -> Sequence[tuple[str, str]]:
    """Returns the headers of requests to an upstream: its key, and those of its configuration."""
    headers = dict(upstream.headers)
    if upstream.api_key is not None:
        name, value = get_provider(upstream.provider).key_header(upstream.api_key.reveal())
        if name.lower() not in {each.lower() for each in headers}:
            headers[name] = value
    return [*headers.items()]


def _version(settings: JudgeSettings) -> tuple[int, ...]:
    """Returns numbers of which one changes if a TLS file of the judge changes."""
    upstream = settings.upstream
    return (TLSFiles(settings.ca_file) if upstream is None else TLSFiles.of(upstream.peer)).version


def _read_hook(body: bytes, question: Question) -> JudgeVerdict:
    return read_verdict(read_json(body), question)


def _write_moderation(model: str | None, question: Question) -> bytes:
    return moderation_body(question, model)


def _read_moderation(threshold: Mapping[str, float], body: bytes, question: Question) -> JudgeVerdict:
    return read_moderation(read_json(body), threshold)
