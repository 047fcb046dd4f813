"""The bytes of an upstream's response: `ResponseReader`. Sans-IO, around httptools.

Owns the decision whether a response is correctly framed. It must not know connections, time limits, providers or JSON.

It is stricter than llhttp, which httptools wraps:

1. Each response has its own parser: httptools keeps the last field of a trailer and would report it as a header of the
   next response.
2. Any `Transfer-Encoding` except `chunked` is refused: llhttp accepts `gzip, chunked` and would pass compressed bytes.
3. `HTTP/0.9`, `HTTP/2.0` and a status below 100 are refused (RFC 9112 §2.3, RFC 9110 §15).
4. The size of heads, trailers and chunk extensions is limited here; llhttp does not limit it.
5. httptools has no call for the end of input, so whether an EOF is an end is decided here (RFC 9112 §6.3).
"""

from __future__ import annotations

from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gai_fast.kernels import ChunkedBody, body_start
from gai_fast.model.errors import Code, Error
from gai_fast.model.limits import SHARED
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.model.upstream_errors import UpstreamFailure, from_upstream
from gai_fast.net.upstream.idle_time import keep_alive_timeout

_HEAD_END: Final = b"\r\n\r\n"
_NOT_MODIFIED: Final = 304
_CONDITIONAL: Final = ("GET", "HEAD")
"""The methods that may have a condition, which this status answers (RFC 9110, 15.4.5)."""
_WITHOUT_BODY: Final = (204, _NOT_MODIFIED)
_MOST_OVERHEAD: Final = SHARED.response_head  # a constant, because every read uses it
_LENGTH_NAME: Final = b"\r\ncontent-length:"
_ChunkedBody: Final = ChunkedBody  # a constant, because looking up a global name costs 30 ns

# The usual spellings of the headers that most responses have. A look-up costs a third of decoding the name.
_NAMES: Final[dict[bytes, str]] = {
    spelt.encode(): name
    for name in "cache-control connection content-length content-type date server transfer-encoding".split()
    for spelt in (name, name.title())
}


class KnownResponseHead:
    """The parsed head of a framed response, reused if the same upstream sends the same bytes again.

    Many servers send identical heads with every response, except for the length of its body.
    """

    def __init__(
        self,
        data: bytes,
        after: bytes,
        status: int,
        headers: dict[str, str],
        keep_alive: bool,
        idle_timeout: float | None,
    ) -> None:
        self.data = data  # all, with the blank line; of a head with a length, what stands before its digits
        self.after = after  # the text after these
        self.idle_timeout = idle_timeout
        self.status = status
        self.headers = headers
        self.keep_alive = keep_alive

    @classmethod
    def of(
        cls, data: bytes, status: int, headers: dict[str, str], keep_alive: bool, idle_timeout: float | None
    ) -> KnownResponseHead | None:
        """Creates a known head from a parsed one. Returns None if the place of its length is not known."""
        length = headers.get("content-length")
        if length is None:
            return cls(data, b"", status, headers.copy(), keep_alive, idle_timeout)
        lowered = data.lower()
        named = lowered.find(_LENGTH_NAME)
        start = lowered.find(length.encode(), named + len(_LENGTH_NAME))
        if named < 0 or start < 0 or not length.isdigit() or lowered.find(_LENGTH_NAME, start) >= 0:
            return None
        return cls(data[:start], data[start + len(length) :], status, headers.copy(), keep_alive, idle_timeout)


class KnownResponseHeads:
    """The last response head of one upstream, whichever of its connections it came on.

    Attributes:
        last: The head. None if the upstream has not yet sent a head that can be reused.
    """

    def __init__(self) -> None:
        self.last: KnownResponseHead | None = None


