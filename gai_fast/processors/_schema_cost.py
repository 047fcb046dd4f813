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

from typing import Any, Final
from urllib.parse import unquote

from gai_fast.model.limits import SHARED
from gai_fast.processors.limits import LIMITS

_Object = dict[str, Any]

# The subschemas of these keywords are evaluated at the same place.
_IN_PLACE: Final = frozenset(("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "contentSchema"))
_REFERENCES: Final[tuple[str, ...]] = ("$ref", "$dynamicRef", "$recursiveRef")
_UNEVALUATED: Final = frozenset(("unevaluatedProperties", "unevaluatedItems"))
_UNEVALUATED_TIMES: Final = 4
"""The evaluations of other subschemas by one with `unevaluated…`: once for the verdict, and again to find out what
they have evaluated. Measured with jsonschema-rs 0.60, nested, valid and invalid values: up to 3.1 in each
level."""
_BY_POSITION: Final[tuple[str, ...]] = ("prefixItems", "items")
_COUNTED: Final = frozenset(
    (
        *_IN_PLACE,
        *_REFERENCES,
        *_UNEVALUATED,
        *_BY_POSITION,
        *("additionalItems", "additionalProperties", "contains", "dependencies", "dependentRequired"),
        *("dependentSchemas", "enum", "patternProperties", "properties", "propertyNames"),
    )
)
"""All keywords that `_Subschema` reads. Most subschemas have none: a property is mostly a type and a description."""
_NAMING: Final = frozenset(("$anchor", "$dynamicAnchor", "$id", "$schema", "id"))


class CostlySchema(ValueError):
    """Checking an answer against the schema could take too long. The text names the limit and the place."""


def survey(schema: Any) -> tuple[int, bool]:
    """Counts the regular expressions of a schema. A property named `pattern` is not one.

    Args:
        schema: A JSON Schema, as a value.

    Returns:
        The number of expressions, and whether finding the place of a fault is cheap. With `anyOf` or `oneOf`, the
        library collects every fault of each branch with a copy of the value: seconds and gigabytes.
    """
    count = 0
    names_places = True
    rest: list[Any] = [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            count += isinstance(value.get("pattern"), str)
            names_places = names_places and "anyOf" not in value and "oneOf" not in value
            named: Any = value.get("patternProperties")
            count += len(named) if isinstance(named, dict) else 0
            rest += [each for each in value.values() if isinstance(each, (dict, list))]
        elif isinstance(value, list):
            rest += [each for each in value if isinstance(each, (dict, list))]
    return count, names_places


def most_paths(schema: Any) -> int:
    """Returns how many subschemas are evaluated at one place of an answer at most.

    Args:
        schema: A JSON Schema, as a value.

    Raises:
        CostlySchema: There may be more subschemas, or the count needs more than `limits.schema_steps` steps.
        ValueError: A reference leads out of the schema.
    """
    return _Count(schema).run() if isinstance(schema, dict) else 1


class _Count:
    """The count of one schema.

    Args:
        root: The schema.
    """

    def __init__(self, root: _Object) -> None:
        self._root = root
        self._steps_left = LIMITS.schema_steps
        self._most_paths = LIMITS.schema_paths
        # The objects with an `$id`: all, and by its last segment.
        self._resources: list[_Object] = []
        self._by_segment: dict[str, list[_Object]] = {}
        self._anchors: dict[str, list[_Object]] = {}
        self._referred: dict[str, list[_Object]] = {}
        self._subschemas: dict[int, _Subschema] = {}
        self._read_names()

    def run(self) -> int:
        """Follows the places of every possible answer. Returns the most paths to one place."""
        most = 1
        seen: set[int | tuple[int, ...]] = {()}
        waiting: list[list[_Object]] = [[self._root]]
        while waiting:
            starts = waiting.pop()
            # Most have one subschema.
            key = id(starts[0]) if len(starts) == 1 else tuple(sorted(map(id, starts)))
            if key not in seen:
                seen.add(key)
                found = self._evaluated(starts)
                most = max(most, sum([each.size for each in found]))
                self._add_places(found, waiting)
        return most

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
                is_leaf = _COUNTED.isdisjoint(value)
                subschema = _LEAF if is_leaf else _Subschema(value, self._targets(value))
                self._subschemas[id(value)] = subschema
                self._step(len(value))
            found.append(subschema)
            size += subschema.size
            waiting += subschema.in_place
            if size + len(waiting) > self._most_paths:
                raise CostlySchema(
                    f"more than {LIMITS.schema_paths} subschemas may be evaluated at one place of an answer (limit "
                    f"schema_paths), at {self._where(starts[0])}: let fewer branches lead to the same subschema"
                )
        return found

    def _add_places(self, found: list[_Subschema], places: list[list[_Object]]) -> None:
        """Adds the subschemas for each member and element of a place, and for the names of its members."""
        named: dict[str, list[_Subschema]] = {}
        any_member: list[_Object] = []
        additional: list[tuple[_Subschema, _Object]] = []
        any_element: list[_Object] = []
        listed: list[list[Any]] = []
        names: list[_Object] = []
        for each in found:
            if each is _LEAF:
                continue
            for name in each.members:
                named.setdefault(name, []).append(each)
            self._step(len(each.members))
            any_member += each.any_member
            additional += [(each, value) for value in each.additional]
            any_element += each.any_element
            listed += each.listed
            names += each.names
        for name, owners in named.items():
            self._step(len(any_member) + len(additional))
            starts = [*any_member]
            starts += [value for each, value in additional if name not in each.members]
            starts += [each.members[name] for each in owners if isinstance(each.members[name], dict)]
            places.append(starts)
        places.append([*any_member, *[value for _, value in additional]])
        for position in range(max(map(len, listed), default=0)):
            self._step(len(any_element) + len(listed))
            at = [values[position] for values in listed if position < len(values)]
            places.append([*any_element, *_schemas(at)])
        places.append(any_element)
        places.append(names)

    # -- references --

    def _read_names(self) -> None:
        """Reads the ids and anchors of all objects, including objects that are not subschemas."""
        objects: list[_Object] = []
        rest: list[Any] = [self._root]
        while rest:
            value = rest.pop()
            if isinstance(value, dict):
                if not _NAMING.isdisjoint(value):
                    objects.append(value)
                rest += [each for each in value.values() if isinstance(each, (dict, list))]
            else:
                rest += [each for each in value if isinstance(each, (dict, list))]
        drafts = "".join([each["$schema"] for each in objects if isinstance(each.get("$schema"), str)])
        for each in objects:
            for name in ("$id", "id") if "draft-04" in drafts else ("$id",):
                if isinstance(each.get(name), str):
                    uri, _, anchor = each[name].partition("#")
                    if uri:
                        self._resources.append(each)
                        self._by_segment.setdefault(_last_segment(uri), []).append(each)
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
            roots = [self._root, *(each for each in self._resources if each is not self._root)]
        elif segment in ("", ".", "..") or "?" in segment:
            roots = []
        else:
            roots = self._by_segment.get(segment, [])
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
        self._steps_left -= steps
        if self._steps_left < 0:
            raise CostlySchema(
                f"its cost cannot be determined in {LIMITS.schema_steps} steps (limit schema_steps): make it smaller, "
                "or let fewer branches have the same members"
            )

    def _where(self, node: Any) -> str:
        """Returns the JSON pointer of a subschema, cut at `limits.identifier` characters."""
        # By `id()` of a dict or list: its parent, and its key or index there.
        parents: dict[int, tuple[Any, str | int]] = {}
        rest: list[Any] = [self._root]
        while rest:
            value = rest.pop()
            for key, each in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(each, (dict, list)):
                    parents[id(each)] = (value, key)
                    rest.append(each)
        parts: list[str] = []
        while node is not self._root:
            node, key = parents[id(node)]
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
        in_place = [*targets]
        self.members: _Object = {}
        self.additional: list[_Object] = []
        self.any_member: list[_Object] = []
        self.listed: list[list[Any]] = []
        self.any_element: list[_Object] = []
        self.names: list[_Object] = []
        self.size = 1
        """Number of evaluations: one, plus one for each value or list that is compared."""
        again = 1 if _UNEVALUATED.isdisjoint(schema) else _UNEVALUATED_TIMES
        for keyword, value in schema.items():
            if keyword not in _COUNTED or keyword in _REFERENCES:
                continue
            if keyword == "properties":
                self.members = value if isinstance(value, dict) else {}
            elif keyword in _IN_PLACE:
                in_place += _schemas(value)
            elif keyword == "items" or keyword == "additionalItems":
                self.any_element += [value] if isinstance(value, dict) else []
            elif keyword == "contains" or keyword == "unevaluatedItems":
                self.any_element += [value] * again if isinstance(value, dict) else []
            elif keyword == "additionalProperties":
                self.additional = _schemas(value)
            elif keyword == "unevaluatedProperties":
                self.any_member += _schemas(value) * again
            elif keyword == "patternProperties":
                self.any_member += _schemas(_values(value))
            elif keyword == "propertyNames":
                self.names = _schemas(value)
            elif keyword == "enum":
                self.size += len([each for each in _listed(value) if isinstance(each, (dict, list))])
            elif keyword == "dependentRequired":
                self.size += len(_values(value))
            elif keyword != "prefixItems":  # `dependencies` and `dependentSchemas`
                in_place += _schemas(_values(value))
                if keyword == "dependencies":
                    self.size += len([each for each in _values(value) if isinstance(each, list)])
        for keyword in _BY_POSITION:
            value = schema.get(keyword)
            self.listed += [value] if isinstance(value, list) else []
        self.in_place = in_place * again


def _schemas(value: Any) -> list[_Object]:
    """Returns the subschemas in a keyword's value: one, or a list of them. `true` and `false` cost nothing."""
    return [value] if isinstance(value, dict) else [each for each in _listed(value) if isinstance(each, dict)]


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _last_segment(uri: str) -> str:
    return unquote(uri).casefold().rpartition("/")[2]


_LEAF: Final = _Subschema({}, [])
"""A subschema with none of `_COUNTED`: it leads to no other one."""
