"""The guards that every request passes before a handler sees it.

Owns the `Host` rule, the rule for web pages (`Origin`, `Sec-Fetch-Site`, CORS and its preflight), the check of keys,
the rule for who may operate the server, ids, the query string and the media type of bodies. Opens nothing: it reads
the head of a request, from either server. The route table says whom a path is for (`access.Paths`).

Some paths are for those who operate the server:

1. If there is a `[[key]]` or an `[[issuer]]`, or the store has or had a key, they need a key whose role is `admin`. The
   files of the pages do not: they have no figure, and a browser is refused with the page, which asks for the key.
2. Without keys they answer requests of this machine alone: the server listens on loopback, and `Forwarding.is_local`.
3. Where no key is needed, or the browser sends it on its own (`Basic`), no page but the server's own may ask.

The path of the figures is one of them if `metrics` is `admin`, or `auto` and rule 1 holds. Otherwise it is open; a
scraper that sends a key all the same expects that it counts: rule 1 holds for it. A key whose role is `metrics` may
read it too, and is good for no other path that needs a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from gai_fast.model.addresses import is_loopback
from gai_fast.model.credentials import Credential
from gai_fast.model.errors import Code, Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import KeySettings, ServerSettings
from gai_fast.runtime.ids import request_id
from gai_fast.server.admission.access import Paths
from gai_fast.server.admission.auth_throttle import AuthThrottle
from gai_fast.server.admission.callers import NO_STORED, Callers, StoredCallers, has_key
from gai_fast.server.admission.credentials import GATEWAY_KEY, credential_of
from gai_fast.server.admission.cross_origin import EXPOSE, EXPOSED_HEADERS, USUAL_HEADERS, allowed_headers
from gai_fast.server.admission.forwarding import NO_TRUSTED_PROXY, Forwarding
from gai_fast.server.admission.negotiation import trace_parent
from gai_fast.server.admission.token_callers import TokenCallers
from gai_fast.server.http.replies import Headers, Reply, id_headers
from gai_fast.server.http.transport import ClientTransport

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_MAX_PORT: Final = 65535
_ABSOLUTE: Final = re.compile(r"https?://([^/]*)(/.*)?", re.I)
"""Absolute-form (RFC 9112, 3.2.2), without its query."""
_WEB_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")
_FORM_TYPES: Final = frozenset(("multipart/form-data", "application/x-www-form-urlencoded"))
_OTHER_SITES: Final = frozenset(("cross-site", "same-site"))
"""`Sec-Fetch-Site` of a page that another origin has served (Fetch Metadata, 2.4)."""


class Admitted:
    """A request's head, as far as the guards have read it.

    Attributes:
        path: The path as it was sent, without the prefix that the application is mounted under; nothing is decoded, so
            no alias reaches a handler.
        query: The query parameters, decoded; the last of a name counts.
        host: The host that the request is for.
        request_id: The caller's or ours.
        key: The caller's key. None if no key is needed.
        credential: The caller's own for an upstream. None if it sends none, or none is taken.
        trace_parent: The caller's span, of `traceparent`.
        cors: The CORS headers of the answer.
        is_foreign: A web page of another origin, which is not allowed, makes this request.
        error: The reason to refuse the request, or `None`. Its connection is of no further use then.
    """

    def __init__(self, target: str, headers: dict[str, str]) -> None:
        self.path = target
        self.query: Mapping[str, str] = {}
        self.host = headers.get("host", "")
        self.request_id = request_id(headers.get("x-request-id"))
        self.key: KeySettings | None = None
        self.credential: Credential | None = None
        self.trace_parent = trace_parent(headers["traceparent"]) if "traceparent" in headers else None
        self.cors: Headers = ()
        self.is_foreign = False
        self.error: Error | None = None


def _user(key: KeySettings) -> KeySettings:
    """Returns the key of a caller that may use models.

    Raises:
        Forbidden: The role of the key is `metrics`.
    """
    if key.role == "metrics":
        raise Error("forbidden", "the role of this key is metrics: it is for /metrics alone", reason="role")
    return key


class Admission:
    """The guards of one server.

    Args:
        settings: `[server]`.
        keys: `[[key]]`.
        paths: Who may ask for which path.
        only_demo: Whether nothing but the demo model is configured: pages of this machine may then use it.
        forwarding: The proxies that are believed whose request it is.
        auth_throttle: Counts wrong keys; it outlives a configuration.
        tokens: The callers with tokens; it outlives a configuration, too. None if there is no `[[issuer]]`.
        stored: The keys of the store.
        takes_credentials: Whether an upstream takes its callers' own credentials.

    Attributes:
        needs_key: Whether every caller needs a key.
        paths: Who may ask for which path.
    """

    def __init__(
        self,
        settings: ServerSettings,
        keys: Sequence[KeySettings] = (),
        *,
        paths: Paths,
        only_demo: bool,
        forwarding: Forwarding = NO_TRUSTED_PROXY,
        auth_throttle: AuthThrottle | None = None,
        tokens: TokenCallers | None = None,
        stored: StoredCallers = NO_STORED,
        takes_credentials: bool = False,
    ) -> None:
        self._takes_credentials = takes_credentials
        self.paths = paths
        self.needs_key = bool(keys) or tokens is not None or stored.is_closed
        self._callers = Callers(keys, auth_throttle, tokens, stored) if self.needs_key else None
        self._forwarding = forwarding
        self._figures_open = settings.metrics == "open" or (settings.metrics == "auto" and not self.needs_key)
        self._origins = frozenset(settings.cors_origins)
        self._any_loopback = only_demo and not settings.cors_origins
        self._allowed_hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._served: set[str] = set()  # hosts of served requests, if the whole network may ask
        self._served_here: set[str] = set()  # hosts of served requests, if only this machine may ask

    def admit(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        *,
        is_http_1_1: bool = True,
        on_loopback: bool = True,
        prefix: str = "",
        peer: ClientTransport | None = None,
    ) -> Admitted:
        """Reads a request's head and looks for a reason to refuse it.

        Args:
            method: The HTTP method.
            target: The request target as it was sent.
            headers: By lower-case name; repeated ones joined with ", ".
            is_http_1_1: HTTP/1.1, otherwise 1.0.
            on_loopback: The server can be reached from this machine only.
            prefix: The path that the application is mounted under, without its last slash.
            peer: Knows the address that the connection comes from. None for a unix socket.

        Returns:
            The head; `error` is set if the request is refused. The ids and the path are there in any case: the
            refusal has them too.
        """
        admitted = Admitted(target, headers)
        try:
            query = self._read_target(admitted, headers, prefix)
            self._check_host(admitted.host, headers, is_http_1_1, on_loopback)
            self._check_origin(admitted, headers)
            if not is_preflight(method, headers):
                self._authorize(admitted, headers, peer, on_loopback)
            if query:
                admitted.query = _parse_query(query)
        except Error as error:
            admitted.error = error
        return admitted

    def key_on_socket(self, headers: dict[str, str]) -> KeySettings | None:
        """Returns the key that a WebSocket was opened with. None if no key is needed.

        Args:
            headers: Of the handshake, by lower-case name.

        Raises:
            Forbidden: Its role has become `metrics`.
            Unauthorized: It is not known any more, or has expired.
        """
        return None if self._callers is None else _user(self._callers.find(headers, None))

    def preflight(self, admitted: Admitted, headers: dict[str, str]) -> Reply:
        """Returns the response to a CORS preflight.

        Args:
            admitted: The request.
            headers: By lower-case name.

        Raises:
            Forbidden: The page's origin is not allowed.
        """
        if not any(name == "access-control-allow-origin" for name, _ in admitted.cors):
            raise Error("forbidden", "this origin is not allowed (see cors_origins)", reason="origin")
        requested = headers.get("access-control-request-headers", "")
        allowed = USUAL_HEADERS if self.paths.is_for_operators(admitted.path) else allowed_headers(requested)
        return Reply(
            204,
            headers=[
                ("vary", "Origin, Access-Control-Request-Headers"),
                *[header for header in admitted.cors if header[0] != "vary"],
                *id_headers(admitted.request_id),
                ("access-control-allow-methods", "GET, POST, PATCH, DELETE, OPTIONS"),
                ("access-control-allow-headers", allowed),
                ("access-control-max-age", "600"),
            ],
        )

    def is_login(self, path: str, error: Error, headers: Mapping[str, str]) -> bool:
        """Returns whether a refusal is answered with the page that asks for an admin's key.

        Args:
            path: Below the prefix.
            error: The reason of the refusal.
            headers: The headers of the request.
        """
        is_of_key = self.needs_key and error.reason in ("key", "expired", "role")
        return is_of_key and path in self.paths.login and "text/html" in headers.get("accept", "")

    def _authorize(
        self, admitted: Admitted, headers: dict[str, str], peer: ClientTransport | None, on_loopback: bool
    ) -> None:
        """Finds the key of a request that needs one."""
        path, paths = admitted.path, self.paths
        if path.startswith(paths.keyed):
            if self._callers is not None:
                remote = "" if peer is None else peer.remote
                admitted.key = _user(self._callers.find(headers, self._forwarding.client(remote, headers)))
            if self._takes_credentials and (self._callers is None or GATEWAY_KEY in headers):
                admitted.credential = credential_of(headers, path)
        elif paths.is_for_operators(path) or (path in paths.metrics and not self._figures_open):
            remote = "" if peer is None else peer.remote
            if self._callers is not None:
                if not path.startswith(paths.login_files):
                    self._check_operator(admitted, self._callers, headers, remote)
            else:
                self._check_local(headers, remote, on_loopback)
            is_basic = headers.get("authorization", "").lower().startswith("basic")
            if (self._callers is None or is_basic) and _is_other_page(headers.get("origin"), headers, admitted.host):
                raise Error("forbidden", "only the server's own pages may operate it", reason="origin")
        elif path in paths.metrics and self._callers is not None and has_key(headers):
            self._check_operator(admitted, self._callers, headers, "" if peer is None else peer.remote)

    def _check_operator(self, admitted: Admitted, callers: Callers, headers: dict[str, str], remote: str) -> None:
        """Refuses callers without an admin's key, or one for the figures (rule 1). The audit log names the key of a
        refused request too."""
        key = admitted.key = callers.find(headers, self._forwarding.client(remote, headers), basic=True)
        roles = ("admin", "metrics") if admitted.path in self.paths.metrics else ("admin",)
        if key.role not in roles:
            raise Error("forbidden", f"this needs a key whose role is {' or '.join(roles)}", reason="role")

    def _check_local(self, headers: dict[str, str], remote: str, on_loopback: bool) -> None:
        """Refuses requests from other machines (rule 2)."""
        if not on_loopback or not self._forwarding.is_local(remote, headers):
            text = 'without a [[key]] only this machine may operate the server: add one with role = "admin"'
            raise Error("forbidden", text, reason="role")

    def _read_target(self, admitted: Admitted, headers: dict[str, str], prefix: str) -> str:
        """Sets the path and the host; returns the query string."""
        path, _, query = admitted.path.partition("?")
        if not path.startswith("/") and path != "*":
            absolute = _ABSOLUTE.fullmatch(path)
            if absolute is None:
                raise Error("invalid_request", "the request target names no resource", reason="http")
            path = absolute[2] or "/"
            if "host" in headers:  # it must be there (RFC 9112, 3.2); the target counts
                admitted.host = absolute[1]
        admitted.path = path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path
        return query

    def _check_host(self, host: str, headers: dict[str, str], is_http_1_1: bool, on_loopback: bool) -> None:
        is_needed = is_http_1_1 or "host" in headers
        served = self._served_here if on_loopback else self._served
        if is_needed and host in served:
            return
        code = self._look_at_host(host, is_needed, on_loopback)
        if code == "invalid_request":
            raise Error(code, "the request must have one valid Host header", reason="host")
        if code is not None:
            raise Error(code, "this Host is not served here (see allowed_hosts)", reason="host")
        if is_needed:
            if len(served) >= SHARED.known_values:
                served.clear()
            served.add(host)

    def _look_at_host(self, host: str, is_needed: bool, on_loopback: bool) -> Code | None:
        """Returns the code of the refusal. None if the host is allowed."""
        found = _HOST.fullmatch(host)
        if is_needed and (found is None or int(found[2] or 0) > _MAX_PORT):
            return "invalid_request"
        name = "" if found is None else found[1]
        if not self._allowed_hosts.isdisjoint((host.lower(), name.lower())):
            return None
        # DNS rebinding: a page's own name may resolve to this machine, but a browser still sends that name.
        is_refused = not is_loopback(name.strip("[]")) if on_loopback else bool(self._allowed_hosts)
        return "forbidden" if is_refused else None

    def _check_origin(self, admitted: Admitted, headers: dict[str, str]) -> None:
        if self._origins or self._any_loopback:
            admitted.cors = (("vary", "Origin"),)
        origin = headers.get("origin")
        if origin is not None and self._is_allowed(origin):
            admitted.cors = (
                *admitted.cors,
                ("access-control-allow-origin", origin),
                (EXPOSE, EXPOSED_HEADERS),
            )
        else:
            # A request without CORS (an image, a frame, a link) has no Origin, but browsers send `Sec-Fetch-Site`.
            admitted.is_foreign = _is_other_page(origin, headers, admitted.host)

    def _is_allowed(self, origin: str) -> bool:
        if origin in self._origins:
            return True
        page = _WEB_ORIGIN.fullmatch(origin) if self._any_loopback else None
        return page is not None and is_loopback(page[1].strip("[]"))


def _is_other_page(origin: str | None, headers: dict[str, str], host: str) -> bool:
    """Returns whether a page that this server has not served makes a request."""
    is_other = origin is not None and origin.partition("://")[2] != host
    site = headers.get("sec-fetch-site")
    return is_other or (site is not None and site in _OTHER_SITES)


def _parse_query(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=SHARED.query_fields, errors="strict"))
    except ValueError:
        raise Error(
            "invalid_request",
            f"the query string cannot be read: it needs UTF-8, and at most {SHARED.query_fields} parameters",
            reason="query",
        ) from None


def is_preflight(method: str, headers: dict[str, str]) -> bool:
    """Returns whether a browser asks if it may send a request, without the request's key (Fetch, 3.3.2).

    Args:
        method: The HTTP method.
        headers: By lower-case name.
    """
    return method == "OPTIONS" and "access-control-request-method" in headers


def check_json(headers: dict[str, str]) -> None:
    """Checks by its head that a body is JSON.

    Raises:
        InvalidRequest: Not `application/json` in UTF-8, or compressed (415).
    """
    content_type = headers.get("content-type", "")
    if content_type != "application/json" and not _is_json(content_type):
        message = "the body must be JSON in UTF-8, sent with the header `content-type: application/json`"
        raise Error("invalid_request", message, reason="content_type", status=415)
    check_coding(headers)


def check_coding(headers: dict[str, str]) -> None:
    """Checks by its head that a body is read as it is sent.

    Raises:
        InvalidRequest: It is compressed (415).
    """
    coding = headers.get("content-encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise Error("invalid_request", "a compressed body is not accepted", reason="content_encoding", status=415)


def is_form(headers: dict[str, str]) -> bool:
    """Returns whether a body is a form, by its head.

    Args:
        headers: By lower-case name.
    """
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _FORM_TYPES


def check_no_body(headers: dict[str, str]) -> None:
    """Checks by its headers that a request has no body.

    A route that needs no key takes no body: strangers could fill the memory with bodies that no handler reads.

    Raises:
        InvalidRequest: The request has a body (413).
    """
    if has_body(headers):
        raise Error("invalid_request", "this route takes no request body", reason="max_body", status=413)


def has_body(headers: dict[str, str]) -> bool:
    """Returns whether a request has a body, by its headers (RFC 9112, 6.3).

    Args:
        headers: By lower-case name.
    """
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


def body_too_large(most: int) -> Error:
    """Returns the error of a body that is too large.

    Args:
        most: `max_body`.
    """
    text = f"the body is larger than {most} bytes"
    return Error("invalid_request", text, reason="max_body", status=413)


@lru_cache(SHARED.known_values)
def _is_json(content_type: str) -> bool:
    """Returns whether a content type is JSON in UTF-8."""
    media, _, parameters = content_type.partition(";")
    charset = parameters.replace('"', "").strip().lower()
    return media.strip().lower() == "application/json" and charset in ("", "charset=utf-8")
