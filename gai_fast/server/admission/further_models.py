"""The members of a request that name a further model, for callers that may not use every model.

Owns which members those are. The model that a request asks for is checked by its name (`Settings.chosen`); an upstream
may read others: fallbacks (OpenRouter, LiteLLM), the models of its tools (OpenAI's images, Anthropic's advisor), of its
plugins and systems (OpenRouter, Groq), and, where names of members have no case (Go), a second `Model`.

1. A member names a model by its name, in any case and with any separator: `models`, `Model`, `fallback_models`.
2. Members are looked for wherever a request sets something, not where it holds what people, models or tools have
   written: messages, inputs, schemas, metadata.
3. They are refused for every name: an upstream's id is not a model's name here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from gai_fast.core.requests.dialects import TEXTS
from gai_fast.core.requests.reading import parse_object
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Forbidden
from gai_fast.model.limits import SHARED
from gai_fast.model.request import CheckedBody
from gai_fast.model.settings import KeySettings

_BLANK: Final = b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"
"""Bytes that may precede JSON: blanks, a byte order mark, the zero bytes of a wide encoding."""
_Path = tuple[Any, str] | None
"""The name of a member, after the `_Path` of those above it. The path is built late: names may be long, and most paths
are never shown."""
_NOT_LETTERS: Final = re.compile("[^a-z]")
_NAMES: Final = re.compile(".*(?:models?|fallbacks?)|models?(?:ids?|names?|list|map)")
_WRITTEN: Final = frozenset(
    "content prompts query queries documents metadata attributes labels variables parameters parametersjsonschema "
    "inputschema outputschema schema jsonschema responseformat responseschema responsejsonschema format text arguments "
    "examples inputexamples moderation".split()
) | {_NOT_LETTERS.sub("", name.casefold()) for name in TEXTS}
"""The members that hold content or its form; a model for moderation gives no answer."""


def check_further_models(body: Mapping[str, Any], key: KeySettings | None, *, own: str = "model") -> None:
    """Checks that a request names no model but its own, if its caller may not use every model.

    Args:
        body: The request, or a part of it that is sent as it is.
        key: The caller's key; None if the server has no keys.
        own: The member that names the request's own model; empty if it has none.

    Raises:
        Forbidden: A member names another model. The text has its path.
    """
    if key is not None and not key.may_use_all:
        _check(body, own, None)


def check_passed_models(body: bytes, may_use: Callable[[str], bool]) -> bytes:
    """Checks the models that a JSON request for an upstream's own path names.

    Args:
        body: The body, whole.
        may_use: Returns whether the caller may use a model of the upstream, by the upstream's id.

    Returns:
        The body as it is sent: of duplicate members, of which an upstream may read another one, the last.

    Raises:
        Forbidden: It names a model that the caller may not use.
        InvalidRequest: It is not a JSON object.
    """
    read = parse_object(body)
    _check(read, "", may_use)
    return CheckedBody(encode_json(read))


def may_be_json(body: bytes) -> bool:
    """Returns whether servers may read a body as a JSON object or array, in any encoding."""
    return body.lstrip(_BLANK)[:1] in (b"{", b"[")


class LongBody:
    """Checks a body that is sent on while it arrives: JSON would name its models unread.

    Args:
        beginning: Its first bytes; there may be none.

    Raises:
        Forbidden: It may be JSON.
    """

    def __init__(self, beginning: bytes) -> None:
        self._has_begun = False
        self.check(beginning)

    def check(self, data: bytes) -> None:
        """Checks further bytes; none at its end. Raises as the class."""
        if not self._has_begun:
            if may_be_json(data):
                text = "JSON of this size is not read, so it may name any model, and this key may not use all models"
                raise Forbidden(message=text, reason="model")
            self._has_begun = bool(data.strip(_BLANK))


def _check(body: Mapping[str, Any], own: str, may_use: Callable[[str], bool] | None) -> None:
    """Checks the models that the settings of a request name.

    Args:
        body: The request.
        own: As for `check_further_models`.
        may_use: Whether the caller may use the model that the member `model` names; None: no model may be named.

    Raises:
        Forbidden: A member names another model.
    """
    found: list[tuple[_Path, Any]] = [(None, body)]
    while found:
        at, value = found.pop()
        if isinstance(value, list):
            found += [((at, "[]"), each) for each in value if isinstance(each, (dict, list))]
            continue
        for name, member in value.items():
            kind = kind_of(name)
            if kind == "model" and member is not None and not isinstance(member, bool):
                where = _written((at, name))
                if where != own and not (where == "model" and _may_use(member, may_use)):
                    shown = where[: SHARED.identifier]
                    text = f"this key may not use all models, so it may name no others, as in `{shown}`"
                    raise Forbidden(message=text, reason="model")
            elif kind == "set" and isinstance(member, (dict, list)):
                found.append(((at, name), member))


def _may_use(member: Any, may_use: Callable[[str], bool] | None) -> bool:
    return may_use is not None and isinstance(member, str) and may_use(member)


def _written(path: _Path) -> str:
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(name)
    return ".".join(reversed(names)).replace(".[]", "[]")


def kind_of(name: str) -> Literal["model", "written", "set"]:
    """Returns whether a member of a request, or a field of a form, names a model, holds content, or is a
    setting."""
    letters = _NOT_LETTERS.sub("", name.casefold())
    if _NAMES.fullmatch(letters):
        return "model"
    return "written" if letters in _WRITTEN else "set"
