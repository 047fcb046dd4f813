"""JSON Schema, by the library of the extra `schema`: loaded when first needed, and only where it is installed.

Owns what of a schema can be checked before the document is whole. Schemas come from clients: no reference is fetched,
patterns run in linear time, and the size of a schema and of its compiled patterns is bounded.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from gai_fast._impl import encode_json, parse_exact
from gai_fast.errors import Error
from gai_fast.limits import LIMITS

_LIBRARY: Final = "jsonschema_rs"


def is_available() -> bool:
    """Whether the library is installed."""
    return find_spec(_LIBRARY) is not None


class Schema:
    """One schema, compiled.

    Args:
        text: Its JSON text.

    Raises:
        ValueError: It is no JSON Schema, refers to another document, or has patterns with look-around, or more or
            larger patterns than `limits.schema_patterns` and `limits.schema_pattern_memory` allow.
    """

    def __init__(self, text: str) -> None:
        schema = parse_exact(text)
        count = _count_patterns(schema)
        if count > LIMITS.schema_patterns:
            raise ValueError(f"the JSON Schema has {count} patterns, more than {LIMITS.schema_patterns}")
        self._pattern_memory = LIMITS.schema_pattern_memory // max(count, 1)
        self._whole = self._validator(schema)
        root = schema if isinstance(schema, dict) else {}
        # Under an `$id`, references have another base, so members cannot be compiled alone.
        self._properties: Any = root.get("properties") if "$id" not in root else None
        self._definitions = {key: root[key] for key in ("$schema", "$defs", "definitions") if key in root}
        # Each member that refers to definitions compiles them again.
        self._most_members = LIMITS.schema_parts // len(encode_json(self._definitions))
        self._is_closed = root.get("additionalProperties") is False and "patternProperties" not in root
        self._members: dict[str, Any] = {}
        types = root.get("type")
        self.types: frozenset[str] | None = (
            None if types is None else frozenset([types] if type(types) is str else types)
        )
        """The valid types of the document itself; `None`: any."""

    def problem(self, value: Any) -> str | None:
        """The place and keyword at which a whole document fails, without quoting it; `None` where it is valid."""
        return _first_problem(self._whole, value, "$")

    def member_problem(self, name: str, value: Any) -> str | None:
        """`problem` of one member of the outermost object, as soon as it is whole."""
        if not isinstance(self._properties, dict):
            return None
        if name not in self._properties:
            return "a member of the outermost object is not in the schema" if self._is_closed else None
        if name not in self._members:
            if len(self._members) == self._most_members:
                return None
            self._members[name] = self._compiled(self._properties[name])
        return _first_problem(self._members[name], value, f"$.{name}")

    def _compiled(self, schema: Any) -> Any:
        """A validator of a part, or `None` where the part cannot be checked alone."""
        if not isinstance(schema, dict) or "$id" in schema:
            return None
        try:
            return self._validator({**schema, **self._definitions})
        except ValueError:  # it refers to another place in the schema
            return None

    def _validator(self, schema: Any) -> Any:
        library: Any = import_module(_LIBRARY)
        patterns = library.RegexOptions(size_limit=self._pattern_memory, dfa_size_limit=self._pattern_memory)
        return library.validator_for(schema, offline=True, pattern_options=patterns)


def _count_patterns(schema: Any) -> int:
    """Counts the regular expressions of a schema; a property of the name `pattern` is none."""
    count = 0
    rest = [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            count += isinstance(value.get("pattern"), str)
            named = value.get("patternProperties")
            count += len(named) if isinstance(named, dict) else 0
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    return count


def _first_problem(validator: Any, value: Any, root: str) -> str | None:
    if validator is None:
        return None
    try:
        validator.validate(value)  # ends at the first error, while `iter_errors` looks for all of them first
    except ValueError as raised:
        error: Any = raised
        if not hasattr(error, "instance_path"):  # a value that the library cannot take, as an infinite number
            return f"{root} cannot be validated"
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        keyword = next((step for step in reversed(error.schema_path) if isinstance(step, str)), "schema")
        return f"{root}{path} fails {keyword!r}"
    return None


@lru_cache(LIMITS.cached_schemas)
def _compiled(text: bytes) -> Schema:
    return Schema(text.decode())


def compile_schema(text: bytes) -> Schema:
    """Compiles the schema of a request; one of up to `limits.cached_schema` bytes is compiled once and kept.

    Raises:
        Error: `invalid_request`: it cannot be used, or has more than `limits.schema` bytes.
    """
    if len(text) > LIMITS.schema:
        what = f"`response_format.schema` has {len(text)} bytes, and at most {LIMITS.schema} can be checked here"
        raise Error("invalid_request", f"{what} (limit schema): make it smaller", reason="schema")
    try:
        return _compiled(text) if len(text) <= LIMITS.cached_schema else Schema(text.decode())
    except ValueError:
        raise Error(
            "invalid_request",
            "`response_format.schema` is no JSON Schema that can be used here: it must not refer to other documents; "
            f"its patterns, at most {LIMITS.schema_patterns}, must be small and without look-around (limits "
            "schema_patterns, schema_pattern_memory)",
            reason="schema",
        ) from None