class ResponseReader:
    """Parses one response: the head with httptools, the body by its framing. Sans-IO.

    After each `feed`, handle `head`, the returned bytes, then `error` and `complete`, in this order, which is the order
    of arrival.

    Args:
        peer: `host:port`, for messages.
        method: The request's method. A response to HEAD has no body, even if its head announces one.
        known: The upstream's known heads. This response's head becomes the last one if it can be reused.

    Attributes:
        head: Status and headers. None until they have arrived.
        complete: Whether the response has ended properly.
        error: The error in the response. None if there is none.
        is_reusable: Whether the connection may carry another exchange; valid once `complete`.
        idle_timeout: Seconds after which the peer closes an idle connection, by its `Keep-Alive` header. None if the
            header gives no time.
        chunks: Parses a chunked body; after feeding it directly call `look_at_chunks`. None if the body is not chunked.
    """

    def __init__(self, peer: str, method: str = "POST", known: KnownResponseHeads | None = None) -> None:
        self.head: tuple[int, dict[str, str]] | None = None
        self.complete = False
        self.error: Error | None = None
        self.is_reusable = False
        self._known = known
        self._peer = peer
        self.idle_timeout: float | None = None
        self._is_head = method == "HEAD"
        self._method = method
        self._keep_alive = False
        self.chunks: ChunkedBody | None = None
        self._left: int | None = None  # missing bytes of a body with Content-Length
        self._headers: dict[str, str]  # while a head is parsed
        self._head_bytes = 0
        self._tail = b""  # the last bytes of an incomplete head
        self._parser: HttpResponseParser | None = None

    def feed(self, data: bytes) -> bytes:
        """Parses the bytes of one read and returns the body's bytes in it; must not be called after the end."""
        at = 0  # where the body begins
        if self.head is None:
            at = self._repeated(data)
            if not at:
                rest = self._feed_head(data)
                if rest is None:
                    return b""
                data = rest
            if self.complete:
                self.is_reusable = self._keep_alive and len(data) == at  # further bytes belong to no request
                return b""
        if self.chunks is not None:
            body = self.chunks.feed(data, at)
            self.look_at_chunks()
            return body
        if self._left is not None:
            end = at + self._left
            body = data[at:end] if at or len(data) > end else data
            self._left -= len(body)
            if not self._left:
                self.complete = True
                self.is_reusable = self._keep_alive and len(data) == end
            return body
        return data

    def look_at_chunks(self) -> None:
        """Updates `error` and `complete` after `chunks` has been fed."""
        chunks = self.chunks
        if chunks is None:
            return
        if chunks.broken:
            self._refuse("network", "protocol", "broke the chunked coding of its answer: check base_url")
        elif chunks.overhead > _MOST_OVERHEAD:
            self._too_large()
        elif chunks.complete:
            self.complete = True
            self.is_reusable = self._keep_alive and not chunks.rest

    def feed_eof(self) -> None:
        """Handles the end of input: sets `complete` if it ends the response properly, else `error`."""
        if self.head is not None and self.chunks is None and self._left is None:
            self.complete = True
        else:
            self._refuse("network", "truncated", "closed the connection before the end of its answer")

    def _repeated(self, data: bytes) -> int:
        """Recognises a known head and returns its size. Returns 0 if the head differs or is split over reads."""
        known = self._known.last if self._known is not None else None
        if known is None or self._head_bytes or self._is_head:
            return 0
        if known.after:
            size = body_start(data, known.data, known.after, False)
        else:
            size = len(known.data) if data.startswith(known.data) else -1
        if size < 0:
            return 0
        headers = known.headers.copy()
        self.head = known.status, headers
        self._keep_alive = known.keep_alive
        self.idle_timeout = known.idle_timeout
        if known.after:
            length = headers["content-length"] = data[len(known.data) : size - len(known.after)].decode("ascii")
            self._left = int(length)
            self.complete = not self._left
        else:
            self.chunks = _ChunkedBody()
        return size

    def _note_head(self, data: bytes) -> None:
        """Remembers a head that arrived in one read without an interim head; the next response may repeat it."""
        if self._known is None or self.head is None or (self.chunks is None and self._left is None):
            return
        if len(data) == self._head_bytes <= SHARED.known_head:
            status, headers = self.head
            known = KnownResponseHead.of(data, status, headers, self._keep_alive, self.idle_timeout)
            if known is not None:
                self._known.last = known

    def _feed_head(self, data: bytes) -> bytes | None:
        """Feeds heads, also interim ones, to httptools. Returns the bytes after the last; None until it has ended."""
        while data and self._is_in_head():
            seen = self._tail + data if self._tail else data
            end = seen.find(_HEAD_END)
            # The parser gets no byte of the body: the end of the head is searched before the head is fed.
            size = len(data) if end < 0 else end + len(_HEAD_END) - len(self._tail)
            self._tail = seen[-len(_HEAD_END) + 1 :] if end < 0 else b""
            self._head_bytes += size
            if self._parser is None:
                self._parser, self._headers = HttpResponseParser(self), {}
            try:
                self._parser.feed_data(data[:size])
            except (HttpParserError, HttpParserUpgrade) as exc:
                if self.error is None and not self.complete:
                    self._refuse("network", "protocol", f"sent what is not valid HTTP/1.1 ({exc}): check base_url")
            if self.error is None and self._head_bytes > SHARED.response_head:
                self._too_large()
            if end >= 0 or self.error is not None:
                self._parser = None  # breaks a reference cycle, which only the garbage collector would free
            self._note_head(data[:size])
            data = data[size:]
        return None if self.head is None else data

    def _is_in_head(self) -> bool:
        # A method, because it does not narrow types: the parser's callbacks change these attributes.
        return self.head is None and self.error is None

    def _refuse(self, code: Code, reason: str, text: str) -> None:
        self.error = Error(code, f"{self._peer} {text}", reason=reason)

    def _too_large(self) -> None:
        text = f"sent more than {SHARED.response_head} bytes of headers (limit response_head)"
        self._refuse("provider_unavailable", "head_too_large", text)

    # httptools calls these.

    def on_header(self, name: bytes, value: bytes) -> None:
        headers, key = self._headers, _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        parser, headers = cast(HttpResponseParser, self._parser), self._headers
        status = parser.get_status_code()
        if parser.get_http_version() not in ("1.1", "1.0") or status < 100 or status == 101:
            self._refuse("network", "protocol", "sent an answer that is not HTTP/1.1: check base_url")
        elif status < 200:
            self._headers = {}  # interim (RFC 9110 §15.2); its size still counts
            return
        elif 300 <= status < 400 and not (status == _NOT_MODIFIED and self._method in _CONDITIONAL):
            text = f"answered with a redirect ({status}), and none is followed: check base_url"
            self._refuse("provider_unavailable", "redirect", text)
        elif headers.get("transfer-encoding", "chunked").lower() != "chunked" or (
            "content-encoding" in headers and _is_coded(headers["content-encoding"])
        ):
            text = "sent an encoded body although only identity was accepted: is a proxy in between?"
            if status < 400:
                self._refuse("provider_unavailable", "content_encoding", text)
            else:  # the status of a failure counts without its body, too
                text = f"the upstream answered with status {status} and {text}"
                failure = UpstreamFailure(text, ("content_encoding",), status)
                wait = retry_after_ms(headers, "", None)
                self.error = from_upstream(failure, phase="first_event", provider=None, retry_after_ms=wait)
        else:
            self.head = status, headers
            self._keep_alive = parser.should_keep_alive()
            self.idle_timeout = keep_alive_timeout(headers.get("keep-alive"))
            if self._is_head or status in _WITHOUT_BODY:  # RFC 9112 §6.3: no body, even if the head announces one
                self.complete = True
            elif "transfer-encoding" in headers:
                self.chunks = _ChunkedBody()
            elif "content-length" in headers:
                self._left = int(headers["content-length"])
                self.complete = not self._left


_CODINGS: Final = frozenset(
    "aes128gcm br bzip2 compress dcb dcz deflate exi gzip lz4 lzma pack200-gzip snappy x-bzip2 x-compress x-gzip "
    "x-snappy xz zlib zstd".split()
)
"""IANA's registry of codings, and some that are not registered. Servers send other words too, on bodies that are not
encoded: Next.js `none`, so that no proxy compresses, others a charset, an encoding of MIME or nothing."""


def _is_coded(value: str) -> bool:
    """Returns whether a `Content-Encoding` names a coding."""
    return any(each.partition(";")[0].strip() in _CODINGS for each in value.lower().split(","))
