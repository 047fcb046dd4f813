// Asks for a response with OpenAI's own client, and answers its approval requests in the next one.
//
// stdin: {"packages": folder, "jobs": [{"url", "approve", "reason", "stream", "kept"}]}. stdout: for each job {"asked",
// "types", "text", "call", "again"}: the request, the types of both responses' items, the second text, its call, and the
// status of a second answer. With `stream` both are read by the helper that `finalResponse` has; without `kept` the
// conversation is sent as items.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const { default: OpenAI } = await import(pathToFileURL(join(packages, "openai/index.mjs")));
const tools = [{ type: "mcp", server_label: "gateway" }];

async function run({ url, approve, reason, stream, kept }) {
  const { responses } = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const ask = (given) => {
    const body = { model: "m", tools, store: kept, ...given };
    return stream ? responses.stream(body).finalResponse() : responses.create(body);
  };
  const question = { role: "user", content: "Pay" };
  const first = await ask({ input: [question] });
  const [asked] = first.output.filter((item) => item.type === "mcp_approval_request");
  const answer = { type: "mcp_approval_response", approval_request_id: asked.id, approve };
  if (reason) answer.reason = reason;
  const next = kept
    ? { input: [answer], previous_response_id: first.id }
    : { input: [question, ...first.output, answer] };
  const second = await ask(next);
  const [call] = second.output.filter((item) => item.type === "mcp_call");
  const again = await responses.create({ model: "m", tools, store: kept, ...next }).catch((error) => error.status);
  const types = [first, second].map((response) => response.output.map((item) => item.type));
  return { asked, types, text: second.output_text, call, again };
}

const results = [];
for (const job of jobs) results.push(await run(job));
process.stdout.write(JSON.stringify(results));
