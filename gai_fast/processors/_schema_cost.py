"""The cost of checking an answer against a JSON Schema, bounded before the schema is compiled.

The library that checks answers has no limit of steps. Its work at one place of an answer grows with the number of
subschemas that are evaluated there, each as often as there are ways to it. A few definitions that refer to each other
twice make a million ways, and so does a recursive schema with an answer of some depth.

Owns the count of these ways. A schema is read as a graph. Some keywords lead to a subschema that is evaluated at the
same place (`allOf`, `$ref`), others to one for a member or an element (`properties`, `items`). The count follows the
places that an answer can have, from the root: first the subschemas that are evaluated at a place, then those that they
apply to its members and elements. A place with the same subschemas as an earlier one is not followed again. So the
count of a recursive schema ends, unless the ways grow in number with the depth; then they reach the limit.

Where the count cannot know, it assumes more: a pattern matches every name; a reference leads to each subschema that it
may mean; every branch is evaluated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from gai_fast.model.limits import SHARED
from gai_fast.processors.limits import LIMITS

_Object = dict[str, Any]

# Keywords whose subschemas are evaluated at the same place.
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "contentSchema")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_UNEVALUATED_TIMES: Final = 4
"""Times that a subschema with `unevaluated…` may evaluate others: for the verdict, and again to learn what they have
evaluated. Measured with jsonschema-rs 0.60, nested, with valid and invalid values: up to 3.1 in each level."""
_ANY_ELEMENT: Final = ("items", "additionalItems")
_ANY_ELEMENT_AGAIN: Final = ("contains", "unevaluatedItems")


class CostlySchema(ValueError):
    """A schema by which the check of an answer could take too long; its text names the limit and the place."""


def check_cost(schema: Any) -> None:
    """Checks that no place of any answer is evaluated by more than `limits.schema_paths` subschemas.

    Args:
        schema: A JSON Schema, as a value.

    Raises:
        CostlySchema: There may be more, or the count takes more than `limits.schema_steps` steps.
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
        # By the identity of a dict: where it stands in the schema.
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
        """The subschemas that are evaluated at a place, each as often as there are ways to it from `starts`."""
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
        """The subschemas for each member and element of a place, and for the names of its members."""
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
        """Reads the names of all objects, also of those that are no schema by their place."""
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
        """The subschemas to which the references of a subschema may lead."""
        found: list[_Object] = []
        for keyword in _REFERENCES:
            reference = value.get(keyword)
            if isinstance(reference, str):
                if reference not in self._referred:
                    self._referred[reference] = self._find(reference)
                found += self._referred[reference]
        return found

    def _find(self, reference: str) -> list[_Object]:
        """The subschemas that a reference may mean.

        A URI means the object whose `$id` ends in the same segment, which resolving keeps. Without a URI the reference
        may be relative to the root or to any object with an `$id`.
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
        """The JSON pointer of a subschema, cut where it is long."""
        parts: list[str] = []
        while node is not self._root:
            node, key = self._parents[id(node)]
            parts.append(str(key).replace("~", "~0").replace("/", "~1"))
        return repr("/".join(["#", *reversed(parts)])[: SHARED.identifier])


class _Subschema:
    """The keywords of one subschema that lead to others, or compare many values.

    Args:
        schema: The subschema.
        targets: Where its references lead.
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
        """The evaluations it counts as: one, and one for each value or list that is compared by itself."""


def _schemas(value: Any) -> list[_Object]:
    """The subschemas of a keyword's value: one, or a list of them; `true` and `false` cost nothing."""
    return [value] if isinstance(value, dict) else [each for each in _listed(value) if isinstance(each, dict)]


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _last_segment(uri: str) -> str:
    return unquote(uri).casefold().rpartition("/")[2]
