"""What the members of requests are, one table a dialect: text, setting, object, proof, or the id of something stored.

The walks over bodies whose dialect may be any one run from what all tables say together: servers know members of
several dialects, and raw members of native requests are of their provider's. The readers of `formats/` take from their
own table which members they know. Owns no walk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

_NO_PLACES: Final[dict[str, str]] = {}


class Kind:
    """A kind of objects that dialects have. Members that are neither silent nor within are texts.

    Args:
        silent: The members that are no text.
        within: The members whose objects are of dialects too, each with the place that they stand in.
        others: The place of the objects in other members.
        is_signed: Whether it may have a proof of its texts.
    """

    def __init__(
        self,
        silent: Iterable[str],
        within: Mapping[str, str] = _NO_PLACES,
        *,
        others: str = "",
        is_signed: bool = True,
    ) -> None:
        self.silent = frozenset(silent)
        self.within = within
        self.others = others
        self.is_signed = is_signed


class Stored(NamedTuple):
    """A member that holds the id of something that an upstream stores.

    Args:
        thing: What it is, in a refusal.
        forms: The forms of the id: `text`, `object` (its `id`), `list` (of texts), `resource` (a text that names one
            of a project), `address` (a text that is a stored file's).
        code: The beginning of the refusal's code, if it is not made from `thing`.
    """

    thing: str
    forms: tuple[str, ...] = ("text",)
    code: str = ""


_NO_KINDS: Final[dict[str, Kind]] = {}
_NONE_STORED: Final[dict[str, Stored]] = {}


class DialectMembers(NamedTuple):
    """The members of one dialect's requests; names of members of the whole request stand in one text.

    Args:
        texts: Those with texts, in the order of the conversation.
        same: Settings that a native request has under the same names.
        read: Settings that the dialect's reader reads or refuses.
        harmless: Settings without a visible effect on the answer.
        without_effect: Members that do not change the answer, and that a native request lacks.
        others: Settings that only upstreams know.
        forms: Settings that are texts unless they are objects.
        body: The places of the objects in its texts.
        places: The kinds of objects without a `type`, by their places.
        types: The kinds of objects in messages, items and parts, by their `type`.
        proofs: The members that prove the text beside them, in one text.
        stored: The members that hold ids, wherever they stand.
    """

    texts: str
    same: str = ""
    read: str = ""
    harmless: str = ""
    without_effect: str = ""
    others: str = ""
    forms: str = ""
    body: Mapping[str, str] = _NO_PLACES
    places: Mapping[str, Kind] = _NO_KINDS
    types: Mapping[str, Kind] = _NO_KINDS
    proofs: str = ""
    stored: Mapping[str, Stored] = _NONE_STORED


def known_members(dialect: DialectMembers) -> frozenset[str]:
    """Returns the members that the dialect's reader knows."""
    known = (dialect.texts, dialect.same, dialect.read, dialect.harmless, dialect.without_effect, dialect.forms)
    return frozenset(" ".join(known).split())


# ---- places -----------------------------------------------------------------------------------------------------

MESSAGE: Final = "message"
PART: Final = "part"
CALL: Final = "call"
FUNCTION: Final = "function"
MEDIUM: Final = "medium"
SOURCE: Final = "source"
CONTENT: Final = "content"
GENERATE_PART: Final = "contents"
GENERATE_CALL: Final = "contents_call"
PROMPT: Final = "prompt"
VARIABLES: Final = "variables"

_PARTS: Final = {"content": PART}
_OF_PART: Final = ("type", "cache_control", "prompt_cache_breakpoint")
_OF_ITEM: Final = ("type", "id", "status", "call_id", "phase")
_OF_CALL: Final = (*_OF_PART, "id", "name", "caller")
_TEXT: Final = Kind((*_OF_PART, "id"), {"content": PART, "citations": PART})
_THOUGHT: Final = Kind((*_OF_PART, "id", "format"), {"thinking": PART})
_ENCRYPTED_THOUGHT: Final = Kind((*_OF_PART, "id", "format", "data"))
_SCREEN: Final = Kind((*_OF_PART, "image_url", "file_id", "detail"))
_CITED: Final = Kind((*_OF_PART, "file_id", "encrypted_index"))
_ITEM: Final = Kind(_OF_ITEM)
_CALL_ITEM: Final = Kind((*_OF_ITEM, "name"))
_OUTPUT_ITEM: Final = Kind(_OF_ITEM, {"output": PART})
TOOL_RESULT: Final = Kind((*_OF_PART, "tool_use_id", "caller"), _PARTS)
"""Also any part of a type that ends so."""

# ---- tables -----------------------------------------------------------------------------------------------------

CHAT: Final = DialectMembers(
    "messages prediction",
    same="model temperature top_p seed metadata top_k min_p frequency_penalty presence_penalty repetition_penalty "
    "logit_bias logprobs top_logprobs parallel_tool_calls verbosity service_tier user safety_identifier",
    read="stream n stop max_tokens max_completion_tokens reasoning reasoning_effort response_format thinking tools "
    "functions tool_choice function_call web_search_options",
    harmless="prompt_cache_key prompt_cache_options stream_options",
    without_effect="prediction prompt_cache_retention store",
    others="audio modalities provider models session_id api_version",
    body={"messages": MESSAGE, "prediction": PART},
    places={
        MESSAGE: Kind(
            ("role", "name", "tool_call_id", *_OF_PART),
            {
                "content": PART,
                "tool_calls": CALL,
                "function_call": FUNCTION,
                "audio": MEDIUM,
                "reasoning_details": PART,
                "thinking_blocks": PART,
            },
        ),
        CALL: Kind(("type", "id"), {"function": FUNCTION, "custom": FUNCTION}),
        FUNCTION: Kind(("name",), is_signed=False),
        MEDIUM: Kind(
            ("id", "url", "detail", "data", "format", "expires_at", "file_id", "file_data", "filename"),
            is_signed=False,
        ),
    },
    types={
        **dict.fromkeys(("text", "refusal"), _TEXT),
        **dict.fromkeys(("reasoning.text", "reasoning.summary"), _THOUGHT),
        "reasoning.encrypted": _ENCRYPTED_THOUGHT,
        **{name: Kind(_OF_PART, {name: MEDIUM}) for name in ("image_url", "input_audio", "file")},
    },
    proofs="extra_content reasoning_signature reasoning_opaque",
    stored={
        "audio": Stored("Audio", ("object",)),
        "preset": Stored("Preset"),
        "library_ids": Stored("Library", ("list",)),
        "collection_ids": Stored("Collection", ("list",)),
    },
)
"""OpenAI's Chat Completions, with what OpenRouter and servers of open models add."""

COMPLETIONS: Final = DialectMembers(
    "prompt suffix",
    same="model temperature top_p seed max_tokens",
    read="stop stream",
    harmless="user stream_options",
    others="best_of echo",
)
"""OpenAI's legacy Completions."""

RESPONSES: Final = DialectMembers(
    "instructions input prompt",
    same="model temperature top_p metadata parallel_tool_calls service_tier user safety_identifier top_logprobs",
    read="background include max_output_tokens reasoning store stream tool_choice tools conversation "
    "previous_response_id",
    harmless="access_programs client_metadata prompt_cache_key prompt_cache_options prompt_cache_retention "
    "stream_options",
    others="truncation",
    forms="text",
    body={"input": MESSAGE, "prompt": PROMPT},
    places={
        MESSAGE: Kind(_OF_ITEM, _PARTS),
        PROMPT: Kind(("id", "version"), {"variables": VARIABLES}, is_signed=False),
        VARIABLES: Kind((), others=PART, is_signed=False),
    },
    types={
        **dict.fromkeys(("input_text", "summary_text", "reasoning_text", "refusal", "compaction"), _TEXT),
        "output_text": Kind((*_OF_PART, "annotations", "logprobs")),
        **dict.fromkeys(("input_image", "computer_screenshot"), _SCREEN),
        "input_file": Kind((*_OF_PART, "file_data", "file_url", "file_id", "filename", "detail")),
        "reasoning": Kind(_OF_ITEM, {"content": PART, "summary": PART}),
        **dict.fromkeys(("function_call", "custom_tool_call"), _CALL_ITEM),
        **dict.fromkeys(("function_call_output", "custom_tool_call_output", "computer_call_output"), _OUTPUT_ITEM),
        "item_reference": Kind(("type", "id")),
        "mcp_call": Kind((*_OF_ITEM, "name", "server_label", "approval_request_id")),
        "mcp_approval_request": Kind((*_OF_ITEM, "name", "server_label")),
        "mcp_approval_response": Kind((*_OF_ITEM, "approval_request_id")),
        "mcp_list_tools": Kind((*_OF_ITEM, "server_label", "tools")),
        "code_interpreter_call": Kind((*_OF_ITEM, "container_id")),
        "image_generation_call": Kind((*_OF_ITEM, "result")),
        **dict.fromkeys(
            (
                *("file_search_call", "web_search_call", "computer_call", "local_shell_call", "shell_call"),
                *("local_shell_call_output", "shell_call_output", "apply_patch_call", "apply_patch_call_output"),
                *("tool_search_call", "tool_search_output"),
            ),
            _ITEM,
        ),
    },
    proofs="encrypted_content",
    stored={
        "previous_response_id": Stored("Previous response"),
        "comparison_response_id": Stored("Comparison response"),
        "conversation": Stored("Conversation", ("text", "object")),
        "prompt": Stored("Prompt", ("object",)),  # as a text it is one
        "container": Stored("Container", ("text", "object")),
        "container_id": Stored("Container"),
        "file_id": Stored("File"),
        "file_ids": Stored("File", ("list",)),
        "vector_store_ids": Stored("Vector store", ("list",)),
        "skill_id": Stored("Skill"),
        "tunnel_id": Stored("Tunnel"),
    },
)
"""OpenAI's Responses API."""

MESSAGES: Final = DialectMembers(
    "system messages",
    same="model temperature top_p top_k",
    read="max_tokens output_config output_format stop_sequences stream thinking thread tool_choice tools",
    harmless="cache_control diagnostics metadata service_tier user_profile_id workspace_id",
    others="betas container mcp_servers",
    body={"system": PART, "messages": MESSAGE},
    places={SOURCE: Kind(("type", "media_type", "data", "url", "file_id"), is_signed=False)},
    types={
        **dict.fromkeys(("text", "compaction", "content"), _TEXT),
        "thinking": _THOUGHT,
        "redacted_thinking": _ENCRYPTED_THOUGHT,
        **dict.fromkeys(("image", "document"), Kind(_OF_PART, {"source": SOURCE})),
        "search_result": Kind(_OF_PART, _PARTS),
        "container_upload": Kind((*_OF_PART, "file_id")),
        **dict.fromkeys(("tool_use", "server_tool_use"), Kind(_OF_CALL)),
        "mcp_tool_use": Kind((*_OF_CALL, "server_name")),
        "tool_result": TOOL_RESULT,
        "web_search_result": Kind((*_OF_PART, "page_age")),
        "web_fetch_result": Kind((*_OF_PART, "retrieved_at"), _PARTS),
        **dict.fromkeys(("char_location", "page_location", "content_block_location"), _CITED),
        **dict.fromkeys(("search_result_location", "web_search_result_location"), _CITED),
    },
    proofs="signature",
    stored={
        "thread": Stored("Thread", ("text", "object")),
        "previous_message_id": Stored("Previous message"),
        "container": Stored("Container", ("text", "object")),
        "file_id": Stored("File"),
        "skill_id": Stored("Skill"),
    },
)
"""Anthropic's Messages."""

_SECRET: Final = Stored("Secret", ("resource",))
_CORPUS: Final = Stored("RAG corpus")
_CORPORA: Final = Stored("RAG corpus", ("list",))
_STORE: Final = Stored("File search store", ("list",))

GENERATE: Final = DialectMembers(
    "systemInstruction system_instruction contents",
    others="generationConfig safetySettings toolConfig cachedContent",
    body=dict.fromkeys(("systemInstruction", "system_instruction", "contents"), CONTENT),
    places={
        CONTENT: Kind(("role",), {"parts": GENERATE_PART}),
        GENERATE_PART: Kind(
            (),
            {
                **dict.fromkeys(("inlineData", "inline_data", "fileData", "file_data"), MEDIUM),
                **dict.fromkeys(
                    ("functionCall", "function_call", "functionResponse", "function_response"), GENERATE_CALL
                ),
            },
        ),
        GENERATE_CALL: Kind(("id", "name", "scheduling")),
        MEDIUM: Kind(("mimeType", "mime_type", "fileUri", "file_uri"), is_signed=False),
    },
    proofs="thoughtSignature thought_signature",
    stored={
        **dict.fromkeys(("fileUri", "file_uri"), Stored("File", ("address",))),
        **dict.fromkeys(("cachedContent", "cached_content"), Stored("Cached content")),
        **dict.fromkeys(("fileSearchStoreNames", "file_search_store_names"), _STORE),
        **dict.fromkeys(("ragCorpus", "rag_corpus"), _CORPUS),
        **dict.fromkeys(("ragCorpora", "rag_corpora"), _CORPORA),
        **dict.fromkeys(("ragFileIds", "rag_file_ids"), Stored("File", ("list",))),
        **dict.fromkeys(("datastore", "dataStore", "data_store"), Stored("Data store", ("resource",))),
        "engine": Stored("Search engine", ("resource",), "engine"),
        **dict.fromkeys(("apiKeySecret", "api_key_secret", "credentialSecret", "credential_secret"), _SECRET),
        **dict.fromkeys(("apiKeySecretVersion", "api_key_secret_version"), _SECRET),
        **dict.fromkeys(("serviceAccount", "service_account"), Stored("Service account")),
    },
)
"""Google's `generateContent`, whose members have two spellings."""

CHAT_OF_OLLAMA: Final = DialectMembers("messages system prompt", forms="format")
"""Ollama's chat, as far as it differs from `CHAT`."""

DIALECTS: Final = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, GENERATE, CHAT_OF_OLLAMA)

