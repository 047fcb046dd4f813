"""`model/upstream_errors.py`: how an upstream's words become a code, and what a client may see of its failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.errors import CLASSES, Code, Error, ProviderUnavailable, RateLimited
from gai_fast.model.upstream_errors import UpstreamFailure, classify, for_client, from_upstream, is_too_large
from tests.limits import LIMITS

# ---- an upstream's words → code --------------------------------------------------------------------------------------

# One row for each word that is known, by its words alone.
WORDS: list[tuple[Code, str]] = [
    ("invalid_request", "invalid_prompt string_above_max_length unprocessable tool_use_failed json_validate_failed"),
    ("invalid_request", "invalid_request_error BadRequestError INVALID_ARGUMENT"),
    ("unauthorized", "authentication_error invalid_api_key UNAUTHENTICATED API_KEY_INVALID"),
    ("forbidden", "permission_error PERMISSION_DENIED billing_error payment_required insufficient_balance"),
    ("forbidden", "FAILED_PRECONDITION unsupported_country_region_territory"),
    ("not_found", "model_not_found not_found_error NOT_FOUND DeploymentNotFound"),
    ("rate_limited", "rate_limit_error rate_limit_exceeded rate_limited 1300 RESOURCE_EXHAUSTED insufficient_quota"),
    ("overloaded", "overloaded_error engine_overloaded_error server_overloaded capacity_exceeded provider_overloaded"),
    ("overloaded", "UNAVAILABLE insufficient_system_resource"),
    ("timeout", "timeout_error DEADLINE_EXCEEDED"),
    ("provider_unavailable", "service_unavailable provider_unavailable unavailable_error"),
    ("context_length_exceeded", "context_length_exceeded exceed_context_size_error max_tokens_exceeded"),
    ("context_length_exceeded", "token_limit_exceeded"),
    ("content_filtered", "content_filter content_policy_violation ResponsibleAIPolicyViolation bio_policy"),
    ("content_filtered", "misalignment_policy_violation refusal"),
    ("unsupported", "unsupported_parameter unsupported_value UNIMPLEMENTED"),
    ("internal", "server_error api_error InternalServerError INTERNAL"),
]
STATUSES: dict[int | None, Code] = {
    400: "invalid_request",
    401: "unauthorized",
    402: "forbidden",
    403: "forbidden",
    404: "not_found",
    405: "invalid_request",
    408: "timeout",
    409: "invalid_request",
    413: "invalid_request",
    415: "invalid_request",
    422: "invalid_request",
    429: "rate_limited",
    498: "overloaded",
    499: "internal",
    500: "internal",
    501: "unsupported",
    502: "provider_unavailable",
    503: "provider_unavailable",
    504: "timeout",
    507: "internal",
    521: "provider_unavailable",
    522: "provider_unavailable",
    523: "provider_unavailable",
    524: "timeout",
    529: "overloaded",
    200: "internal",
    None: "internal",
}
MESSAGES: list[tuple[Code, str]] = [
    ("context_length_exceeded", "This model's maximum context length is 8192 tokens."),
    ("context_length_exceeded", "input exceed context limit"),
    ("context_length_exceeded", "Requested token count exceeds the model's maximum context length"),
    ("context_length_exceeded", "over the model's maximum context limit"),
    ("context_length_exceeded", "the prompt is longer than the model's context length"),
    ("context_length_exceeded", "Input tokens exceed the configured limit"),
    ("context_length_exceeded", "`inputs` tokens + `max_new_tokens` must be <= 2048"),
    ("context_length_exceeded", "exceeds the available context size"),
    ("context_length_exceeded", "exceeds the maximum number of tokens allowed"),
    ("context_length_exceeded", "too many tokens"),
    ("context_length_exceeded", "Total length of all messages is too long"),
    ("context_length_exceeded", "current length is 9000\nwhile limit is 8000"),
    ("context_length_exceeded", "maximum input length is 100 tokens"),
    ("context_length_exceeded", "Input too long: 7 input tokens, limit is 5"),
    ("context_length_exceeded", "prompt is too long: 210000 tokens > 200000 maximum"),
    ("context_length_exceeded", "exceeded max context length"),
    ("context_length_exceeded", "token limit reached"),
    ("unauthorized", "Incorrect API key provided: xa***1"),
    ("unauthorized", "API key not valid. Please pass a valid API key."),
    ("overloaded", "The engine is currently overloaded"),
]


@pytest.mark.parametrize(("code", "word"), [(code, word) for code, words in WORDS for word in words.split()])
def test_a_word_decides_alone_and_in_any_case(code: Code, word: str) -> None:
    assert classify("", [word], None) == code
    assert classify("", [word.upper()], 200) == code
    assert classify("", [word.lower()], 400) == code


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_a_status_decides_where_no_word_does(status: int | None, code: Code) -> None:
    assert classify("", [], status) == code
    assert classify("", ["some_new_word"], status) == code


@pytest.mark.parametrize(("code", "message"), MESSAGES)
def test_a_message_decides_where_only_a_generic_word_stands_beside_it(code: Code, message: str) -> None:
    assert classify(message, [], 400) == code
    assert classify(message, ["invalid_request_error"], 400) == code
    assert classify(message.upper(), ["api_error"], 500) == code


def test_a_specific_word_outranks_the_message_and_the_status() -> None:
    assert classify("prompt is too long", ["rate_limit_exceeded"], 400) == "rate_limited"
    assert classify("", ["overloaded_error"], 404) == "overloaded"


@pytest.mark.parametrize("day", ["", " per day"])
def test_too_many_tokens_for_now_is_a_limit_of_rate(day: str) -> None:
    """Amazon's words for throttling, which proxies pass on with or without its code."""
    message = f"Too many tokens{day}, please wait before trying again."
    assert classify(message, [], 429) == classify(message, [], None) == "rate_limited"
    assert classify("Too many tokens in the prompt", [], 400) == "context_length_exceeded"
    assert classify("Too many tokens", ["throttling_exception"], None) == "rate_limited"


