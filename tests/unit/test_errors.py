"""`gai_fast/errors.py`: thirteen codes, how an upstream's words become one of them, and what a client may see of it."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast import errors
from gai_fast.errors import (
    CLASSES,
    Code,
    Error,
    Malformed,
    ProviderUnavailable,
    RateLimited,
    UpstreamFailure,
    from_upstream,
)
from gai_fast.limits import LIMITS

NOW_MS = 1_800_000_000_000


# ---- the tree --------------------------------------------------------------------------------------------------------

# The table of `docs/events.md`.
TABLE: dict[Code, tuple[int, bool]] = {
    "invalid_request": (400, False),
    "unauthorized": (401, False),
    "forbidden": (403, False),
    "not_found": (404, False),
    "rate_limited": (429, True),
    "overloaded": (503, True),
    "timeout": (504, True),
    "network": (502, True),
    "provider_unavailable": (503, True),
    "context_length_exceeded": (400, False),
    "content_filtered": (400, False),
    "unsupported": (400, False),
    "internal": (500, False),
}


def test_codes_statuses_and_temporary_are_those_of_the_contract() -> None:
    assert {code: (Error(code).status, Error(code).temporary) for code in TABLE} == TABLE
    assert list(CLASSES) == list(TABLE)


@pytest.mark.parametrize("code", TABLE)
def test_an_error_is_of_the_class_that_is_named_as_its_code(code: Code) -> None:
    error = Error(code, "what happened")
    assert type(error).__name__ == code.title().replace("_", "")
    assert type(error)(message="what happened").code == code
    assert isinstance(error, errors.GaiFastError)
    assert error.is_temporary is error.temporary
    assert str(error) == error.message == "what happened"


def test_an_unknown_code_is_a_value_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown error code 'nonsense'; known: invalid_request, unauthorized"):
        Error("nonsense")  # type: ignore[arg-type]  # that it is refused is the point


def test_a_payload_has_its_keys_in_order_and_none_empty() -> None:
    assert list(Error("network").payload().items()) == [
        ("code", "network"),
        ("message", "network"),
        ("temporary", True),
    ]
    full = Error(
        "rate_limited", "slow down", reason="tokens", temporary=False, retry_after_ms=0, phase="connect", provider="x"
    )
    assert list(full.payload().items()) == [
        ("code", "rate_limited"),
        ("message", "slow down"),
        ("temporary", False),
        ("retry_after_ms", 0),
        ("phase", "connect"),
        ("reason", "tokens"),
    ]


def test_a_payload_becomes_the_same_error_again() -> None:
    told = Error("overloaded", "busy", reason="capacity", retry_after_ms=5, phase="mid_stream")
    read = Error.from_payload(told.payload(), "openai")
    assert type(read) is errors.Overloaded
    assert read.payload() == told.payload()
    assert read.provider == "openai"


def test_a_payload_with_an_unknown_code_is_internal() -> None:
    assert type(Error.from_payload({"code": "of_a_later_version"})) is errors.Internal
    assert type(Error.from_payload({})) is errors.Internal


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copied_error_says_the_same(copied: object) -> None:
    error = Error("invalid_request", "too big", reason="size", status=413, provider="p", details={"param": "x"})
    twin = copied(error)  # type: ignore[operator]  # one of three functions
    assert type(twin) is type(error)
    assert (twin.__dict__, twin.args) == (error.__dict__, error.args)


@pytest.mark.parametrize(("asked", "kept"), [(-5, 0), (0, 0), (7_000, 7_000), (10**12, LIMITS.retry_after_ms)])
def test_the_wait_is_clamped(asked: int, kept: int) -> None:
    assert Error("rate_limited", retry_after_ms=asked).retry_after_ms == kept


@given(st.text(st.characters(exclude_categories=())))
def test_a_message_is_one_bounded_line_that_utf8_can_say(text: str) -> None:
    message = Error("internal", text).message
    assert message
    assert len(message) <= LIMITS.error_message
    assert not any(
        character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029" for character in message
    )
    message.encode()


def test_a_line_end_cannot_forge_a_line_of_a_log() -> None:
    assert Error("internal", "a\r\n\tERROR all is lost\x1b[31m").message == "a ERROR all is lost [31m"


def test_a_page_is_no_message() -> None:
    message = Error("internal", "x" * 10**6).message
    assert len(message) == LIMITS.error_message
    assert message.endswith("x…")


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
    assert errors.classify("", [word], None) == code
    assert errors.classify("", [word.upper()], 200) == code
    assert errors.classify("", [word.lower()], 400) == code


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_a_status_decides_where_no_word_does(status: int | None, code: Code) -> None:
    assert errors.classify("", [], status) == code
    assert errors.classify("", ["some_new_word"], status) == code


@pytest.mark.parametrize(("code", "message"), MESSAGES)
def test_a_message_decides_where_only_a_generic_word_stands_beside_it(code: Code, message: str) -> None:
    assert errors.classify(message, [], 400) == code
    assert errors.classify(message, ["invalid_request_error"], 400) == code
    assert errors.classify(message.upper(), ["api_error"], 500) == code


def test_a_specific_word_outranks_the_message_and_the_status() -> None:
    assert errors.classify("prompt is too long", ["rate_limit_exceeded"], 400) == "rate_limited"
    assert errors.classify("", ["overloaded_error"], 404) == "overloaded"


def test_the_first_specific_word_counts() -> None:
    assert errors.classify("", ["invalid_request_error", "model_not_found", "overloaded_error"], 400) == "not_found"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "unauthorized"), (403, "forbidden"), (404, "not_found"), (413, "invalid_request"), (429, "rate_limited")],
)
def test_a_status_that_says_more_outranks_a_generic_word(status: int, code: Code) -> None:
    assert errors.classify("", ["invalid_request_error"], status) == code


def test_a_generic_word_counts_where_there_is_no_status() -> None:
    assert errors.classify("", ["invalid_request_error"], None) == "invalid_request"


def test_what_only_sounds_like_a_full_context_is_not_one() -> None:
    """`string_above_max_length` and `invalid 'user'` speak of other limits."""
    assert errors.classify("Invalid 'user': too many tokens", [], 400) == "invalid_request"
    assert errors.classify("string_above_max_length: too many tokens", [], 400) == "invalid_request"


def test_too_large_is_a_full_context_only_where_tokens_are_spoken_of() -> None:
    assert errors.classify("Request exceeds the maximum size of 32 MB", [], 413) == "invalid_request"
    assert errors.classify("Request has too many input tokens", [], 413) == "context_length_exceeded"


@pytest.mark.parametrize("said", ["Overloaded", "no capacity left", "the model is loading"])
def test_unavailable_is_overloaded_where_it_speaks_of_load(said: str) -> None:
    assert errors.classify(said, [], 503) == "overloaded"
    assert errors.classify("bye", [], 503) == "provider_unavailable"


def test_a_prompt_that_a_policy_refuses_is_filtered_not_invalid() -> None:
    """OpenAI says `invalid_prompt` for both."""
    flagged = "Invalid prompt: your prompt was flagged as potentially violating our usage policy."
    assert errors.classify(flagged, ["invalid_prompt"], 400) == "content_filtered"
    assert errors.classify("Invalid prompt: empty.", ["invalid_prompt"], 400) == "invalid_request"


def test_a_country_is_refused_not_unsupported() -> None:
    assert errors.classify("", ["unsupported_country_region_territory"], 403) == "forbidden"


@pytest.mark.timeout(10)
def test_a_long_hostile_message_is_looked_at_only_so_far() -> None:
    assert errors.classify("current length is " * 10**6, [], None) == "internal"


# ---- the error of an upstream ----------------------------------------------------------------------------------------


def told(
    message: str = "", *words: str, status: int | None = None, wait: int | None = None, header: int | None = None
) -> Error:
    said = UpstreamFailure(message, words, status, wait)
    return from_upstream(said, phase="first_event", provider="acme", retry_after_ms=header)


def test_an_upstreams_error_keeps_its_words() -> None:
    error = told("Slow down", "rate_limit_exceeded", "requests", status=429)
    assert type(error) is RateLimited
    assert (error.message, error.reason, error.phase, error.provider) == (
        "Slow down",
        "rate_limit_exceeded",
        "first_event",
        "acme",
    )


def test_a_silent_upstream_is_named() -> None:
    assert told(status=500).message == "acme failed without saying why"


@pytest.mark.parametrize("word", ["Some Text", "x", "UPPER", "a" * 65, "9lives", "key\n", "ärger"])
def test_a_reason_is_an_identifier_or_nothing(word: str) -> None:
    assert told("m", word, status=500).reason is None
    assert told("m", word, "stable_word", status=500).reason == "stable_word"


@pytest.mark.parametrize(
    "word", ["insufficient_quota", "contract_spend_limit_reached", "enforced_spend_limit_reached", "INSUFFICIENT_QUOTA"]
)
def test_a_spent_quota_is_a_rate_limit_that_waiting_does_not_mend(word: str) -> None:
    error = told("You exceeded your current quota", word, status=429, header=1000)
    assert (error.code, error.temporary, error.retry_after_ms) == ("rate_limited", False, None)


def test_exhausted_resources_are_temporary() -> None:
    assert told("", "RESOURCE_EXHAUSTED", status=429).temporary


def test_a_wait_is_told_only_where_waiting_helps() -> None:
    """OpenAI's rate limit headers stand on every answer, also on a 400."""
    assert told("no such field", status=400, header=1000).retry_after_ms is None
    assert told("busy", status=503, header=1000).retry_after_ms == 1000