# ---- all together -----------------------------------------------------------------------------------------------


def _together(tables: Iterable[Mapping[str, Kind]]) -> dict[str, Kind]:
    """Returns the kinds of several tables: of one that several have, a member means what any of them says."""
    found: dict[str, Kind] = {}
    for table in tables:
        for name, kind in table.items():
            other = found.get(name, kind)
            silent = {*kind.silent, *other.silent, *(PROOFS if kind.is_signed else ())}
            within = {**other.within, **kind.within}
            found[name] = Kind(silent, within, others=kind.others, is_signed=kind.is_signed)
    return found


TEXTS: Final = frozenset(" ".join([dialect.texts for dialect in DIALECTS]).split())
FORMS: Final = frozenset(" ".join([dialect.forms for dialect in DIALECTS]).split())
PROOFS: Final = tuple(dict.fromkeys(" ".join([dialect.proofs for dialect in DIALECTS]).split()))
SETTINGS: Final = frozenset(
    name for dialect in DIALECTS for name in (*known_members(dialect), *dialect.others.split())
) - (TEXTS | FORMS)
BODY: Final = {name: place for dialect in DIALECTS for name, place in dialect.body.items()}
PLACES: Final = _together(dialect.places for dialect in DIALECTS)
TYPES: Final = _together(dialect.types for dialect in DIALECTS)
STORED: Final = {name: stored for dialect in DIALECTS for name, stored in dialect.stored.items()}
