"""AWS's chain by botocore itself: the environment, IMDSv2, web identity by STS, a container; and what is not there."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gai_fast.model.settings import IdentitySettings
from gai_fast.net.identity.aws import bearer_token, fetch
from gai_fast.net.identity.grant import Grant, IdentityError, MadeBearer, Signed
from gai_fast.net.identity.sigv4 import AWSKeys
from tests.unit.net.identity.servers import HTML, Server
from tests.waiting import SECONDS

IDENTITY = IdentitySettings("aws", region="us-west-2", service="bedrock-mantle")
NOW = "20261125T213842Z"
HOURS_LEFT = 2


def end() -> str:
    """Returns the end of keys that are given now."""
    return (datetime.now(UTC) + timedelta(hours=HOURS_LEFT)).strftime("%Y-%m-%dT%H:%M:%SZ")


END = end()
KEYS = {"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "hidden-secret", "Token": "hidden-token", "Expiration": END}
STS = f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId>
<SecretAccessKey>hidden-secret</SecretAccessKey><SessionToken>hidden-token</SessionToken>
<Expiration>{END}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def signed_query(grant: Grant) -> dict[str, str]:
    """Returns the query of the URL that a bearer token is."""
    prefix, _, encoded = grant.secret.reveal().rpartition("-")
    assert prefix == "bedrock-api-key"
    url = b64decode(encoded, validate=True).decode()
    assert url.startswith("bedrock.amazonaws.com/?Action=CallWithBearerToken&")
    assert url.endswith("&Version=1")
    return {name: value[0] for name, value in parse_qs(urlsplit(f"https://{url}").query).items()}


def of_imds(server: Server, keys: Any = KEYS) -> None:
    server.answers = {
        "PUT /latest/api/token": ("imds-token", {"x-aws-ec2-metadata-token-ttl-seconds": "21600"}),
        "GET /latest/meta-data/iam/security-credentials/": "role",
        "GET /latest/meta-data/iam/security-credentials/role": {"Code": "Success", **keys, "Expiration": end()},
    }


def test_keys_of_the_environment_become_a_bearer_token_of_twelve_hours(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    grant = fetch(IDENTITY)
    assert isinstance(grant, MadeBearer)
    query = signed_query(grant)
    assert (query["X-Amz-Expires"], grant.seconds) == ("43200", 43200)
    assert query["X-Amz-Credential"].startswith("AKIDEXAMPLE/")
    assert query["X-Amz-Credential"].endswith("/us-west-2/bedrock/aws4_request")
    assert "X-Amz-Security-Token" not in query
    assert server.asked == [], "nothing is asked for a token"


def test_a_bearer_token_ends_with_its_keys() -> None:
    keys = AWSKeys("ASIA", "secret", "session")
    assert [bearer_token(keys, "r", NOW, left)[1] for left in (None, 60.0, 1e6)] == [43200, 60, 43200]


def test_the_role_of_an_instance_is_asked_for_by_imds_v2(server: Server) -> None:
    of_imds(server)
    grant = fetch(IDENTITY)
    assert grant.seconds is not None
    assert HOURS_LEFT * 3600 - SECONDS < grant.seconds < HOURS_LEFT * 3600 + SECONDS
    assert signed_query(grant)["X-Amz-Security-Token"] == "hidden-token"
    paths = [path for path, _, _ in server.asked]
    assert paths[0] == "PUT /latest/api/token"
    assert all(headers["x-aws-ec2-metadata-token"] == "imds-token" for _, headers, _ in server.asked[1:])


def test_a_web_identity_is_exchanged_at_sts(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("hidden-jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway")
    server.answers = {"POST /": (STS, {"content-type": "text/xml"})}
    grant = fetch(IDENTITY)
    assert signed_query(grant)["X-Amz-Security-Token"] == "hidden-token"
    ((_, _, body),) = server.asked
    assert "Action=AssumeRoleWithWebIdentity" in body


def test_a_container_asks_its_own_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/creds")
    server.answers = {"GET /creds": KEYS}
    assert signed_query(fetch(IDENTITY))["X-Amz-Credential"].startswith("ASIAEXAMPLE/")


def test_with_a_service_each_request_is_signed(server: Server) -> None:
    of_imds(server)
    grant = fetch(IdentitySettings("aws", region="us-west-2", service="execute-api", bearer=False))
    assert isinstance(grant, Signed)
    headers = dict(grant.headers("POST", "https://x/stage", "/v1", b"{}"))
    assert "/us-west-2/execute-api/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "hidden-token"


def test_the_region_is_that_of_awss_own_configuration_where_none_is_given(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_imds(server)
    with pytest.raises(IdentityError, match="no region is known"):
        fetch(IdentitySettings("aws"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert "/eu-north-1/" in signed_query(fetch(IdentitySettings("aws")))["X-Amz-Credential"]


@pytest.mark.parametrize("answer", [404, HTML, 500], ids=["nothing", "html", "500"])
def test_a_metadata_server_that_is_none_leaves_no_credentials(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    of_imds(server)
    server.answers = dict.fromkeys(server.answers, answer)
    with pytest.raises(IdentityError) as refused:
        fetch(IDENTITY)
    assert "credentials" in str(refused.value)
    assert "hidden" not in f"{refused.value} {refused.value.fix}"


@pytest.mark.parametrize(
    "answer",
    [
        HTML,
        403,
        ("<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>no</Message></Error></ErrorResponse>", {}),
    ],
    ids=["html", "403", "refused"],
)
def test_an_sts_that_gives_none_is_an_error_without_secrets(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Any
) -> None:
    (tmp_path / "jwt").write_text("hidden-jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server.answers = {"POST /": answer}
    with pytest.raises(IdentityError, match="AWS gives no credentials") as refused:
        fetch(IDENTITY)
    assert "hidden" not in str(refused.value)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a library logs, which the gateway's log shows from warnings on, has no secret either."""
    yield
    assert "hidden" not in "".join(record.getMessage() for record in caplog.get_records("call"))
