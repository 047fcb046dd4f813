// Asks a guarded gateway with OpenAI's and Anthropic's own clients, with `streamText` of the AI SDK over them, and with
// the chat that is behind its `useChat`.
//
// stdin: {"packages": folder, "jobs": [{"url", "client", "model", "text"}]}. stdout: for each job {"texts", "ends",
// "notes", "errors"}: the texts of the answers, streamed and whole, and how they ended; what they say of guards; what was
// thrown, as [class, status, message].
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const imported = (path) => import(pathToFileURL(join(packages, path)));
const { default: OpenAI } = await imported("openai/index.mjs");
const { default: Anthropic } = await imported("@anthropic-ai/sdk/index.mjs");
const { createOpenAI } = await imported("@ai-sdk/openai/dist/index.mjs");
const { streamText } = await imported("ai-6/dist/index.mjs");

const asked = (content) => [{ role: "user", content }];
const guardsOf = (note) => [note?.safety, ...(note?.events ?? []).map(({ safety }) => safety)].filter(Boolean);

const openai = ({ url }) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

async function* chat(job) {
  const { completions } = openai(job).chat;
  const ask = { model: job.model, messages: asked(job.text) };
  yield async (found) => {
    let text = "";
    for await (const piece of await completions.create({ ...ask, stream: true })) {
      text += piece.choices.map(({ delta }) => delta.content ?? "").join("");
      found.ends.push(...piece.choices.map((each) => each.finish_reason).filter(Boolean));
      found.notes.push(...guardsOf(piece.x_gai));
    }
    found.texts.push(text);
  };
  yield async (found) => {
    const whole = await completions.create(ask);
    found.texts.push(whole.choices[0].message.content);
    found.ends.push(whole.choices[0].finish_reason);
    found.notes.push(...guardsOf(whole.x_gai));
  };
}

async function* responses(job) {
  const ask = { model: job.model, input: job.text };
  const end = (found, { output_text, status, incomplete_details }) => {
    found.texts.push(output_text);
    found.ends.push(incomplete_details?.reason ?? status);
  };
  yield async (found) => {
    let text = "";
    for await (const event of await openai(job).responses.create({ ...ask, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      if (event.response?.status !== undefined && event.response.status !== "in_progress") {
        end(found, { ...event.response, output_text: text });
      }
    }
  };
  yield async (found) => end(found, await openai(job).responses.create(ask));
}

async function* messages(job) {
  const client = new Anthropic({ baseURL: job.url, apiKey: "none", maxRetries: 0 });
  const ask = { model: job.model, messages: asked(job.text), max_tokens: 99 };
  const end = (found, { content, stop_reason, x_gai }) => {
    found.texts.push(content.map(({ text }) => text ?? "").join(""));
    found.ends.push(stop_reason);
    found.notes.push(...guardsOf(x_gai));
  };
  yield async (found) => {
    end(found, await client.messages.stream(ask).finalMessage());
  };
  yield async (found) => end(found, await client.messages.create(ask));
}

async function* texts(job, name) {
  const provider = createOpenAI({ baseURL: `${job.url}/v1`, apiKey: "none" });
  yield async (found) => {
    const thrown = [];
    const onError = ({ error }) => void thrown.push(error);
    const answer = streamText({ model: provider[name](job.model), prompt: job.text, maxRetries: 0, onError });
    let text = "";
    for await (const piece of answer.textStream) text += piece;
    if (thrown.length > 0) throw thrown[0];
    found.texts.push(text);
    found.ends.push(await answer.finishReason);
  };
}

async function* useChat(job, version, module) {
  const { Chat } = await imported(`@ai-sdk/react-${version}/dist/${module}`);
  const { DefaultChatTransport } = await imported(`ai-${version}/dist/${version === "5" ? "index.mjs" : "index.js"}`);
  yield async (found) => {
    const api = `${job.url}/api/v1/chat?ui=${version}`;
    const onData = ({ type, data }) => type === "data-safety" && found.notes.push(data);
    const transport = new DefaultChatTransport({ api, body: { model: job.model } });
    const talk = new Chat({ id: `chat-${version}-${job.model}`, transport, onData, onError: () => {} });
    await talk.sendMessage({ text: job.text });
    if (talk.error !== undefined) throw talk.error;
    const { parts, metadata } = talk.messages.at(-1);
    found.texts.push(parts.filter(({ type }) => type === "text").map(({ text }) => text).join(""));
    found.ends.push(metadata.finish_reason, talk.status);
  };
}

const clients = {
  chat,
  responses,
  messages,
  "streamText chat": (job) => texts(job, "chat"),
  "streamText responses": (job) => texts(job, "responses"),
  "useChat 5": (job) => useChat(job, "5", "index.mjs"),
  "useChat 7": (job) => useChat(job, "7", "index.js"),
};

const results = [];
for (const job of jobs) {
  const found = { texts: [], ends: [], notes: [], errors: [] };
  for await (const ask of clients[job.client](job)) {
    try {
      await ask(found);
    } catch (problem) {
      found.errors.push([problem.constructor.name, problem.status ?? problem.statusCode ?? null, String(problem.message)]);
    }
  }
  results.push(found);
}
process.stdout.write(JSON.stringify(results));
