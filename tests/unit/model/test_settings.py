"""`gai_fast/model/settings.py`: secrets stay secret, snapshots stay as they are, and how a model's name is resolved."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from gai_fast.model.errors import Error, NotFound
from gai_fast.model.settings import (
    KeySettings,
    LimitSettings,
    ModelSettings,
    Peer,
    Secret,
    ServerSettings,
    Settings,
    StreamSettings,
    TargetSettings,
    UpstreamSettings,
    key_digest,
)

OPENROUTER = UpstreamSettings(
    "openrouter", "openrouter", "https://openrouter.ai/api/v1", Secret("sk-secret"), {"x-key": "sk-header"}
)
DEMO = UpstreamSettings("demo", "demo", "")
FAST = ModelSettings("fast", OPENROUTER, "openai/gpt-5-mini")
BACKUP = ModelSettings("backup", OPENROUTER, "openai/gpt-5")


def configured(**changes: object) -> Settings:
    given: dict[str, object] = {
        "upstreams": {"openrouter": OPENROUTER, "demo": DEMO},
        "models": {"fast": FAST, "backup": BACKUP},
    }
    return Settings(**{**given, **changes})


def test_a_server_with_a_certificate_speaks_tls() -> None:
    assert ServerSettings().scheme == "http"
    assert ServerSettings(tls_cert="cert.pem", tls_key="key.pem").scheme == "https"


def test_a_secret_is_reported_only_by_reveal() -> None:
    secret = Secret("sk-secret")
    assert secret.reveal() == "sk-secret"
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret):  # noqa: UP031  # the old way must be as safe
        assert "sk-secret" not in shown


def test_no_representation_of_the_settings_shows_a_key_or_a_header() -> None:
    shown = repr(configured())
    assert "sk-secret" not in shown
    assert "sk-header" not in shown


@pytest.mark.parametrize("kind", [Settings, ServerSettings, StreamSettings, UpstreamSettings, ModelSettings])
def test_a_snapshot_cannot_be_changed(kind: type) -> None:
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("fast", FAST),
        ("backup", BACKUP),
        ("openrouter/openai/gpt-5", ModelSettings("openrouter/openai/gpt-5", OPENROUTER, "openai/gpt-5")),
        ("demo/x", ModelSettings("demo/x", DEMO, "x")),
        ("nosuch", None),
        ("nosuch/gpt-5", None),
        ("openrouter/" + "x" * 245, ModelSettings("openrouter/" + "x" * 245, OPENROUTER, "x" * 245)),
        ("openrouter/" + "x" * 246, None),
        ("openrouter", None),
        ("openrouter/", None),
        ("/gpt-5", None),
        ("", None),
        ("FAST", None),
        ("../fast", None),
    ],
)
def test_a_model_is_a_configured_name_or_an_upstream_and_an_id(asked: str, found: ModelSettings | None) -> None:
    assert configured().model(asked) == found


def test_a_configured_name_with_a_slash_comes_before_an_upstream() -> None:
    shadow = ModelSettings("openrouter/x", DEMO, "shadow")
    assert configured(models={"openrouter/x": shadow}).model("openrouter/x") is shadow


def test_no_model_means_the_default_then_the_first_then_none() -> None:
    assert configured(default_model="backup").model(None) is BACKUP
    assert configured().model(None) is FAST
    assert configured(models={}).model(None) is None


def test_a_default_may_name_an_upstream_and_an_id() -> None:
    assert configured(default_model="openrouter/x").model(None) == ModelSettings("openrouter/x", OPENROUTER, "x")


def test_a_model_without_an_entry_gets_the_stream_settings_of_all() -> None:
    quiet = StreamSettings(heartbeat=0)
    found = configured(stream=quiet).model("openrouter/x")
    assert found is not None
    assert found.stream is quiet


def test_a_model_that_is_not_there_is_refused_with_the_nearest_name_or_those_there_are() -> None:
    settings = configured()
    assert settings.chosen("fast") is settings.models["fast"]
    with pytest.raises(NotFound, match=r"Unknown model 'fsat'\. Did you mean 'fast'\? Available: .*fast") as caught:
        settings.chosen("fsat")
    assert caught.value.reason == "model"
    with pytest.raises(NotFound, match=r"Available: .*fast"):
        settings.chosen("x" * 100_000)
    with pytest.raises(
        NotFound, match=r"Unknown model 'openai/gpt-x'\. No upstream has the name before its `/` \(is its key set\?\)"
    ):
        settings.chosen("openai/gpt-x")
    with pytest.raises(NotFound, match="no model is configured"):
        Settings().chosen(None)
    with pytest.raises(NotFound, match="Available: none"):
        Settings().chosen("x")


def test_the_message_about_an_unknown_model_is_short_whatever_is_asked_and_configured() -> None:
    many = {f"model {number}": FAST for number in range(10_000)}
    with pytest.raises(NotFound) as refused:
        configured(models=many).chosen("x" * 100_000)
    assert len(refused.value.message) < 400
    assert refused.value.message.startswith("Unknown model 'xxx")
    assert refused.value.message.endswith("model 9, … (GET /v1/models and `gai-fast models` list all)")


def test_an_answer_may_come_from_a_models_targets_its_fallbacks_and_theirs_for_a_failure() -> None:
    spread = ModelSettings(
        "spread", OPENROUTER, "a", targets=(TargetSettings(OPENROUTER, "a"), TargetSettings(DEMO, "b"))
    )
    first = dataclasses.replace(FAST, fallback=("spread", "demo/x", "gone"), fallback_on={"internal": "backup"})
    backup = dataclasses.replace(BACKUP, fallback=("never",), fallback_on={"timeout": "last", "network": "fast"})
    last = ModelSettings("last", DEMO, "l", fallback_on={"timeout": "backup"})
    others = (backup, spread, last, ModelSettings("never", DEMO, "n"))
    settings = configured(models={each.name: each for each in (first, *others)})
    found = [(each.name, each.upstream.name, each.id) for each in settings.may_answer(first)]
    assert found[0] == ("fast", "openrouter", "openai/gpt-5-mini")
    assert sorted(found[1:]) == [
        ("backup", "openrouter", "openai/gpt-5"),
        ("demo/x", "demo", "x"),
        ("last", "demo", "l"),
        ("spread", "demo", "b"),
        ("spread", "openrouter", "a"),
    ]
    assert settings.may_answer(BACKUP) == [BACKUP]


def test_defaults_are_those_of_the_contract() -> None:
    """The keys of docs/configuration.md."""
    stream, upstream, server = StreamSettings(), UpstreamSettings("u", "p", "b"), ServerSettings()
    assert (stream.heartbeat, stream.commit_after, stream.flush_interval) == (15, 2, 0)
    assert (stream.timestamps, stream.on_malformed, stream.usage) == (False, "skip", "asked")
    assert (stream.write_timeout, stream.client_buffer) == (30, 262144)
    assert (upstream.connect_timeout, upstream.first_event_timeout, upstream.idle_timeout) == (5, 60, 60)
    assert (upstream.total_timeout, upstream.max_connections, upstream.pool_wait) == (600, None, 1)
    assert (server.host, server.port, server.workers, server.max_body) == ("127.0.0.1", 8080, 1, 10 * 2**20)
    assert (server.header_timeout, server.body_timeout) == (10, 30)
    assert (server.allow_get_start, server.access_log, server.insecure) == (False, False, False)
    limits = LimitSettings()
    assert (limits.streams, limits.streams_per_caller, limits.connections) == (20_000, 1000, 40_000)
    assert limits.memory_high_water is None
    assert server.log_level in ("debug", "info", "warning", "error")


def test_a_caller_is_known_by_the_digest_of_its_key_alone() -> None:
    key = KeySettings("alice", (key_digest("sk-alice"),))
    assert key.digests[0].hex() == "099295a3784e1bd368dc348843a7398c1931b6b8ec2504c73e91ed2040bdc46c"
    assert "digest" not in repr(key)


@pytest.mark.parametrize(
    ("models", "may", "may_not"),
    [
        (("*",), ["fast", "openai/gpt-5", "[a]?"], []),
        (("fast",), ["fast"], ["faster", "Fast", "main/fast", ""]),
        (("fast-*", "openai/*"), ["fast-", "fast-1", "openai/gpt-5"], ["fast", "openai", "other/openai/x"]),
        (("a?", "[ab]"), ["a?", "[ab]"], ["ab", "a", "b"]),
        ((), [], ["fast", "*"]),
    ],
)
def test_a_key_may_use_the_models_that_it_names(models: tuple[str, ...], may: list[str], may_not: list[str]) -> None:
    key = KeySettings("a", (), models)
    assert all(map(key.may_use, may))
    assert not any(map(key.may_use, may_not))


def test_a_model_that_the_key_may_not_use_is_forbidden_whether_or_not_it_is_there() -> None:
    settings, key = configured(), KeySettings("a", (), ("none", "openrouter/o*"))
    assert settings.chosen("openrouter/openai/gpt-5", key).id == "openai/gpt-5"
    texts = set()
    for name in ("fast", "nothing", "openrouter/x"):
        with pytest.raises(Error, match="may not use this model; it may use: none, openrouter/o") as caught:
            settings.chosen(name, key)
        assert (caught.value.code, caught.value.reason) == ("forbidden", "model")
        texts.add(caught.value.message)
    assert len(texts) == 1
    with pytest.raises(Error, match="may not use the default model: name one; it may use: none"):
        settings.chosen(None, KeySettings("a", (), ()))
    with pytest.raises(NotFound) as missing:
        settings.chosen("none", key)
    assert "fast" not in missing.value.message


def test_a_configuration_can_be_copied_and_pickled() -> None:
    settings = configured()
    for again in (copy.copy(settings), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert again.models["fast"].stream == settings.models["fast"].stream
        key = again.upstreams["openrouter"].api_key
        assert key is not None
        assert key.reveal() == "sk-secret"
        assert "sk-secret" not in repr(again)


def test_the_peer_of_an_upstream_says_how_it_is_reached_and_has_none_of_its_keys() -> None:
    fields: dict[str, Any] = {
        "connect_timeout": 1.0,
        "idle_timeout": 2.0,
        "total_timeout": 3.0,
        "proxy": Secret("http://user:pass@127.0.0.1:1"),
        "ca_file": "a",
        "client_cert": "b",
        "client_key": "c",
    }
    upstream = UpstreamSettings("up", "openai", "https://example.com/v1", Secret("sk-1"), **fields)
    assert upstream.peer == Peer("https://example.com/v1", **fields)
    assert {each.name for each in dataclasses.fields(Peer)} == {"url", *fields}
    assert dataclasses.replace(upstream, name="other", api_key=None, retries=0).peer == upstream.peer
    assert "pass" not in repr(upstream.peer)


@pytest.mark.parametrize(
    ("attribution", "base_url", "keeps"),
    [
        ("auto", "https://api.anthropic.com", True),
        ("auto", "https://evilanthropic.com", False),
        ("auto", "https://api.anthropic.com.example", False),
        ("auto", "http://127.0.0.1:9", False),
        ("keep", "http://127.0.0.1:9", True),
        ("cut", "https://api.anthropic.com", False),
    ],
)
def test_anthropic_alone_reads_the_attribution_block(attribution: Any, base_url: str, keeps: bool) -> None:
    assert UpstreamSettings("up", "anthropic", base_url, attribution=attribution).keeps_attribution is keeps
