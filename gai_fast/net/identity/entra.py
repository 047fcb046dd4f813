"""Tokens of Microsoft Entra ID, by azure-identity's default chain: environment, workload identity, managed identity,
`az`. Runs in a thread.
"""

from __future__ import annotations

import time
from typing import Final

from gai_fast.model.settings import IdentitySettings
from gai_fast.net.identity.grant import Bearer, IdentityError, without_secrets

_SCOPE: Final = "https://ai.azure.com/.default"
_FIX: Final = "give the gateway a managed identity, or AZURE_TENANT_ID, AZURE_CLIENT_ID and a secret, or run `az login`"


def fetch(identity: IdentitySettings) -> Bearer:
    """Returns an access token.

    Raises:
        IdentityError: There are no credentials, or they are refused.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    try:
        with DefaultAzureCredential() as credential:
            found = credential.get_token(identity.scope or _SCOPE)
    except (AzureError, OSError, ValueError, KeyError, TypeError) as problem:  # the latter: odd answers
        refused = isinstance(problem, ClientAuthenticationError)
        text = f"Entra ID gives no token: {without_secrets(problem)}"
        raise IdentityError(text, _FIX, is_final=refused) from None
    return Bearer(found.token, found.expires_on - time.time())
