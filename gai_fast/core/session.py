"""The session that a request belongs to: its name, its beginning and its digest.

Owns which headers and members name a session, which names count, what stands for a name that is missing, and the digest
by which all other code knows a session. A name is the client's own word: only its digest is logged. Nothing is kept of
a session.

Every turn of a conversation repeats its beginning: the system texts and the first message of the user. Providers cache
prompts by prefix, too. So turns without a name are found together by their beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple

import msgspec

from gai_fast.core.limits import LIMITS
from gai_fast.core.requests.reading import conversation
from gai_fast.model.request import Request, UserMessage

HEADERS: Final[tuple[str, ...]] = ("x-session-id", "x-claude-code-session-id", "session-id", "session_id")
"""The headers that name a session; the first one counts."""

ATTRIBUTION: Final = "x-anthropic-billing-header:"
"""The beginning of the text in which Claude Code says what it is."""

_DIGEST_SIZE: Final = 8
_UNSET: Final = msgspec.UNSET  # a look-up in its module takes 200 instructions
_NAME: Final = re.compile(rf"[!-~]{{1,{LIMITS.session_name}}}")
# Claude Code's first form: `user_…_account_…_session_<id>`.
_BEGIN: Final = "user_"
_BEFORE_NAME: Final = "_session_"
# Its second form is a JSON object, whose other members are ids of the device and the account.
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_MEMBER: Final = "session_id"


class NamedSession(NamedTuple):
    """A session that its client has named.

    Attributes:
        name: The client's name; never logged.
        digest: 16 hex digits of the name and its caller, by which the session is known.
    """

    name: str
    digest: str


def named_session(name: str | None, caller: str) -> NamedSession | None:
    """Returns the session with a name, or None if there is none.

    Args:
        name: From `name_in_headers`; if that is None, from `name_in_request` or `name_in_body`.
        caller: The name of the request's caller.
    """
    return None if name is None else NamedSession(name, session_digest(name, caller))


def name_in_headers(headers: dict[str, str]) -> str | None:
    """Returns the name of a session in the headers of a request; the first valid one counts.

    Args:
        headers: By lower-case name.

    Returns:
        1 to `limits.session_name` printable ASCII characters without a space. None if no header has such a name.
    """
    for header in HEADERS:
        given = headers.get(header)
        if given is not None and _NAME.fullmatch(given) is not None:
            return given
    return None


def name_in_request(request: Request) -> str | None:
    """Returns the name of a session in a native request; as `name_in_headers`.

    Args:
        request: The request.
    """
    cache = request.cache
    return None if cache is _UNSET else _valid(cache.key)


def name_in_body(body: dict[str, Any]) -> str | None:
    """Returns the name of a session in a body of a client's dialect; as `name_in_headers`.

    Args:
        body: The body.
    """
    name = body.get("prompt_cache_key")
    if name is not None and _valid(name) is not None:
        return str(name)
    metadata = body.get("metadata")
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


def cache_key(session: NamedSession) -> str:
    """Returns the key under which providers may cache the prompts of a session: its name, or the digest of a long one.

    Args:
        session: The session.
    """
    return session.name if len(session.name) <= LIMITS.cache_key else session.digest


def beginning(request: Request | dict[str, Any], least: int) -> str:
    """Returns what names a session whose client does not: the texts from the system prompt to the user's first message.

    Tools, options and images are not included: they are long or change between turns; nor is a block of attribution,
    which older versions of Claude Code change each turn. Nothing is checked: `formats/` does that.

    Args:
        request: A native request, or a body in a client's dialect: `system`, `instructions` or neither, then the
            messages of `messages` or `input` up to the first of role `user`, or the text of `prompt` or `input`.
        least: The characters that all texts of the request must have.

    Returns:
        The texts, with a separator after each; of more than `limits.session_beginning` characters the first and the
        last half of these. Empty if there are fewer texts.
    """
    found: list[str] = []
    size = 0
    is_beginning = True
    for text in _of_native(request) if isinstance(request, Request) else _of_body(request):
        if text is None:
            is_beginning = False
        else:
            size += len(text)
            if is_beginning:
                found.append(text)
        if not is_beginning and size >= least:
            break
    if size < least or not found:
        return ""
    name = "".join([text + "\0" for text in found])
    if len(name) <= LIMITS.session_beginning:
        return name
    half = LIMITS.session_beginning // 2
    return name[:half] + name[-half:]


def _of_native(request: Request) -> Iterator[str | None]:
    """Yields the texts of a request; None after those of its beginning."""
    for message in conversation(request):
        content = message.content
        if isinstance(content, str):
            yield content
        else:
            for part in content:
                text = getattr(part, "text", None)
                if isinstance(text, str):
                    yield text
        if isinstance(message, UserMessage):
            yield None


def _of_body(body: dict[str, Any]) -> Iterator[str | None]:
    """Works as `_of_native`, for a body in a client's dialect."""
    yield from _without_attribution(body.get("system"))
    yield from _texts(body.get("instructions"))
    for name in ("messages", "input"):
        messages = body.get(name)
        if not isinstance(messages, list):
            yield from _texts(messages)
            continue
        for message in messages:
            if isinstance(message, dict):
                yield from _texts(message.get("content"))
                if message.get("role") == "user":
                    yield None
    yield from _texts(body.get("prompt"))


def _without_attribution(system: Any) -> Iterator[str]:
    """Yields the texts of a `system` of Messages, without the first block, or the first line, of Claude Code's own."""
    if isinstance(system, str):
        yield system.partition("\n")[2] if system.startswith(ATTRIBUTION) else system
        return
    is_cut = False
    for text in _texts(system):
        if not is_cut and text.startswith(ATTRIBUTION):
            is_cut = True
        else:
            yield text


def _texts(content: Any) -> Iterator[str]:
    """Yields the texts of a content: a string, or parts with a `text`."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def session_digest(name: str, caller: str) -> str:
    """Returns the 16 hex digits by which a session is known.

    Equal names of two callers are two sessions.

    Args:
        name: The session's name, or the beginning of its prompt.
        caller: The name of the caller.
    """
    if len(name) > LIMITS.session_name:  # a beginning: SHA-256 has instructions of its own, which halves the time
        name = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    text = f"{caller}\0{name}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_DIGEST_SIZE, person=b"gai-fast session").hexdigest()


def _valid(name: Any) -> str | None:
    return name if isinstance(name, str) and _NAME.fullmatch(name) is not None else None