def test_the_first_specific_word_counts() -> None:
    assert classify("", ["invalid_request_error", "model_not_found", "overloaded_error"], 400) == "not_found"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "unauthorized"), (403, "forbidden"), (404, "not_found"), (413, "invalid_request"), (429, "rate_limited")],
)
def test_a_status_that_says_more_outranks_a_generic_word(status: int, code: Code) -> None:
    assert classify("", ["invalid_request_error"], status) == code


def test_a_generic_word_counts_where_there_is_no_status() -> None:
    assert classify("", ["invalid_request_error"], None) == "invalid_request"


def test_what_only_sounds_like_a_full_context_is_not_one() -> None:
    """`string_above_max_length` and `invalid 'user'` speak of other limits."""
    assert classify("Invalid 'user': too many tokens", [], 400) == "invalid_request"
    assert classify("string_above_max_length: too many tokens", [], 400) == "invalid_request"


def test_too_large_is_a_full_context_only_where_tokens_are_spoken_of() -> None:
    assert classify("Request exceeds the maximum size of 32 MB", [], 413) == "invalid_request"
    assert classify("Request has too many input tokens", [], 413) == "context_length_exceeded"


@pytest.mark.parametrize("said", ["Overloaded", "no capacity left", "the model is loading"])
def test_unavailable_is_overloaded_where_it_speaks_of_load(said: str) -> None:
    assert classify(said, [], 503) == "overloaded"
    assert classify("bye", [], 503) == "provider_unavailable"


def test_a_prompt_that_a_policy_refuses_is_filtered_not_invalid() -> None:
    """OpenAI says `invalid_prompt` for both."""
    flagged = "Invalid prompt: your prompt was flagged as potentially violating our usage policy."
    assert classify(flagged, ["invalid_prompt"], 400) == "content_filtered"
    assert classify("Invalid prompt: empty.", ["invalid_prompt"], 400) == "invalid_request"


