"""The keys of `[[model]]` and `[[upstream]]` that change requests: fields, raw members, and members that are not sent.

Each check returns the value as the settings have it, or raises a `ValueError` that names the rule and never repeats the
value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from gai_fast.config.checks import known_keys
from gai_fast.core.requests.reading import parse_request
from gai_fast.kernels import encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import Request
from gai_fast.providers import RESERVED

_PER_REQUEST: Final = frozenset(
    "query model system messages tools provider_options extra json_snapshots stream resumable request_id "
    "idempotency_key gateway_tools max_steps approvals".split()
)
"""Fields of a native request that belong to one request."""
FIELDS: Final = tuple(name for name in Request.__struct_fields__ if name not in _PER_REQUEST)
"""The fields that `defaults` and `overrides` may have."""
QUIRKS: Final[Mapping[str, tuple[Any, ...]]] = {
    "max_tokens": ("max_tokens", "max_completion_tokens"),
    "developer_role": (True, False),
    "parallel_tool_calls": (True, False),
    "stream_options": (True, False),
    "strict": (True, False),
}
"""The keys of `quirks`, and their values."""
_NEEDED: Final = frozenset(("model", "messages", "input", "contents", "prompt", "stream"))
_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[\])?(\.[A-Za-z_][A-Za-z0-9_]*(\[\])?)*(?<!\])")


def request_fields(value: Any) -> Mapping[str, Any]:
    """Checks a table of fields of a native request."""
    if not isinstance(value, dict):
        raise ValueError("must be a table of fields of a request, such as {max_tokens = 4096}")
    known_keys(value, FIELDS)
    try:
        request_with(value)
    except InvalidRequest as problem:
        where = problem.message.partition(": ")[2].replace("`$.", "`")
        raise ValueError(f"must have fields of a request: {where}") from None
    except TypeError:
        raise ValueError("must have values that JSON has, too") from None
    return MappingProxyType(value)


def request_with(fields: Mapping[str, Any]) -> Request:
    """Returns a request with the fields of a table.

    Raises:
        InvalidRequest: A field is not valid.
        TypeError: A value is not a JSON value.
    """
    return parse_request(encode_json({"query": "-", **fields}))


def raw_members(value: Any) -> Mapping[str, Any]:
    """Checks a table of raw members of a provider's request."""
    if not isinstance(value, dict):
        raise ValueError("must be a table of members of the provider's request")
    for name in RESERVED:
        if name in value:
            raise ValueError(f"must not have {name}: a caller's limits and the form of answers depend on it")
    try:
        encode_json(value)
    except TypeError:
        raise ValueError("must have values that JSON has, too") from None
    return MappingProxyType(value)


def dropped_paths(value: Any) -> tuple[str, ...]:
    """Checks a list of paths of members."""
    if not isinstance(value, list) or not all(isinstance(path, str) and _PATH.fullmatch(path) for path in value):
        raise ValueError('must be a list of paths, such as ["temperature", "tools[].strict"]')
    for path in value:
        if path in _NEEDED:
            raise ValueError(f"must not have {path}: no request is without it")
    return tuple(value)


def quirks(value: Any) -> Mapping[str, Any]:
    """Checks a table of the parts of the chat dialect that a server lacks."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a table of {', '.join(QUIRKS)}")
    known_keys(value, QUIRKS)
    for name, given in value.items():
        if not any(given is known or (given == known and isinstance(given, str)) for known in QUIRKS[name]):
            known = " or ".join(str(each).lower() for each in QUIRKS[name])
            raise ValueError(f"must have {known} for {name}")
    return MappingProxyType(value)
