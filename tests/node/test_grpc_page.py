"""A Node client that is made from the gateway's /gai.proto: the JavaScript of docs/grpc.md, and a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

from tests.docs.pages import blocks, read
from tests.integration.gateway import Net
from tests.integration.rpc import serving_rpc
from tests.node.conftest import PACKAGES
from tests.node.test_clients_page import NODE, node

(BLOCK,) = (block for block in blocks(read("docs/grpc.md")) if block.language == "js")
REFUSED = """
const call = gateway.Generate({ json: Buffer.from('{"query": "Hi", "model": "nope"}') }, new grpc.Metadata());
call.on("data", () => {});
call.on("error", (problem) => {
  const [details] = problem.metadata.get("grpc-status-details-bin");
  console.log(JSON.stringify({ code: grpc.status[problem.code], details: details.toString("latin1") }));
  gateway.close();
});
"""


async def test_it_reads_an_answer_and_a_status(tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> None:
    if NODE is None or not PACKAGES.is_dir():
        unavailable("Node and the packages of tests/node (ci/system-deps.sh installs both)")
    proto = tmp_path / "gai.proto"
    async with AsyncExitStack() as stack:
        gateway = await Net(stack).gateway(None, demo=True)
        proto.write_bytes((await gateway.ask("GET", "/gai.proto")).body)
        rpc = await stack.enter_async_context(serving_rpc(gateway.url))
        text = BLOCK.text.replace('"gai.proto"', json.dumps(str(proto)))
        text = text.replace("127.0.0.1:50051", f"127.0.0.1:{rpc.server.port}")
        said = await node(tmp_path, f'{text}console.log("\\n--");{REFUSED}')
    story, _, result = said.rpartition("\n--\n")
    assert story.startswith("One stormy night")
    refusal = json.loads(result)
    assert refusal["code"] == "NOT_FOUND"
    assert "NOT_FOUND" in refusal["details"]
    assert "gai-fast" in refusal["details"]
