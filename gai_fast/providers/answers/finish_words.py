"""The words for the end of an answer, of all vendors.

Servers that are compatible with one API pass on the words of the models behind them, so every adapter reads all words.
No word has two meanings. Case is ignored, and so are what enumerations and filters put before a word
(`FinishReason.STOP`, `function_call_filter: MALFORMED_FUNCTION_CALL`) and how its parts are joined (`toolUse`). A
provider's own file has only words that no table for all may have.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.model.upstream_errors import REFUSAL_WORDS

COMPLETE: Final = ("stop", "tool_calls")
"""The `finish_reason`s of an answer that nothing has cut off: its calls are complete."""
FINISH_WORDS: Final[dict[str, str]] = {}
"""The `finish_reason` for each word, in lower case."""
for _reason, _words in {
    "stop": "stop end_turn stop_sequence complete completed eos eos_token end_of_text endoftext finish_reason_stop "
    "reason_stop",
    "length": "length max_tokens max_output_tokens max_completion_tokens max_messages max_length model_length "
    "model_context_window_exceeded context_length_exceeded token_limit error_limit finish_reason_max_tokens "
    "reason_max_len reason_max_context",
    "tool_calls": "tool_calls tool_call tool_use function_call function_calls reason_tool_calls",
    "pause": "pause_turn continuation",
    "cancelled": "cancelled canceled user_cancel",
    "content_filter": " ".join(REFUSAL_WORDS),
}.items():
    FINISH_WORDS.update(dict.fromkeys(_words.split(), _reason))

FAILURE_WORDS: Final = frozenset(
    "error timeout network_error insufficient_system_resource malformed_function_call malformed_response "
    "unexpected_tool_call too_many_tool_calls missing_thought_signature".split()
)
"""Words for an answer that failed, in lower case."""

_JOINT: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|[\s-]+")


def known_word(word: str) -> str:
    """Returns the word of the tables that a provider's word means; the word in lower case if it means none."""
    if word in FINISH_WORDS:  # nearly all
        return word
    plain = word.lower()
    if plain in FINISH_WORDS or plain in FAILURE_WORDS:
        return plain
    for part in reversed(re.split("[:.]", word)):
        found = _JOINT.sub("_", part.strip()).lower()
        if found in FINISH_WORDS or found in FAILURE_WORDS:
            return found
    return plain
