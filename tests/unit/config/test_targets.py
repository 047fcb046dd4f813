"""The targets of a model, in both forms, and the mistakes."""

from __future__ import annotations

import pytest

from gai_fast.config import ConfigError
from gai_fast.model.settings import Secret, TargetSettings
from tests.unit.config.folders import Folder

UPSTREAMS = """
[[upstream]]
name = "a"
provider = "openai-compatible"
base_url = "http://127.0.0.1:1"

[[upstream]]
name = "b"
provider = "anthropic"
api_key = ["env:ONE", "env:TWO"]

"""
KEYS = {"ONE": "sk-1", "TWO": "sk-2"}


def test_a_model_has_targets_in_place_of_an_upstream(folder: Folder) -> None:
    text = """
[[model]]
name = "m"
targets = [{upstream = "a", id = "x", weight = 3}, {upstream = "b", streams = 5}]
balance = "fastest"
hedge_after = 2
heartbeat = 3.0
"""
    settings = folder.read(UPSTREAMS + text, KEYS).settings
    a, b = settings.upstreams["a"], settings.upstreams["b"]
    model = settings.models["m"]
    assert model.targets == (TargetSettings(a, "x", 3), TargetSettings(b, "m", 1, 5))
    assert (model.upstream, model.id, model.balance, model.hedge_after) == (a, "x", "fastest", 2.0)
    assert model.stream.heartbeat == 3.0


def test_an_upstream_has_several_keys(folder: Folder) -> None:
    upstream = folder.read(UPSTREAMS, KEYS).settings.upstreams["b"]
    assert upstream.api_key is not None
    assert [key.reveal() for key in (upstream.api_key, *upstream.more_api_keys)] == ["sk-1", "sk-2"]


@pytest.mark.parametrize("keys", ['["env:ONE"]', '["env:ONE", "env:ONE", "env:SAME"]'])
def test_a_key_that_is_named_twice_is_one_key(folder: Folder, keys: str) -> None:
    text = f'[[upstream]]\nname = "a"\nprovider = "openai"\napi_key = {keys}\n'
    upstream = folder.read(text, {**KEYS, "SAME": "sk-1"}).settings.upstreams["a"]
    assert upstream.api_key is not None
    assert (upstream.api_key.reveal(), upstream.more_api_keys) == ("sk-1", ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[]", "must be a list of 1 to 64 tables such as"),
        ('"a"', "must be a list of 1 to 64 tables such as"),
        ('["a"]', "must be a list of 1 to 64 tables such as"),
        ('[{id = "x"}]', "has a target without `upstream`"),
        ('[{upstream = "a", wieght = 1}]', "has an unknown key 'wieght' in a target; did you mean weight?"),
        ('[{upstream = "a", weight = -1}]', "has a target whose `weight` must be a whole number, 0 to 1000, not -1"),
        ('[{upstream = "a", weight = 0.5}]', "has a target whose `weight` must be a whole number, 0 to 1000, not 0.5"),
        ('[{upstream = "a", streams = 0}]', "has a target whose `streams` must be a whole number, at least 1, not 0"),
        ('[{upstream = "a", id = ""}]', "has a target whose `id` must be a string that is not empty"),
        ('[{upstream = "a", weight = 0}]', "`targets` in [[model]] has no weight above 0: nothing would be asked"),
        ('[{upstream = "a"}, {upstream = "a"}]', "`targets` in [[model]] has 'm' of 'a' twice: give it one weight"),
        ('[{upstream = "aa"}]', "no [[upstream]] is named 'aa'; did you mean a?"),
        ('[{upstream = "a"}]\nupstream = "a"', "`upstream` in [[model]] beside `targets`: name it in a target"),
        ('[{upstream = "a"}]\nid = "x"', "`id` in [[model]] beside `targets`: name it in a target"),
        ('[{upstream = "a"}]\nhedge_after = 1', "`hedge_after` in [[model]] needs two targets with a weight above 0"),
        (
            '[{upstream = "a"}]\nbalance = "random"',
            "`balance` in [[model]] must be auto, weighted, least_busy, ",
        ),
        ('[{upstream = "a"}]\nhedge_after = 0', "`hedge_after` in [[model]] must be seconds, more than 0"),
    ],
)
def test_mistakes_of_targets_are_reported(folder: Folder, given: str, message: str) -> None:
    problems = folder.problems(f'{UPSTREAMS}[[model]]\nname = "m"\ntargets = {given}\n', KEYS)
    assert any(message in problem for problem in problems), problems
    assert all("gai-fast.toml:" in problem for problem in problems)


