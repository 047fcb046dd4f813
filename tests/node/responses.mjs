// Reads a Responses stream with OpenAI's own client and with the AI SDK.
//
// stdin: {"packages": folder, "jobs": [{"body"}]}. stdout: for each job {"openai": {"text", "types"}, "ai": {"text",
// "finish", "errors"}}.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const imported = (path) => import(pathToFileURL(join(packages, path)));
const { default: OpenAI } = await imported("openai/index.mjs");
const { createOpenAI } = await imported("@ai-sdk/openai/dist/index.mjs");
const { streamText } = await imported("ai-6/dist/index.mjs");

async function run({ body }) {
  const options = {
    baseURL: "http://unused/v1",
    apiKey: "none",
    fetch: async () => new Response(body, { headers: { "content-type": "text/event-stream" } }),
  };
  const openai = { text: "", types: [] };
  for await (const event of await new OpenAI(options).responses.create({ model: "m", input: "Hi", stream: true })) {
    openai.types.push(event.type);
    if (event.type === "response.output_text.delta") openai.text += event.delta;
  }
  const errors = [];
  const onError = ({ error }) => void errors.push(String(error));
  const answer = streamText({ model: createOpenAI(options).responses("m"), prompt: "Hi", onError });
  return { openai, ai: { text: await answer.text, finish: await answer.finishReason, errors } };
}

const results = [];
for (const job of jobs) results.push(await run(job));
process.stdout.write(JSON.stringify(results));
