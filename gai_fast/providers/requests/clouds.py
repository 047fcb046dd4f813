"""How clouds offer the APIs of providers: where, and in which form.

The addresses are those of the official SDKs (openai 3.57, anthropic 2.13, google-genai 3.6). A token of the cloud takes
the place of the provider's key: `net/identity/`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_MULTI_REGIONS: Final = ("us", "eu")


class InCloud(NamedTuple):
    """An API in a cloud.

    Attributes:
        base_url: The `base_url`, with `{region}`, `{project}` and `{vertex}`, the host of Vertex AI.
        provider: The name of the provider's API in this cloud. Empty if it is the same API.
    """

    base_url: str
    provider: str = ""

    def address(self, region: str, project: str) -> str:
        """Returns the `base_url` for a region and a project."""
        return self.base_url.format(region=region, project=project, vertex=_vertex_host(region))


def _vertex_host(region: str) -> str:
    if region == "global":
        return "aiplatform.googleapis.com"
    if region in _MULTI_REGIONS:
        return f"aiplatform.{region}.rep.googleapis.com"
    return f"{region}-aiplatform.googleapis.com"


PROJECT: Final = "projects/{project}/locations/{region}"
OPENAI_IN_CLOUDS: Final = {
    "aws": InCloud("https://bedrock-mantle.{region}.api.aws/openai/v1"),
    "google": InCloud(f"https://{{vertex}}/v1/{PROJECT}/publishers/openai/v1"),
}
"""OpenAI's models, and open models that speak its dialects."""
