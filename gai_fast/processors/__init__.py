"""The registry of processors. A processor's module is imported on first use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Preface, Processor, ProcessorSettings, StreamInfo, Touches
from gai_fast.core.requests.reading import conversation
from gai_fast.model.events import Event
from gai_fast.model.request import Request

__all__ = [
    "PROCESSORS",
    "BadParameter",
    "Chain",
    "Processor",
    "ProcessorSettings",
    "StreamInfo",
    "Touches",
    "describe",
    "make_chain",
    "parameters",
    "read_processor",
]

# A processor's module holds `SETTINGS`: the type of its `[[processor]]` entries.
PROCESSORS: Final = {
    "json_stream": "gai_fast.processors.json_stream",
    "usage": "gai_fast.processors.usage",
    "filter": "gai_fast.processors.filter",
    "transform": "gai_fast.processors.transform",
    "batch": "gai_fast.processors.batch",
    "correlation": "gai_fast.processors.correlation",
}


class BadParameter(ValueError):
    """A `[[processor]]` entry is invalid.

    Args:
        text: The fault.
        key: The faulty key; empty if the whole entry is faulty.
    """

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


def parameters(use: str) -> type[msgspec.Struct]:
    """Returns the settings struct of a processor. Its fields are all keys of an entry except `use`.

    Args:
        use: One of `PROCESSORS`.
    """
    found: type[msgspec.Struct] = import_module(PROCESSORS[use]).SETTINGS
    return found


def read_processor(entry: Mapping[str, Any]) -> ProcessorSettings:
    """Reads and checks a `[[processor]]` entry of the configuration.

    Args:
        entry: The entry's keys. `use` names the processor, the other keys are its parameters.

    Raises:
        BadParameter: The processor or a parameter is unknown (the message suggests the nearest known name), or a value
            is invalid.
    """
    use = entry.get("use")
    if not isinstance(use, str):
        raise BadParameter(f"a processor needs `use`, one of: {', '.join(PROCESSORS)}", "use")
    if use not in PROCESSORS:
        raise BadParameter(f"unknown processor {use!r}{_nearest(use, PROCESSORS)}", "use")
    settings = parameters(use)
    given = {key: value for key, value in entry.items() if key != "use"}
    for key in given:
        if key not in settings.__struct_fields__:
            near = _nearest(key, settings.__struct_fields__)
            raise BadParameter(f"processor {use!r} has no parameter {key!r}{near}", key)
    try:
        read: Any = msgspec.convert(given, settings)
    except msgspec.ValidationError as problem:
        what, _, where = str(problem).partition(" - at ")
        found = _PATH.search(where)
        name = f", parameter {found[1]!r}" if found else ""
        raise BadParameter(f"processor {use!r}{name}: {what}", found[1].partition("[")[0] if found else "") from None
    return cast("ProcessorSettings", read)


def describe(
    request: Request,
    *,
    stream_id: str = "",
    request_id: str = "",
    trace_id: str | None = None,
    model: str = "",
    caller: str = "",
    said: tuple[Event, ...] = (),
    placeholders: object | None = None,
) -> StreamInfo:
    """Describes a native request to processors.

    Args:
        request: The request.
        stream_id: The stream's id.
        request_id: The request's id.
        trace_id: The trace's id.
        model: The requested model.
        caller: The name of the request's caller.
        said: As for `StreamInfo`.
        placeholders: As for `StreamInfo`.
    """
    form = request.response_format
    wants_json = form is not UNSET and form.type != "text"
    return StreamInfo(
        stream_id=stream_id,
        request_id=request_id,
        trace_id=trace_id,
        model=model,
        wants_json=wants_json,
        schema=bytes(form.schema) if form is not UNSET and wants_json and form.schema is not UNSET else None,
        json_snapshots=None if request.json_snapshots is UNSET else request.json_snapshots,
        prompt=lambda: _text(request),
        caller=caller,
        said=said,
        placeholders=placeholders,
    )


def _text(request: Request) -> str:
    """Returns the text of a request, without its images and files."""
    contents = [message.content for message in conversation(request)]
    return "\n".join(
        content if isinstance(content, str) else "".join(getattr(part, "text", "") for part in content)
        for content in contents
    )


def make_chain(
    configured: Iterable[ProcessorSettings], stream: StreamInfo, guard: ProcessorSettings | None = None
) -> Chain | None:
    """Returns the chain of one stream. `None` if no processor applies: the stream then has no cost.

    JSON snapshots need no configuration: if the request asks for them, a `json_stream` processor is added. They are of
    the text that the client gets, so that what makes them is behind what changes texts. The guards come before all:
    nothing may see what they do not let through. What is said of the request comes next.

    Args:
        configured: The settings, in the order of the configuration.
        stream: The stream.
        guard: Makes the stage of the guards. None if there are none.

    Raises:
        Error: A processor refuses the request.
    """
    processors = [processor for each in configured if (processor := each.processor(stream)) is not None]
    if stream.json_snapshots is not None:
        making = [each for each in processors if hasattr(each, "snapshots_ms")]
        if not making:
            added = read_processor({"use": "json_stream"}).processor(stream)
            making = [] if added is None else [added]
            processors = making + processors
        last = max((at for at, each in enumerate(processors) if each.changes_text), default=-1)
        early = [each for each in processors[: last + 1] if each in making]
        others = [each for each in processors[: last + 1] if each not in making]
        processors = others + early + processors[last + 1 :]
    if stream.said:
        processors = [Preface(stream.said), *processors]
    stage = None if guard is None else guard.processor(stream)
    if stage is not None:
        processors = [stage, *processors]
    return Chain(processors) if processors else None


_PATH: Final = re.compile(r"`\$\.([^`]*)`")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