def test_a_header_outranks_the_body() -> None:
    assert told("busy", status=429, wait=5000, header=7000).retry_after_ms == 7000
    assert told("busy", status=429, wait=5000).retry_after_ms == 5000


@pytest.mark.parametrize("status", [400, 405, 406, 409, 411, 413, 414, 415, 417, 422, 426, 431, 505])
def test_an_invalid_request_keeps_its_status_for_the_sdk_to_choose_its_class_by(status: int) -> None:
    assert told("wrong", "invalid_request_error", status=status).status == status


def test_every_other_code_has_its_own_status() -> None:
    assert told("wrong", "invalid_request_error", status=418).status == 400
    assert told("no", "unsupported_parameter", status=422).status == 400
    assert told("busy", status=529).status == 503


# ---- what a client of the server sees --------------------------------------------------------------------------------

SECRET = "sk-live-1234 of org_9"


def refused(status: int, message: str, *words: str) -> Error:
    return errors.for_client(told(message, *words, status=status), "main")


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
    error = told(message, status=403)
    assert errors.for_client(error, "main") is error


@pytest.mark.parametrize("code", sorted(CLASSES.keys() - {"unauthorized", "forbidden"}))
def test_all_other_errors_pass_as_they_are(code: Code) -> None:
    error = Error(code, f"billing of {SECRET}", phase="mid_stream")
    assert errors.for_client(error, "main") is error


