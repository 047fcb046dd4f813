"""The error for an upstream's failure: maps the upstream's words to a code, and removes what a client may not see.

Knows no provider by name. `providers/answers/failures.py` and the providers' files find the words in a body.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gai_fast.model.credentials import CALLER_CREDENTIAL
from gai_fast.model.errors import CLASSES, CUT, Code, Error, Phase, ProviderUnavailable
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import UpstreamSettings

REFUSAL_WORDS: Final = frozenset(
    "content_filter content_filtered contentfilter content_filtering content_policy content_policy_violation "
    "contentpolicyviolation policy_violation responsibleaipolicyviolation bio_policy cyber_policy "
    "misalignment_policy_violation refusal refused safety image_safety unsafe recitation image_recitation blocklist "
    "prohibited_content image_prohibited_content spii model_armor guardrail guardrails guardrail_intervened "
    "error_toxic toxic sensitive sensitive_content sensitivecontentdetected inputtextsensitivecontentdetected "
    "inputimagesensitivecontentdetected outputtextsensitivecontentdetected moderation moderated moderation_blocked "
    "moderation_error content_moderation contentmoderation flagged censored censorship_blocked data_inspection_failed "
    "datainspectionfailed "
    "1301 1026 1027 10013 10014".split()  # numbers: of Zhipu, of MiniMax and of iFlytek, for prompts and answers
)
"""Words of all vendors for refused content, in lower case: codes of errors and finish reasons."""

_SPECIFIC: Final[dict[str, Code]] = dict.fromkeys(REFUSAL_WORDS, "content_filtered")
for _code, _words in {
    "invalid_request": "invalid_prompt string_above_max_length unprocessable tool_use_failed json_validate_failed",
    "unauthorized": "authentication_error invalid_api_key unauthenticated api_key_invalid authentication "
    "invalidapikey expiredtokenexception unrecognizedclientexception",
    "forbidden": "permission_error permission_denied billing_error payment_required insufficient_balance "
    "failed_precondition unsupported_country_region_territory accessdeniedexception accessdenied arrearage",
    "not_found": "model_not_found not_found_error not_found deploymentnotfound resourcenotfoundexception",
    "rate_limited": "rate_limit_error rate_limit_exceeded rate_limited too_many_requests 1300 resource_exhausted "
    "throttling throttlingexception throttling_exception requestlimitexceeded limitexceeded "
    "servicequotaexceededexception insufficient_quota ramp_limit_exceeded "
    "contract_spend_limit_reached enforced_spend_limit_reached",
    "overloaded": "overloaded_error overloaded engine_overloaded_error server_overloaded capacity_exceeded "
    "no_capacity provider_overloaded unavailable insufficient_system_resource",
    "timeout": "timeout_error deadline_exceeded timeout modeltimeoutexception",
    "provider_unavailable": "service_unavailable provider_unavailable unavailable_error serviceunavailableexception",
    "context_length_exceeded": "context_length_exceeded exceed_context_size_error max_tokens_exceeded "
    "token_limit_exceeded",
    "unsupported": "unsupported_parameter unsupported_value unimplemented",
    "internal": "internalservererror internal",
}.items():
    _SPECIFIC.update(dict.fromkeys(_words.split(), _code))  # type: ignore[arg-type]  # the keys are the codes above

# A pattern in the message and the status have priority over these.
_GENERIC: Final[dict[str, Code]] = {
    "invalid_request_error": "invalid_request",
    "badrequesterror": "invalid_request",
    "validationexception": "invalid_request",
    "invalid_argument": "invalid_request",
    "api_error": "internal",
    "server_error": "internal",
}

# No pattern can backtrack over more than one `.*`, and messages are cut to `limits.error_message` first.
_PATTERNS: Final[tuple[tuple[Code, re.Pattern[str]], ...]] = (
    (
        "context_length_exceeded",
        re.compile(
            r"exceed context limit|this model's maximum context length is|maximum context length is"
            r"|requested token count exceeds the model's maximum context length|model's maximum context limit"
            r"|is longer than the model's context length|input tokens exceed the configured limit"
            r"|`inputs` tokens \+ `max_new_tokens` must be|exceeds the available context size"
            r"|exceeds the maximum number of tokens allowed"
            r"|too many tokens(?!(?: per day)?, please wait)"  # Amazon's words for a limit of rate
            r"|total length of all messages is too long"
            r"|current length is.*while limit is|maximum input length is.*tokens"
            r"|input too long:.*input tokens, limit is"
            r"|prompt is too long|exceeded max context length|token limit reached",
            re.S,
        ),
    ),
    ("unauthorized", re.compile(r"incorrect api key|invalid api key|api key not valid")),
    (
        "content_filtered",
        re.compile(
            r"content violates usage guidelines|content exists risk|considered high risk|blocked by content filtering"
            r"|content management policy|inappropriate content|result of our safety system"
            r"|(?:appears to violate|potentially violating) our usage polic"
            r"|不安全或敏感内容"  # Zhipu: unsafe or sensitive content
        ),
    ),
    ("overloaded", re.compile(r"overloaded")),
)
# Read if the upstream gives neither a status nor a word that is known: errors in answers with status 200.
_PATTERNS_ALONE: Final[tuple[tuple[Code, re.Pattern[str]], ...]] = (
    (
        "rate_limited",
        re.compile(
            r"rate.?limit|too many requests|please wait before trying again|quota exceeded"
            r"|exceeded your (?:current )?quota"
        ),
    ),
    (
        "unauthorized",
        re.compile(r"unauthorized|(?:token|api.?key)\b.{0,20}\b(?:invalid|expired)|invalid.?(?:token|api.?key)"),
    ),
    ("forbidden", re.compile(r"insufficient (?:balance|credits?|funds)")),
    ("overloaded", re.compile(r"at capacity|server is busy")),
)
_QUOTED: Final = re.compile(r"(?<!\w)(?:'.*'|\".*\"|`.*`)", re.S)
"""A quotation from a request, up to the last quotation mark: a caller may send some itself."""
_OF_ALL: Final = ("unauthorized", "overloaded")
"""Codes that concern the requests of all callers. The words of one caller must not cause them."""
_POLICY: Final = re.compile(r"polic|flagged|violat")
"""Words in OpenAI's message for `invalid_prompt` if the prompt is refused, not malformed."""
_NOT_CONTEXT: Final = re.compile(r"string_above_max_length|invalid 'user'")

