"""Reads requests of OpenAI's legacy Completions as native requests.

Owns the mapping of members to those of a native request, and which members are ignored or cannot be expressed. `echo`,
`logprobs`, `suffix`, `best_of`, penalties and prompts of tokens need an upstream that speaks the dialect. Knows no
provider and no route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast.core.requests.dialects import COMPLETIONS, known_members
from gai_fast.core.requests.reading import CHARACTERS_PER_TOKEN, parse_request
from gai_fast.formats._base import ClientRequest
from gai_fast.formats._members import invalid, member, unserved_members
from gai_fast.formats.chat.members import read_chat_members
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Unsupported
from gai_fast.model.request import Request

_SAME: Final = tuple(COMPLETIONS.same.split())

KNOWN: Final = known_members(COMPLETIONS) - {"suffix"}
"""The members of a request that are read, or have no effect."""

# Values that ask for the default.
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "n": (1,),
    "presence_penalty": (0,),
    "suffix": ("",),
}


def read_completion_members(body: dict[str, Any]) -> ClientRequest:
    """Reads the members of a request that all routes and upstreams need.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `model` is not a string, or `stream` is not a boolean.
    """
    asked = read_chat_members(body)
    prompt = body.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    asked.prompt_characters = sum([_characters(each) for each in prompts])
    return asked


def _characters(prompt: object) -> int:
    """Returns the length of a text, or of the text of a token or a list of tokens."""
    if isinstance(prompt, str):
        return len(prompt)
    if isinstance(prompt, list):
        return CHARACTERS_PER_TOKEN * len(prompt)
    return CHARACTERS_PER_TOKEN if type(prompt) is int else 0


def read_completion_request(body: dict[str, Any]) -> tuple[Request, list[str]]:
    """Translates a request into a native one; the prompt becomes one user message.

    Args:
        body: The client's JSON object.

    Returns:
        The native request (`stream` is false by default), and the paths of the members that it cannot express.

    Raises:
        InvalidRequest: The text names the member by its path.
        Unsupported: `n` > 1, several prompts, or a prompt of tokens.
    """
    native: dict[str, Any] = {key: body[key] for key in _SAME if body.get(key) is not None}
    native["stream"] = member(body, "stream", "$", bool) or False
    native["query"] = _prompt(body)
    stop = member(body, "stop", "$", str, list)
    if stop is not None:
        native["stop"] = [stop] if isinstance(stop, str) else stop
    if (member(body, "n", "$", int) or 1) > 1:
        raise Unsupported(message="`n` > 1 needs a model whose upstream speaks this API itself", reason="n")
    return parse_request(encode_json(native)), unserved_members(body, KNOWN, _NEUTRAL)


def _prompt(body: dict[str, Any]) -> str:
    prompt = member(body, "prompt", "$", str, list)
    if prompt is None or prompt == []:
        raise invalid("Object missing required field `prompt`", "$")
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    text = "several prompts, or one of tokens, need a model whose upstream speaks this API itself - at `$.prompt`"
    raise Unsupported(message=text, reason="field")
