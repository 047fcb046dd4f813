// Lets the AI SDK's own client, DefaultChatTransport, read streams of parts.
//
// stdin: {"packages": folder, "jobs": [job]}. A job has `sdk` (a package) and either `body` (of a response, with its `status`, 200 by default) or
// `url` (an endpoint, with `chatId`, `messages` and `more`, members of the request's body; `resume`: asks for the chat's
// running stream). stdout: for each job {"chunks", "message", "error"}: the parts, all checked by the SDK's schemas, the
// message that they make, and why reading ended early.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));

async function load(name) {
  const folder = join(packages, name);
  const { exports, module, main } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const entry = exports["."];
  return import(pathToFileURL(join(folder, entry.import?.default ?? entry.import ?? entry.default ?? module ?? main)));
}

function transportOf(sdk, job) {
  if (job.url !== undefined) {
    return new sdk.DefaultChatTransport({ api: job.url, body: job.more });
  }
  const headers = { "content-type": "text/event-stream" };
  return new sdk.DefaultChatTransport({ api: "http://unused", fetch: async () => new Response(job.body, { headers, status: job.status ?? 200 }) });
}

async function run(job) {
  const sdk = await load(job.sdk);
  const transport = transportOf(sdk, job);
  const chatId = job.chatId ?? "chat";
  const result = { chunks: [], message: null, error: null };
  try {
    const stream = job.resume
      ? await transport.reconnectToStream({ chatId })
      : await transport.sendMessages({ chatId, messages: job.messages ?? [], trigger: "submit-message" });
    if (stream === null) {
      return result;
    }
    const watched = stream.pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          result.chunks.push(chunk);
          controller.enqueue(chunk);
        },
      }),
    );
    const onError = (problem) => (result.error = String(problem));
    for await (const message of sdk.readUIMessageStream({ stream: watched, onError, terminateOnError: true })) {
      result.message = message;
    }
  } catch (problem) {
    result.error = String(problem);
  }
  return result;
}

const results = [];
for (const job of jobs) {
  results.push(await run(job));
}
process.stdout.write(JSON.stringify(results));
