"""Tokens: totals over streams, and counts if a provider sends none.

Owns the totals, by provider and model, and the source of each count. Adapters have normalized each provider's fields
(docs/events.md): input includes cached tokens, output includes reasoning tokens, and a reported zero stays zero.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal, cast

import msgspec

from gai_fast.core.processing.processor import Processor, StreamInfo
from gai_fast.core.requests.reading import characters_of_media, estimated_tokens
from gai_fast.core.result import Result
from gai_fast.model.events import DELTAS, MEDIA, Event
from gai_fast.model.limits import OTHER, SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import tokens_of
from gai_fast.model.version import installing
from gai_fast.processors.limits import LIMITS

_LIBRARY: Final = "bpe_openai"
_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "cache_write_1h_input_tokens",
    "reasoning_tokens",
    "web_search_requests",
)

_SOURCES: Final = ("counted", "estimated", "partial")

CountTokens = Callable[[str], int]


@dataclass(slots=True)
class UsageTotals:
    """The usage of several streams.

    Args:
        streams: The number of streams.
        without_usage: The number of streams without usage. They add nothing to the token counts.
        input_tokens: All input, cached included.
        output_tokens: All output, reasoning included.
        total_tokens: Input and output.
        cached_input_tokens: Input that was read from a cache.
        cache_write_input_tokens: Input that was written to a cache.
        cache_write_1h_input_tokens: Of it, the input that the cache keeps for an hour.
        reasoning_tokens: Output that was reasoning.
        web_search_requests: Searches that providers have run.
        tokens_by_source: The tokens of `total_tokens` that the provider did not count, by source: `counted`,
            `estimated`, `partial`.
    """

    streams: int = 0
    without_usage: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    cache_write_1h_input_tokens: int = 0
    reasoning_tokens: int = 0
    web_search_requests: int = 0
    tokens_by_source: dict[str, int] = field(default_factory=dict)

    def add(self, usage: Mapping[str, Any] | None) -> None:
        """Adds one stream's `usage`. `None` if it is unknown."""
        self.streams += 1
        if usage is None:
            self.without_usage += 1
            return
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + tokens_of(usage, name))
        source = usage.get("source")
        if source in _SOURCES:
            self.tokens_by_source[source] = self.tokens_by_source.get(source, 0) + tokens_of(usage, "total_tokens")


