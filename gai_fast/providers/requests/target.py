"""The target of a request, and the HTTP request to an upstream: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

from gai_fast.model.changes import Changes
from gai_fast.model.settings import ModelSettings

NO_CORRECTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


class Target:
    """The model and the credential of a request, and the policy for fields that the provider does not support.

    Args:
        model: The upstream's id of the model.
        api_key: The credential in plain text; None if the upstream needs none.
        on_unsupported: Whether a field that the provider does not support is refused (`error`) or left out (`drop`).
        corrections: The facts of the model that the configuration corrects, by name (`_facts.checked_facts`).
        settings: The model, if the configuration changes its requests.
        refused: The paths of members that the upstream has refused: left out if a request can do without them.
        cache_key: The key under which the provider may cache the prompts of the request's session. None without one.

    Attributes:
        is_kept: Whether the answer is kept for later turns, which send its reasoning back.
        marks_texts: Whether the request has marks of cached parts: each of its texts is then sent as a part.
    """

    def __init__(
        self,
        model: str,
        api_key: str | None = None,
        on_unsupported: Literal["error", "drop"] = "error",
        corrections: Mapping[str, Any] = NO_CORRECTIONS,
        settings: ModelSettings | None = None,
        refused: Sequence[str] = (),
        cache_key: str | None = None,
    ) -> None:
        self.model = model
        self.api_key = api_key
        self.on_unsupported = on_unsupported
        self.corrections = corrections
        self.settings = settings
        self.refused = refused
        self.cache_key = cache_key
        self.marks_texts = False
        self.is_kept = False
        self._changes: Changes | None = None

    @property
    def changes(self) -> Changes:
        """The members that were left out or changed; filled by `API.leave_out` and `API.adjust`.

        Created on demand: a request that is built from a template changes nothing, and costs 700 instructions less.
        """
        if self._changes is None:
            self._changes = Changes(self.on_unsupported)
        return self._changes

    @property
    def has_changes(self) -> bool:
        """Whether any member was left out or changed."""
        return self._changes is not None and bool(self._changes)


class UpstreamRequest:
    """An HTTP request to an upstream; `path` is appended to the configured `base_url`.

    Attributes:
        is_unique: Whether no other request has its headers, such as a signature or a trace: its head is not cached.
    """

    def __init__(self, path: str, body: bytes, headers: Sequence[tuple[str, str]] = (), method: str = "POST") -> None:
        self.path = path
        self.body = body
        self.headers = headers
        self.method = method
        self.is_unique = False
