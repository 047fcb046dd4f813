"""JSON Schema validation by the library of the extra `schema`, imported on first use.

Owns the checks that are possible before the document is complete. Schemas come from clients: no reference is fetched,
patterns run in linear time, and the size of a schema, the size of its compiled patterns and the cost of a check
(`_schema_cost.py`) are bounded.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import quote

from gai_fast.kernels import parse_exact
from gai_fast.model.errors import Error
from gai_fast.processors._schema_cost import CostlySchema, most_paths, survey
from gai_fast.processors.limits import LIMITS

_LIBRARY: Final = "jsonschema_rs"
_ROOT: Final = "schema:root"
"""The URI by which validators of members refer to the schema."""


def is_available() -> bool:
    """Returns whether the library is installed."""
    return find_spec(_LIBRARY) is not None


class Schema:
    """A compiled schema.

    Args:
        text: The schema's JSON text.

    Raises:
        ValueError: The text is not a JSON Schema, refers to another document, has patterns with look-around, has more
            or larger patterns than `limits.schema_patterns` and `limits.schema_pattern_memory` allow, or costs more
            than `limits.schema_paths` allows (`CostlySchema`).
    """

    def __init__(self, text: str) -> None:
        schema = parse_exact(text)
        count, self._names_places = survey(schema)
        self._patterns = count
        if count > LIMITS.schema_patterns:
            raise ValueError(f"the JSON Schema has {count} patterns, more than {LIMITS.schema_patterns}")
        self._paths = most_paths(schema)
        self._pattern_memory = LIMITS.schema_pattern_memory // max(count, 1)
        self._whole = self._validator(schema)
        root = schema if isinstance(schema, dict) else {}
        self._schema = root
        # `$id` changes the base of references, so members cannot be compiled alone.
        self._properties: Any = root.get("properties") if "$id" not in root else None
        self._most_members = LIMITS.schema_parts // len(text)
        self._is_closed = root.get("additionalProperties") is False and "patternProperties" not in root
        self._members: dict[str, Any] = {}
        self._registry: Any = None
        types = root.get("type")
        self.types: frozenset[str] | None = (
            None if types is None else frozenset([types] if type(types) is str else types)
        )
        """The valid types of the document. `None` if every type is valid."""

    def is_too_costly(self, values: int, characters: int) -> bool:
        """Returns whether a check of a part of a document may take more than `limits.schema_work`.

        Args:
            values: Its values at most.
            characters: Its length.
        """
        evaluations = values * (self._paths + LIMITS.schema_place)
        return evaluations + characters * self._patterns // LIMITS.schema_characters > LIMITS.schema_work

    def problem(self, value: Any) -> str | None:
        """Returns the place and keyword at which a document fails, without quoting it. `None` if it is valid."""
        return self._first_problem(self._whole, value, "$")

    def member_problem(self, name: str, value: Any) -> str | None:
        """Works as `problem`, for one complete member of the outermost object."""
        if not isinstance(self._properties, dict):
            return None
        if name not in self._properties:
            return "a member of the outermost object is not in the schema" if self._is_closed else None
        if name not in self._members:
            if len(self._members) == self._most_members:
                return None
            self._members[name] = self._compiled(name)
        return self._first_problem(self._members[name], value, f"$.{name}")

    def _compiled(self, name: str) -> Any:
        """Returns the validator of one member."""
        step = quote(name.replace("~", "~0").replace("/", "~1"), safe="~")
        member = {key: self._schema[key] for key in ("$schema",) if key in self._schema}
        member["$ref"] = f"{_ROOT}#/properties/{step}"
        if self._registry is None:
            library: Any = import_module(_LIBRARY)
            self._registry = library.Registry([(_ROOT, self._schema)])
        return self._validator(member, registry=self._registry)

    def _validator(self, schema: Any, **options: Any) -> Any:
        library: Any = import_module(_LIBRARY)
        patterns = library.RegexOptions(size_limit=self._pattern_memory, dfa_size_limit=self._pattern_memory)
        return library.validator_for(schema, offline=True, pattern_options=patterns, **options)

    def _first_problem(self, validator: Any, value: Any, root: str) -> str | None:
        try:
            if validator.is_valid(value):
                return None
            if self._names_places:
                validator.validate(value)
        except ValueError as raised:
            error: Any = raised
            if not hasattr(error, "instance_path"):  # the library does not accept the value, e.g. infinity
                return f"{root} cannot be validated"
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
            keyword = next((step for step in reversed(error.schema_path) if isinstance(step, str)), "schema")
            return f"{root}{path} fails {keyword!r}"
        return f"{root} is not valid"


@lru_cache(LIMITS.cached_schemas)
def _compiled(text: bytes) -> Schema:
    return Schema(text.decode())


def compile_schema(text: bytes) -> Schema:
    """Compiles the schema of a request. Caches compiled schemas of up to `limits.cached_schema` bytes.

    Raises:
        Error: `invalid_request`: the schema is invalid, has more than `limits.schema` bytes, or costs too much.
    """
    if len(text) > LIMITS.schema:
        what = f"`response_format.schema` has {len(text)} bytes, and at most {LIMITS.schema} can be checked here"
        raise Error("invalid_request", f"{what} (limit schema): make it smaller", reason="schema")
    try:
        return _compiled(text) if len(text) <= LIMITS.cached_schema else Schema(text.decode())
    except CostlySchema as problem:
        raise Error("invalid_request", f"`response_format.schema`: {problem}", reason="schema") from None
    except ValueError:
        raise Error(
            "invalid_request",
            "`response_format.schema` is no JSON Schema that can be used here: it must not refer to other documents; "
            f"its patterns, at most {LIMITS.schema_patterns}, must be small and without look-around (limits "
            "schema_patterns, schema_pattern_memory)",
            reason="schema",
        ) from None