_STATUS: Final[dict[int, Code]] = {
    401: "unauthorized",
    402: "forbidden",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    413: "invalid_request",
    429: "rate_limited",
    451: "content_filtered",
    498: "overloaded",
    501: "unsupported",
    502: "provider_unavailable",
    503: "provider_unavailable",
    504: "timeout",
    521: "provider_unavailable",
    522: "provider_unavailable",
    523: "provider_unavailable",
    524: "timeout",
    529: "overloaded",
}

_SPENT_WORDS: Final = frozenset(
    "insufficient_quota contract_spend_limit_reached enforced_spend_limit_reached spend_limit_reached".split()
)
_CAPACITY: Final = re.compile(r"overloaded|capacity|loading")
_NUMBER: Final = r"[: ]{1,2}([0-9]{1,12}(?:,[0-9]{3}){0,4})(?![0-9])"
_SIZES: Final = re.compile(rf"\blimit{_NUMBER}.{{0,120}}?\brequested{_NUMBER}", re.S)
"""The words of OpenAI and Groq, also within those of a gateway, for the size of a request and the limit of a minute."""


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """A failure in the upstream's own words.

    Args:
        message: For people.
        words: Codes, types, statuses and reasons of the upstream, most specific first.
        status: The HTTP status, of the response or in the body.
        retry_after_ms: The wait in milliseconds, if the body has one.
        details: The error object itself, for clients of the upstream's dialect.
    """

    message: str = ""
    words: tuple[str, ...] = ()
    status: int | None = None
    retry_after_ms: int | None = None
    details: Mapping[str, Any] | None = None


