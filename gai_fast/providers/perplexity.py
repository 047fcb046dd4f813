"""Perplexity: the chat dialect at `https://api.perplexity.ai/chat/completions`.

Source: PROVIDERS §10c. Besides the dialect:

* Usage comes on every chunk, cumulative, unasked.
* `citations` (URLs) and `search_results` (URLs with titles) are repeated on every chunk: each source is told once.
* The last chunk is called `chat.completion.done`; there is no chunk with only a role.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from gai_fast.events import Event
from gai_fast.providers._base import API, citation
from gai_fast.providers._chat import ChatAdapter, ChatAPI


class Perplexity(ChatAPI):
    """Answers from the web."""

    provider = "perplexity"
    base_url = "https://api.perplexity.ai"
    key_variable = "PERPLEXITY_API_KEY"
    stream_options: ClassVar = {}

    def adapter(self, model: str | None = None) -> PerplexityAdapter:
        return PerplexityAdapter(self, model)


class PerplexityAdapter(ChatAdapter):
    """Reads the sources beside the choices."""

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        titles = {found.get("url"): found.get("title") for found in chunk.get("search_results") or ()}
        uris = [uri for uri in chunk.get("citations") or titles if isinstance(uri, str)]
        return self.citations_once(citation(uri, titles.get(uri)) for uri in uris)


APIS: Final[dict[str, API]] = {"": Perplexity()}
