"""`auth` and `auth_command` of an `[[upstream]]`: which tokens it gets, and where its cloud is.

Fetches nothing: `net/identity/` does that once the gateway runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from gai_fast.config.checks import PRINTABLE
from gai_fast.config.environment import Environment
from gai_fast.config.problems import Problems, Value
from gai_fast.model.settings import IdentitySettings, Secret
from gai_fast.model.version import installing
from gai_fast.net.identity.fetch import is_installed
from gai_fast.providers import API

KEYS: Final = ("auth", "auth_command", "region", "project", "service", "scope")
"""The keys of an upstream that this module reads."""

EXAMPLES: Final[tuple[Mapping[str, Any], ...]] = (
    {"name": "bedrock", "auth": "aws", "region": "us-east-1", "service": "bedrock-mantle"},
    {
        "name": "vertex",
        "auth": "google",
        "region": "global",
        "project": "my-project",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
    },
    {"name": "own", "auth_command": ("gcloud", "auth", "print-access-token")},
)
"""Example upstreams for a first configuration: together they show every key."""

_CLOUDS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "region": ("aws", "google"),
    "project": ("google",),
    "service": ("aws",),
    "scope": ("google", "entra"),
}
"""Keys that need `auth`, and its values that they go with."""

_AWS_TOKEN: Final = "AWS_BEARER_TOKEN_BEDROCK"
_VARIABLES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("aws", "region"): ("AWS_REGION", "AWS_DEFAULT_REGION"),
    ("google", "region"): ("GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION"),
    ("google", "project"): ("GOOGLE_CLOUD_PROJECT",),
}
"""The variables of the clouds' own SDKs, for keys that are not given."""

_AWS_HOST: Final = re.compile(r"(?:.+\.)?bedrock-(?:mantle|runtime|runtime-fips)\.([a-z]{2,8}(?:-[a-z0-9]+)+-[0-9]+)\.")
_MANTLE: Final = "bedrock-mantle"


def read_identity(
    table: Mapping[str, Value], api: API, environ: Environment, problems: Problems
) -> tuple[dict[str, Any], IdentitySettings | None]:
    """Returns the provider and the address of an upstream in its cloud, and its identity.

    Args:
        table: The given, valid keys of the upstream's table.
        api: Its provider.
        environ: The environment.
        problems: Collects mistakes.
    """
    cloud = table["auth"].value if "auth" in table else None
    _check_keys(table, cloud, problems)
    if cloud is None:
        command = table["auth_command"].value if "auth_command" in table else ()
        return {}, IdentitySettings(command=command) if command else None
    given = {name: _given(name, cloud, table, environ) for name in _CLOUDS_OF}
    place = _place(table, api, cloud, given, problems)
    url = urlsplit(place.get("base_url", ""))
    token: Secret | None = None
    if cloud == "aws":
        found = _AWS_HOST.match(url.hostname or "")
        given["region"] = given["region"] or (found[1] if found else None)
        if "service" not in table:
            token = _aws_token(table["auth"].origin, environ, problems)
            given["service"] = _MANTLE if _MANTLE in (url.hostname or "") else None
    if token is None and not is_installed(cloud):
        what = f'`auth` in [[upstream]]: "{cloud}" needs packages that are not there: {installing(cloud)}'
        problems.add(table["auth"].origin, what)
    identity = IdentitySettings(
        cloud,
        token=token,
        region=given["region"] if cloud == "aws" and token is None else None,
        service=given["service"] if token is None else None,
        bearer="service" not in table,
        scope=given["scope"],
    )
    return place, identity


def _check_keys(table: Mapping[str, Value], cloud: str | None, problems: Problems) -> None:
    key = "auth" if cloud is not None else "auth_command"
    if "auth" in table and "auth_command" in table:
        problems.add(table["auth_command"].origin, "`auth_command` in [[upstream]] beside `auth`: one of them is used")
    if key in table:
        if "api_key" in table:
            problems.add(table["api_key"].origin, f"`api_key` in [[upstream]] beside `{key}`: one of them is sent")
        names: Iterable[str] = table["headers"].value if "headers" in table else ()
        if any(name.lower() == "authorization" for name in names):
            what = f"`headers` in [[upstream]] has authorization beside `{key}`, which writes it"
            problems.add(table["headers"].origin, what)
    for name, clouds in _CLOUDS_OF.items():
        if name in table and cloud not in clouds:
            needed = " or ".join(f'auth = "{each}"' for each in clouds)
            problems.add(table[name].origin, f"`{name}` in [[upstream]] needs {needed}")


def _given(name: str, cloud: str, table: Mapping[str, Value], environ: Environment) -> str | None:
    """Returns the value of a key, or of the variable that the cloud's own SDK reads."""
    if name in table:
        value: str = table[name].value
        return value
    variables = (environ.get(variable) for variable in _VARIABLES.get((cloud, name), ()))
    return next((value for value in variables if value), None)


def _place(
    table: Mapping[str, Value], api: API, cloud: str, given: Mapping[str, str | None], problems: Problems
) -> dict[str, Any]:
    """Returns the `provider` and the `base_url`. Without a `base_url` of its own, the token must not go elsewhere than
    to the cloud."""
    known = api.clouds.get(cloud)
    place: dict[str, Any] = {} if known is None or not known.provider else {"provider": known.provider}
    own = table["base_url"].value if "base_url" in table else None
    usual: str | None = None
    missing: list[str] = []
    if known is not None:
        names = [name for name in ("region", "project") if f"{{{name}}}" in known.base_url]
        missing = [name for name in names if not given[name]]
        if not missing:
            usual = known.address(given["region"] or "", given["project"] or "")
    if own is not None:
        return {**place, "base_url": _completed(own, usual) if usual and "project" in table else own}
    if usual is not None:
        return {**place, "base_url": usual}
    origin = table["auth"].origin
    if missing:
        needed = " and ".join(f"`{name}`" for name in missing)
        problems.add(origin, f'`auth` in [[upstream]]: "{cloud}" needs {needed}, or a `base_url`')
    else:
        what = f"`base_url` is missing in [[upstream]]: {api.provider} has no usual address in {cloud}"
        problems.add(origin, what)
    return {**place, "base_url": ""}


def _completed(own: str, usual: str) -> str:
    """Returns a `base_url` that names no project, with the usual path if its own path is the beginning of that.

    Google's SDKs take the host alone, or the host and the version.
    """
    path, whole = urlsplit(own).path.rstrip("/"), urlsplit(usual).path
    if "/projects/" in path or not whole.startswith(f"{path}/"):
        return own
    return own + whole.removeprefix(path)


def _aws_token(origin: str, environ: Environment, problems: Problems) -> Secret | None:
    text = environ.get(_AWS_TOKEN, "")
    if not text:
        return None
    if not PRINTABLE.fullmatch(text):
        problems.add(origin, f"`auth` in [[upstream]]: what {_AWS_TOKEN} holds is no token: one printable ASCII word")
        return None
    return Secret(text)
