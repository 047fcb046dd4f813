"""What makes the chain of one stream: what its processors are told of it, and the order in which they stand.

`processors/` has the registry and reads the configuration. Compiled: a guarded stream has a chain before its first
text, and one more if its guards change the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from msgspec import UNSET

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Preface, Processor, ProcessorSettings, StreamInfo
from gai_fast.core.processing.text_pace import TextPace
from gai_fast.core.requests.reading import conversation
from gai_fast.model.events import Event
from gai_fast.model.request import Request


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
        stream_id,
        request_id,
        trace_id,
        model,
        wants_json,
        bytes(form.schema) if form is not UNSET and wants_json and form.schema is not UNSET else None,
        None if request.json_snapshots is UNSET else request.json_snapshots,
        partial(_text, request),
        caller,
        said,
        placeholders,
    )


def _text(request: Request) -> str:
    """Returns the text of a request, without its images and files."""
    contents = [message.content for message in conversation(request)]
    return "\n".join(
        [
            content if isinstance(content, str) else "".join([getattr(part, "text", "") for part in content])
            for content in contents
        ]
    )


def chain_of(
    configured: Iterable[ProcessorSettings],
    stream: StreamInfo,
    guard: ProcessorSettings | None,
    snapshots: Callable[[], ProcessorSettings],
) -> Chain | None:
    """Returns the chain of one stream. `None` if no processor applies: the stream then has no cost.

    JSON snapshots need no configuration: if the request asks for them, what makes them is added. They are of the text
    that the client gets, so that what makes them is behind what changes texts. The guards come before all: nothing may
    see what they do not let through. What is said of the request comes next, then what paces the others.

    Args:
        configured: The settings, in the order of the configuration.
        stream: The stream.
        guard: Makes the stage of the guards. None if there are none.
        snapshots: Returns the settings of what makes JSON snapshots.

    Raises:
        Error: A processor refuses the request.
    """
    processors: list[Processor] = []
    for settings in configured:
        processor = settings.processor(stream)
        if processor is not None:
            processors.append(processor)
    if stream.json_snapshots is not None:
        making = [each for each in processors if hasattr(each, "snapshots_ms")]
        if not making:
            added = snapshots().processor(stream)
            making = [] if added is None else [added]
            processors = making + processors
        last = max([at for at, each in enumerate(processors) if each.changes_text], default=-1)
        early = [each for each in processors[: last + 1] if each in making]
        others = [each for each in processors[: last + 1] if each not in making]
        processors = others + early + processors[last + 1 :]
    if any(each.touches == "deltas" for each in processors):
        processors.insert(0, TextPace())
    if stream.said:
        processors.insert(0, Preface(stream.said))
    stage = None if guard is None else guard.processor(stream)
    if stage is not None:
        processors.insert(0, stage)
    return Chain(processors) if processors else None