def classify(message: str, words: Iterable[str], status: int | None) -> Code:
    """Returns the code for an upstream's failure.

    Order: a specific word, a pattern in the message, the status, a generic word, else `internal`.

    Args:
        message: The upstream's message.
        words: The upstream's codes and types, most specific first; case is ignored.
        status: The HTTP status, of the response or in the body; ignored below 400.
    """
    lowered = [word.lower() for word in words]
    # `com.amazon…#ExpiredTokenException`, `InputTextSensitiveContentDetected.PolicyViolation`
    lowered += [word.rpartition("#")[2].partition(".")[0] for word in lowered if "#" in word or "." in word]
    text = message[: SHARED.error_message].lower()
    for word in lowered:
        if word in _SPECIFIC:
            return "content_filtered" if word == "invalid_prompt" and _POLICY.search(text) else _SPECIFIC[word]
    own = _QUOTED.sub("", text)
    for code, pattern in _PATTERNS:
        found = pattern.search(own if code in _OF_ALL else text)
        if found and not (code == "context_length_exceeded" and _NOT_CONTEXT.search(text)):
            return code
    if status == 413 and "token" in text:
        return "context_length_exceeded"
    if status == 503 and _CAPACITY.search(text):
        return "overloaded"
    if status in _STATUS:
        return _STATUS[status]
    for word in lowered:
        if word in _GENERIC:
            return _GENERIC[word]
    if status is not None and status >= 400:
        return "invalid_request" if status < 500 and status != 499 else "internal"
    return next((code for code, pattern in _PATTERNS_ALONE if pattern.search(own)), "internal")


def is_too_large(error: Error) -> bool:
    """Returns whether an upstream has a limit that the request alone exceeds: that says nothing of other requests."""
    if error.code != "rate_limited":
        return False
    sizes = _SIZES.search(error.message[: SHARED.error_message].lower())
    return sizes is not None and int(sizes[2].replace(",", "")) > int(sizes[1].replace(",", ""))


def is_spent(words: Iterable[str]) -> bool:
    """Returns whether a rate limit is a spent quota, so that waiting does not help."""
    return any(word.lower() in _SPENT_WORDS for word in words)


def from_upstream(
    failure: UpstreamFailure, *, phase: Phase, provider: str | None, retry_after_ms: int | None = None
) -> Error:
    """Builds the error for an upstream's failure, with the provider's meaning."""
    code = classify(failure.message, failure.words, failure.status)
    temporary = CLASSES[code].default_temporary and not is_spent(failure.words)
    wait = failure.retry_after_ms if retry_after_ms is None else retry_after_ms
    error = Error(
        code,
        failure.message or f"{provider} failed without saying why",
        reason=next((word for word in failure.words if _STABLE.fullmatch(word)), None),
        temporary=temporary,
        # Every response has rate limit headers; if waiting does not help, clients get no time to wait.
        retry_after_ms=wait if temporary else None,
        phase=phase,
        provider=provider,
        status=failure.status if failure.status in _OWN_STATUSES.get(code, ()) else None,
        details=failure.details,
    )
    error.quotes = True
    return error


_OWN_STATUSES: Final[Mapping[Code, frozenset[int]]] = {
    "invalid_request": frozenset({400, 405, 406, 409, 411, 413, 414, 415, 417, 422, 426, 431, 505}),
    "not_found": frozenset({400}),
    "forbidden": frozenset({402}),
}
"""The statuses of an upstream that are kept: the statuses of `invalid_request`, because SDKs choose their exception
class by the status, 400 for a model that does not exist, for clients of the upstream's dialect alone, and 402, which
means billing in `for_client` whatever the upstream's words are."""