class UsageAggregator:
    """Adds up the usage of many streams, by provider and model. Also a `MetricsSink`.

    Names come from upstreams and are not trusted. Once there are `limits.usage_models` names, further names are counted
    together under `("other", "other")`. Names longer than `limits.model_name` are counted there too. `total` is always
    exact.

    Not thread-safe.

    Example:
        >>> totals = UsageAggregator()
        >>> usage = {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}
        >>> for event in totals.watch([{"type": "start", "provider": "demo", "model": "m"},
        ...                            {"type": "finish", "provider": "demo", "model": "m", "usage": usage}]):
        ...     pass
        >>> totals.by_model["demo", "m"].input_tokens, totals.total.output_tokens
        (3, 0)
    """

    def __init__(self) -> None:
        self.total = UsageTotals()
        """All streams."""
        self.by_model: dict[tuple[str, str], UsageTotals] = {}
        """Totals by provider and model as the stream named them; beyond the limits, under `("other", "other")`."""

    def add(self, usage: Mapping[str, Any] | Result | None, *, provider: str = "", model: str = "") -> None:
        """Adds one stream.

        Args:
            usage: The stream's `usage` or its result. `None` if the usage is unknown.
            provider: The provider that answered; a result's `provider` takes precedence.
            model: The model that answered; a result's `model` takes precedence.
        """
        if isinstance(usage, Result):
            provider, model, usage = usage.provider or provider, usage.model or model, usage.usage
        self.total.add(usage)
        key = provider, model
        if key not in self.by_model and (
            len(self.by_model) >= LIMITS.usage_models or max(len(provider), len(model)) > SHARED.model_name
        ):
            key = OTHER, OTHER
        totals = self.by_model.get(key)
        if totals is None:
            totals = self.by_model[key] = UsageTotals()
        totals.add(usage)

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Adds one stream from its metrics."""
        self.add(metrics.usage, provider=metrics.provider, model=metrics.answered_by or metrics.model)

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yields the events of one stream unchanged. Adds the stream when it ends or the caller stops iterating."""
        seen = _Seen()
        try:
            for event in events:
                seen.event(event)
                yield event
        finally:
            self.add(seen.usage, provider=seen.provider, model=seen.model)

    async def awatch(self, events: AsyncIterable[Event]) -> AsyncIterator[Event]:
        """Works as `watch`, for asynchronous events."""
        seen = _Seen()
        try:
            async for event in events:
                seen.event(event)
                yield event
        finally:
            self.add(seen.usage, provider=seen.provider, model=seen.model)

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as JSON values: `total`, and `models` as a list."""
        models = [
            {"provider": provider, "model": model, **msgspec.to_builtins(totals)}
            for (provider, model), totals in self.by_model.items()
        ]
        return {"total": msgspec.to_builtins(self.total), "models": models}


class _Seen:
    """The last usage among the events of one stream."""

    def __init__(self) -> None:
        self.provider = self.model = ""
        self.usage: Mapping[str, Any] | None = None

    def event(self, event: Event) -> None:
        if event["type"] in ("start", "finish"):
            self.provider = event.get("provider", self.provider)
            self.model = event.get("model", self.model)
        elif event["type"] == "stream.reset":
            self.usage = None
        self.usage = event.get("usage", self.usage)


class UsageProcessor(Processor):
    """Counts the tokens of a stream if the provider sends no usage. Replaces the estimate by length.

    Args:
        count: Counts the tokens of a text of at most `limits.counted_text` characters. If it raises `ValueError`, the
            text is estimated by its length.
        prompt: Returns the request's text. `None` if the input stays estimated.

    The label `source` is `counted` only if the prompt and all text of the answer were counted.
    """

    def __init__(self, count: CountTokens, prompt: Callable[[], str] | None = None) -> None:
        self._count = count
        self._prompt = prompt
        self._said: list[str] = []
        self._size = 0
        self._before = 0  # tokens of text that is no longer kept
        self._is_counted = prompt is not None  # False once any text is estimated

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Returns the event; adds the counts to a `finish` without usage."""
        kind = event["type"]
        if kind in DELTAS:
            text = cast("dict[str, Any]", event).get(DELTAS[kind], "")
            if text:  # the size limit does not bound empty pieces
                self._said.append(text)
                self._size += len(text)
            if self._size > LIMITS.counted_text:
                self._before += self._tokens("".join(self._said))
                self._said.clear()
                self._size = 0
        elif kind in MEDIA:
            self._before += estimated_tokens(characters_of_media(event))
        elif kind == "stream.reset":
            self._said.clear()
            self._size = self._before = 0
            self._is_counted = self._prompt is not None
        elif kind == "finish":
            usage = event.get("usage")
            if usage is None or usage.get("source") == "estimated":
                return ({**event, "usage": self._counted(usage or {}, {})},)
            has_input = "input_tokens" in usage
            if not (has_input and "output_tokens" in usage) and (has_input or self._prompt is not None):
                return ({**event, "usage": self._counted({}, usage)},)
        return (event,)

    def _counted(self, estimated: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a usage with the tokens of the texts.

        Args:
            estimated: An estimate by length; empty if there is none.
            known: The provider's own counts, which stay; at least one is missing.
        """
        into: int | None = known.get("input_tokens")
        if into is None:
            into = estimated.get("input_tokens", 0) if self._prompt is None else self._tokens(self._prompt())
            # The provider's text may be longer than the request's: a stored conversation, a picture.
            into = max(into, known.get("cached_input_tokens", 0) + known.get("cache_write_input_tokens", 0))
        out: int | None = known.get("output_tokens")
        if out is None:
            out = max(self._before + self._tokens("".join(self._said)), known.get("reasoning_tokens", 0))
        parts = {name: each for name, each in known.items() if name in _COUNTS[3:]}
        counts = {"input_tokens": into, "output_tokens": out, "total_tokens": into + out}
        return {**counts, **parts, "source": "counted" if self._is_counted else "estimated"}

    def _tokens(self, text: str) -> int:
        """Counts a text in blocks. Estimates refused blocks and the text beyond `limits.counted_whole`."""
        counted, block = min(len(text), LIMITS.counted_whole), LIMITS.counted_text
        tokens = sum([self._block(text[at : min(at + block, counted)]) for at in range(0, counted, block)])
        return tokens + self._estimated(len(text) - counted)

    def _block(self, text: str) -> int:
        try:
            return self._count(text)
        except ValueError:
            return self._estimated(len(text))

    def _estimated(self, characters: int) -> int:
        if characters:
            self._is_counted = False
        return estimated_tokens(characters)


Encoding = Literal["o200k_base", "cl100k_base"]


@cache
def load_counter(encoding: Encoding = "o200k_base") -> CountTokens:
    """Returns a function that counts tokens. The first call loads a vocabulary, which takes about a second.

    Raises:
        ValueError: The extra `tokens` is not installed.
    """
    if find_spec(_LIBRARY) is None:
        raise ValueError(f"counting needs the extra `tokens`: {installing('tokens')}")
    library: Any = import_module(_LIBRARY)
    # Not `encode`: text that looks like a special token counts as ordinary text.
    encode = library.get_encoding(encoding).encode_ordinary
    return lambda text: len(encode(text))


class UsageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[processor]] use = "usage"`: counts tokens if a provider sends no usage; needs the extra `tokens`.

    Args:
        encoding: The vocabulary. Another model's vocabulary gives a count that differs by a few per cent for plain
            text.
    """

    encoding: Encoding = "o200k_base"

    def __post_init__(self) -> None:
        load_counter(self.encoding)

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns a processor for every stream."""
        return UsageProcessor(load_counter(self.encoding), stream.prompt)


SETTINGS: Final = UsageSettings
