"""Members of a client's JSON object, with checks of their types: what every dialect's reader of requests uses.

Owns the wording of a refusal: it names the member by its path from `$` on and quotes no value. Knows no dialect.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.reading import parse_request
from gai_fast.kernels import compact_json, encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.events import JSONText
from gai_fast.model.request import Request

_JSON_TYPES: Final = {str: "str", dict: "object", list: "array", bool: "bool", int: "int", float: "float"}


def member(holder: Mapping[str, Any], key: str, path: str, *kinds: type) -> Any:
    """Returns a member, `None` where it is absent or null.

    Args:
        holder: The object.
        key: The member's name.
        path: Where the object stands.
        *kinds: The types that the member may have.

    Raises:
        InvalidRequest: It has none of the types.
    """
    value = holder.get(key)
    if value is not None and type(value) not in kinds:
        raise _unexpected(value, f"{path}.{key}", kinds)
    return value


def required(holder: Mapping[str, Any], key: str, path: str, *kinds: type) -> Any:
    """Returns a member that must be there; as `member`.

    Raises:
        InvalidRequest: It is absent, null, or has none of the types.
    """
    value = member(holder, key, path, *kinds)
    if value is None:
        raise invalid(f"Object missing required field `{key}`", path)
    return value


def expect(value: Any, path: str, *kinds: type) -> None:
    """Checks the type of a value.

    Raises:
        InvalidRequest: It has none of the types.
    """
    if type(value) not in kinds:
        raise _unexpected(value, path, kinds)


def _unexpected(value: Any, path: str, kinds: tuple[type, ...]) -> InvalidRequest:
    """Returns the refusal of a value whose exact type is none of these: `True` is no number."""
    expected = " | ".join(_JSON_TYPES[kind] for kind in kinds)
    return invalid(f"Expected `{expected}`, got `{_JSON_TYPES.get(type(value), 'null')}`", path)


def unread(holder: Mapping[str, Any], path: str, known: Iterable[str]) -> list[str]:
    """Returns the paths of the members of an object that its reader does not know, without `$.`; nulls are absent.

    Args:
        holder: The object.
        path: Where it stands.
        known: The names of the members that the reader knows.
    """
    return [f"{path}.{key}"[2:] for key, value in holder.items() if key not in known and value is not None]


def invalid(what: str, path: str) -> InvalidRequest:
    """Returns the refusal of a request.

    Args:
        what: The fault; quotes no value of the caller's.
        path: Where it is.
    """
    return InvalidRequest(message=f"The request is not valid: {what} - at `{path}`", reason="validation")


def read_native(native: Mapping[str, Any], moved: Mapping[str, str]) -> Request:
    """Reads the native request that a client's was translated into.

    Args:
        native: Its JSON object.
        moved: The paths of native members that the client has elsewhere, and where; what is inside them moves along.

    Raises:
        InvalidRequest: It breaks a rule of native requests; the text names the client's own member.
    """
    try:
        return parse_request(encode_json(native))
    except InvalidRequest as problem:
        place = _PLACE.search(problem.message)
        if place is None:
            raise
        own = _own_path(place[1], moved)
        raise InvalidRequest(message=problem.message[: place.start(1)] + own + "`", reason=problem.reason) from None


# The values that a native request may have there are left out: other dialects have their own.
_PLACE: Final = re.compile(r"at `(\$[^`]*)`(?:; known: .*)?\Z")


def _own_path(path: str, moved: Mapping[str, str]) -> str:
    for native, own in moved.items():
        if path == native or path.startswith((f"{native}.", f"{native}[")):
            return own + path.removeprefix(native)
    return path


@mypyc_attr(allow_interpreted_subclasses=True)
class RequestReader(ABC):
    """Reads one request; each dialect has a subclass.

    Nulls are absent. Members are checked where their shape changes on the way; the native request checks the rest.

    Args:
        moved: As for `read_native`; `None`: none yet.

    Attributes:
        lost: The paths of the client's members that a native request cannot express, in their order.
        moved: As given; a reader adds to it on the way.
    """

    def __init__(self, moved: dict[str, str] | None = None) -> None:
        self.lost: list[str] = []
        self.moved: dict[str, str] = {} if moved is None else moved

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the native request's JSON object.

        Args:
            body: The client's JSON object.
        """

    def request(self, body: Mapping[str, Any]) -> tuple[Request, list[str]]:
        """Returns the native request, and `lost`.

        Args:
            body: The client's JSON object.

        Raises:
            InvalidRequest: The text names the client's member by its path.
        """
        return read_native(self.read(body), self.moved), self.lost


def data_url(url: str, path: str) -> dict[str, str]:
    """Splits a `data:` URL (RFC 2397); only base64 is accepted.

    Args:
        url: The URL.
        path: Where it stands.

    Returns:
        `data` and `media_type`.

    Raises:
        InvalidRequest: It has another form.
    """
    head, comma, data = url.partition(",")
    scheme, _, media = head.partition(":")
    media_type, *parameters = media.split(";")
    if scheme != "data" or not comma or "base64" not in parameters or not media_type:
        raise invalid("Expected a URL of the form `data:<media type>;base64,<data>`", path)
    return {"data": data, "media_type": media_type}


def call_input(text: str) -> str | JSONText:
    """Returns the input of a call: its JSON without white space; text that is no JSON as the model wrote it.

    Args:
        text: The arguments as a dialect has them; blank: none.
    """
    compact = compact_json(text) if text.strip() else "{}"
    return text if compact is None else JSONText(compact, None)