def test_a_country_is_refused_not_unsupported() -> None:
    assert classify("", ["unsupported_country_region_territory"], 403) == "forbidden"


@pytest.mark.parametrize("quote", ["'", '"', "`"])
@pytest.mark.parametrize("said", ["incorrect api key", "overloaded", "{0} invalid api key {0}", "it is {0}overloaded"])
def test_what_a_caller_says_is_no_failure_of_the_upstream(quote: str, said: str) -> None:
    """An upstream quotes it. Its keys and targets were set aside, or its breaker opened."""
    message = f"Invalid value: {quote}{said.format(quote)}{quote}. Supported values are: {quote}low{quote}."
    assert classify(message, ["invalid_value", "invalid_request_error"], 400) == "invalid_request"
    assert classify(f"no such option: {quote}rate limit{quote}", [], None) == "internal"
    assert classify("The model's server is overloaded, we're sorry", [], 400) == "overloaded"


@pytest.mark.timeout(60)
def test_a_long_hostile_message_is_looked_at_only_so_far() -> None:
    assert classify("current length is " * 10**6, [], None) == "internal"
    assert classify(" '" * 10**6, [], None) == "internal"


# ---- the error of an upstream ----------------------------------------------------------------------------------------


def reported(
    message: str = "", *words: str, status: int | None = None, wait: int | None = None, header: int | None = None
) -> Error:
    said = UpstreamFailure(message, words, status, wait)
    return from_upstream(said, phase="first_event", provider="acme", retry_after_ms=header)


def test_an_upstreams_error_keeps_its_words() -> None:
    error = reported("Slow down", "rate_limit_exceeded", "requests", status=429)
    assert type(error) is RateLimited
    assert (error.message, error.reason, error.phase, error.provider) == (
        "Slow down",
        "rate_limit_exceeded",
        "first_event",
        "acme",
    )


def test_a_silent_upstream_is_named() -> None:
    assert reported(status=500).message == "acme failed without saying why"


@pytest.mark.parametrize("word", ["Some Text", "x", "UPPER", "a" * 65, "9lives", "key\n", "ärger"])
def test_a_reason_is_an_identifier_or_nothing(word: str) -> None:
    assert reported("m", word, status=500).reason is None
    assert reported("m", word, "stable_word", status=500).reason == "stable_word"


@pytest.mark.parametrize(
    "word", ["insufficient_quota", "contract_spend_limit_reached", "enforced_spend_limit_reached", "INSUFFICIENT_QUOTA"]
)
def test_a_spent_quota_is_a_rate_limit_that_waiting_does_not_mend(word: str) -> None:
    error = reported("You exceeded your current quota", word, status=429, header=1000)
    assert (error.code, error.temporary, error.retry_after_ms) == ("rate_limited", False, None)


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (
            429,
            "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 36278. "
            "The input or output tokens must be reduced in order to run successfully.",
            ("rate_limit_exceeded", "tokens"),
        ),
        (
            413,
            "Request too large for model `llama` in organization `org` service tier `on_demand` on tokens per minute "
            "(TPM): Limit 6000, Requested 7000, please reduce your message size and try again.",
            ("rate_limit_exceeded", "tokens"),
        ),
        (
            429,
            "litellm.RateLimitError: OpenAIException - Request too large for gpt-5 in organization o on "
            "tokens per min (TPM): Limit 30,000, Requested 36,055. The input or output tokens must be reduced.",
            ("rate_limit_exceeded",),
        ),
        (
            429,
            "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 12, Requested 30001.",
            ("rate_limit_exceeded",),
        ),
    ],
)
def test_a_request_that_is_above_a_limit_alone_is_known(status: int, message: str, words: tuple[str, ...]) -> None:
    error = reported(message, *words, status=status, header=1000)
    assert (error.code, error.reason, error.status) == ("rate_limited", "rate_limit_exceeded", 429)
    assert is_too_large(error)
    usual = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 20000, Requested 10001."
    assert not is_too_large(reported(usual, *words, status=429, header=1000))


