"""Checks JSON bodies against the request types of official SDKs: `TypedDict`s and pydantic models.

The types are walked here, not by pydantic: members that a type does not declare are refused at every depth, whatever
the SDK itself allows, and unions of known words with `Any` or `str` ("open" enums) have the known words alone.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import typing_extensions

ANY = object()
"""A kind that every value has."""


class Member(NamedTuple):
    """One declared member of an object."""

    kind: Any
    required: bool


class Types:
    """The type of a provider's requests.

    Args:
        root: A `TypedDict`, a pydantic model, or members by name.
        more: Members that the provider's reference has beyond the SDK's types, by the name of the type that gets them;
            `""` is the root. A value is a kind, as in a type's annotations.
        other: What stands for a type on the wire, by its name, such as `ANY` for the type of JSON Schemas.
    """

    def __init__(
        self,
        root: Any,
        more: Mapping[str, Mapping[str, Any]] | None = None,
        other: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = root
        self._more = more or {}
        self._other = other or {}
        self._nodes: dict[Any, _Node] = {}

    @property
    def names(self) -> frozenset[str]:
        """The names of the members of a request."""
        root = self.node(self.root)
        assert isinstance(root, _Object)
        return frozenset(root.members)

    def problems(self, body: Any) -> list[str]:
        """Returns what the type refuses in a body: `<path>: <what>`, paths without indices."""
        return list(dict.fromkeys(self.node(self.root).problems(body, "")))

    def node(self, kind: Any) -> _Node:
        """Returns the checks of a type, which are built once."""
        kind = _bare(kind)
        kind = self._other.get(getattr(kind, "__name__", ""), kind)
        key = id(kind) if isinstance(kind, dict) or kind.__hash__ is None else kind
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = self._build(kind)
        return found

    def members(self, kind: Any) -> dict[str, Member]:
        """Returns the members of an object type."""
        name = "" if kind is self.root else getattr(kind, "__name__", "of a request")
        extra = {name: Member(each, False) for name, each in self._more.get(name, {}).items()}
        return {**(kind if isinstance(kind, dict) else _members(kind)), **extra}

    def _build(self, kind: Any) -> _Node:
        if kind is ANY or kind is Any or kind is object:
            return _Node()
        if isinstance(kind, dict) or _is_object(kind):
            return _Object(self, kind)
        origin = typing.get_origin(kind)
        if origin in (typing.Union, types.UnionType):
            return _Union(self, _alternatives(kind))
        if origin is typing.Literal:
            return _Words(typing.get_args(kind))
        if _is_list(origin or kind):
            return _List(self, (typing.get_args(kind) or (ANY,))[0])
        if _is_mapping(origin or kind):
            return _Mapping(self, (typing.get_args(kind) or (ANY, ANY))[1])
        return _Plain(kind)


class _Node:
    """Accepts every value."""

    def problems(self, value: Any, path: str) -> list[str]:
        return []

    def distance(self, value: Any) -> int:
        """Returns 0 if a value's `type` and `role` mean this type, 1 if its JSON type does, else 2."""
        return 0


class _Plain(_Node):
    def __init__(self, kind: Any) -> None:
        self._accepts = _accepts(kind)
        self._name = getattr(kind, "__name__", str(kind))

    def problems(self, value: Any, path: str) -> list[str]:
        return [] if self._accepts(value) else [f"{path}: {_shown(value)} is no {self._name}"]

    def distance(self, value: Any) -> int:
        return 2 if isinstance(value, dict | list) else 1


class _Words(_Node):
    def __init__(self, words: Iterable[Any]) -> None:
        self._words = tuple(words)

    def problems(self, value: Any, path: str) -> list[str]:
        return [] if value in self._words else [f"{path}: {_shown(value)} is none of its words"]

    def distance(self, value: Any) -> int:
        return 2 if isinstance(value, dict | list) else 1


