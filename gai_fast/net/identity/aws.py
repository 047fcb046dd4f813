"""Tokens of AWS, by botocore's standard chain: environment, profiles, web identity, containers, instance metadata.

Runs in a thread. A bearer token of Bedrock is one presigned URL (`CallWithBearerToken`), as AWS's token generator makes
it: nothing is asked for it. It is valid for twelve hours at most, and never longer than the credentials.
"""

from __future__ import annotations

import time
from base64 import b64encode
from datetime import datetime
from typing import Any, Final

from gai_fast.model.settings import IdentitySettings, Secret
from gai_fast.net.identity.grant import Grant, IdentityError, MadeBearer, Signed, without_secrets
from gai_fast.net.identity.sigv4 import AWSKeys, Signer
from gai_fast.net.limits import LIMITS

_HOST: Final = "bedrock.amazonaws.com"
_SERVICE: Final = "bedrock"
_ACTION: Final = "Action=CallWithBearerToken"
_REFUSALS: Final = range(400, 404)
_FIX: Final = "give the gateway a role, or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def fetch(identity: IdentitySettings) -> Grant:
    """Returns a bearer token, or keys that sign each request.

    Raises:
        IdentityError: There are no credentials, or no region.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from botocore.session import Session

    odd = (ResponseParserError, ValueError, KeyError, TypeError)  # exceptions that odd answers cause
    try:
        session = Session()
        region = identity.region or session.get_config_variable("region")
        credentials = session.get_credentials()
        frozen = None if credentials is None else credentials.get_frozen_credentials()
    except (BotoCoreError, ClientError, *odd) as problem:
        refused = isinstance(problem, ClientError) and _is_refusal(problem.response)
        text = f"AWS gives no credentials: {without_secrets(problem)}"
        raise IdentityError(text, _FIX, is_final=refused) from None
    if frozen is None or not frozen.access_key or not frozen.secret_key:
        raise IdentityError("AWS's chain finds no credentials", _FIX)
    if not region:
        raise IdentityError("no region is known", "set `region` in this [[upstream]], or AWS_REGION")
    keys = AWSKeys(frozen.access_key, frozen.secret_key, frozen.token)
    secret, seconds = Secret(frozen.token or frozen.secret_key), _seconds_left(credentials)
    signed = Signed(Signer(keys, region, identity.service or _SERVICE), secret, seconds)
    if not identity.bearer:
        return signed
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    token, life = bearer_token(keys, region, now, seconds)
    return MadeBearer(token, life, signed)


def bearer_token(keys: AWSKeys, region: str, now: str, seconds: float | None) -> tuple[str, float]:
    """Returns a bearer token, and the seconds until its end.

    Args:
        keys: The credentials.
        region: The region.
        now: The time in UTC, as `20261125T213842Z`.
        seconds: Seconds until the end of the credentials. None if they do not end.
    """
    life = LIMITS.token_aws if seconds is None else min(LIMITS.token_aws, seconds)
    url = Signer(keys, region, _SERVICE).presigned("POST", _HOST, _ACTION, now, int(LIMITS.token_aws))
    return f"bedrock-api-key-{b64encode(f'{url}&Version=1'.encode()).decode()}", life


def _is_refusal(response: Any) -> bool:
    """Returns whether AWS refused permanently."""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return isinstance(status, int) and status in _REFUSALS


def _seconds_left(credentials: Any) -> float | None:
    """Returns the seconds until botocore's credentials expire; botocore has no public attribute for that."""
    end = getattr(credentials, "_expiry_time", None)
    return end.timestamp() - time.time() if isinstance(end, datetime) else None
