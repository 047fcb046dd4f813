"""The paths of OpenAI's API beside chat at each provider: embeddings, moderations, rerankings, images, audio.

Owns the table of providers and routes; `docs/providers.md` shows it. The paths are those of the official SDKs
(openai 3.57, groq 1.7, mistralai 3.7, cohere 7.3, openrouter 1.3) and of the references of xAI, Perplexity, Ollama and
Gemini's OpenAI endpoint, as of 2026-11-25.

1. A route stands where chat does: below the address to which OpenAI's own SDK would add `/embeddings`.
2. A provider whose own API is another one has single routes, at its compatible address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

EMBEDDINGS: Final = "/v1/embeddings"
MODERATIONS: Final = "/v1/moderations"
RERANK: Final = "/v1/rerank"
IMAGES: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"
VARIATIONS: Final = "/v1/images/variations"
SPEECH: Final = "/v1/audio/speech"
TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
TRANSLATIONS: Final = "/v1/audio/translations"
ROUTES: Final = (*(EMBEDDINGS, MODERATIONS, RERANK, IMAGES, EDITS, VARIATIONS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS),)
"""The routes of the pass-through that name a model, as the gateway has them."""
_VERSION: Final = "/v1"


class Routes(NamedTuple):
    """The routes of one provider.

    Attributes:
        root: The path below `base_url` at which OpenAI's API stands; empty: `base_url` itself. None if it stands
            nowhere.
        known: The routes that the provider's reference names; a route that it does not name is sent all the same.
        elsewhere: The paths below `base_url` of single routes; they count before `root`.
        wants_bearer: Whether the key is sent as `Authorization: Bearer` there, whatever the provider's own header is.
    """

    root: str | None
    known: frozenset[str] = frozenset()
    elsewhere: Mapping[str, str] = {}
    wants_bearer: bool = False

    def path(self, route: str) -> str | None:
        """Returns the path of a route below `base_url`. None if the provider does not have it.

        Args:
            route: The route, from `/v1` on; also one that is not among `ROUTES`.
        """
        if route in self.elsewhere:
            return self.elsewhere[route]
        return None if self.root is None else self.root + route.removeprefix(_VERSION)

    def own_path(self, path: str) -> str | None:
        """Returns the path below `base_url` of a path of the upstream's that is named as OpenAI's. None if it is not.

        Args:
            path: The path that a client asks for at the upstream, such as `/v1/embeddings`.
        """
        has_other_version = self.root is not None and self.root.endswith(_VERSION) and self.root != _VERSION
        is_openais = path in ROUTES or (has_other_version and path.startswith(f"{_VERSION}/"))
        return self.path(path) if is_openais else None


NOWHERE: Final = Routes(None)
ANYWHERE: Final = Routes("", frozenset(ROUTES))
"""Any server with OpenAI's API: it alone knows which routes it has."""
OPENAI_ROUTES: Final = Routes("", frozenset(ROUTES) - {RERANK})
AZURE_ROUTES: Final = Routes("/openai/v1", frozenset((EMBEDDINGS, IMAGES, EDITS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS)))
GROQ_ROUTES: Final = Routes("/openai/v1", frozenset((EMBEDDINGS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS)))
MISTRAL_ROUTES: Final = Routes("/v1", frozenset((EMBEDDINGS, MODERATIONS, SPEECH, TRANSCRIPTIONS)))
XAI_ROUTES: Final = Routes("", frozenset((IMAGES, EDITS)))
DEEPSEEK_ROUTES: Final = Routes("")
OLLAMA_ROUTES: Final = Routes("/v1", frozenset((EMBEDDINGS, IMAGES)))
OPENROUTER_ROUTES: Final = Routes("", frozenset((EMBEDDINGS, RERANK, SPEECH, TRANSCRIPTIONS)))
PERPLEXITY_ROUTES: Final = Routes("/v1", frozenset((EMBEDDINGS,)))
_OF_COHERE: Final = {
    EMBEDDINGS: "/compatibility/v1/embeddings",
    RERANK: "/v1/rerank",
    TRANSCRIPTIONS: "/v2/audio/transcriptions",
}
COHERE_ROUTES: Final = Routes(None, frozenset(_OF_COHERE), _OF_COHERE)
_OF_GEMINI: Final = {
    EMBEDDINGS: "/v1beta/openai/embeddings",
    IMAGES: "/v1beta/openai/images/generations",
}
GEMINI_ROUTES: Final = Routes(None, frozenset(_OF_GEMINI), _OF_GEMINI, wants_bearer=True)
