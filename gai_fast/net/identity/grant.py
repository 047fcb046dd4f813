"""The grant of an identity: a bearer token, or keys with which each request is signed; or the reason why there is none.

Sans-IO: the modules that fetch grants (`aws.py`, `google.py`, `entra.py`, `command.py`) run in a thread.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.settings import Secret
from gai_fast.net.identity.sigv4 import Signer
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.http_request import Origin

Headers = list[tuple[str, str]]

_TOKEN: Final = re.compile(r"[!-~]+")
_LONG_WORD: Final = re.compile(r"(?=[\w+/=~.%-]*[0-9])[\w+/=~.%-]{20,}")


class IdentityError(Exception):
    """Why there is no token. The text is for operators; it has no secret.

    Args:
        text: The failure.
        fix: The remedy.
        is_final: Whether the same is expected at the next attempt, until the operator changes something.
    """

    def __init__(self, text: str, fix: str, *, is_final: bool = True) -> None:
        super().__init__(text)
        self.fix = fix
        self.is_final = is_final


def without_secrets(problem: BaseException) -> str:
    """Returns a library's exception as one short line. Words that may be a token, a key or a signature are cut out.

    Libraries quote what a server has answered, which may be a page of HTML.
    """
    if isinstance(problem, (KeyError, TypeError)):  # the answer has another form
        return "the answer is no token"
    line = str(problem).strip().partition("\n")[0].partition("<")[0]
    shown = _LONG_WORD.sub("***", "".join(each if each.isprintable() else " " for each in line))
    return f"{type(problem).__name__}: {shown[: LIMITS.token_problem]}".rstrip(": ")


class Grant(ABC):
    """Something that gives requests their credential until its end.

    Args:
        secret: Its credential, which no answer, log or recording may hold. Grants with equal ones are the same.
        seconds: Seconds until its end. None if that is unknown.

    Attributes:
        secret: As above.
        seconds: As above.
    """

    def __init__(self, secret: Secret, seconds: float | None) -> None:
        self.secret = secret
        self.seconds = seconds

    @abstractmethod
    def headers(self, method: str, base_url: str, path: str, body: bytes) -> Headers:
        """Returns the headers with the credential of a request.

        Args:
            method: The method.
            base_url: The upstream's.
            path: The path below `base_url`, with its query.
            body: The body.
        """
        raise NotImplementedError

    def instead(self, error: Error) -> Grant | None:
        """Returns the grant to use after a refusal of this one. None if another one must be fetched, if at all."""
        return None


class Bearer(Grant):
    """A bearer token.

    Args:
        token: The token.
        seconds: As for `Grant`.
        more: Further headers of requests.

    Raises:
        IdentityError: The token cannot stand in a header.
    """

    def __init__(self, token: str, seconds: float | None, more: Sequence[tuple[str, str]] = ()) -> None:
        if not _TOKEN.fullmatch(token) or len(token) > LIMITS.token:
            what = f"the token is not one printable ASCII word of at most {LIMITS.token} characters"
            raise IdentityError(what, "look at what the source of tokens answers")
        if seconds is not None and seconds <= LIMITS.token_least:
            raise IdentityError(
                "the token has ended already", "check the clocks of this machine and of the source", is_final=False
            )
        super().__init__(Secret(token), seconds)
        self._headers = [("authorization", f"Bearer {token}"), *more]

    def headers(self, method: str, base_url: str, path: str, body: bytes) -> Headers:
        return self._headers


class Signed(Grant):
    """Keys of AWS that sign each request.

    Args:
        signer: Signs.
        secret: The secret key, or the token of temporary credentials.
        seconds: As for `Grant`.
    """

    def __init__(self, signer: Signer, secret: Secret, seconds: float | None) -> None:
        super().__init__(secret, seconds)
        self._signer = signer

    def headers(self, method: str, base_url: str, path: str, body: bytes) -> Headers:
        origin = Origin.parse(base_url)
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return self._signer.headers(method, origin.authority, origin.prefix + path, body, now)


class MadeBearer(Bearer):
    """A bearer token made from keys of AWS. An account may forbid such tokens: then each request is signed.

    Args:
        token: As for `Bearer`.
        seconds: As for `Bearer`.
        signed: The same keys.
    """

    def __init__(self, token: str, seconds: float | None, signed: Signed) -> None:
        super().__init__(token, seconds)
        self._signed = signed

    def instead(self, error: Error) -> Grant | None:
        # AWS names the action that a policy denies, after `bedrock:` or `bedrock-mantle:`.
        return self._signed if "CallWithBearerToken" in error.message else None
