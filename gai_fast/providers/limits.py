"""Limits for requests and responses of providers.

Only this folder uses these limits. `model/limits.py` has the limits that several folders use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the description names another unit."""

    kept_word: int = 128
    """Characters of an upstream's finish reason that are passed on. The longest in use have thirty."""

    tool_calls: int = 1024
    """Tool calls of one choice that are open at a time. The memory of all calls is limited by `kept_answer`."""

    call_id: int = 32 * KIB
    """Characters of a call's id. Some gateways put signatures of thousands of characters into ids. The limit bounds the
    output, which repeats the id for each piece of arguments, and one read holds thousands of pieces."""

    content_blocks: int = 1024
    """Content blocks of one response that are open at a time, and parts of one block. The memory of all of them is
    limited by `kept_answer`."""

    named_members: int = 4096
    """Members of a refused request that are looked for in the upstream's message. Requests have some dozens."""

    named_depth: int = 16
    """Levels of a refused request whose members are looked for, and parts of a path in the upstream's message. The
    deepest member that a provider names as unknown is on the fifth."""

    named_path: int = 512
    """Characters of such a path. A message has 2,048, and the deepest member of an SDK's request has a path of 100."""

    named_checked: int = 8
    """Members named by one message that are looked for in the texts of its request, to find out whether the message
    only quotes the request. A message that is no quotation names one or two."""

    client_members: int = 100
    """Members of an object of the client's without which a refused request is written again, to learn which of them the
    upstream means. The largest request of an SDK has half as many."""

    rewritten_request: int = 16 * KIB
    """Bytes of a refused request, its conversation left out, up to which it is written again to learn which member is
    meant. Beyond it the error has no name: a schema of a megabyte took the loop 0.2 s, for each error of its caller."""

    stored_ids: int = 2048
    """Ids in one response that are recorded for its caller: of its items, files and containers. An item that is sent
    back whole needs no record."""

    stored_id: int = 256
    """Characters of such an id. Those in use have 70 at most."""

    message_ids: int = 4096
    """Ids of LangChain's messages and calls in one stream that are kept. The run of an agent has some dozens."""

    cited_text: int = 8 * MIB
    """Bytes of a response's text that are kept to convert the byte offsets of citations. ASCII text is not kept."""

    betas: int = 64
    """Names of beta features in a request. All names are sent in one header; clients send a handful."""

    default_max_tokens: int = 32_000
    """The `max_tokens` that is sent if the API requires one and the request has none, to a model that is not known."""

    bedrock_max_tokens: int = 32_000
    """The highest `max_tokens` that is added to a request to Bedrock, which takes it off the quota until the answer
    ends."""


LIMITS: Final = Limits()
