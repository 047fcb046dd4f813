"""Which protocol a server speaks: MCP 2026-07-28, else a session of 2025-03-26 to 2025-11-25. Sans-IO.

1. `server/discover` comes first. Its result names 2026-07-28: the server is asked without sessions.
2. The server knows 2026-07-28, and refuses the request by one of its codes: so it refuses, but for `version`, which
   names the protocols that it speaks; if 2026-07-28 is one, it is asked once more.
3. Every other error means an older server, and so does a result that is none of `server/discover`: `initialize` begins
   a session.
4. A refusal of a request that has a session's id may mean that the session is lost: servers say so by 400, 401, 404,
   409, 410, 422, 503 or an error in a 200. The next request begins a new one; after a 200 that does not name the
   session, a ping tells first. Refusals of one request's size, rate or parameters say nothing of its session.
5. Such a request cannot have run if its status is one of 4xx, or its error says that the session is not there.
6. Without a session's id, a refusal that has no error of JSON-RPC, or names the protocol, may mean another protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gai_fast.model.version import __version__
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.rpc import CODES, ServerReply, ToolServerError, readable

STATELESS: Final = "2026-07-28"
"""The protocol without sessions."""
WITH_SESSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Protocols with sessions; the newest is offered."""

_INFO: Final = {"name": "gai-fast", "version": __version__}
_PREFIX: Final = "io.modelcontextprotocol/"
_OF_STATELESS: Final = frozenset({CODES["header"], CODES["capability"], CODES["version"]})
_NO_COMMON: Final = "it speaks no protocol of this client: 2025-03-26 to 2025-11-25, 2026-07-28"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The protocol and the session of a client and a server.

    Attributes:
        version: The protocol's date.
        server: The server's name and version, as it says itself, for people; may be empty.
        session: The session's id on HTTP. None if there is none.
    """

    version: str
    server: str = ""
    session: str | None = None

    @property
    def is_stateless(self) -> bool:
        """Whether there are no sessions."""
        return self.version == STATELESS


def meta_of_stateless() -> dict[str, Any]:
    """Returns what each request without a session has in `_meta`."""
    return {
        f"{_PREFIX}protocolVersion": STATELESS,
        f"{_PREFIX}clientInfo": _INFO,
        f"{_PREFIX}clientCapabilities": {},
    }


def is_older(problem: ToolServerError, *, is_process: bool) -> bool:
    """Returns whether a failed `server/discover` means a server of before 2026-07-28.

    Args:
        problem: What has failed.
        is_process: Whether the server is a process: it may ignore what it does not know.
    """
    if problem.fault == "late":
        return is_process
    return problem.status is not None and 400 <= problem.status < 500 and problem.status not in _OF_ANY


_OF_ANY: Final = frozenset({401, 403, 407, 408, 429})
"""Refusals that say nothing of the protocol."""


def initialize_params() -> dict[str, Any]:
    """Returns the parameters of `initialize`."""
    return {"protocolVersion": WITH_SESSIONS[0], "capabilities": {}, "clientInfo": _INFO}


def after_discovery(result: Mapping[str, Any]) -> Agreement | None:
    """Reads the result of `server/discover`.

    Returns:
        The agreement. None: a session is begun.

    Raises:
        ToolServerError: There is no common protocol.
    """
    versions = result.get("supportedVersions")
    if not isinstance(versions, list):
        return None
    if STATELESS in versions:
        meta = result.get("_meta")
        info = meta.get(f"{_PREFIX}serverInfo") if isinstance(meta, dict) else None
        return Agreement(STATELESS, _named(info or result.get("serverInfo")))
    _check_older(versions)
    return None


def after_refusal(problem: ToolServerError, *, is_last: bool) -> Agreement | None:
    """Reads an error of `server/discover`.

    Args:
        problem: The error, which has a code.
        is_last: Whether `server/discover` is not asked again.

    Returns:
        An agreement: `server/discover` is asked again. None: a session is begun.

    Raises:
        ToolServerError: The server speaks 2026-07-28 and refuses, or there is no common protocol.
    """
    if problem.code not in _OF_STATELESS:
        return None
    versions = problem.data.get("supported") if isinstance(problem.data, dict) else None
    if problem.code != CODES["version"] or not isinstance(versions, list):
        raise problem
    if STATELESS in versions:
        if is_last:
            raise problem
        return Agreement(STATELESS)
    _check_older(versions)
    return None


def after_initialize(result: Mapping[str, Any], session: str | None) -> Agreement:
    """Reads the result of `initialize`.

    Args:
        result: The result.
        session: The session's id on HTTP. None if there is none.

    Raises:
        ToolServerError: There is no common protocol.
    """
    version = result.get("protocolVersion")
    if version not in WITH_SESSIONS:
        raise ToolServerError(_NO_COMMON, "form")
    return Agreement(str(version), _named(result.get("serverInfo")), session)


class RefusedRequest(NamedTuple):
    """How a server refuses a request.

    Attributes:
        status: The HTTP status.
        code: The code of the error of JSON-RPC. None if there is none.
        text: Its message; may be empty.
    """

    status: int
    code: int | None = None
    text: str = ""


def refusal_in(reply: ServerReply) -> RefusedRequest:
    """Returns the refusal of a reply that is an error."""
    error = reply.error or {}
    code, text = error.get("code"), error.get("message")
    return RefusedRequest(reply.status, code if type(code) is int else 0, text if isinstance(text, str) else "")


def may_be_over(agreed: Agreement, refused: RefusedRequest) -> bool:
    """Returns whether what was agreed on may not count any more after a refusal: rules 4 and 6."""
    if refused.status in _OF_ONE_REQUEST or refused.code == CODES["header"]:
        return False
    if agreed.session is None:
        is_silent = refused.code is None and 400 <= refused.status < 500 and refused.status not in _OF_ANY
        return is_silent or refused.code in _OF_PROTOCOL
    return refused.code not in _OF_PARAMETERS or _names_lost_session(refused)


def is_doubtful(agreed: Agreement, refused: RefusedRequest) -> bool:
    """Returns whether an error may be a tool's own as well as a lost session's: rule 4."""
    return agreed.session is not None and refused.status < 400 and not cannot_have_run(refused)


def cannot_have_run(refused: RefusedRequest) -> bool:
    """Returns whether the server has not handled a request that has a session's id: rule 5."""
    if 400 <= refused.status < 500:
        return refused.status != _TIMED_OUT
    return refused.code == CODES["request"] or _names_lost_session(refused)


def _names_lost_session(refused: RefusedRequest) -> bool:
    return _LOST_SESSION.match(refused.text) is not None


_OF_ONE_REQUEST: Final = frozenset({413, 429})
_OF_PARAMETERS: Final = frozenset({CODES["method"], CODES["params"]})
_OF_PROTOCOL: Final = frozenset({CODES["request"], CODES["version"]})
_TIMED_OUT: Final = 408
_LOST_SESSION: Final = re.compile(
    r"(?:(?:bad request|not found|unauthori[sz]ed|invalid request|error): )?"
    r"(?:(?:(?:no|a|an|the|your|this|valid|invalid|unknown|missing|expired|or|mcp)[ -])*session\b"
    r"|(?:the )?server (?:is )?not initiali[sz]ed)",
    re.IGNORECASE,
)


def _check_older(versions: list[Any]) -> None:
    if not any(each in versions for each in WITH_SESSIONS):
        raise ToolServerError(_NO_COMMON, "form")


def _named(info: Any) -> str:
    """Returns a server's name and version on one line."""
    if not isinstance(info, dict):
        return ""
    words = [info.get(key) for key in ("name", "version")]
    return readable(" ".join(word for word in words if isinstance(word, str)))[: LIMITS.tool_name]
