// Lets the official clients read a run of a model, and offers each of them tools of all the names that the run calls.
//
// stdin: {"packages": folder, "jobs": [{"client", "bodies" | "url", "ours"}]}: the bodies of the responses, in order, or
// the address of a gateway; and the path of gai-fast.js. stdout: for each job {"text", "made", "found", "error"}: the calls that the client's side has made, and
// what the client says of the others.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const imported = (path) => import(pathToFileURL(join(packages, path)));
const { default: OpenAI } = await imported("openai/index.mjs");
const { default: Anthropic } = await imported("@anthropic-ai/sdk/index.mjs");
const { createOpenAI } = await imported("@ai-sdk/openai/dist/index.mjs");
const { z } = await imported("zod/index.js");
const ALL = ["show", "docs__search", "search", "weather", "docs__write", "write"];
const NAMES = jobs.some(({ url }) => url) ? ["show", "search"] : ALL; // a gateway refuses the names of its own tools
const TOOL = { name: "show", parameters: { type: "object" } };
const SCHEMA = { type: "object", properties: { page: { type: "string" } } };

/** A `fetch` that answers with one body after the other, if there is no gateway. */
function answering({ bodies, url }) {
  if (url !== undefined) return fetched;
  const left = [...bodies];
  const headers = { "content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1" };
  return async () => new Response(left.shift(), { headers });
}

const fetched = globalThis.fetch;
const placeOf = ({ url }) => url ?? "http://unused";
const optionsOf = (job) => ({ baseURL: `${placeOf(job)}/v1`, apiKey: "none", maxRetries: 0, fetch: answering(job) });

async function chat(job, found) {
  const parameters = { ...SCHEMA };
  const tools = NAMES.map((name) => {
    const call = ({ page }) => (found.made.push(`${name}(${page ?? ""})`), "done");
    return { type: "function", function: { name, parameters, parse: JSON.parse, function: call } };
  });
  const ask = { model: "m", messages: [{ role: "user", content: "Hi" }], stream: true, tools };
  const runner = new OpenAI(optionsOf(job)).chat.completions.runTools(ask);
  runner.on("content", (delta) => (found.text += delta));
  await runner.done();
}

async function responses(job, found) {
  const { responses } = new OpenAI(optionsOf(job));
  const tools = [{ type: "mcp", server_label: "gateway" }, { type: "function", name: "show", parameters: SCHEMA }];
  const stream = responses.stream({ model: "m", input: "Hi", tools });
  for await (const event of stream) found.found.push(event.type);
  const { output, output_text } = await stream.finalResponse();
  found.text = output_text;
  found.made = output.filter(({ type }) => type === "function_call").map((call) => `${call.name}(${JSON.parse(call.arguments).page})`);
}

async function messages(job, found) {
  const tools = NAMES.map((name) => ({
    name,
    input_schema: SCHEMA,
    parse: (given) => given,
    run: ({ page }) => (found.made.push(`${name}(${page ?? ""})`), "done"),
  }));
  const ask = { model: "m", max_tokens: 9, messages: [{ role: "user", content: "Hi" }], stream: true, tools };
  const client = new Anthropic({ ...optionsOf(job), baseURL: placeOf(job) });
  for await (const stream of client.beta.messages.toolRunner(ask)) {
    stream.on("text", (delta) => (found.text += delta));
    await stream.finalMessage();
  }
}

async function texts(job, found, api) {
  const { streamText, stepCountIs, tool } = await imported("ai-6/dist/index.mjs");
  const made = (name) => async ({ page }) => (found.made.push(`${name}(${page ?? ""})`), "done");
  const own = (name) => tool({ inputSchema: z.object({ page: z.string().optional() }), execute: made(name) });
  const tools = Object.fromEntries(NAMES.map((name) => [name, own(name)]));
  const onError = ({ error }) => void (found.error = String(error));
  const model = createOpenAI(optionsOf(job))[api]("m");
  const answer = streamText({ model, prompt: "Hi", tools, stopWhen: stepCountIs(2), maxRetries: 0, onError });
  for await (const part of answer.fullStream) {
    if (part.type === "text-delta") found.text += part.text ?? part.delta;
    if (part.type === "tool-result") found.found.push([part.toolName, part.providerExecuted ?? false]);
  }
}

async function useChat(job, found, version, module) {
  const { Chat } = await imported(`@ai-sdk/react-${version}/dist/${module}`);
  await talking(job, found, version, Chat);
}

