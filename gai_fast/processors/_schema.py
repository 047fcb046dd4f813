"""JSON Schema, by the library of the extra `schema`: loaded when first needed, and only where it is installed.

Owns what of a schema can be judged before the document is whole. Schemas come from clients: no reference is fetched,
and patterns run in linear time.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from gai_fast._impl import parse_exact
from gai_fast.errors import Error
from gai_fast.limits import LIMITS

_LIBRARY: Final = "jsonschema_rs"
_CACHED: Final = 64


def is_available() -> bool:
    """Whether the library is installed."""
    return find_spec(_LIBRARY) is not None


class Schema:
    """One schema, compiled.

    Args:
        text: Its JSON text.

    Raises:
        ValueError: It is no JSON Schema, or needs what cannot be had here.
    """

    def __init__(self, text: str) -> None:
        schema = parse_exact(text)
        self._whole = _validator(schema)
        root = schema if isinstance(schema, dict) else {}
        # Beside `$ref` and in dialects with a base of their own, members mean something else than they say here.
        self._properties: Any = root.get("properties") if "$id" not in root else None
        self._definitions = {key: root[key] for key in ("$schema", "$defs", "definitions") if key in root}
        self._is_closed = root.get("additionalProperties") is False and "patternProperties" not in root
        self._members: dict[str, Any] = {}
        types = root.get("type")
        self.types: frozenset[str] | None = (
            None if types is None else frozenset([types] if type(types) is str else types)
        )
        """What the document itself may be; `None`: anything."""

    def problem(self, value: Any) -> str | None:
        """Where and by which keyword a whole document fails, without quoting it; `None` where it does not."""
        return _first_problem(self._whole, value, "$")

    def member_problem(self, name: str, value: Any) -> str | None:
        """`problem` of one member of the outermost object, as soon as it is whole."""
        if not isinstance(self._properties, dict):
            return None
        if name not in self._properties:
            return "a member of the outermost object is not in the schema" if self._is_closed else None
        if name not in self._members:
            self._members[name] = self._compiled(self._properties[name])
        return _first_problem(self._members[name], value, f"$.{name}")

    def _compiled(self, schema: Any) -> Any:
        """A validator of a part, or `None` where the part cannot be judged alone."""
        if not isinstance(schema, dict) or "$id" in schema:
            return None
        try:
            return _validator({**schema, **self._definitions})
        except ValueError:  # it refers to what stands elsewhere in the schema
            return None


def _validator(schema: Any) -> Any:
    library: Any = import_module(_LIBRARY)
    return library.validator_for(schema, offline=True, pattern_options=library.RegexOptions())


def _first_problem(validator: Any, value: Any, root: str) -> str | None:
    if validator is None:
        return None
    try:
        error = next(validator.iter_errors(value), None)
    except ValueError:
        return f"{root} cannot be validated"
    if error is None:
        return None
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    keyword = next((step for step in reversed(error.schema_path) if isinstance(step, str)), "schema")
    return f"{root}{path} fails {keyword!r}"


@lru_cache(_CACHED)
def _compiled(text: bytes) -> Schema:
    return Schema(text.decode())


def compile_schema(text: bytes) -> Schema:
    """The schema of a request; the same text is compiled once, unless it is larger than `limits.cached_schema`.

    Raises:
        Error: `invalid_request`: it cannot be used.
    """
    try:
        return _compiled(text) if len(text) <= LIMITS.cached_schema else Schema(text.decode())
    except ValueError:
        raise Error(
            "invalid_request", "`response_format.schema` is no JSON Schema that can be used here", reason="schema"
        ) from None
