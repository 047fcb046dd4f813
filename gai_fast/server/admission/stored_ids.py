"""The ids in a request that name what an upstream stores: a caller may name only those that it got here.

Owns which ids are checked, and the refusals. `core/requests/stored_ids.py` finds the ids, `asking.py` asks the store,
and `stores/owned_ids.py` records who got which.

1. The gateway's key at an upstream is the same for all callers, so the upstream cannot tell them apart: without this
   check a caller who knows an id would continue another caller's conversation.
2. Without keys everybody is one caller, and nothing is checked.
3. Only a request that goes to an upstream as it is, or with raw members, can name such ids. Others cannot express them.
4. All upstreams that may answer may share an id (`[[upstream]] shared_ids`): prompts and files of the operator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gai_fast.core.requests.dialects import STORED, Stored
from gai_fast.core.requests.stored_ids import StoredId, referenced_items, stored_ids
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ModelSettings, Settings
from gai_fast.providers import get_provider
from gai_fast.server.limits import LIMITS

_ITEM: Final = Stored("Item")


def ids_in_body(settings: Settings, model: ModelSettings, dialect: str, body: dict[str, Any]) -> list[StoredId]:
    """Returns the ids to check of a request that reaches upstreams of its dialect as it is.

    Args:
        settings: The configuration.
        model: The model of the request.
        dialect: The request's dialect.
        body: The request.
    """
    found = [*stored_ids(body), *referenced_items(body.get("input"))]
    may_answer = settings.may_answer(model) if found else []
    if not any(get_provider(each.upstream.provider).dialect == dialect for each in may_answer):
        return []  # rule 3
    return _not_shared(found, may_answer)


def ids_in_raw(
    settings: Settings, model: ModelSettings, members: Sequence[dict[str, Any]], blocks: Sequence[Any]
) -> list[StoredId]:
    """Returns the ids to check in what a native request sends to a provider as it is.

    Args:
        settings: As for `ids_in_body`.
        model: As for `ids_in_body`.
        members: The objects of raw members: `extra`, and each of the `provider_options`.
        blocks: The provider's own blocks in messages.
    """
    found = [*stored_ids([*members, *blocks]), *referenced_items(blocks)]
    for each in members:
        found += referenced_items(each.get("input"))
    return _not_shared(found, settings.may_answer(model)) if found else []


def _not_shared(found: list[StoredId], may_answer: Sequence[ModelSettings]) -> list[StoredId]:
    """Returns the ids that not all upstreams share: rule 4.

    Raises:
        Error: There are too many ids.
    """
    check_number(found)
    return [each for each in found if not all(model.upstream.shares(each.identifier) for model in may_answer)]


def check_number(found: Sequence[StoredId]) -> None:
    """Checks how many ids a request names.

    Raises:
        Error: There are too many.
    """
    if len(found) > LIMITS.named_ids:
        text = f"the request names more than {LIMITS.named_ids} ids of what its upstream stores"
        raise Error("invalid_request", text, reason="items")


def not_found(named: StoredId) -> Error:
    """Returns the error for an id that the caller did not get here; for OpenAI's clients it is OpenAI's own."""
    stored = STORED.get(named.member, _ITEM)
    text = f"{stored.thing} with id '{named.identifier[: SHARED.identifier]}' not found."
    code = f"{stored.code or stored.thing.lower().replace(' ', '_')}_not_found"
    details = {"message": text, "type": "invalid_request_error", "param": named.member, "code": code}
    return Error("invalid_request", text, reason=code, details=details)
