"""OpenRouter: the chat dialect at `https://openrouter.ai/api/v1/chat/completions`.

Source: PROVIDERS §10, read from openrouter 1.3. Besides the dialect:

* Usage always comes; asking for it is deprecated.
* `delta.reasoning` and `reasoning_details[]` say the same text; the latter also holds signatures and encrypted blocks.
* A failure in the middle of a stream is an ordinary chunk with `error {code: int, message, metadata}` at its top; the
  metadata's `error_type` is a taxonomy of its own and says most.
* `native_finish_reason` beside `finish_reason`: the latter is the provider's word for us.
* Generated images as `delta.images[]` with data URLs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from msgspec import UNSET

from gai_fast.errors import Said
from gai_fast.events import Event
from gai_fast.providers._base import API, error_object, said_of, text_of
from gai_fast.providers._chat import CallFragment, ChatAdapter, ChatAPI, Choice
from gai_fast.request import Reasoning, ReasoningPart


class OpenRouter(ChatAPI):
    """Many providers behind one address."""

    provider = "openrouter"
    base_url = "https://openrouter.ai/api/v1"
    key_variable = "OPENROUTER_API_KEY"
    stream_options: ClassVar = {}

    def adapter(self, model: str | None = None) -> OpenRouterAdapter:
        return OpenRouterAdapter(self, model)

    def said(self, body: Any) -> Said | None:
        error = error_object(body)
        return None if error is None else said_of(error, error.get("metadata"))

    def reasoning(self, wanted: Reasoning) -> dict[str, Any]:
        said = {"effort": wanted.effort, "max_tokens": wanted.max_tokens}
        return {"reasoning": {key: value for key, value in said.items() if value is not UNSET}}

    def earlier_reasoning(self, parts: list[ReasoningPart], *, has_calls: bool) -> dict[str, Any]:
        return {"reasoning_details": [_detail(part, index) for index, part in enumerate(parts)]}


def _detail(part: ReasoningPart, index: int) -> dict[str, Any]:
    if part.redacted or not part.text:
        return {"type": "reasoning.encrypted", "data": part.signature, "index": index}
    detail: dict[str, Any] = {"type": "reasoning.text", "text": part.text, "index": index}
    return detail | {"signature": part.signature} if part.signature else detail


class OpenRouterAdapter(ChatAdapter):
    """Reads images beside the dialect."""

    def read_message(self, choice: Choice, message: dict[str, Any], part: str) -> Iterator[Event | CallFragment]:
        yield from super().read_message(choice, message, part)
        for image in message.get("images") or ():
            yield from _image(text_of(image["image_url"]["url"]))


def _image(url: str) -> list[Event]:
    """The event for a data URL; an image that would have to be fetched is none of ours."""
    head, _, data = url.partition(";base64,")
    if not data or not head.startswith("data:"):
        return []
    return [{"type": "image", "image": {"data": data, "media_type": head.removeprefix("data:")}}]


APIS: Final[dict[str, API]] = {"": OpenRouter()}