class _List(_Node):
    def __init__(self, types: Types, item: Any) -> None:
        self._types = types
        self._item = item
        self._node: _Node | None = None

    def problems(self, value: Any, path: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{path}: {_shown(value)} is no list"]
        node = self._node
        if node is None:
            node = self._node = self._types.node(self._item)
        return [found for each in value for found in node.problems(each, f"{path}[]")]

    def distance(self, value: Any) -> int:
        return 1 if isinstance(value, list) else 2


class _Mapping(_Node):
    def __init__(self, types: Types, item: Any) -> None:
        self._types = types
        self._item = item

    def problems(self, value: Any, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: {_shown(value)} is no object"]
        node = self._types.node(self._item)
        return [found for each in value.values() for found in node.problems(each, f"{path}.*")]

    def distance(self, value: Any) -> int:
        return 1 if isinstance(value, dict) else 2


class _Object(_Node):
    def __init__(self, types: Types, kind: Any) -> None:
        self._types = types
        self.members = types.members(kind)
        self._required = [name for name, member in self.members.items() if member.required]
        self._nodes: dict[str, _Node] = {}

    def _node(self, name: str) -> _Node:
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = self._types.node(self.members[name].kind)
        return found

    def problems(self, value: Any, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: {_shown(value)} is no object"]
        found = [f"{path}.{name}: missing" for name in self._required if name not in value]
        for name, each in value.items():
            if name in self.members:
                found += self._node(name).problems(each, f"{path}.{name}")
            else:
                found.append(f"{path}.{name}: no such member")
        return found

    def distance(self, value: Any) -> int:
        if not isinstance(value, dict):
            return 2
        is_meant = False
        for name in ("type", "role"):
            if name in value and name in self.members:
                if self._node(name).problems(value[name], ""):
                    return 1
                is_meant = True
        return 0 if is_meant else 1


class _Union(_Node):
    def __init__(self, types: Types, alternatives: Iterable[Any]) -> None:
        self._nodes = [types.node(each) for each in alternatives]

    def problems(self, value: Any, path: str) -> list[str]:
        distances = [node.distance(value) for node in self._nodes]
        least = min(distances)
        best: list[str] | None = None
        for node, distance in zip(self._nodes, distances, strict=True):
            if distance == least:
                found = node.problems(value, path)
                if not found:
                    return found
                if best is None or len(found) < len(best):
                    best = found
        return best or []


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Returns the alternatives of a union; what accepts anything is left out beside what says more."""
    flat: list[Any] = []
    for each in typing.get_args(kind):
        each = _bare(each)
        nested = typing.get_origin(each) in (typing.Union, types.UnionType)
        flat += _alternatives(each) if nested else (each,)
    has_words = any(typing.get_origin(each) is typing.Literal for each in flat)
    has_words = has_words or any(isinstance(each, type) and issubclass(each, enum.Enum) for each in flat)
    has_objects = any(map(_is_object, flat))
    kept = []
    for each in flat:
        if has_words and (each in (Any, object) or getattr(each, "__name__", "").startswith("Unrecognized")):
            continue
        if (
            has_objects
            and not _is_object(each)
            and (each in (Any, object) or _is_mapping(typing.get_origin(each) or each))
        ):
            continue
        kept.append(each)
    return tuple(kept)


def _members(kind: Any) -> dict[str, Member]:
    if typing_extensions.is_typeddict(kind):
        return _typed_dict(kind)
    fields = kind.model_fields
    return {
        field.serialization_alias or field.alias or name: Member(
            typing.Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation,
            field.is_required(),
        )
        for name, field in fields.items()
    }


def _typed_dict(kind: Any) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for base in types.get_original_bases(kind) if hasattr(types, "get_original_bases") else _bases(kind):
        if typing_extensions.is_typeddict(base):
            found |= _typed_dict(base)
    for name, each in typing_extensions.get_type_hints(kind, include_extras=True).items():
        origin = typing.get_origin(each)
        if name in found and origin not in _MARKS:
            continue
        required = _MARKS.get(origin, kind.__total__)
        found[name] = Member(each, required)
    return found


def _bases(kind: Any) -> tuple[Any, ...]:
    return getattr(kind, "__orig_bases__", ())


_MARKS: dict[Any, bool] = {
    typing.Required: True,
    typing_extensions.Required: True,
    typing.NotRequired: False,
    typing_extensions.NotRequired: False,
}


def _bare(kind: Any) -> Any:
    """Returns a type without annotations, marks and names of aliases."""
    while True:
        origin = typing.get_origin(kind)
        if origin is typing.Annotated or origin in _MARKS:
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, typing_extensions.TypeAliasType):
            kind = kind.__value__
        elif isinstance(kind, typing.TypeVar | typing.ForwardRef):
            return ANY
        elif kind is None:
            return type(None)
        elif hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        else:
            return kind


def _is_object(kind: Any) -> bool:
    return typing_extensions.is_typeddict(kind) or hasattr(kind, "model_fields")


def _is_list(kind: Any) -> bool:
    if kind in (list, tuple, set, Iterable, Sequence):
        return True
    if getattr(kind, "__name__", "") == "SequenceNotStr":
        return True
    return (
        isinstance(kind, type)
        and issubclass(kind, Iterable)
        and not issubclass(kind, str | bytes | Mapping | enum.Enum)
    )


def _is_mapping(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Mapping)


_PLAIN: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bytes: lambda value: isinstance(value, str),  # base64
    datetime: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool),
    float: lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    type(None): lambda value: value is None,
}


def _accepts(kind: Any) -> Callable[[Any], bool]:
    check = _PLAIN.get(kind)
    if check is not None:
        return check
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        words = [each.value for each in kind]
        return lambda value: value in words
    return lambda value: not isinstance(kind, type) or isinstance(value, kind)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value) if len(repr(value)) < 30 else f"a {type(value).__name__}"
