"""Decides whether a request that is passed through may reach its upstream twice.

Owns the requests that change nothing there, however often they come. All others may have been carried out although
nothing was answered: a job would run twice, an image would be paid for twice (RFC 9110, 9.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gai_fast.model.pass_paths import offered_methods

_SAFE: Final = frozenset(("GET", "HEAD"))
_COMPUTED: Final = frozenset(
    "embeddings embedding embed moderations rerank reranking tokenize detokenize count_tokens input_tokens "
    ":embedContent :batchEmbedContents :countTokens :computeTokens count-tokens:rawPredict".split()
)
"""The last segments of paths that only compute, and store nothing: embeddings, moderations, rerankings and counts of
tokens; of a segment such as `models/m:countTokens` the method."""


def may_repeat(method: str, path: str, headers: Mapping[str, str], keyed: tuple[str, ...]) -> bool:
    """Returns whether a request may be sent again if nothing was answered.

    Args:
        method: Its method.
        path: Its path below the upstream's base URL, without the query.
        headers: Its headers, by lower-case name.
        keyed: The paths at which the upstream's provider knows `Idempotency-Key`, as `API.keyed_paths`.
    """
    if method in _SAFE:
        return True
    if method != "POST":
        return False
    return _only_computes(path) or bool(headers.get("idempotency-key") and keyed and _is_keyed(path, keyed))


def _only_computes(path: str) -> bool:
    last = path.rpartition("/")[2]
    return last in _COMPUTED or f":{last.rpartition(':')[2]}" in _COMPUTED


def _is_keyed(path: str, keyed: tuple[str, ...]) -> bool:
    return bool(offered_methods(keyed, path[1:].split("/")))
