"""The session that a request belongs to: its name and its digest.

Owns which headers and members name a session, which names count, and the digest by which all other code knows a
session. A name is the client's own word: only its digest is logged. Nothing is kept of a session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from gai_fast.core.limits import LIMITS
from gai_fast.model.request import Request

HEADERS: Final = ("x-session-id", "x-claude-code-session-id", "session-id", "session_id")
"""The headers that name a session; the first one counts."""

_DIGEST_SIZE: Final = 8
_NAME: Final = re.compile(rf"[!-~]{{1,{LIMITS.session_name}}}")
# Claude Code's first form: `user_…_account_…_session_<id>`.
_BEGIN: Final = "user_"
_BEFORE_NAME: Final = "_session_"


# Its second form is a JSON object, whose other members are ids of the device and the account.
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_MEMBER: Final = "session_id"


class Session(NamedTuple):
    """A session that its client has named.

    Attributes:
        name: The client's name; never logged.
        digest: 16 hex digits of the name and its caller, by which the session is known.
    """

    name: str
    digest: str


def named_session(headers: Mapping[str, str], request: Request | dict[str, Any], caller: str) -> Session | None:
    """Returns the session of a request. None if its client has not named one.

    Args:
        headers: As for `session_name`.
        request: As for `session_name`.
        caller: The name of the request's caller.
    """
    name = session_name(headers, request)
    return None if name is None else Session(name, session_digest(name, caller))


def session_name(headers: Mapping[str, str], request: Request | dict[str, Any]) -> str | None:
    """Returns the client's name for the session of a request; the first valid one counts.

    Args:
        headers: The request's headers, by lower-case name.
        request: A native request, or a body in a client's dialect.

    Returns:
        1 to `limits.session_name` printable ASCII characters without a space. None if no header and no member has
        such a name.
    """
    for header in HEADERS:
        name = _valid(headers.get(header))
        if name is not None:
            return name
    if isinstance(request, Request):
        cache = request.cache
        return None if cache is msgspec.UNSET else _valid(cache.key)
    name = _valid(request.get("prompt_cache_key"))
    if name is not None:
        return name
    metadata = request.get("metadata")
    return session_of_user(metadata.get("user_id")) if isinstance(metadata, dict) else None


def session_of_user(user_id: Any) -> str | None:
    """Returns the session in a `metadata.user_id` of Messages.

    Args:
        user_id: The member, of any type.

    Returns:
        The session's name. None unless the member has one of Claude Code's two forms: a JSON object with `session_id`,
        and `user_…_session_<id>`.
    """
    if not isinstance(user_id, str) or len(user_id) > LIMITS.session_user_id:
        return None
    if user_id.startswith(_BEGIN):
        _, found, name = user_id.rpartition(_BEFORE_NAME)
        return _valid(name) if found else None
    if not user_id.startswith("{"):
        return None
    try:
        return _valid(_OBJECT.decode(user_id).get(_MEMBER))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):  # another form, or nested too deep
        return None


def session_digest(name: str, caller: str) -> str:
    """Returns the 16 hex digits by which a session is known.

    Equal names of two callers are two sessions.

    Args:
        name: The session's name, or the beginning of its prompt.
        caller: The name of the caller.
    """
    text = f"{caller}\0{name}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_DIGEST_SIZE, person=b"gai-fast session").hexdigest()


def _valid(name: Any) -> str | None:
    return name if isinstance(name, str) and _NAME.fullmatch(name) is not None else None