@given(st.sampled_from(["unauthorized", "forbidden"]), st.text(min_size=8), st.sampled_from([None, 401, 402, 403]))
def test_what_is_translated_says_nothing_of_what_the_upstream_said(
    code: Code, message: str, status: int | None
) -> None:
    error = Error(code, f"<<{message}>>", reason="said_so", status=status, details={"message": message})
    seen = errors.for_client(error, "main")
    if seen is not error:
        assert "<<" not in seen.message
        assert seen.details is None
        assert seen.reason in ("upstream_credentials", "upstream_billing")


# ---- how long to wait ------------------------------------------------------------------------------------------------


def wait(message: str = "", now_ms: int | None = NOW_MS, body: int | None = None, **headers: str) -> int | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return errors.retry_after_ms(named, message, now_ms, body)


def test_the_order_is_milliseconds_seconds_body_message_reset() -> None:
    sources: list[tuple[str, object, int]] = [
        ("retry_after_ms", "1500", 1500),
        ("retry_after", "2", 2000),
        ("body", 3000, 3000),
        ("message", "Please try again in 4s.", 4000),
        ("x_ratelimit_reset_requests", "5s", 5000),
    ]
    for first, (_, _, expected) in enumerate(sources):
        assert wait(**{name: value for name, value, _ in sources[first:]}) == expected  # type: ignore[arg-type]  # as named
    assert wait() is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7000), ("0.25", 250), ("0", 0), ("121", 120_000), ("1000000000", 120_000), ("999999999999999", 120_000)],
)
def test_seconds_may_be_a_fraction_and_are_clamped(value: str, expected: int) -> None:
    assert wait(retry_after=value) == expected


@pytest.mark.parametrize(
    "garbage", ["", "-1", "+1", "1e9", "nan", "inf", "0x10", "1_0", " 7", "7 s", "soon", "٧", "1.", ".5", "9" * 400]
)
def test_garbage_is_ignored_and_the_next_source_is_asked(garbage: str) -> None:
    assert wait(retry_after_ms=garbage, retry_after=garbage) is None
    assert wait(retry_after_ms=garbage, retry_after="7") == 7000
    assert wait(retry_after=garbage, message="try again in 3s") == 3000


def http_date(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW_MS / 1000 + seconds, UTC)


