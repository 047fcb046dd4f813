// Runs AG-UI's own HttpAgent, which checks each event and their order.
//
// stdin: {"packages": folder, "jobs": [{"body" | "url", "messages", "tools", "forwardedProps"}]}; `body`: of a response,
// with its `status`, 200 by default. stdout: for each job {"types", "messages", "result", "usage", "error"}.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const { HttpAgent } = await import(pathToFileURL(join(packages, "@ag-ui/client/dist/index.mjs")));

async function run(job) {
  const options = { url: job.url ?? "http://unused", threadId: "thread-1", initialMessages: job.messages ?? [] };
  if (job.body !== undefined) {
    const headers = { "content-type": "text/event-stream" };
    options.fetch = async () => new Response(job.body, { headers, status: job.status ?? 200 });
  }
  const agent = new HttpAgent(options);
  const outcome = { types: [], messages: [], result: null, usage: [], error: null };
  const subscriber = {
    onEvent({ event }) {
      outcome.types.push(event.type);
      outcome.usage = event.usage ?? outcome.usage;
    },
    onRunErrorEvent: ({ event }) => void (outcome.error = event.message),
  };
  try {
    const parameters = { runId: "run-1", tools: job.tools ?? [], forwardedProps: job.forwardedProps ?? {} };
    outcome.result = (await agent.runAgent(parameters, subscriber)).result ?? null;
  } catch (problem) {
    outcome.error = String(problem);
  }
  outcome.messages = agent.messages;
  return outcome;
}

const results = [];
for (const job of jobs) {
  results.push(await run(job));
}
process.stdout.write(JSON.stringify(results));
