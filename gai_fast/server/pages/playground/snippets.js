// Code to copy: the request of the page as a program that prints the answer.

import { FORMATS } from "./formats.js";

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
// A JSON string is a string literal of Python and of JavaScript, too.
const literal = (value) => JSON.stringify(value);

/** The request as source text: `{curl, python, javascript}`. A key is named, never written. */
export function snippets({ origin, framing: chosen, format, request, key }) {
  const framing = chosen === "ws" ? "sse" : chosen; // for what does not speak WebSocket
  const url = `${origin}/api/v1/stream?framing=${framing}&format=${format}`;

  const curl = [
    `curl -N ${shell(url)}`,
    "  -H 'content-type: application/json'",
    ...(key ? ['  -H "authorization: Bearer $GAI_API_KEY"'] : []),
    `  -d ${shell(literal(request))}`,
  ].join(" \\\n");

  const { system, messages = [], query, temperature, max_tokens, reasoning } = request;
  const asked = [...(system ? [{ role: "system", content: system }] : []), ...messages, { role: "user", content: query }];
  const more = { temperature, max_tokens, reasoning_effort: reasoning?.effort };
  const python = `${key ? "import os\n\n" : ""}from openai import OpenAI  # pip install openai

client = OpenAI(base_url=${literal(`${origin}/v1`)}, api_key=${key ? 'os.environ["GAI_API_KEY"]' : '"unused"'})
stream = client.chat.completions.create(
    model=${literal(request.model ?? "")},
    messages=[
${asked.map((message) => `        ${literal(message)},\n`).join("")}    ],
    stream=True,
${Object.entries(more).map(([name, value]) => (value === undefined ? "" : `    ${name}=${literal(value)},\n`)).join("")})
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
`;

  const { isText, failed, print } = FORMATS[format];
  const javascriptText = `for await (const text of response.body.pipeThrough(new TextDecoderStream())) ${print}
`;
  const javascriptEvents = () => `let rest = "";
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    const data = line${framing === "sse" ? '.replace(/^data: /, "")' : ""};
    if (!data.startsWith("{")) continue;
    const event = JSON.parse(data);
    if (${failed}) throw new Error(data);
    ${print}
  }
}
`;

  const socket = `// Node.js 22 or newer: save as playground.mjs
const socket = new WebSocket(${literal(`${origin.replace("http", "ws")}/ws/stream`)}, ["gai.events.v1"${key ? ", `bearer.${process.env.GAI_API_KEY}`" : ""}]);
const request = ${literal(request)};
socket.onopen = () => socket.send(JSON.stringify({ stream: "1", type: "request", request }));
socket.onmessage = ({ data }) => {
  const event = JSON.parse(data);
  if (event.error) console.error(event.error);
  if (event.type === "text.delta") process.stdout.write(event.text);
  if (event.type === "done") socket.close();
};
`;

  const javascript = `// Node.js: save as playground.mjs
const response = await fetch(${literal(url)}, {
  method: "POST",
  headers: { "content-type": "application/json"${key ? ", authorization: `Bearer ${process.env.GAI_API_KEY}`" : ""} },
  body: JSON.stringify(${literal(request)}),
});
if (!response.ok) throw new Error(await response.text());

${isText ? javascriptText : javascriptEvents()}`;

  return { curl, python, javascript: chosen === "ws" ? socket : javascript };
}