def test_an_http_date_counts_from_now() -> None:
    assert wait(retry_after=format_datetime(http_date(7), usegmt=True)) == 7000
    assert wait(retry_after=format_datetime(http_date(-7), usegmt=True)) == 0
    assert wait(retry_after=format_datetime(http_date(10**6), usegmt=True)) == 120_000


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_date_without_a_zone_is_in_utc_wherever_we_are() -> None:
    """RFC 9110 §5.6.7: the obsolete asctime form."""
    assert wait(retry_after=http_date(7).strftime("%a %b %e %H:%M:%S %Y")) == 7000


def test_without_a_clock_a_date_says_nothing() -> None:
    assert wait(now_ms=None, retry_after=format_datetime(http_date(7), usegmt=True)) is None
    assert wait(now_ms=None, x_ratelimit_reset="2027-01-15T08:00:07Z") is None
    assert wait(now_ms=None, retry_after="7") == 7000


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Rate limit reached. Please try again in 5.289s. Visit https://…", 5289),
        ("Please try again in 6m0s.", 120_000),
        ("try again in 20ms", 20),
        ("TRY AGAIN IN 1m2.5s", 62_500),
        ("Please retry after 7 seconds. Please go here to increase it.", 7000),
        ("Try again in 1 minute 2.5 seconds", 62_500),
        ("Please retry in 34.5s.", 34_500),
        ("retry after 250 milliseconds", 250),
        ("retry after 1 hour", 120_000),
        ("try again in 5 months", None),
        ("try again in 5 apples", None),
        ("try again in 1.2.3s", None),
        ("try again in a while", None),
        ("try again in -5s", None),
        ("x" * 10**6 + "try again in 5s", None),
    ],
)
def test_a_message_may_say_when_to_try_again(message: str, expected: int | None) -> None:
    assert wait(message) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12ms", 12),
        ("1s", 1000),
        ("1m30s", 90_000),
        ("59.56s", 59_560),
        ("6m0s", 120_000),
        ("500µs", 0),
        ("2027-01-15T08:00:07Z", 7000),
        ("2027-01-15T09:00:07.250+01:00", 7250),
        ("2027-01-15T08:00:07", 7000),
        ("2001-01-01T00:00:00Z", 0),
        ("1800000007", 7000),
        ("1800000007250", 7250),
        ("7", 7000),
        ("-7", None),
        ("7 apples", None),
        ("s7", None),
        ("", None),
    ],
)
def test_a_reset_is_a_go_duration_a_time_or_a_number(value: str, expected: int | None) -> None:
    assert wait(x_ratelimit_reset_requests=value) == expected
    assert wait(anthropic_ratelimit_tokens_reset=value) == expected


@pytest.mark.timeout(20)
def test_a_name_of_a_header_is_looked_through_in_linear_time() -> None:
    """Each `ratelimit` in a name was followed by a search of its whole rest: 64 KiB of them took seconds."""
    assert errors.retry_after_ms({"ratelimit" * 100_000: "7"}, "", NOW_MS) is None
    assert errors.retry_after_ms({"reset-x-ratelimit": "7"}, "", NOW_MS) is None


def test_of_several_resets_the_longest_counts() -> None:
    """Nothing says which of them was used up; the shorter may not be."""
    assert wait(x_ratelimit_reset_requests="1s", x_ratelimit_reset_tokens="9s", x_ratelimit_reset_x="soon") == 9000


@given(st.text(), st.text(), st.text())
def test_nothing_that_an_upstream_sends_breaks_the_reading(after: str, reset: str, message: str) -> None:
    found = wait(message, retry_after=after, x_ratelimit_reset=reset)
    assert found is None or 0 <= found <= LIMITS.retry_after_ms


DATE_WORDS = "Mon Sun, 32 6 Nov Jan 0001 9999 99 08:49:37 25:61:61 GMT -0000 +9999999 99999999999 , : T Z".split()


@given(st.lists(st.sampled_from(DATE_WORDS), min_size=1, max_size=7), st.sampled_from([" ", ", ", "-", ""]))
def test_no_date_breaks_the_reading(words: list[str], separator: str) -> None:
    date = separator.join(words)
    found = wait(retry_after=date, x_ratelimit_reset=date)
    assert found is None or 0 <= found <= LIMITS.retry_after_ms


def test_a_malformed_chunk_is_a_value_error_of_ours() -> None:
    assert issubclass(Malformed, (errors.GaiFastError, ValueError))
