// Drives gai-fast.js as told by a list of JSON objects, one loop each; prints what came. See test_client_js.py.
const [module, told] = process.argv.slice(2);

async function loop({ url, request, id, options, leave, after, slow, hide }) {
  for (const name of hide ?? []) globalThis[name] = undefined;
  const { stream, follow } = await import(module);
  const controller = new AbortController();
  const events = [];
  const signal = leave?.startsWith("abort") ? { signal: controller.signal } : {};
  const source = id ? follow(url, id, options) : stream(url, request, { ...options, ...signal });
  if (leave === "abort early") process.stdin.once("data", () => controller.abort());
  try {
    for await (const event of source) {
      events.push(event);
      if (slow) await new Promise((resolve) => setTimeout(resolve, slow));
      if (events.length !== after) continue;
      if (leave === "break") break;
      if (leave === "throw") throw new Error("the consumer's own");
      if (leave === "abort") controller.abort();
      if (leave === "announce") console.log("announced");
    }
  } catch (problem) {
    return { events, thrown: `${problem.name}: ${problem.message}` };
  }
  return { events, thrown: null };
}

const results = [];
for (const command of JSON.parse(told)) results.push(await loop(command));
console.log(JSON.stringify(results));
process.stdin.unref?.();
