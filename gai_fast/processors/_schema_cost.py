"""The cost of checking an answer against a JSON Schema, bounded before the schema is compiled.

The library that checks answers has no limit of steps. Its work at one place of an answer grows with the number of
subschemas evaluated there, each once for every path of references that leads to it. A few definitions that refer to
each other twice make a million paths. A recursive schema makes as many with a deep answer.

Owns the count of these paths. A schema is a graph. Some keywords lead to a subschema that is evaluated at the same
place (`allOf`, `$ref`), others to a subschema for a member or an element (`properties`, `items`). The count follows the
places that an answer can have, from the root: first the subschemas evaluated at a place, then the subschemas that these
apply to its members and elements. If a place has the subschemas of an earlier place, the count does not follow it. So
the count of a recursive schema ends, unless the paths grow in number with the depth; then they reach the limit.

The count is an upper bound: a pattern matches every name, an ambiguous reference leads to every candidate, and every
branch is evaluated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from gai_fast.model.limits import SHARED
from gai_fast.processors.limits import LIMITS

_Object = dict[str, Any]

# The subschemas of these keywords are evaluated at the same place.
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "contentSchema")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_UNEVALUATED_TIMES: Final = 4
"""The evaluations of other subschemas by one with `unevaluated…`: once for the verdict, and again to find out what
they have evaluated. Measured with jsonschema-rs 0.60, nested, valid and invalid values: up to 3.1 in each
level."""
_ANY_ELEMENT: Final = ("items", "additionalItems")
_ANY_ELEMENT_AGAIN: Final = ("contains", "unevaluatedItems")


class CostlySchema(ValueError):
    """Checking an answer against the schema could take too long. The text names the limit and the place."""


def check_cost(schema: Any) -> None:
    """Checks that no place of any answer is evaluated by more than `limits.schema_paths` subschemas.

    Args:
        schema: A JSON Schema, as a value.

    Raises:
        CostlySchema: There may be more subschemas, or the count needs more than `limits.schema_steps` steps.
        ValueError: A reference leads out of the schema.
    """
    if isinstance(schema, dict):
        _Count(schema).run()


class _Count:
    """The count of one schema.

    Args:
        root: The schema.
    """

    def __init__(self, root: _Object) -> None:
        self._root = root
        self._steps = 0
        # By `id()` of a dict or list: its parent, and its key or index there.
        self._parents: dict[int, tuple[Any, str | int]] = {}
        self._resources: list[tuple[str, _Object]] = []
        self._anchors: dict[str, list[_Object]] = {}
        self._referred: dict[str, list[_Object]] = {}
        self._subschemas: dict[int, _Subschema] = {}
        self._read_names()

    def run(self) -> None:
        """Follows the places of every possible answer."""
        seen: set[frozenset[tuple[int, int]]] = set()
        waiting: list[list[_Object]] = [[self._root]]
        while waiting:
            starts = waiting.pop()
            key = frozenset(Counter(map(id, starts)).items())
            if key not in seen:
                seen.add(key)
                waiting += self._next_places(self._evaluated(starts))

    def _evaluated(self, starts: list[_Object]) -> list[_Subschema]:
        """Returns the subschemas evaluated at a place, each once for every path to it from `starts`."""
        found: list[_Subschema] = []
        size = 0
        waiting = list(starts)
        while waiting:
            value = waiting.pop()
            self._step()
            subschema = self._subschemas.get(id(value))
            if subschema is None:
                subschema = self._subschemas[id(value)] = _Subschema(value, self._targets(value))
                self._step(len(value))
            found.append(subschema)
            size += subschema.size
            waiting += subschema.in_place
            if size + len(waiting) > LIMITS.schema_paths:
                raise CostlySchema(
                    f"more than {LIMITS.schema_paths} subschemas may be evaluated at one place of an answer (limit "
                    f"schema_paths), at {self._where(starts[0])}: let fewer branches lead to the same subschema"
                )
        return found

    def _next_places(self, found: list[_Subschema]) -> Iterator[list[_Object]]:
        """Yields the subschemas for each member and element of a place, and for the names of its members."""
        named: dict[str, list[_Subschema]] = {}
        for each in found:
            for name in each.members:
                named.setdefault(name, []).append(each)
            self._step(len(each.members))
        any_member = [value for each in found for value in each.any_member]
        additional = [(each, value) for each in found for value in each.additional]
        for name, owners in named.items():
            self._step(len(any_member) + len(additional))
            members = [owner.members[name] for owner in owners]
            others = [value for each, value in additional if name not in each.members]
            yield [*any_member, *others, *(value for value in members if isinstance(value, dict))]
        yield [*any_member, *(value for _, value in additional)]

        any_element = [value for each in found for value in each.any_element]
        listed = [values for each in found for values in each.listed]
        for position in range(max(map(len, listed), default=0)):
            self._step(len(any_element) + len(listed))
            at = [values[position] for values in listed if position < len(values)]
            yield [*any_element, *(value for value in at if isinstance(value, dict))]
        yield any_element

        yield [value for each in found for value in each.names]

    # -- references --

    def _read_names(self) -> None:
        """Reads the ids and anchors of all objects, including objects that are not subschemas."""
        objects: list[_Object] = []
        rest: list[Any] = [self._root]
        while rest:
            value = rest.pop()
            if isinstance(value, dict):
                objects.append(value)
            for key, each in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(each, dict | list):
                    self._parents[id(each)] = (value, key)
                    rest.append(each)
        drafts = "".join(each["$schema"] for each in objects if isinstance(each.get("$schema"), str))
        for each in objects:
            for name in ("$id", "id") if "draft-04" in drafts else ("$id",):
                if isinstance(each.get(name), str):
                    uri, _, anchor = each[name].partition("#")
                    if uri:
                        self._resources.append((_last_segment(uri), each))
                    if anchor:
                        self._anchors.setdefault(unquote(anchor), []).append(each)
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(each.get(name), str):
                    self._anchors.setdefault(each[name], []).append(each)

    def _targets(self, value: _Object) -> list[_Object]:
        """Returns the subschemas to which the references of a subschema may lead."""
        found: list[_Object] = []
        for keyword in _REFERENCES:
            reference = value.get(keyword)
            if isinstance(reference, str):
                if reference not in self._referred:
                    self._referred[reference] = self._find(reference)
                found += self._referred[reference]
        return found

    def _find(self, reference: str) -> list[_Object]:
        """Returns the subschemas to which a reference may lead.

        A URI leads to an object whose `$id` ends in the same segment: resolving a URI keeps its last segment. A
        reference without a URI may be relative to the root or to any object with an `$id`.
        """
        uri, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        segment = _last_segment(uri)
        if not uri:
            roots = [self._root, *(each for _, each in self._resources if each is not self._root)]
        elif segment in ("", ".", "..") or "?" in segment:
            roots = []
        else:
            roots = [each for name, each in self._resources if name == segment]
        if fragment and not fragment.startswith("/"):
            found: list[Any] = self._anchors.get(fragment, [])
        else:
            found = [self._pointed(root, fragment) for root in roots]
        if not any(isinstance(each, dict | bool) for each in found):
            raise ValueError("a reference leads out of the schema")
        return [each for each in found if isinstance(each, dict)]

    def _pointed(self, root: _Object, pointer: str) -> Any:
        value: Any = root
        for part in pointer.split("/")[1:]:
            self._step()
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, list) and name.isdecimal() and len(name) < 8 and int(name) < len(value):
                value = value[int(name)]
            else:
                return None
        return value

    # -- limits --

    def _step(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > LIMITS.schema_steps:
            raise CostlySchema(
                f"its cost cannot be determined in {LIMITS.schema_steps} steps (limit schema_steps): make it smaller, "
                "or let fewer branches have the same members"
            )

    def _where(self, node: Any) -> str:
        """Returns the JSON pointer of a subschema, cut at `limits.identifier` characters."""
        parts: list[str] = []
        while node is not self._root:
            node, key = self._parents[id(node)]
            parts.append(str(key).replace("~", "~0").replace("/", "~1"))
        return repr("/".join(["#", *reversed(parts)])[: SHARED.identifier])


class _Subschema:
    """The keywords of one subschema that lead to other subschemas or compare many values.

    Args:
        schema: The subschema.
        targets: The targets of its references.
    """

    __slots__ = ("additional", "any_element", "any_member", "in_place", "listed", "members", "names", "size")

    def __init__(self, schema: _Object, targets: list[_Object]) -> None:
        dependencies = _values(schema.get("dependencies"))
        in_place = [*targets, *_schemas(dependencies), *_schemas(_values(schema.get("dependentSchemas")))]
        for keyword in _IN_PLACE:
            in_place += _schemas(schema.get(keyword))
        again = _UNEVALUATED_TIMES if any(keyword in schema for keyword in _UNEVALUATED) else 1
        self.in_place = in_place * again
        properties = schema.get("properties")
        self.members: _Object = properties if isinstance(properties, dict) else {}
        self.additional = _schemas(schema.get("additionalProperties"))
        self.any_member = _schemas(_values(schema.get("patternProperties")))
        self.any_member += _schemas(schema.get("unevaluatedProperties")) * again
        lists = [schema.get("prefixItems"), schema.get("items")]
        self.listed = [value for value in lists if isinstance(value, list)]
        self.any_element: list[_Object] = []
        for keyword in (*_ANY_ELEMENT, *_ANY_ELEMENT_AGAIN * again):
            value = schema.get(keyword)
            self.any_element += [value] if isinstance(value, dict) else []
        self.names = _schemas(schema.get("propertyNames"))
        compared = [value for value in _listed(schema.get("enum")) if isinstance(value, dict | list)]
        required = [value for value in dependencies if isinstance(value, list)]
        self.size = 1 + len(compared) + len(required) + len(_values(schema.get("dependentRequired")))
        """Number of evaluations: one, plus one for each value or list that is compared."""


def _schemas(value: Any) -> list[_Object]:
    """Returns the subschemas in a keyword's value: one, or a list of them. `true` and `false` cost nothing."""
    return [value] if isinstance(value, dict) else [each for each in _listed(value) if isinstance(each, dict)]


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _last_segment(uri: str) -> str:
    return unquote(uri).casefold().rpartition("/")[2]
