// The page asks this route, and the route the gateway: the gateway's key stays on the server.
const GATEWAY = process.env.GATEWAY_URL ?? "http://127.0.0.1:8080";
const KEY = process.env.GATEWAY_KEY;
const PASSED_ON = ["content-type", "x-vercel-ai-ui-message-stream", "x-gai-stream-id", "retry-after"];

async function ask(path: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  if (KEY !== undefined) {
    headers.set("authorization", `Bearer ${KEY}`);
  }
  const answer = await fetch(`${GATEWAY}/api/v1/chat${path}`, { ...init, headers, cache: "no-store" });
  const passed = new Headers({ "cache-control": "no-store, no-transform" });
  for (const name of PASSED_ON) {
    const value = answer.headers.get(name);
    if (value !== null) {
      passed.set(name, value);
    }
  }
  return new Response(answer.body, { status: answer.status, headers: passed });
}

// A new message. Check here who asks, and whether the chat is theirs: behind one key all chats are one caller's.
export async function POST(request: Request): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return ask("", { method: "POST", headers, body: await request.text(), signal: request.signal });
}

// `resume` of useChat: GET /api/chat/{id}/stream, 204 if nothing runs.
export async function GET(request: Request, context: { params: Promise<{ rest?: string[] }> }): Promise<Response> {
  const [id, stream] = (await context.params).rest ?? [];
  if (id === undefined || stream !== "stream") {
    return new Response(null, { status: 404 });
  }
  return ask(`/${encodeURIComponent(id)}/stream`, { signal: request.signal });
}
