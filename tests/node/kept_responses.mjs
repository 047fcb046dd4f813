// Asks for a response with OpenAI's own client, finds it by its id, lists the items of its request, and deletes it.
//
// stdin: {"packages": folder, "jobs": [{"url", "model", "stream"}]}. stdout: for each job {"answer", "found", "items",
// "cancelled", "after"}.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const { default: OpenAI } = await import(pathToFileURL(join(packages, "openai/index.mjs")));

async function run({ url, model, stream }) {
  const { responses } = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  let answer;
  if (stream) {
    for await (const event of await responses.create({ model, input: "Hi", stream })) answer = event.response;
  } else answer = await responses.create({ model, input: "Hi" });
  const found = await responses.retrieve(answer.id);
  const items = [];
  for await (const item of responses.inputItems.list(answer.id, { limit: 1 })) items.push(item);
  const cancelled = await responses.cancel(answer.id);
  await responses.delete(answer.id);
  const after = await responses.retrieve(answer.id).catch((error) => error.status);
  return { answer, found, items, cancelled, after };
}

const results = [];
for (const job of jobs) results.push(await run(job));
process.stdout.write(JSON.stringify(results));
