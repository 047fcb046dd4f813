"""The result of a call: `CallToolResult` → text, structured content, images. Sans-IO.

1. Structured content is any JSON; without it the texts are the result, joined by line ends. A member that is null is
   none.
2. A link, or an embedded text, is a text: its URI, and the text. A blob is named by its URI and type.
3. What cannot be kept is dropped, but for the length of the longest credential; credentials are cut out of the rest
   (`result_redaction.py`); then the result is cut, before what may be a part of one.
4. The result has at most `most` bytes, with its parts. A text is cut at a character, structured content as its JSON
   text; an image or a sound that does not fit is left out. With them, it has `limits.result_parts` parts at most.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeGuard

from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.limits import SHARED
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.result_redaction import redacted
from gai_fast.net.tools.rpc import REPLACED, ToolServerError, depth_of
from gai_fast.runtime.breathing import breathe

PartKind = Literal["text", "image", "audio"]


@dataclass(frozen=True, slots=True)
class ResultPart:
    """A part of a result.

    Attributes:
        kind: What it is.
        text: The text, or the Base64 of an image or a sound.
        media_type: The type of an image or a sound; empty for a text.
    """

    kind: PartKind
    text: str
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool.

    Attributes:
        value: The structured content, else the text.
        parts: All parts, if one of them is no text; else none.
        is_error: Whether the tool itself has failed.
        is_truncated: Whether something of it was left out.
    """

    value: Any
    parts: tuple[ResultPart, ...] = ()
    is_error: bool = False
    is_truncated: bool = False


def read_result(
    result: Mapping[str, Any], most: int = SHARED.tool_result, secrets: Collection[bytes] = ()
) -> ToolResult:
    """Reads the result of a `tools/call`.

    Args:
        result: The result.
        most: Bytes to keep: as `max_result`.
        secrets: Texts that are cut out: rule 3.

    Raises:
        ToolServerError: The result is none, or the tool asks for input first.
    """
    check_complete(result)
    content = [] if result.get("content") is None else result["content"]
    if not isinstance(content, list) or not {*map(type, content)} <= {dict}:
        raise ToolServerError("its result has no list of content", "form", may_have_run=True)
    is_error = result.get("isError") is True
    room = _Room(most, secrets)
    texts = room.kept([_text_of(each) for each in content])
    has_media = None in texts
    has_structure = result.get("structuredContent") is not None or ("structuredContent" in result and not content)
    is_structured = has_structure and not is_error
    if is_structured:
        value = result["structuredContent"]
        written = encode_json(value)
        if len(written) > most:
            return ToolResult(room.cut_json(written), is_truncated=True)
        if REPLACED in written:
            value = parse_exact(written.decode())
        value = redacted(value, secrets)
        if depth_of(value) > SHARED.tool_depth:  # behind the cut: each value takes 0.2 us
            raise ToolServerError("its result is JSON that is nested too deep", "form", may_have_run=True)
        room.left -= len(written)
    else:
        value = room.cut("\n".join(filter(_is_text, texts)))
    shown = room.cut if is_structured else _valid  # without structured content, the value has them already
    parts = list[ResultPart]()
    for each, text in zip(content[: LIMITS.result_parts] if has_media else (), texts, strict=False):
        breathe()
        part = room.media(each) if text is None else ResultPart("text", shown(text))
        if part is not None and part.text:
            parts.append(part)
    has_media = any(part.kind != "text" for part in parts)
    if has_media and len(content) > LIMITS.result_parts:
        room.is_cut = True
    if has_media and room.is_cut and not is_structured:
        first = [ResultPart("text", value)] if value else []
        parts = first + [part for part in parts if part.kind != "text"]
    return ToolResult(value, tuple(parts) if has_media else (), is_error, room.is_cut)


def read_value(value: Any, most: int = SHARED.tool_result, secrets: Collection[bytes] = ()) -> ToolResult:
    """Reads a value of JSON that is a result itself.

    Args:
        value: The value.
        most: Bytes to keep: as `max_result`.
        secrets: Texts that are cut out: rule 3.
    """
    written = encode_json(value)
    if len(written) <= 2 * most:  # it may fit without them
        shown = redacted(parse_exact(written.decode()) if REPLACED in written else value, secrets)
        if shown is not value:
            written = encode_json(shown)
        if len(written) <= most:
            return ToolResult(shown)
    return ToolResult(_Room(most, secrets).cut_json(written), is_truncated=True)


