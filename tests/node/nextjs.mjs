// Lets the AI SDK's client ask the route of examples/nextjs, as a page does, without a server of Next.js.
//
// stdin: {"packages": folder, "jobs": [{"route": its compiled file, "gateway": address, "key": a secret or null}]}.
// stdout: for each job {"text", "resumed", "idle", "refused"}: the text of an answer, the text that a second client of the
// same chat got while it ran, whether a chat without an answer has none to resume, the error with another key.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const { DefaultChatTransport } = await import(pathToFileURL(join(packages, "ai-7/dist/index.js")));

async function textOf(stream) {
  let text = "";
  for await (const part of stream) {
    text += part.type === "text-delta" ? part.delta : "";
  }
  return text;
}

async function load(job, key) {
  process.env.GATEWAY_URL = job.gateway;
  process.env.GATEWAY_KEY = key;
  const { GET, POST } = await import(`${pathToFileURL(job.route)}?key=${key}`);
  const fetch = (address, init) => {
    const request = new Request(new URL(address, "http://page.test"), init);
    const rest = new URL(request.url).pathname.split("/").slice(3);
    return request.method === "POST" ? POST(request) : GET(request, { params: Promise.resolve({ rest }) });
  };
  return new DefaultChatTransport({ api: "/api/chat", body: { model: "demo" }, fetch });
}

async function run(job) {
  const transport = await load(job, job.key);
  const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: "Tell me a story" }] }];
  const ask = (from) => from.sendMessages({ chatId: "chat-1", messages, trigger: "submit-message" });
  const answer = await ask(transport);
  const resumed = transport.reconnectToStream({ chatId: "chat-1" }).then(textOf);
  return {
    text: await textOf(answer),
    resumed: await resumed,
    idle: (await transport.reconnectToStream({ chatId: "chat-2" })) === null,
    refused: await ask(await load(job, "another-key-0000")).then(() => null, (error) => error.message),
  };
}

const results = [];
for (const job of jobs) {
  results.push(await run(job));
}
process.stdout.write(JSON.stringify(results));
