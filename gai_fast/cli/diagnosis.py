"""`Check`: one result of `gai-fast doctor`, and the summary of several; the checks for a missing key, for routes that a
provider does not have, and for short times.

Owns the order of the statuses. Sends nothing: `doctor.py` checks the machine, `proxy_check.py` the proxies.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from gai_fast.cli.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.config import Loaded
    from gai_fast.model.settings import Settings, UpstreamSettings

Status = Literal["ok", "warning", "error", "skipped"]
_ORDER: Final[tuple[Status, ...]] = ("skipped", "ok", "warning", "error")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: Its name: `limit`, `clock`, `dns`, `tls`, `certificate`, `client_cert.<upstream>`, `store`,
            `key.<key>`, `token.<upstream>`, `identity.<upstream>`, `upstream.<upstream>`, `tools.<server>`,
            `proxy.<what>`.
        status: The result.
        detail: The finding.
        fix: The remedy; empty if none is needed.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def worst(name: str, checks: Sequence[Check], otherwise: str) -> Check:
    """Joins several checks into one with the worst status. Its details come from the checks with a fix, or from all
    checks if none has a fix.

    Args:
        name: The name of the joined check.
        checks: The checks.
        otherwise: The detail if there are no checks, so that the joined check is skipped.
    """
    if not checks:
        return Check(name, "skipped", otherwise)
    status = max((each.status for each in checks), key=_ORDER.index)
    shown = [each for each in checks if each.fix] or checks
    details, fixes = dict.fromkeys(each.detail for each in shown), dict.fromkeys(each.fix for each in shown)
    return Check(name, status, "; ".join(details), "; ".join(fixes))


def missing_key(upstream: UpstreamSettings) -> Check | None:
    """Returns the error of an upstream whose provider refuses requests without a key. None if it has a key, or needs
    none.

    Args:
        upstream: Settings of the upstream.
    """
    from gai_fast.providers import get_provider

    api = get_provider(upstream.provider)
    has_one = upstream.api_key is not None or upstream.identity is not None or upstream.takes_credentials
    if has_one or not api.needs_key(upstream.base_url):
        return None
    if {api.key_header("")[0], "authorization"} & {name.lower() for name in upstream.headers}:
        return None
    detail = f"it has no key, and {upstream.provider} refuses requests without one"
    fix = f'set `api_key = "env:{api.key_variable}"` in its [[upstream]]'
    return Check(f"upstream.{upstream.name}", "error", detail, fix)


def other_base_url(upstream: UpstreamSettings) -> str:
    """Returns the remedy for an upstream that does not have the path of a request: a `base_url` to try.

    Args:
        upstream: Settings of the upstream.
    """
    from gai_fast.providers import get_provider

    api = get_provider(upstream.provider)
    base_url = upstream.base_url.rstrip("/")
    path, usual = urlsplit(base_url).path, urlsplit(api.base_url or api.base_url_form).path.rstrip("/")
    if not usual or "{" in usual or _VERSION.search(path):
        return f"check base_url of {upstream.name}: requests ask {base_url}{api.path}"
    rest = usual.removeprefix(path) if usual.startswith(path) else usual[usual.rindex("/") :]
    return f"check base_url of {upstream.name}: try {base_url}{rest}"


_VERSION: Final = re.compile(r"/v\d")
"""In the path of a `base_url` that names the version of the API."""


def missing_keys(settings: Settings) -> list[str]:
    """Returns a warning for each upstream that needs a key and has none.

    Args:
        settings: The configuration.
    """
    found = filter(None, map(missing_key, settings.upstreams.values()))
    return [f"{each.name}: {each.detail}: {each.fix}" for each in found]


def shared_processes(settings: Settings) -> list[str]:
    """Returns a warning for each process of tools that all callers share, and whose table does not say so.

    Args:
        settings: The configuration.
    """
    text = "all callers share its process: what one does in it, the next one meets"
    fix = 'set `session = "caller"` in its [[tool_server]], or "shared" if it keeps nothing'
    return [
        f"tools {each.name}: {text}: {fix}" for each in settings.tool_servers if each.command and each.session is None
    ]


def keys_without_effect(settings: Settings) -> list[str]:
    """Returns a warning for each key of the file that has no effect any more.

    Args:
        settings: The configuration.
    """
    if settings.server.websocket_compression:
        return ["`websocket_compression` in [server] has no effect: remove it"]
    return []


def unused_tools(settings: Settings) -> list[str]:
    """Returns a warning for each server of tools, and each own tool, that models offer and no key may use.

    Args:
        settings: The configuration.
    """
    from gai_fast.model.tool_rules import AllowedTools, ToolPatterns

    if not settings.needs_key:
        return []
    keys = [*settings.keys, *(issuer.rights for issuer in settings.issuers)]
    labels, own = [each.name for each in settings.tool_servers], [each.name for each in settings.tools]
    offered: dict[str, None] = {}
    used: set[str] = set()
    for model in settings.models.values():
        of_model = ToolPatterns(model.tools)
        allowed = AllowedTools([of_model])
        offered |= dict.fromkeys([*map("{}.*".format, allowed.servers(labels)), *allowed.own(own)])
        for key in keys:
            if key.may_use(model.name):
                allowed = AllowedTools([of_model, ToolPatterns(key.tools)])
                used |= {*map("{}.*".format, allowed.servers(labels)), *allowed.own(own)}
    return [f"no key may use {each}: set `tools` of [[key]] or [key_defaults]" for each in offered if each not in used]


def start_warnings(settings: Settings) -> list[str]:
    """Returns what a server says of its configuration at its start: it works, and not as is likely meant.

    Args:
        settings: The configuration.
    """
    from gai_fast.cli.ends import ends

    over = [f"{each.name}: {each.detail}{f': {each.fix}' if each.fix else ''}" for each in ends(settings, time.time())]
    return [
        *missing_keys(settings),
        *unused_tools(settings),
        *shared_processes(settings),
        *keys_without_effect(settings),
        *over,
    ]


def short_times(loaded: Loaded) -> list[str]:
    """Returns a warning for each time limit of an upstream by which long answers end.

    Args:
        loaded: The configuration.
    """
    found: list[str] = []
    for table in loaded.upstreams:
        for key, (least, cut) in _LEAST_TIMES.items():
            given = table.get(key)
            if given is not None and given.value != "auto" and given.value < least:
                text = f"`{key} = {given.value:g}` of upstream {table['name'].value!r} ends {cut}"
                found.append(f"{given.origin}: {text}: remove it, or set at least {least:g}")
    return found


_LEAST_TIMES: Final = {
    "first_event_timeout": (LIMITS.least_patience, "answers of models that think for minutes"),
    "idle_timeout": (LIMITS.least_patience, "answers of models that think for minutes"),
    "total_timeout": (LIMITS.least_total, "the long answers of agents"),
}
"""The least seconds that let agents work, and what shorter times end."""


def missing_routes(settings: Settings) -> list[str]:
    """Returns a warning for each entry of a `lane` that names a route which the upstream's provider does not have, and
    for each `base_url` that has the path which requests add.

    Args:
        settings: The configuration.
    """
    from gai_fast.providers import ROUTES, get_provider

    found: list[str] = []
    for upstream in settings.upstreams.values():
        api = get_provider(upstream.provider)
        root = api.routes.root
        if root and upstream.base_url.rstrip("/").endswith(root):
            found.append(f"{upstream.name}: `base_url` ends in {root}, which requests add: remove it")
        for entry in upstream.pass_paths:
            route = entry.removeprefix("POST ")
            if route not in ROUTES:
                continue
            if api.passed_path(route, upstream.extra, "m") is None:
                found.append(
                    f"{upstream.name}: `lane`: {upstream.provider} has no {route}: requests for it are refused"
                )
            elif route not in api.routes.known:
                found.append(f"{upstream.name}: `lane`: {upstream.provider} is not known to have {route}")
    return found