@pytest.mark.parametrize(
    "message",
    [
        "This request would exceed the rate limit for your organization of 20,000 input tokens per minute.",
        "Rate limit reached for gpt-4 on tokens per min (TPM): Limit 10000, Used 8554, Requested 3082.",
        "Tokens per minute limit exceeded - too many tokens processed.",
        "Request was rejected due to rate limiting. Details: TPM limit reached.",
        "Quota exceeded for metric: generate_content_free_tier_input_token_count, limit: 250000, model: gemini-2.5-pro",
    ],
)
def test_a_limit_that_names_no_size_above_it_is_no_matter_of_the_request(message: str) -> None:
    assert not is_too_large(reported(message, "rate_limit_exceeded", status=429))


def test_exhausted_resources_are_temporary() -> None:
    assert reported("", "RESOURCE_EXHAUSTED", status=429).temporary


def test_a_wait_is_reported_only_where_waiting_helps() -> None:
    """OpenAI's rate limit headers stand on every answer, also on a 400."""
    assert reported("no such field", status=400, header=1000).retry_after_ms is None
    assert reported("busy", status=503, header=1000).retry_after_ms == 1000


def test_a_header_outranks_the_body() -> None:
    assert reported("busy", status=429, wait=5000, header=7000).retry_after_ms == 7000
    assert reported("busy", status=429, wait=5000).retry_after_ms == 5000


@pytest.mark.parametrize("status", [400, 405, 406, 409, 411, 413, 414, 415, 417, 422, 426, 431, 505])
def test_an_invalid_request_keeps_its_status_for_the_sdk_to_choose_its_class_by(status: int) -> None:
    assert reported("wrong", "invalid_request_error", status=status).status == status


def test_every_other_code_has_its_own_status() -> None:
    assert reported("wrong", "invalid_request_error", status=418).status == 400
    assert reported("no", "unsupported_parameter", status=422).status == 400
    assert reported("busy", status=529).status == 503


# ---- what a client of the server sees --------------------------------------------------------------------------------

SECRET = "sk-live-1234 of org_9"


def refused(status: int, message: str, *words: str) -> Error:
    return for_client(reported(message, *words, status=status), "main")


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (401, f"Incorrect API key provided: {SECRET}", ("invalid_api_key",)),
        (400, f"API key not valid: {SECRET}", ("API_KEY_INVALID",)),
        (403, f"Key {SECRET} lacks a permission", ("permission_error",)),
        (403, f"{SECRET}", ()),
    ],
)
def test_refused_credentials_are_the_operators_business(status: int, message: str, words: tuple[str, ...]) -> None:
    error = refused(status, message, *words)
    assert type(error) is ProviderUnavailable
    assert (error.status, error.temporary, error.reason) == (502, False, "upstream_credentials")
    assert (error.phase, error.provider) == ("first_event", "acme")
    assert "'main'" in error.message
    assert "`api_key`" in error.message


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (402, f"Upgrade your plan to use this model, {SECRET}", ()),
        (402, f"{SECRET}", ("invalid_request_error",)),
        (402, f"This content needs more, {SECRET}", ()),
        (403, f"Insufficient balance: {SECRET}", ()),
        (403, SECRET, ("insufficient_balance",)),
        (403, f"Enable billing for the model, {SECRET}", ("PERMISSION_DENIED",)),
    ],
)
def test_an_unpaid_account_is_the_operators_business(status: int, message: str, words: tuple[str, ...]) -> None:
    error = refused(status, message, *words)
    assert (error.code, error.status, error.temporary) == ("provider_unavailable", 502, False)
    assert error.reason == "upstream_billing"
    assert "billing" in error.message


@pytest.mark.parametrize(
    "message",
    [
        "The content violates our policy",
        "Your request was flagged by moderation",
        "Not available in your country",
        "Your region is not supported",
        "You have no access to the model `o9`",
        "User location is not supported for the API use.",
        "The model refuses: it is fundamental and accredited, id 4021",
    ],
)
def test_a_403_that_speaks_of_content_region_or_model_is_the_callers(message: str) -> None:
    error = reported(message, status=403)
    assert for_client(error, "main") is error


