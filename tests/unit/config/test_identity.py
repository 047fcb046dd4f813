"""`auth` and `auth_command`: where the cloud is, which tokens an upstream gets, and the mistakes."""

from __future__ import annotations

import pytest

from gai_fast.config import identity as module
from gai_fast.model.settings import IdentitySettings, UpstreamSettings
from tests.unit.config.folders import Folder

MANTLE = "https://bedrock-mantle.us-east-1.api.aws"
LOCATION = "projects/p-1/locations"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Returns the clouds whose packages are there."""
    there = {"aws", "google", "entra"}
    monkeypatch.setattr(module, "is_installed", there.__contains__)
    return there


def table(text: str) -> str:
    return f'[[upstream]]\nname = "up"\n{text}\n'


def upstream(folder: Folder, text: str, environ: dict[str, str] | None = None) -> UpstreamSettings:
    return folder.read(table(text), environ).settings.upstreams["up"]


@pytest.mark.parametrize(
    ("provider", "keys", "found", "base_url"),
    [
        ("anthropic", 'auth = "aws"\nregion = "us-east-1"', "anthropic", f"{MANTLE}/anthropic"),
        ("openai-compatible", 'auth = "aws"\nregion = "us-east-1"', "openai-compatible", f"{MANTLE}/openai/v1"),
        (
            "openai-compatible:responses",
            'auth = "aws"\nregion = "us-east-1"',
            "openai-compatible:responses",
            f"{MANTLE}/openai/v1",
        ),
        (
            "anthropic",
            'auth = "google"\nregion = "europe-west1"\nproject = "p-1"',
            "anthropic:vertex",
            f"https://europe-west1-aiplatform.googleapis.com/v1/{LOCATION}/europe-west1",
        ),
        (
            "gemini",
            'auth = "google"\nregion = "global"\nproject = "p-1"',
            "gemini:vertex",
            f"https://aiplatform.googleapis.com/v1beta1/{LOCATION}/global",
        ),
        (
            "openai:responses",
            'auth = "google"\nregion = "eu"\nproject = "p-1"',
            "openai:responses",
            f"https://aiplatform.eu.rep.googleapis.com/v1/{LOCATION}/eu/publishers/openai/v1",
        ),
    ],
)
def test_a_cloud_has_the_address_that_the_official_sdk_has(
    folder: Folder, provider: str, keys: str, found: str, base_url: str
) -> None:
    read = upstream(folder, f'provider = "{provider}"\n{keys}')
    assert (read.provider, read.base_url) == (found, base_url)


@pytest.mark.parametrize(
    ("own", "base_url"),
    [
        ("http://127.0.0.1:1", f"http://127.0.0.1:1/v1/{LOCATION}/global"),
        ("http://127.0.0.1:1/v1/", f"http://127.0.0.1:1/v1/{LOCATION}/global"),
        ("http://127.0.0.1:1/v1/projects/x", "http://127.0.0.1:1/v1/projects/x"),
        ("http://127.0.0.1:1/proxy", "http://127.0.0.1:1/proxy"),
    ],
)
def test_a_base_url_without_its_project_is_completed(folder: Folder, own: str, base_url: str) -> None:
    keys = f'provider = "anthropic"\nauth = "google"\nregion = "global"\nproject = "p-1"\nbase_url = "{own}"'
    assert upstream(folder, keys).base_url == base_url


def test_a_base_url_of_ones_own_is_not_changed_by_the_environment(folder: Folder) -> None:
    keys = 'provider = "openai"\nauth = "google"\nbase_url = "http://127.0.0.1:1/v1"'
    environ = {"GOOGLE_CLOUD_PROJECT": "p-1", "GOOGLE_CLOUD_LOCATION": "global"}
    assert upstream(folder, keys, environ).base_url == "http://127.0.0.1:1/v1"


def test_region_and_project_come_from_the_variables_of_the_clouds_own_sdks(folder: Folder) -> None:
    environ = {"GOOGLE_CLOUD_PROJECT": "p-1", "GOOGLE_CLOUD_LOCATION": "us-east5", "AWS_REGION": "us-east-1"}
    read = upstream(folder, 'provider = "anthropic"\nauth = "google"', environ)
    assert read.base_url.endswith(f"/v1/{LOCATION}/us-east5")
    read = upstream(folder, 'provider = "anthropic"\nauth = "aws"', environ)
    assert read.base_url == f"{MANTLE}/anthropic"


@pytest.mark.parametrize(
    ("keys", "identity"),
    [
        ('auth = "aws"\nregion = "us-east-1"', IdentitySettings("aws", region="us-east-1", service="bedrock-mantle")),
        (
            'auth = "aws"\nbase_url = "https://bedrock-runtime.eu-west-3.amazonaws.com/openai/v1"',
            IdentitySettings("aws", region="eu-west-3"),
        ),
        (
            'auth = "aws"\nbase_url = "https://vpce-1.bedrock-runtime.eu-west-3.vpce.amazonaws.com/openai/v1"',
            IdentitySettings("aws", region="eu-west-3"),
        ),
        ('auth = "aws"\nbase_url = "http://127.0.0.1:1"', IdentitySettings("aws")),
        (
            'auth = "aws"\nbase_url = "http://127.0.0.1:1"\nregion = "r-1"\nservice = "execute-api"',
            IdentitySettings("aws", region="r-1", service="execute-api", bearer=False),
        ),
        ('auth = "google"\nbase_url = "http://127.0.0.1:1"', IdentitySettings("google")),
        (
            'auth = "entra"\nbase_url = "http://127.0.0.1:1"\nscope = "api://x/.default"',
            IdentitySettings("entra", scope="api://x/.default"),
        ),
        ('auth_command = ["tok", "--now"]', IdentitySettings(command=("tok", "--now"))),
    ],
)
def test_the_identity_is_what_the_keys_say(folder: Folder, keys: str, identity: IdentitySettings) -> None:
    read = upstream(folder, f'provider = "openai"\n{keys}', {"OPENAI_API_KEY": "sk-canary"})
    assert read.identity == identity
    assert read.api_key is None, "the usual key is not sent beside a token"


def test_a_bearer_token_of_the_environment_needs_no_package(folder: Folder, installed: set[str]) -> None:
    installed.clear()
    environ = {"AWS_BEARER_TOKEN_BEDROCK": "bedrock-api-key-canary"}
    read = upstream(folder, 'provider = "anthropic"\nauth = "aws"\nregion = "us-east-1"', environ)
    assert read.identity is not None
    assert read.identity.token is not None
    assert read.identity.token.reveal() == "bedrock-api-key-canary"
    assert "canary" not in repr(read)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            'provider = "anthropic"\nauth = "aws"',
            '`auth` in [[upstream]]: "aws" needs `region`, or a `base_url`',
        ),
        (
            'provider = "gemini"\nauth = "google"',
            '`auth` in [[upstream]]: "google" needs `region` and `project`, or a `base_url`',
        ),
        (
            'provider = "azure"\nauth = "entra"',
            "`base_url` is missing in [[upstream]]: azure has no usual address in entra",
        ),
        (
            'provider = "anthropic"\nauth = "entra"',
            "`base_url` is missing in [[upstream]]: anthropic has no usual address in entra",
        ),
        ('provider = "openai"\nauth = "azure"', "must be aws, google or entra, not 'azure'"),
        (
            'provider = "openai"\nauth = "entra"\nbase_url = "http://x"\nauth_command = ["a"]',
            "`auth_command` in [[upstream]] beside `auth`: one of them is used",
        ),
        (
            'provider = "openai"\nauth_command = ["a"]\napi_key = "env:KEY"',
            "`api_key` in [[upstream]] beside `auth_command`: one of them is sent",
        ),
        (
            'provider = "openai"\nauth_command = ["a"]\nheaders = {Authorization = "x"}',
            "`headers` in [[upstream]] has authorization beside `auth_command`, which writes it",
        ),
        ('provider = "openai"\nregion = "x"', '`region` in [[upstream]] needs auth = "aws" or auth = "google"'),
        (
            'provider = "openai"\nauth = "entra"\nbase_url = "http://x"\nproject = "x"',
            '`project` in [[upstream]] needs auth = "google"',
        ),
        ('provider = "openai"\nauth_command = "canary"', "must be a list of 1 to 64 strings"),
        ('provider = "openai"\nauth_command = []', "must be a list of 1 to 64 strings"),
        ('provider = "openai"\nauth_command = ["canary", 7]', "must be a list of 1 to 64 strings"),
        ('provider = "openai"\nauth = "aws"\nregion = "x/../y"', "must be a region's name"),
        ('provider = "openai"\nauth = "google"\nproject = "../x"', "must be a project's id"),
        ('provider = "openai"\nauth = "aws"\nservice = "x y"', "must be the service's name in signatures"),
        ('provider = "openai"\nauth = "entra"\nscope = "x y"', "must be one printable ASCII word"),
    ],
)
def test_mistakes_are_named_with_what_to_do(folder: Folder, keys: str, message: str) -> None:
    problems = folder.problems(table(keys), {"KEY": "sk-canary"})
    assert any(message in problem for problem in problems), problems
    assert "canary" not in str(problems)


@pytest.mark.parametrize("cloud", ["aws", "google", "entra"])
def test_packages_that_are_not_there_are_named_by_their_extra(folder: Folder, installed: set[str], cloud: str) -> None:
    installed.clear()
    keys = f'provider = "openai"\nauth = "{cloud}"\nbase_url = "http://x"'
    (problem,) = folder.problems(table(keys))
    assert f"pip install '.[{cloud}]'" in problem


def test_a_token_of_the_environment_that_is_none_is_not_repeated(folder: Folder) -> None:
    keys = 'provider = "openai"\nauth = "aws"\nregion = "us-east-1"'
    (problem,) = folder.problems(table(keys), {"AWS_BEARER_TOKEN_BEDROCK": "canary with blanks"})
    assert "AWS_BEARER_TOKEN_BEDROCK holds is no token" in problem
    assert "canary" not in problem
