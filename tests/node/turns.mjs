// Talks over /v1/responses with the AI SDK, by the defaults of its OpenAI provider, and over its socket with OpenAI's own
// client.
//
// stdin: {"packages": folder, "jobs": [{"url", "key", "model", "client": "ai" | "ai streamed" | "openai"}]}. stdout: for
// each job {"texts", "results", "problems", "references"}: the texts of the turns, the results of the tool, what went
// wrong, and how many items the requests named.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const imported = (path) => import(pathToFileURL(join(packages, path)));
const { default: OpenAI } = await imported("openai/index.mjs");
const { ResponsesWS } = await imported("openai/resources/responses/ws.mjs");
const { createOpenAI } = await imported("@ai-sdk/openai/dist/index.mjs");
const { generateText, streamText, stepCountIs, tool } = await imported("ai-6/dist/index.mjs");
const { z } = await imported("zod/index.js");

const DEPTH = "42 fathoms";

async function aiSDK({ url, key, model, client }) {
  const found = { texts: [], results: [], problems: [], references: 0 };
  const watched = (address, init) => {
    const { input } = JSON.parse(init.body);
    found.references += input.filter(({ type }) => type === "item_reference").length;
    return fetch(address, init);
  };
  const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: key, fetch: watched });
  const tools = {
    depth: tool({ description: "How deep it is.", inputSchema: z.object({}), execute: async () => DEPTH }),
  };
  const messages = [];
  let last;
  const turn = async (content, more) => {
    messages.push({ role: "user", content });
    const options = { model: openai(model), messages, maxRetries: 0, stopWhen: stepCountIs(4), ...more };
    const onError = ({ error }) => void found.problems.push(String(error));
    const answer = client === "ai" ? await generateText(options) : streamText({ ...options, onError });
    found.texts.push(await answer.text);
    for (const step of await answer.steps) {
      found.results.push(...step.toolResults.map(({ output }) => output));
      found.problems.push(...(step.warnings ?? []).map((warning) => JSON.stringify(warning)));
    }
    messages.push(...(await answer.response).messages);
    last = (await answer.providerMetadata).openai.responseId;
  };
  await turn("My name is Ada.");
  await turn("What is my name?");
  await turn("How deep is it?", { tools });
  await turn("And again?", { tools });
  const goesOn = { openai: { previousResponseId: last } };
  await turn("Who am I?", { messages: [{ role: "user", content: "Who am I?" }], providerOptions: goesOn });
  return found;
}

async function openaiSocket({ url, key, model }) {
  const found = { texts: [], results: [], problems: [], references: 0 };
  const socket = new ResponsesWS(new OpenAI({ baseURL: `${url}/v1`, apiKey: key }));
  socket.on("error", ({ message }) => void found.problems.push(message));
  const ended = async (asked) => {
    const end = new Promise((resolve) => {
      socket.once("response.completed", ({ response }) => resolve(response));
      socket.once("error", () => resolve({ output: [] }));
    });
    socket.send({ type: "response.create", model, ...asked });
    return await end;
  };
  const text = ({ output }) => output.flatMap(({ content }) => content ?? []).map(({ text }) => text).join("");
  const tools = [{ type: "function", name: "depth", parameters: { type: "object", properties: {} }, strict: false }];
  const first = await ended({ input: "My name is Ada." });
  const second = await ended({ input: "What is my name?", previous_response_id: first.id });
  const asked = await ended({ input: "How deep is it?", previous_response_id: second.id, tools });
  const calls = asked.output.filter(({ type }) => type === "function_call");
  const input = calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: DEPTH }));
  found.results.push(...calls.map(() => DEPTH));
  const third = await ended({ input, previous_response_id: asked.id, tools });
  const last = await ended({ input: "And again?", previous_response_id: third.id });
  await ended({ input: "Who am I?", previous_response_id: "resp_none" });
  const after = await ended({ input: "Who am I?", previous_response_id: last.id });
  found.texts.push(...[first, second, third, last, after].map(text));
  socket.close();
  return found;
}

const results = [];
for (const job of jobs) results.push(await (job.client === "openai" ? openaiSocket : aiSDK)(job));
process.stdout.write(JSON.stringify(results));
