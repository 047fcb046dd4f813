"""Tokens of Google Cloud, by Application Default Credentials: a key file, `gcloud`, workload identity, the metadata
server. Runs in a thread.
"""

from __future__ import annotations

import time
from datetime import UTC
from functools import partial
from typing import Final

from gai_fast.model.settings import IdentitySettings
from gai_fast.net.identity.grant import Bearer, IdentityError, without_secrets
from gai_fast.net.limits import LIMITS

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_FIX: Final = "give the gateway a service account, or run `gcloud auth application-default login`"


def fetch(identity: IdentitySettings) -> Bearer:
    """Returns an access token.

    Raises:
        IdentityError: There are no credentials, or they are refused.
    """
    import google.auth
    import requests
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError
    from google.auth.transport.requests import Request

    with requests.Session() as session:
        request = Request(session)
        try:
            found, _ = google.auth.default(scopes=[identity.scope or _SCOPE], request=request)
            found.refresh(partial(request, timeout=LIMITS.token_request))
        except DefaultCredentialsError as problem:
            raise IdentityError(f"Google finds no credentials: {without_secrets(problem)}", _FIX) from None
        except (GoogleAuthError, OSError, ValueError, KeyError, TypeError) as problem:  # the latter: odd answers
            is_down = isinstance(problem.__cause__, TransportError)
            refused = isinstance(problem, RefreshError) and not (problem.retryable or is_down)
            text = f"Google gives no token: {without_secrets(problem)}"
            raise IdentityError(text, _FIX, is_final=refused) from None
    if not isinstance(found.token, str):
        raise IdentityError("Google gives no token", _FIX, is_final=False)
    end = found.expiry
    seconds = None if end is None else end.replace(tzinfo=UTC).timestamp() - time.time()
    project = getattr(found, "quota_project_id", None)
    return Bearer(found.token, seconds, [("x-goog-user-project", project)] if project else ())
