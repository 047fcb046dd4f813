// A program in TypeScript that uses all of gai-fast.d.ts; test_types.py checks that it compiles as it should.
import { follow, NDJSONParser, refusal, SSEParser, stream } from "../../gai_fast/client/gai-fast.js";
import type { Event, Options, Request, State, StreamError, ToolCall, Usage } from "../../gai_fast/client/gai-fast.js";

const request: Request = {
  messages: [{ role: "user", content: [{ type: "image", url: "https://a.example/b.png" }] }],
  tools: [{ name: "weather", parameters: { type: "object" } }],
  tool_choice: { name: "weather" },
};

export async function answer(signal: AbortSignal): Promise<Usage | undefined> {
  const options: Options = { key: "key", signal, transport: "ws" };
  let usage: Usage | undefined;
  let text = "";
  const calls: ToolCall[] = [];
  for await (const event of stream(new URL("http://127.0.0.1:8080"), request, options)) {
    if (event.type === "text.delta") text += event.text.trim();
    else if (event.type === "start") text = event.stream_id + event.model;
    else if (event.type === "tool.call") calls.push(event);
    else if (event.type === "safety") text = event.safety.guard ?? event.safety.category;
    else if (event.type === "warning") text = event.guard ?? event.reason;
    else if (event.type === "stream.gap") text = (event.text ?? "") + (event.to - event.from);
    else if (event.type === "error") throw new Error(why(event.error));
    else if (event.type === "finish") usage = event.usage;
    else if (event.type === "done") {
      const isFinished: boolean = event.finished;
      // @ts-expect-error  `done` has no number
      event.seq;
      if (isFinished) return usage;
    } else event.seq.toFixed();
    // @ts-expect-error  no event has this type
    if (event.type === "text.gamma") break;
  }
  const states: State[] = [];
  const followed = follow("http://127.0.0.1:8080", "id", { after: 3, signal, onState: (state) => states.push(state) });
  followed.addEventListener("statechange", () => states.push(followed.state));
  for await (const event of followed) seen(event);
  // @ts-expect-error  no stream has this state
  if (followed.state === "paused") return undefined;
  return usage;
}

const seen = (event: Event): string => event.type;
const why = ({ code, message, status }: StreamError): string => `${status ?? code}: ${message}`;

// @ts-expect-error  a query is text
stream("http://127.0.0.1:8080", { query: 5 });
// @ts-expect-error  there is no such transport
stream("http://127.0.0.1:8080", {}, { transport: "smoke" });
// @ts-expect-error  only what is followed begins behind an event
stream("http://127.0.0.1:8080", {}, { after: 3 });

export const ids: string[] = new SSEParser().feed("").map((record) => record.id);
export const lines: { data: string }[] = new NDJSONParser().feed("");
export const refused: Promise<StreamError> = refusal(new Response());
