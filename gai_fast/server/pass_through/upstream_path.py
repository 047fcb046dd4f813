"""The path and the query of a request to an upstream's own paths.

Owns which paths are refused and which parameters are left out. `model/pass_paths.py` decides which paths are offered.

A path is matched decoded and sent as it came, so it must not mean two things: everything that servers read differently
is refused, also what would mean that after a second decoding. A parameter that changes the method is left out.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_plus, unquote_to_bytes, urlsplit

from gai_fast.model.errors import Error

_PATH: Final = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
"""RFC 3986, 3.3."""
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]|{}^`\"\\<>]|%(?:[0-9A-Fa-f]{2})?)*")
"""RFC 3986, 3.4, and what browsers leave as it is."""
_SEPARATOR: Final = re.compile(r"%(?:2f|5c|[01][0-9a-f]|7f)", re.IGNORECASE)
_ENCODED_DOT: Final = re.compile(r"%2e", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")
_DOTS: Final = frozenset((".", ".."))
_CREDENTIALS: Final = frozenset(("key", "api_key", "api-key", "apikey", "access_token", "subscription-key"))
"""Query parameters that carry credentials: `key` is Google's, `access_token` OAuth's (RFC 6750, 2.3)."""
_REROUTES: Final = frozenset(("_method", "$httpmethod", "$httpheaders", "x-http-method", "x-http-method-override"))
"""Query parameters that give a request another method: of Rails, Laravel and Symfony, and of Google's APIs, which also
read headers there."""
_DROPPED: Final = _CREDENTIALS | _REROUTES
_OF_PHP: Final = re.compile("[ .]")
"""The characters of names that PHP reads as underscores."""


class UpstreamPath(NamedTuple):
    """A path of an upstream.

    Attributes:
        sent: The path as it came.
        segments: Its segments, decoded.
    """

    sent: str
    segments: tuple[str, ...]


def read_path(path: str) -> UpstreamPath:
    """Reads the path of a request.

    Args:
        path: The path as it came, from the `/` behind the upstream's name on.

    Raises:
        Error: The path has a form that servers read differently (400).
    """
    if not _PATH.fullmatch(path):
        raise _refused("it has a character that must be percent-encoded, or a percent sign that encodes nothing")
    if "//" in path:
        raise _refused("it has an empty segment")
    segments = tuple(_segment(each) for each in path[1:].split("/"))
    return UpstreamPath(path, segments)


def _segment(raw: str) -> str:
    if "%" not in raw and not raw.startswith("."):  # as nearly all are
        return raw
    try:
        segment = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise _refused("it is not UTF-8") from None
    if _CONTROL.search(segment) or _SEPARATOR.search(segment):
        raise _refused("it has an encoded slash, backslash or control character")
    if _ENCODED_DOT.sub(".", segment).partition(";")[0] in _DOTS:
        raise _refused("it has a dot segment")
    return segment


def _refused(why: str) -> Error:
    return Error("invalid_request", f"the path is not passed on: {why}", reason="path")


def read_query(query: str) -> str:
    """Returns a query for the upstream, with its question mark: unchanged, but without credentials and other methods.

    Empty if nothing is left.

    Args:
        query: The query as it came.

    Raises:
        Error: It has a character that must be percent-encoded (400).
    """
    if not _QUERY.fullmatch(query):
        raise Error("invalid_request", "the query has a character that must be percent-encoded", reason="query")
    if ";" in query:  # to some servers it separates parameters as well
        parts = [";".join(filter(_is_passed, part.split(";"))) for part in query.split("&")]
        rest = "&".join([part for part in parts if part])
    else:
        rest = "&".join(filter(_is_passed, query.split("&")))
    return f"?{rest}" if rest else ""


def _is_passed(parameter: str) -> bool:
    name = unquote_plus(parameter.partition("=")[0]).strip().lower()
    return name not in _DROPPED and _OF_PHP.sub("_", name) not in _DROPPED


def below(base_url: str, path: str) -> str:
    """Returns a path relative to a base URL. The last segment of the base URL is not repeated.

    Below `https://api.example.com/openai/v1` the paths `/v1/embeddings` and `/embeddings` are both `/embeddings`.

    Args:
        base_url: The upstream's.
        path: The path.
    """
    last = urlsplit(base_url).path.rstrip("/").rpartition("/")[2]
    return path.removeprefix(f"/{last}") if last and path.startswith(f"/{last}/") else path