/** A chat, as `useChat` has it, whose page makes each call that it is asked for. */
async function talking(job, found, version, Chat) {
  const sdk = await imported(`ai-${version}/dist/${version === "7" ? "index.js" : "index.mjs"}`);
  const transport = new sdk.DefaultChatTransport({ api: `${placeOf(job)}/api/v1/chat?ui=${version}`, body: { model: "m", tools: [TOOL] }, fetch: answering(job) });
  const more = {
    transport,
    onToolCall: ({ toolCall }) => void found.made.push(`${toolCall.toolName}(${toolCall.input.page ?? ""})`),
    onData: ({ type, data }) => void (type === "data-approval" && found.found.push(data.id)),
    sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithToolCalls,
  };
  const talk = new Chat({ id: "chat", ...more });
  await talk.sendMessage({ text: "Hi" });
  if (talk.error !== undefined) throw talk.error;
  const { parts } = talk.messages.at(-1);
  found.text = parts.filter(({ type }) => type === "text").map(({ text }) => text).join("");
  found.message = JSON.parse(JSON.stringify(talk.messages.at(-1)));
}

/** Version 6 has no package of React's here: its chat, with a state of plain values. */
async function chat6(job, found) {
  const { AbstractChat } = await imported("ai-6/dist/index.mjs");
  const state = {
    messages: [],
    status: "ready",
    error: undefined,
    pushMessage(message) {
      this.messages = [...this.messages, message];
    },
    popMessage() {
      this.messages = this.messages.slice(0, -1);
    },
    replaceMessage(at, message) {
      this.messages = this.messages.with(at, structuredClone(message));
    },
    snapshot: (value) => structuredClone(value),
  };
  class Chat extends AbstractChat {
    constructor(options) {
      super({ ...options, state });
    }
  }
  await talking(job, found, "6", Chat);
}

async function agui(job, found) {
  const { HttpAgent } = await imported("@ag-ui/client/dist/index.mjs");
  const agent = new HttpAgent({ url: `${placeOf(job)}/api/v1/stream?format=agui`, threadId: "thread-1", initialMessages: [{ id: "1", role: "user", content: "Hi" }], fetch: answering(job) });
  const results = new Set();
  const calls = {};
  await agent.runAgent({ runId: "run-1", forwardedProps: { model: "m" }, tools: NAMES.map((name) => ({ name, description: "", parameters: SCHEMA })) }, {
    onToolCallEndEvent: ({ event, toolCallName, toolCallArgs }) => void (calls[event.toolCallId] = `${toolCallName}(${toolCallArgs.page ?? ""})`),
    onToolCallResultEvent: ({ event }) => void results.add(event.toolCallId),
    onStepStartedEvent: ({ event }) => void found.found.push(event.stepName),
  });
  // A page makes the calls that have no result at the end of the run, as CopilotKit does.
  found.made = Object.entries(calls).filter(([id]) => !results.has(id)).map(([, call]) => call);
  found.text = agent.messages.filter(({ role, content }) => role === "assistant" && content).map(({ content }) => content).join("");
  found.message = agent.messages;
}

async function ours(job, found) {
  globalThis.fetch = answering(job);
  const { stream } = await import(pathToFileURL(job.ours));
  for await (const event of stream(placeOf(job), { query: "Hi", tools: [TOOL] })) {
    found.found.push(event.type);
    if (event.type === "text.delta") found.text += event.text;
    if (event.type === "tool.call" && event.executed_by === undefined) found.made.push(`${event.tool_call.name}(${event.tool_call.input.page})`);
  }
}

const clients = {
  "openai chat": chat,
  "openai responses": responses,
  anthropic: messages,
  "streamText chat": (job, found) => texts(job, found, "chat"),
  "streamText responses": (job, found) => texts(job, found, "responses"),
  "useChat 5": (job, found) => useChat(job, found, "5", "index.mjs"),
  "useChat 6": chat6,
  "useChat 7": (job, found) => useChat(job, found, "7", "index.js"),
  agui,
  "gai-fast.js": ours,
};

const results = [];
for (const job of jobs) {
  const found = { text: "", made: [], found: [], message: null, error: null };
  try {
    await clients[job.client](job, found);
  } catch (problem) {
    found.error = `${problem?.constructor?.name}: ${problem?.message}`;
  }
  results.push(found);
}
process.stdout.write(JSON.stringify(results));
