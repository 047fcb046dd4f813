"""The registry of processors. A processor's module is imported on first use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final, cast

import msgspec

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.making import chain_of, describe
from gai_fast.core.processing.processor import Processor, ProcessorSettings, StreamInfo, Touches

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


def make_chain(
    configured: Iterable[ProcessorSettings], stream: StreamInfo, guard: ProcessorSettings | None = None
) -> Chain | None:
    """Returns the chain of one stream; as `core/processing/making.chain_of`.

    Args:
        configured: The settings, in the order of the configuration.
        stream: The stream.
        guard: Makes the stage of the guards. None if there are none.

    Raises:
        Error: A processor refuses the request.
    """
    return chain_of(configured, stream, guard, _snapshots)


def _snapshots() -> ProcessorSettings:
    return read_processor({"use": "json_stream"})


_PATH: Final = re.compile(r"`\$\.([^`]*)`")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
