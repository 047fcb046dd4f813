// Code to copy: the request of the page as a program that prints the answer.

import { FORMATS } from "./formats.js";

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
// A JSON string is a string literal of Python and of JavaScript, too.
const literal = (text) => JSON.stringify(text);

/** The request as source text: `{curl, python, javascript}`. A key is named, never written. */
export function snippets({ origin, framing: chosen, format, model, query, key }) {
  const framing = chosen === "ws" ? "sse" : chosen; // for what does not speak WebSocket
  const url = `${origin}/api/v1/stream?framing=${framing}&format=${format}`;
  const body = JSON.stringify({ model: model || undefined, query });
  const pairs = [...(model ? [["model", model]] : []), ["query", query]];

  const curl = [
    `curl -N ${shell(url)}`,
    "  -H 'content-type: application/json'",
    ...(key ? ['  -H "authorization: Bearer $GAI_API_KEY"'] : []),
    `  -d ${shell(body)}`,
  ].join(" \\\n");

  const { isText, failed, print } = FORMATS[format];
  const pythonText = `
        ${print.python}`;
  const pythonEvents = () => `${framing === "sse" ? '.removeprefix("data: ")' : ""}
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        if ${failed.python}:
            raise SystemExit(event)${pythonText}`;
  const javascriptText = `for await (const text of response.body.pipeThrough(new TextDecoderStream())) ${print.javascript}
`;
  const javascriptEvents = () => `let rest = "";
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    const data = line${framing === "sse" ? '.replace(/^data: /, "")' : ""};
    if (!data.startsWith("{")) continue;
    const event = JSON.parse(data);
    if (${failed.javascript}) throw new Error(data);
    ${print.javascript}
  }
}
`;

  const sdk = `import os

from openai import OpenAI  # pip install openai

client = OpenAI(base_url=${literal(`${origin}/v1`)}, api_key=${key ? 'os.environ["GAI_API_KEY"]' : '"unused"'})
stream = client.chat.completions.create(
    model=${literal(model)},
    messages=[{"role": "user", "content": ${literal(query)}}],
    stream=True,
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
`;

  const stdlib = `import json
import os
import urllib.request

request = urllib.request.Request(
    ${literal(url)},
    data=json.dumps({${pairs.map((pair) => pair.map(literal).join(": ")).join(", ")}}).encode(),
    headers={"content-type": "application/json"${key ? ', "authorization": "Bearer " + os.environ["GAI_API_KEY"]' : ""}},
)
with urllib.request.urlopen(request) as response:
    for line in response:
        line = line.decode()${isText ? pythonText : pythonEvents()}
`;

  const socket = `// Node.js 22 or newer: save as playground.mjs
const socket = new WebSocket(${literal(`${origin.replace("http", "ws")}/ws/stream`)}, ["gai.events.v1"${key ? ", `bearer.${process.env.GAI_API_KEY}`" : ""}]);
const request = { ${pairs.map(([name, value]) => `${name}: ${literal(value)}`).join(", ")} };
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
  body: JSON.stringify({ ${pairs.map(([name, value]) => `${name}: ${literal(value)}`).join(", ")} }),
});
if (!response.ok) throw new Error(await response.text());

${isText ? javascriptText : javascriptEvents()}`;

  const python = format === "openai" && framing === "sse" && model ? sdk : stdlib;
  return {
    curl,
    python: key ? python : python.replace(/^import os\n\n?/m, ""),
    javascript: chosen === "ws" ? socket : javascript,
  };
}