def check_complete(result: Mapping[str, Any]) -> None:
    """Checks the type of a result (2026-07-28, "ResultType").

    Raises:
        ToolServerError: It is not complete.
    """
    kind = result.get("resultType") or "complete"
    if kind == "input_required":
        raise ToolServerError("it asks for input before it answers, which this client does not give", "answer")
    if kind != "complete":
        raise ToolServerError("its result is of a type that this client does not know", "answer", may_have_run=True)


class _Room:
    """The bytes that are left for a result."""

    def __init__(self, most: int, secrets: Collection[bytes]) -> None:
        written = [encode_json(each.decode())[1:-1] for each in secrets]  # as a text of JSON has them
        self.longest = max(map(len, written), default=0)
        self.left = most
        self.is_cut = False
        self._most = most
        self._secrets = frozenset(written).union(secrets)

    def kept(self, texts: Sequence[str | None]) -> list[str | None]:
        """Returns the texts that may have room, without secrets; None stays. A longer one is searched no further."""
        left, kept = self._most, list[str | None]()
        for text in texts:
            breathe()
            if text is not None and left < 0:
                self.is_cut = True
                continue
            if text is not None:
                most = left + self.longest
                self.is_cut |= len(text) > most
                text = self.without_secrets(text[:most], is_cut=len(text) > most)
                left -= len(text) + 1
            kept.append(text)
        return kept

    def without_secrets(self, text: str, *, is_cut: bool) -> str:
        """Returns a text without secrets, nor what may be the beginning of one where it was cut."""
        found = str(redacted(text, self._secrets))
        return found[: max(len(found) - self.longest, 0)] if is_cut else found

    def cut_json(self, written: bytes) -> str:
        """Returns the part of JSON that fits, as a text."""
        most = self._most + self.longest
        text = written[:most].decode("utf-8", "ignore")
        return self.cut(self.without_secrets(text, is_cut=len(written) > most))

    def cut(self, text: str) -> str:
        """Returns the part of a text that fits."""
        data = _valid(text).encode()
        if len(data) > self.left:
            data = data[: self.left]
            self.is_cut = True
        self.left -= len(data)
        return data.decode("utf-8", "ignore")

    def media(self, item: Mapping[str, Any]) -> ResultPart | None:
        """Returns an image or a sound, or None if it does not fit or is none."""
        kind, data, media_type = item.get("type"), item.get("data"), item.get("mimeType")
        if (
            not isinstance(kind, str)
            or kind not in _MEDIA
            or not isinstance(data, str)
            or not isinstance(media_type, str)
            or not _MEDIA_TYPE.fullmatch(media_type)
        ):
            raise ToolServerError("a part of its result is of no known form", "form", may_have_run=True)
        if len(data) > self.left:
            self.is_cut = True
            return None
        data, media_type = redacted([data, media_type], self._secrets)
        try:
            binascii.a2b_base64(data, strict_mode=True)
        except ValueError:
            text = "an image of its result is not in Base64"
            raise ToolServerError(text, "form", may_have_run=True) from None
        self.left -= len(data)
        return ResultPart(_MEDIA[kind], data, media_type)


_MEDIA_TYPE: Final = re.compile(r"(?i:image|audio)/[A-Za-z0-9.+-]{1,60}( ?; ?[A-Za-z0-9.+=-]{1,40})?")
_MEDIA: Final[Mapping[str, PartKind]] = {"image": "image", "audio": "audio"}


def _is_text(text: str | None) -> TypeGuard[str]:
    breathe()
    return text is not None


def _valid(text: str) -> str:
    """Returns a text without lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def _text_of(item: Mapping[str, Any]) -> str | None:
    """Returns the text of a part. None if it may be an image or a sound."""
    breathe()
    kind = item.get("type")
    text: Any = item.get("text")
    if kind == "resource_link":
        text = item.get("uri")
    elif kind == "resource":
        inner = item.get("resource")
        if isinstance(inner, dict):
            text = inner.get("text")
            if not isinstance(text, str):
                text = f"{inner.get('uri', '')} {inner.get('mimeType', '')}".strip()
    elif kind != "text":
        return None
    if not isinstance(text, str):
        raise ToolServerError("a part of its result is of no known form", "form", may_have_run=True)
    return text
