// Has a chat of the AI SDK asked for approvals, which its page answers with `addToolApprovalResponse`.
//
// stdin: {"packages": folder, "jobs": [{"version", "url", "answers": [{"approved", "reason"}], "by", "more"}]}: the answers
// to the requests, in their order. `by` is `click` (the page sends by `sendAutomaticallyWhen`) or `post` (somebody decides
// at the gateway, and the page resumes its chat). `more` is the text of a further message. stdout: for each job
// {"message", "requests", "texts", "error"}: the last message, the responses' status and parts, the texts of all answers.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const imported = (path) => import(pathToFileURL(join(packages, path)));

/** A chat, as `useChat` has it, with a state of plain values. */
function chatOf(sdk, options) {
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
  class Chat extends sdk.AbstractChat {
    constructor() {
      super({ ...options, state });
    }
  }
  return new Chat();
}

/** Waits until the chat has been quiet for a moment: a request that it sends by itself begins in one. */
async function settled(chat) {
  for (let quiet = 0; quiet < 20; quiet++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (chat.status === "submitted" || chat.status === "streaming") quiet = -1;
  }
}

async function partsIn(response) {
  const lines = (await response.text()).split("\n").filter((line) => line.startsWith("data: {"));
  return lines.map((line) => JSON.parse(line.slice(6)).type);
}

async function run({ version, url, answers, by, more, route }, found) {
  const sdk = await imported(`ai-${version}/dist/${version === "7" ? "index.js" : "index.mjs"}`);
  const read = [];
  const fetched = async (address, options) => {
    const response = await fetch(address, options);
    const at = found.requests.push({ status: response.status, parts: [] }) - 1;
    read.push(partsIn(response.clone()).then((parts) => (found.requests[at].parts = parts)));
    return response;
  };
  const transport = new sdk.DefaultChatTransport({
    api: `${url}${route ?? "/api/v1/chat"}?ui=${version}${route ? "&format=vercel" : ""}`,
    body: { model: "m" },
    fetch: fetched,
    prepareReconnectToStreamRequest: ({ id }) => ({ api: `${url}/api/v1/chat/${id}/stream?ui=${version}` }),
  });
  const decided = [];
  const chat = chatOf(sdk, {
    id: "chat",
    transport,
    onData: ({ type, data }) => void (type === "data-approval" && data.digest && decided.push(data)),
    sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  const waiting = () => chat.messages.at(-1).parts.filter(({ state }) => state === "approval-requested");
  await chat.sendMessage({ text: "Pay" });
  for (let left = [...answers]; left.length && waiting().length; ) {
    const open = waiting();
    found.asked.push(...open.map(({ toolName, input }) => ({ toolName, input })));
    for (const { approval } of open) {
      const { approved, reason } = left.shift();
      if (by === "post") {
        const { digest } = decided.find(({ id }) => id === approval.id);
        const stream = approval.id.slice(0, approval.id.lastIndexOf("-"));
        const body = JSON.stringify({ decision: approved ? "approve" : "deny", digest, reason });
        const headers = { "content-type": "application/json" };
        await fetch(`${url}/api/v1/streams/${stream}/approvals/${approval.id}`, { method: "POST", headers, body });
      } else await chat.addToolApprovalResponse({ id: approval.id, approved, reason });
    }
    if (by === "post") await chat.resumeStream();
    await settled(chat);
    if (chat.error) throw chat.error;
  }
  if (more) await chat.sendMessage({ text: more });
  await settled(chat);
  await Promise.all(read);
  if (chat.error) throw chat.error;
  found.message = JSON.parse(JSON.stringify(chat.messages.at(-1)));
  found.roles = chat.messages.map(({ role }) => role);
  const answered = chat.messages.filter(({ role }) => role === "assistant");
  found.texts = answered.map(({ parts }) => parts.filter(({ type }) => type === "text").map(({ text }) => text).join(""));
}

const results = [];
for (const job of jobs) {
  const found = { asked: [], requests: [], texts: [], roles: [], message: null, error: null };
  try {
    await run(job, found);
  } catch (problem) {
    found.error = `${problem?.constructor?.name}: ${problem?.message}`;
  }
  results.push(found);
}
process.stdout.write(JSON.stringify(results));
