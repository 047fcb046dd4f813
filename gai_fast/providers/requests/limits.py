"""Limits of what is learned of requests, and of the search in a refused one: providers use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, unless the description names another unit."""

    frames: int = 8
    """Forms of requests with the same tools whose members are kept as they are written: by model, choice of a tool and
    sampling. Each has the tools once more."""

    named_members: int = 4096
    """Members of a refused request that are looked for in the upstream's message. Requests have some dozens."""

    named_depth: int = 16
    """Levels of a refused request whose members are looked for, and parts of a path in the upstream's message. The
    deepest member that a provider names as unknown is on the fifth."""

    named_path: int = 512
    """Characters of a path in an upstream's message, which has 2,048. The longest path in an SDK's request has 100."""

    named_checked: int = 8
    """Members named by one message that are looked for in the texts of its request, to find out whether the message
    only quotes the request. A message that is no quotation names one or two."""

    client_members: int = 100
    """Members of an object of the client's without which a refused request is written again, to learn which of them the
    upstream means. The largest request of an SDK has half as many."""

    rewritten_request: int = 16 * KIB
    """Bytes of a refused request, its conversation left out, up to which it is written again to learn which member is
    meant. Beyond it the error has no name: a schema of a megabyte took the loop 0.2 s, for each error of its caller."""


LIMITS: Final = Limits()