@pytest.mark.parametrize("code", sorted(CLASSES.keys() - {"unauthorized", "forbidden"}))
def test_all_other_errors_pass_as_they_are(code: Code) -> None:
    error = Error(code, f"billing of {SECRET}", phase="mid_stream")
    assert for_client(error, "main") is error


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no sk-live-1234 here", "no *** here"),
        ("no sk-live-12345678 here", "no *** here"),
        ("the model short is not there", "the model short is not there"),
    ],
)
def test_what_an_upstream_quotes_of_our_secrets_is_cut_out(message: str, shown: str) -> None:
    secrets = (b"sk-live-1234", b"sk-live-12345678", b"short")
    for status in (400, 403, 404, 429, 500):  # 403: it speaks of the model
        error = reported(f"model: {message}", "model_gone", status=status)
        error.details = {"message": message, "code": "model_gone"}
        code, temporary = error.code, error.temporary
        seen = for_client(error, "main", keep_details=True, secrets=secrets)
        assert (seen.message, seen.code, seen.temporary) == (f"model: {shown}", code, temporary)
        assert (seen.phase, seen.provider) == ("first_event", "acme")
        assert (seen is error) is (message == shown)
        assert (seen.details is None) is (message != shown)


@pytest.mark.parametrize("keep_details", [True, False])
def test_what_quotes_a_secret_beside_its_message_is_not_passed_on(keep_details: bool) -> None:
    secrets = (b"sk-live-1234",)
    for details, raw in (({"sent": "sk-live-1234"}, b""), (None, b'{"error":{},"sent":"sk-live-1234"}')):
        error = reported("odd", status=400)
        error.details = details
        seen = for_client(error, "main", keep_details=keep_details, secrets=secrets, raw=raw)
        assert seen is not error
        assert (seen.message, seen.code, seen.details) == ("odd", "invalid_request", None)


def test_a_message_that_is_cut_within_a_secret_ends_before_it() -> None:
    secret = "sk-live-12345678"
    for length in range(len(secret) + 1):
        before = "é" * (LIMITS.error_message - 1 - length)
        error = reported(before + secret + " and more", status=400)
        seen = for_client(error, "main", secrets=(secret.encode(),))
        if length < LIMITS.secret // 2:  # so many may be the end of any word
            assert seen is error
        else:
            assert seen.message == before + ("***…" if length == len(secret) else "…")


def test_a_reason_may_quote_a_secret_as_well() -> None:
    seen = for_client(reported("odd", "key_12345678", status=400), "main", secrets=(b"key_12345678",))
    assert (seen.message, seen.reason) == ("odd", None)


@given(st.sampled_from(["unauthorized", "forbidden"]), st.text(min_size=8), st.sampled_from([None, 401, 402, 403]))
def test_what_is_translated_says_nothing_of_what_the_upstream_said(
    code: Code, message: str, status: int | None
) -> None:
    error = Error(code, f"<<{message}>>", reason="said_so", status=status, details={"message": message})
    seen = for_client(error, "main")
    if seen is not error:
        assert "<<" not in seen.message
        assert seen.details is None
        assert seen.reason in ("upstream_credentials", "upstream_billing")


@pytest.mark.parametrize(("status", "within_dialect"), [(400, 400), (404, 404), (None, 404)])
def test_a_refused_model_keeps_the_upstreams_status_within_a_dialect(status: int | None, within_dialect: int) -> None:
    failure = UpstreamFailure("The model `x` does not exist", ("model_not_found",), status)
    for keep_details, shown in ((True, within_dialect), (False, 404)):
        error = from_upstream(failure, phase="first_event", provider="openai")
        result = for_client(error, "up", keep_details=keep_details)
        assert (result.code, result.status) == ("not_found", shown)
