"""The gateway in this process, over the mock upstream."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.config import ConfigError
from gai_fast.core.callbacks import EventManager
from gai_fast.library.gateway import Gateway
from gai_fast.model.errors import Error, Internal, InvalidRequest, Network, NotFound, ProviderUnavailable, Unsupported
from gai_fast.model.events import Event
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import CacheSettings
from tests.conftest import ChangeLimits
from tests.unit.mocked import settings_for
from tests.waiting import SECONDS, until

QUERY = {"query": "Tell me a story"}


class TestStream:
    async def test_events_come_in_order_and_numbered(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
        types = [event["type"] for event in events]
        assert types == ["start", *["text.delta"] * 8, "finish", "done"]
        assert [event["seq"] for event in events[:-1]] == list(range(1, 11))
        assert events[0]["stream_id"] == stream.id
        assert events[-1] == {"type": "done", "finished": True}

    async def test_the_result_of_a_stream_that_nobody_read(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            result = await stream.result()
        assert result.text
        assert result.finish_reason == "stop"

    async def test_events_and_text_are_read_whatever_a_result_can_hold(
        self, gateway: Gateway, change_limits: ChangeLimits
    ) -> None:
        whole = await gateway.ask(QUERY)
        change_limits(collected=1)
        async with gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
            assert [event["type"] for event in events][-2:] == ["finish", "done"]
            with pytest.raises(ProviderUnavailable, match="read it as events"):
                await stream.result()
        assert "".join([text async for text in gateway.ask(QUERY)]) == whole.text

    async def test_the_result_holds_what_was_read_before(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            async for event in stream:
                if event["type"] == "text.delta":
                    break
            result = await stream.result()
        async with gateway.stream(QUERY) as stream:
            again = await stream.result()
        assert dataclasses.replace(again, metrics={}) == dataclasses.replace(result, metrics={})

    async def test_the_result_says_what_was_measured(self, mock: Mock, gateway: Gateway) -> None:
        mock.ttft = 0.02
        metrics = (await gateway.ask("Hi")).metrics
        assert (metrics["deltas"], metrics["events"]) == (8, 11)
        assert metrics["duration_ms"] >= metrics["time_to_first_token_ms"] >= 20
        assert metrics["bytes_in"] > 0

    async def test_leaving_it_closes_the_upstream(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        async with gateway.stream(QUERY) as stream:
            await anext(stream)
        await asyncio.wait_for(mock.requests[0].closed.wait(), SECONDS)
        assert [event["type"] async for event in stream][-1:] != ["done"]

    async def test_cancel_ends_it_with_what_was_used(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        async with gateway.stream(QUERY) as stream:
            await anext(stream)
            await stream.cancel()
            events = [event async for event in stream]
            result = await stream.result()
        assert events[-2]["finish_reason"] == "cancelled"
        assert events[-1] == {"type": "done", "finished": True}
        assert result.usage is not None
        assert result.usage["source"] == "partial"

    async def test_a_program_that_does_not_read_stops_the_upstream(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas = 1_000_000
        async with gateway.stream(QUERY) as stream:
            before, now = -1, 0
            while before != now or not now:
                await asyncio.sleep(0.1)
                before, now = now, mock.requests[0].deltas if mock.requests else 0
            assert now < 500_000
            while mock.requests[0].deltas == now:  # what the kernel holds is read first
                await anext(stream)

    async def test_what_fails_is_an_event_and_raised_by_the_result(self, mock: Mock, gateway: Gateway) -> None:
        mock.fault = Fault("cut", 3)
        async with gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
            with pytest.raises(Error) as failure:
                await stream.result()
        assert [event["type"] for event in events][-2:] == ["error", "done"]
        assert failure.value.code == events[-2]["error"]["code"] == "network"

    async def test_a_failure_before_the_first_event_is_one_too(self, mock: Mock, gateway: Gateway) -> None:
        mock.fault = Fault("429")
        async with gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
        assert [event["type"] for event in events] == ["error", "done"]
        assert events[0]["error"]["code"] == "rate_limited"

    @pytest.mark.parametrize(
        ("request_", "problem", "named"),
        [
            ({"query": 1}, InvalidRequest, "query"),
            ({}, InvalidRequest, "messages"),
            ({"query": "a", "nonsense": 1}, InvalidRequest, "nonsense"),
            ({"query": "a", "model": "other"}, NotFound, "Available: m"),
        ],
    )
    async def test_a_request_that_cannot_be_made_is_raised(
        self, gateway: Gateway, request_: dict[str, Any], problem: type[Error], named: str
    ) -> None:
        with pytest.raises(problem, match=named):
            async with gateway.stream(request_):
                pass

    async def test_it_is_followed_once(self, gateway: Gateway) -> None:
        async with gateway.stream(QUERY) as stream:
            await stream.result()
        with pytest.raises(RuntimeError, match="once"):
            async with stream:
                pass

    async def test_an_idempotency_key_is_refused(self, mock: Mock, gateway: Gateway) -> None:
        with pytest.raises(Unsupported, match="idempotency_key"):
            await gateway.ask("Hi", idempotency_key="k")
        assert not mock.requests

    async def test_a_request_may_bring_its_id(self, gateway: Gateway) -> None:
        for given, is_taken in (("mine-1", True), ("not fit", False)):
            async with gateway.stream({**QUERY, "request_id": given}) as stream:
                assert ((await anext(stream))["request_id"] == given) is is_taken

    async def test_another_loop_is_reported_so(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        async with gateway.stream(QUERY) as stream:
            await anext(stream)

            async def ask() -> None:
                await gateway.ask("Hi")

            for use in (ask, stream.cancel, stream.result):
                with pytest.raises(RuntimeError, match="another event loop"):
                    await asyncio.to_thread(asyncio.run, use())

    async def test_it_must_be_open(self, gateway: Gateway) -> None:
        with pytest.raises(RuntimeError, match="async with"):
            await anext(gateway.stream(QUERY))


class Overheard:
    """A session whose calls are noted."""

    def __init__(self, session: Any, calls: list[str]) -> None:
        self._session, self._calls = session, calls

    def __getattr__(self, name: str) -> Any:
        self._calls += [name] if name in ("pause", "resume") else []
        return getattr(self._session, name)


class TestCallbacks:
    async def test_they_learn_what_is_read_and_the_end_says_what_was_measured(self, gateway: Gateway) -> None:
        seen: list[Any] = []

        async def later(event: Event) -> None:
            await asyncio.sleep(0)
            seen.append(event)

        manager = EventManager(on_start=seen.append, on_delta=seen.append, on_complete=later)
        async with gateway.stream(QUERY, events=manager) as stream:
            read = [event async for event in stream]
        assert seen[:-1] == read[:-2]
        finish = seen[-1]
        assert finish.pop("metrics")["deltas"] == 8
        assert finish == read[-2]

    async def test_they_need_nobody_who_reads(self, gateway: Gateway) -> None:
        ended = asyncio.Event()
        async with gateway.stream(QUERY, EventManager(on_complete=lambda event: ended.set())):
            async with asyncio.timeout(SECONDS):
                await ended.wait()

    async def test_they_get_every_event_though_nobody_reads_more_than_may_wait(
        self, mock: Mock, gateway: Gateway, change_limits: ChangeLimits
    ) -> None:
        """The upstream was paused up to its total timeout."""
        change_limits(waiting_events=4)
        mock.deltas = 400
        ended = asyncio.Event()
        seen: list[Event] = []
        manager = EventManager(on_delta=seen.append, on_complete=lambda event: ended.set())
        async with gateway.stream(QUERY, manager) as stream:
            async with asyncio.timeout(SECONDS):
                await ended.wait()
            assert len(seen) == 400
            assert len(stream._ready) <= 5, "what nobody reads is not kept"
            with pytest.raises(RuntimeError, match="iterate from the beginning"):
                await anext(stream)
            result = await stream.result()
        assert result.text == "".join(event["text"] for event in seen)

    async def test_the_result_of_what_was_dropped_waits_for_the_end(
        self, mock: Mock, gateway: Gateway, change_limits: ChangeLimits
    ) -> None:
        change_limits(waiting_events=4)
        mock.deltas = 40
        enough = asyncio.Event()

        def count(event: Event) -> None:
            if event["seq"] > 10:
                enough.set()

        async with gateway.stream(QUERY, EventManager(on_delta=count)) as stream:
            async with asyncio.timeout(SECONDS):
                await enough.wait()
                result = await stream.result()
        assert (result.finish_reason, result.metrics["deltas"]) == ("stop", 40)

    async def test_a_stream_that_breaks_off_ends_for_who_reads_and_for_callbacks(self, gateway: Gateway) -> None:
        seen: list[Any] = []
        async with gateway.stream(QUERY, EventManager(on_error=seen.append)) as stream:

            def fail(event: Event) -> None:
                raise ZeroDivisionError

            stream._sink.event = fail
            events = [event async for event in stream]
            with pytest.raises(Internal):
                await stream.result()
        assert [event["type"] for event in events] == ["error", "done"]
        assert [event["error"]["code"] for event in seen] == ["internal"]
        assert seen[0]["metrics"]["duration_ms"] >= 0, "callbacks get the figures with every end"

    async def test_a_failure_is_reported_even_where_it_is_raised(self, mock: Mock, gateway: Gateway) -> None:
        mock.fault = Fault("cut", 3)
        seen: list[Any] = []

        async def note(event: Event) -> None:
            await asyncio.sleep(0.01)
            seen.append(event)

        with pytest.raises(Network):
            async with gateway.stream(QUERY, EventManager(on_error=note, on_usage=note)) as stream:
                await stream.result()
        assert [event["type"] for event in seen] == ["error", "error"]
        assert seen[1]["metrics"]["deltas"] == 3

    async def test_one_that_raises_harms_nothing(self, gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
        def bad(event: Event) -> None:
            raise RuntimeError

        async def worse(event: Event) -> None:
            raise ValueError

        with caplog.at_level(logging.WARNING, "gai_fast.core.callbacks"):
            async with gateway.stream(QUERY, EventManager(on_delta=bad, on_start=worse, on_complete=bad)) as stream:
                result = await stream.result()
        assert (result.finish_reason, result.metrics["deltas"]) == ("stop", 8)
        assert len(caplog.records) == 2, "each kind of failure once"

    async def test_slow_ones_stop_the_upstream_together_with_who_reads(
        self, mock: Mock, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
    ) -> None:
        change_limits(waiting_events=4, callbacks_waiting=4)
        mock.deltas = 1_000_000
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            await gate.wait()

        async with gateway.stream(QUERY, EventManager(on_delta=slow)) as stream:
            calls: list[str] = []
            monkeypatch.setattr(stream, "_session", Overheard(stream._session, calls))
            await anext(stream)
            async with asyncio.timeout(SECONDS):
                await until(lambda: stream._pauses == 2)
                assert calls == ["pause"]
                while stream._pauses == 2:
                    await anext(stream)
                assert calls == ["pause"], "the callbacks are behind still"
                gate.set()
                while "resume" not in calls:
                    await anext(stream)

    async def test_who_leaves_early_is_reported_no_more(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        seen: list[Any] = []
        started = asyncio.Event()

        async def hanging(event: Event) -> None:
            started.set()
            await asyncio.Event().wait()

        async with gateway.stream(QUERY, EventManager(on_delta=hanging, on_complete=seen.append)) as stream:
            await started.wait()
            await anext(stream)
        await asyncio.sleep(0.02)
        assert not seen
        assert not [task for task in asyncio.all_tasks() if "CallbackRunner" in repr(task)]

    async def test_a_stream_may_be_cancelled_from_one(self, mock: Mock, gateway: Gateway) -> None:
        mock.deltas, mock.rate = 10_000, 200.0

        async def enough(event: Event) -> None:
            if event.get("seq", 0) > 3:
                await stream.cancel()

        stream = gateway.stream(QUERY, EventManager(on_delta=enough))
        async with asyncio.timeout(SECONDS), stream:
            result = await stream.result()
        assert result.finish_reason == "cancelled"


class TestGateway:
    @pytest.mark.parametrize("settings", ["gai-fast.toml", {"upstream": []}, 5])
    def test_settings_are_settings(self, settings: Any) -> None:
        with pytest.raises(TypeError, match=r"takes Settings; Gateway.from_config\(path\) reads a file; this is \w+$"):
            Gateway(settings)

    @pytest.mark.parametrize("request_", [None, 5, ["Hi"], b"Hi"])
    def test_a_request_is_a_mapping(self, request_: Any) -> None:
        gateway = Gateway()
        for use in (gateway.ask, gateway.stream):
            with pytest.raises(
                TypeError, match=rf"a native request is a mapping .*; this is {type(request_).__name__}$"
            ):
                use(request_)

    async def test_it_is_opened_once_at_a_time(self, mock: Mock) -> None:
        gateway = Gateway(settings_for(mock))
        for _ in range(2):
            async with gateway:
                with pytest.raises(RuntimeError, match="open already"):
                    await gateway.__aenter__()
                assert (await gateway.ask("Hi")).text

    async def test_it_must_be_open(self, mock: Mock) -> None:
        with pytest.raises(RuntimeError, match="async with"):
            await Gateway(settings_for(mock)).ask("Hi")

    async def test_closing_it_ends_its_streams(self, mock: Mock) -> None:
        mock.deltas, mock.rate = 10_000, 200.0
        async with Gateway(settings_for(mock)) as gateway:
            stream = gateway.stream(QUERY)
            await stream.__aenter__()
            await anext(stream)
        events = [event async for event in stream]
        assert events[-2]["error"]["reason"] == "draining"

    async def test_configured_processors_are_applied(self, mock: Mock) -> None:
        configured = dataclasses.replace(settings_for(mock), processors=({"use": "batch", "characters": 1000},))
        async with Gateway(configured) as gateway, gateway.stream(QUERY) as stream:
            events = [event async for event in stream]
        assert [event["type"] for event in events] == ["start", "text.delta", "finish", "done"]
        assert [(event.get("from_seq"), event.get("seq")) for event in events[:3]] == [(None, 1), (2, 9), (None, 10)]

    async def test_json_is_followed_where_a_request_asks(self, gateway: Gateway) -> None:
        async with gateway.stream({**QUERY, "json_snapshots": 1}) as stream:
            assert "warning" in [event["type"] async for event in stream], "prose is no JSON"

    async def test_sinks_are_notified_of_every_stream(self, mock: Mock) -> None:
        class Sink:
            received: ClassVar[list[StreamMetrics]] = []

            def stream_ended(self, metrics: StreamMetrics) -> None:
                self.received.append(metrics)

        async with Gateway(settings_for(mock), sinks=[Sink()]) as gateway:
            await gateway.ask("Hi")
            await gateway.ask("Hi", model="up/other")
        assert [(one.model, one.transport, one.outcome) for one in Sink.received] == [
            ("m", "library", "finished"),
            ("up/other", "library", "finished"),
        ]

    async def test_plain_and_durable_streams_of_a_program_have_one_caller(self, mock: Mock) -> None:
        seen: list[StreamMetrics] = []

        class Sink:
            def stream_ended(self, metrics: StreamMetrics) -> None:
                seen.append(metrics)

        async with Gateway(settings_for(mock), sinks=[Sink()]) as gateway:
            for resumable in (False, True):
                async with gateway.stream({**QUERY, "resumable": resumable}) as stream:
                    await stream.result()
        assert [metrics.key for metrics in seen] == ["anonymous", "anonymous"]

    async def test_a_configuration_file(self, mock: Mock, tmp_path: Path) -> None:
        file = tmp_path / "gai-fast.toml"
        file.write_text(
            f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{mock.url}/v1"\n'
            '[[model]]\nname = "m"\nupstream = "up"\n'
        )
        async with Gateway.from_config(file) as gateway:
            assert (await gateway.ask("Hi")).text

    async def test_without_settings_no_file_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "gai-fast.toml").write_text("this is not TOML")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GROQ_API_KEY", "k")
        gateway = Gateway()
        assert "groq" in gateway.settings.upstreams
        assert list(gateway.settings.models) == ["groq/openai/gpt-oss-120b", "demo"]

    async def test_a_configuration_that_cannot_be_used(self, tmp_path: Path) -> None:
        file = tmp_path / "gai-fast.toml"
        file.write_text("[server]\nprot = 1\n")
        with pytest.raises(ConfigError, match="port"):
            Gateway.from_config(file)


class TestSharedAnswers:
    @pytest.mark.parametrize("resumable", [False, True])
    async def test_programs_share_the_answers_of_models_that_say_so(self, mock: Mock, resumable: bool) -> None:
        settings = settings_for(mock)
        models = {name: dataclasses.replace(model, cache=True) for name, model in settings.models.items()}
        ended: list[StreamMetrics] = []

        class Sink:
            def stream_ended(self, metrics: StreamMetrics) -> None:
                ended.append(metrics)

        shared = dataclasses.replace(settings, models=models, cache=CacheSettings(ttl=60.0))
        async with Gateway(shared, sinks=[Sink()]) as gateway:
            texts = []
            for _ in range(2):
                async with gateway.stream({**QUERY, "resumable": resumable}) as stream:
                    texts.append((await stream.result()).text)
        assert texts[0] == texts[1] != ""
        assert len(mock.requests) == 1
        assert [metrics.cache for metrics in ended] == ["miss", "hit"]