@pytest.mark.parametrize("key", ['balance = "fastest"', "hedge_after = 1"])
def test_a_model_without_targets_has_nothing_to_choose_from(folder: Folder, key: str) -> None:
    [message] = folder.problems(f'{UPSTREAMS}[[model]]\nname = "m"\nupstream = "a"\n{key}\n', KEYS)
    assert "needs `targets`: there is nothing to choose from" in message


def test_a_model_needs_an_upstream_or_targets(folder: Folder) -> None:
    [message] = folder.problems(f'{UPSTREAMS}[[model]]\nname = "m"\n', KEYS)
    assert "`upstream` is missing in [[model]]" in message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("[]", "`api_key` in [[upstream]] as a list must have 1 to 64 entries"),
        ('["env:ONE", "env:NONE"]', "`api_key`: the environment variable NONE is not set"),
        ('["env:ONE", "sk-plain"]', "a key itself does not belong in the file"),
    ],
)
def test_mistakes_of_keys_are_reported_without_a_secret(folder: Folder, keys: str, message: str) -> None:
    text = f'[[upstream]]\nname = "a"\nprovider = "openai"\napi_key = {keys}\n'
    with pytest.raises(ConfigError) as raised:
        folder.read(text, KEYS)
    assert message in str(raised.value)
    assert "sk-" not in str(raised.value)


# ---- callers' own credentials ----------------------------------------------------------------------------------------

CALLERS = """
[[upstream]]
name = "a"
provider = "openai-compatible"
base_url = "https://one.example/v1"
api_key = "caller"

[[upstream]]
name = "b"
provider = "openai-compatible"
base_url = "https://two.example/v1"
api_key = "caller"

[[upstream]]
name = "c"
provider = "openai-compatible"
base_url = "https://one.example/v2"
api_key = "caller"

[[upstream]]
name = "own"
provider = "openai-compatible"
base_url = "https://two.example/v1"
api_key = "env:KEY_1"
"""


def test_an_upstream_takes_its_callers_credentials(folder: Folder) -> None:
    text = f'{CALLERS}[[model]]\nname = "m"\ntargets = [{{upstream = "a"}}, {{upstream = "c"}}, {{upstream = "own"}}]\n'
    settings = folder.read(text, {"KEY_1": "one"}).settings
    first, _, own = [target.upstream for target in settings.models["m"].targets]
    assert (first.takes_credentials, first.api_key, first.other_keys) == (True, None, 0)
    assert (own.takes_credentials, own.api_key) == (False, Secret("one"))
    assert settings.takes_credentials


def test_the_port_of_a_scheme_and_case_make_no_other_host(folder: Folder) -> None:
    same = CALLERS.replace("https://two.example/v1", "https://ONE.example:443/v2", 1)
    text = f'{same}[[model]]\nname = "m"\ntargets = [{{upstream = "a"}}, {{upstream = "b"}}]\n'
    assert folder.read(text, {"KEY_1": "one"}).settings.models["m"].targets
    other = same.replace(":443", ":8443")
    text = text.replace(same, other)
    assert any("'one.example' and 'one.example:8443'" in each for each in folder.problems(text, {"KEY_1": "one"}))


@pytest.mark.parametrize(
    "models",
    [
        '[[model]]\nname = "m"\ntargets = [{upstream = "a"}, {upstream = "b"}]\n',
        '[[model]]\nname = "m"\nupstream = "a"\nfallback = ["n"]\n[[model]]\nname = "n"\nupstream = "b"\n',
        '[[model]]\nname = "m"\nupstream = "a"\nfallback_on = {unauthorized = "n"}\n'
        '[[model]]\nname = "n"\nupstream = "b"\n',
    ],
)
def test_a_credential_is_of_one_host(folder: Folder, models: str) -> None:
    problems = folder.problems(CALLERS + models, {"KEY_1": "one"})
    assert len(problems) == 1
    assert "one.example" in problems[0]
    assert "two.example" in problems[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('api_key = ["caller"]', '"caller" cannot stand in a list: each caller sends one credential'),
        ('api_key = ["caller", "env:KEY_1"]', '"caller" cannot stand in a list: each caller sends one credential'),
        ('api_key = "caller"\nauth_command = ["true"]', "`api_key` in [[upstream]] beside `auth_command`"),
        ('api_key = "Caller"', 'must be "env:NAME" or "file:PATH"'),
    ],
)
def test_mistakes_of_callers_credentials_are_reported(folder: Folder, line: str, message: str) -> None:
    text = f'[[upstream]]\nname = "a"\nprovider = "openai"\n{line}\n[[model]]\nname = "m"\nupstream = "a"\n'
    problems = folder.problems(text, {"KEY_1": "one"})
    assert any(message in problem for problem in problems), problems
