// Runs loops over gai-fast.js, one for each object of a JSON list; prints what came. See javascript.py.
const [module, told] = process.argv.slice(2);

const set = setTimeout;
const now = performance.now.bind(performance);

/** Makes the module's clock run faster; with `leap` it goes on by so many ms whenever it is read. */
function hurry(times, leap) {
  let read = 0;
  globalThis.setTimeout = (call, ms, ...more) => set(call, ms / times, ...more);
  performance.now = () => (leap ? leap * ++read : times * now());
}

async function loop({ url, request, id, options, leave, after, slow, hide }) {
  for (const name of hide ?? []) globalThis[name] = undefined;
  const { stream, follow } = await import(module);
  const controller = new AbortController();
  const events = [];
  const signal = leave?.startsWith("abort") ? { signal: controller.signal } : {};
  const states = [];
  const all = { ...options, ...signal, onState: (state) => states.push(state) };
  const source = id !== undefined ? follow(url, id, all) : stream(url, request, all);
  const heard = ["connecting"];
  source.addEventListener("statechange", () => heard.push(source.state));
  if (leave === "abort before") controller.abort();
  if (leave === "abort early") process.stdin.once("data", () => controller.abort());
  try {
    for await (const event of source) {
      events.push(event);
      if (slow) await new Promise((resolve) => setTimeout(resolve, slow));
      if (events.length !== after) continue;
      if (leave === "reconnect") source.reconnect(50);
      if (leave === "break") break;
      if (leave === "throw") throw new Error("the consumer's own");
      if (leave === "abort") controller.abort();
      if (leave === "return") setTimeout(() => source.return(), 50); // while the loop waits for the next event
      if (leave === "announce") console.log("announced");
    }
  } catch (problem) {
    return { events, thrown: `${problem.name}: ${problem.message}`, timers: timers(), states, heard };
  }
  return { events, thrown: null, timers: timers(), states, heard };
}

/** How many timers there are that keep this process from ending. */
function timers() {
  return process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
}

const results = [];
for (const { times = 1, hurry: factor, leap, ...command } of JSON.parse(told)) {
  if (factor) hurry(factor, leap);
  for (let time = 0; time < times; time++) results.push(await loop(command));
}
console.log(JSON.stringify(results));
process.stdin.unref?.();