def for_client(
    error: Error,
    upstream: str,
    *,
    keep_details: bool = False,
    secrets: Collection[bytes] = (),
    raw: bytes = b"",
    setting: str = "api_key",
    is_callers: bool = False,
) -> Error:
    """Returns an upstream's error in the form that a client of the server may see.

    For clients `unauthorized` means only the caller's own key. If the upstream refuses *our* credentials or account,
    the caller cannot fix it, and the upstream's words (which may quote the key) belong in the operator's log.

    Args:
        error: The error, with the provider's meaning.
        upstream: The configured name of the upstream.
        keep_details: Whether the client speaks the upstream's dialect and may see the upstream's error object.
        secrets: Texts that no client may see, such as our key: an upstream may quote its request. Texts shorter than
            `limits.secret` are ignored, because they may be words of any message.
        raw: The upstream's bytes of the error, if they may be passed on. If another error is returned, the caller must
            not pass them on.
        setting: The key of the upstream's configuration that has our credentials.
        is_callers: Whether the credential is the caller's own. The caller then sees that it is refused.
    """
    shown = _without(secrets, error, raw)
    if not keep_details:
        shown.details = None
        if shown.code == "not_found":
            shown.status = shown.default_status
    if error.code not in ("unauthorized", "forbidden") or error.phase == "connect":
        return shown
    words = f"{error.reason or ''} {error.message}".lower().replace("_", " ")
    billing = error.code == "forbidden" and (error.status == 402 or _BILLING.search(words) is not None)
    if error.code == "forbidden" and not billing and _OTHER_REFUSAL.search(words):
        return shown
    if is_callers:
        return Error(
            error.code,
            f"upstream {upstream!r} refuses the caller's credential: {shown.message}",
            reason=CALLER_CREDENTIAL,
            temporary=False,
            phase=error.phase,
            provider=error.provider,
        )
    what, place = ("account", "its billing") if billing else ("credentials", f"`{setting}`")
    return ProviderUnavailable(
        message=f"upstream {upstream!r} refuses our {what}: the operator should check {place} of this [[upstream]]",
        reason="upstream_billing" if billing else "upstream_credentials",
        temporary=False,
        phase=error.phase,
        provider=error.provider,
        status=502,
    )


def without_addresses(error: Error, upstream: UpstreamSettings) -> Error:
    """Returns an error whose message has the upstream's name in place of its host, or its proxy's host.

    Args:
        error: The error.
        upstream: The upstream.
    """
    message = error.message
    for url in (upstream.base_url, None if upstream.proxy is None else upstream.proxy.reveal()):
        host = None if url is None else urlsplit(url).hostname
        if host:
            found = rf"(?<![\w.-])\[?{re.escape(host)}\]?(?::\d+)?(?![\w-]|\.\w)"
            message = re.sub(found, lambda _: f"upstream {upstream.name!r}", message, flags=re.I)
    if message == error.message:
        return error
    shown = copy(error)
    shown.message, shown.args = message, (message,)
    return shown


def _without(secrets: Collection[bytes], error: Error, raw: bytes) -> Error:
    """Returns the error if neither it nor its bytes quote a secret. Otherwise returns a new error whose message has no
    secret, without reason and details."""
    words = f"{error.reason} {error.message} {error.details}".encode(errors="replace") + raw
    secrets = [secret for secret in secrets if len(secret) >= SHARED.secret]
    quoted = [secret for secret in secrets if secret in words]
    message = error.message
    for secret in sorted(quoted, key=len, reverse=True):
        message = message.replace(secret.decode(), "***")
    if message.endswith(CUT):  # the cut may be within a secret
        message = _without_cut_secret(secrets, message)
    if not quoted and message == error.message:
        return error
    return Error(
        error.code,
        message,
        temporary=error.temporary,
        retry_after_ms=error.retry_after_ms,
        phase=error.phase,
        provider=error.provider,
        status=error.status,
        param=error.param,
        guard=error.guard,
    )


def _without_cut_secret(secrets: Collection[bytes], message: str) -> str:
    """Removes the first part of a secret from the end of a cut message. A very short part stays: any word may match."""
    text = message.removesuffix(CUT).encode(errors="replace")
    least = SHARED.secret // 2
    sizes = (size for secret in secrets for size in range(least, len(secret)) if text.endswith(secret[:size]))
    return text[: len(text) - max(sizes, default=0)].decode(errors="replace") + CUT


_BILLING: Final = re.compile(r"\b(?:billing|payments?|balance|credits?|funds?)\b")
_OTHER_REFUSAL: Final = re.compile(
    r"\b(?:content|polic|moderat|flagged|safety|region|countr|territor|location|model|guideline)"
)

_STABLE: Final = re.compile(r"[a-z][a-z0-9_]{1,63}")
"""The form of words that may become a reason: identifiers."""
