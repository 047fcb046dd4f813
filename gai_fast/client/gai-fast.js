// gai-fast.js: streams of a gai-fast server, in pages and in Node (20 or newer). One module, no dependencies.
//
//   import { stream } from "./gai-fast.js";
//   for await (const event of stream("http://127.0.0.1:8080", { query: "Tell me a story" })) {
//     if (event.type === "text.delta") console.log(event.text);
//   }
//
// 1. A stream is asked for as a durable one, with an idempotency key: a request that is sent again joins the answer of
//    the first one, and the model is asked once.
// 2. A connection that ends before `done`, or is silent for a minute, is made again: at once, then with growing pauses,
//    half of them by chance. The stream goes on behind the last event. Between two events it may be without a
//    connection for 60 s in all: keep-alives stop that clock, however long a model thinks, but only an event sets it back.
// 3. A connection that brings no event is followed by one over the next transport: WebSocket, SSE, NDJSON.
// 4. Whatever fails is an `error` event, and `done` is the last event of every stream. Only an abort throws.
// 5. A loop that is left early (`break`, an exception, an abort) cancels the answer on the server. So does `return`,
//    also while `next` waits: that resolves at once, without an event.
// 6. A stream has a state: `connecting` until a server answers, `streaming` while a connection is open, `reconnecting`
//    from its loss on, `ended`. Each change is an event `statechange`, and a call of the option `onState`.
// 7. `reconnect` ends the connection of the moment, as a loss does, for the next one to go on.

const FIRST_FOR = 5_000; // ms to reach a server that has never answered: its address may be wrong
const AGAIN_FOR = 60_000; // ms to come back to a stream whose connection is lost
const PAUSE_FIRST = 250; // ms before the second try, doubled for each further one
const PAUSE_LONGEST = 8_000; // also where a server wants its client to stay away for longer
const OPEN_WITHIN = 10_000; // ms to open a WebSocket, which some proxies do not pass on
const SILENCE = 60_000; // ms without a byte: four keep-alives of the server
const PING_EVERY = 20_000; // ms between two pings over a WebSocket, whose keep-alives a page does not see
const HEAD_WITHIN = 600_000; // ms in which a server begins to answer a request: as long as an upstream may take
// ms to cancel a stream, and before that to learn the id of one that was given up before its response came. Firefox
// gives its page a response with the first byte of the body: a keep-alive, 17 s after the request at the latest.
const REPLY_WITHIN = 20_000;
const EVENT_MOST = 1 << 24; // UTF-16 units of an event: the server's own limit is half as many bytes
const ERROR_MOST = 1 << 16; // UTF-16 units that are read of a refusal: ours have a few hundred
const SUBPROTOCOL = "gai.events.v1";
const RESTART = 1012; // the code with which a server that ends closes a WebSocket
const NEXT = { ws: "sse", sse: "ndjson", ndjson: "ndjson", eventsource: "eventsource" };
const TYPES = (
  "start text.delta audio.delta tool.call tool.result citations safety step.end finish error done reasoning.delta " +
  "reasoning.signature refusal.delta tool.call.start tool.call.delta server_tool image json.snapshot usage " +
  "stream.reset stream.gap warning provider.block step.start step.reset tool.progress approval.required " +
  "approval.decided"
).split(" "); // an EventSource listens to named types only

// ---- parsers: text in any pieces → records ------------------------------------------------------------------------

/** Splits text into lines that end in LF, CR or CRLF, whatever the pieces. */
class Lines {
  #rest = "";
  #afterCR = false;

  /** How much of an unfinished line there is. */
  get length() {
    return this.#rest.length;
  }

  feed(text) {
    if (this.#afterCR && text !== "") {
      this.#afterCR = false;
      if (text[0] === "\n") text = text.slice(1);
    }
    const lines = [];
    let start = 0;
    for (const end of text.matchAll(/\r\n?|\n/g)) {
      lines.push(this.#rest + text.slice(start, end.index));
      this.#rest = "";
      start = end.index + end[0].length;
      this.#afterCR = end[0] === "\r" && start === text.length; // its LF may be in the next piece
    }
    this.#rest += text.slice(start);
    return lines;
  }
}

/** Server-Sent Events (WHATWG HTML §9.2.6): `feed` returns `[{type, data, id, retry}]`; `retry`, if there, in ms. */
export class SSEParser {
  #lines = new Lines();
  #type = "";
  #data = [];
  #size = 0; // of the data
  #id = "";
  #retry;

  feed(text) {
    const events = [];
    for (const line of this.#lines.feed(text)) {
      if (line === "") {
        const data = this.#data.join("\n");
        if (this.#data.length) events.push({ type: this.#type || "message", data, id: this.#id, retry: this.#retry });
        this.#type = "";
        this.#data = [];
        this.#size = 0;
        this.#retry = undefined;
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "data") {
        this.#data.push(value);
        this.#size = bounded(this.#size + value.length + 1);
      } else if (field === "event") this.#type = value;
      else if (field === "id" && !value.includes("\0")) this.#id = value;
      else if (field === "retry" && /^[0-9]{1,9}$/.test(value)) this.#retry = Number(value);
    }
    bounded(this.#lines.length);
    return events;
  }
}

/** One JSON text a line, empty lines skipped: `feed` returns `[{data}]`. */
export class NDJSONParser {
  #lines = new Lines();

  feed(text) {
    const lines = this.#lines.feed(text);
    bounded(this.#lines.length);
    return lines.filter((line) => line.trim() !== "").map((data) => ({ data }));
  }
}

/** The size of an event so far. */
function bounded(size) {
  if (size > EVENT_MOST) throw unreadable(`the server sent an event of more than ${EVENT_MOST} characters`);
  return size;
}

// ---- what a program calls -----------------------------------------------------------------------------------------

/** Asks for one answer; gives its events, `done` last. See gai-fast.d.ts. */
export function stream(baseUrl, request, options = {}) {
  return new EventStream(options, (enter) => {
    const idempotency_key = request?.idempotency_key ?? randomKey();
    const asked = { ...request, idempotency_key, stream: true, resumable: true };
    return new Source(baseUrl, options, { body: JSON.stringify(asked), enter });
  });
}

/** Follows a durable stream from its beginning, or from behind the event number `options.after`; never cancels it. */
export function follow(baseUrl, streamId, options = {}) {
  return new EventStream(
    options,
    (enter) => new Source(baseUrl, options, { id: streamId, after: options.after ?? 0, enter }),
  );
}

/** An async generator of events with a state: rule 6. Nothing is checked or sent before its first event is asked for. */
class EventStream extends EventTarget {
  #state = "connecting";
  #events;
  #source = null;
  #waiting = 0; // calls of `next` that have not resolved

  constructor({ onState }, open) {
    super();
    // A listener: what it throws is reported as any listener's, and cannot be taken for a lost connection.
    if (typeof onState === "function") this.addEventListener("statechange", () => onState(this.#state));
    this.#events = events(() => {
      try {
        if (onState !== undefined && typeof onState !== "function") throw new TypeError("onState: a function");
        this.#source = open((state) => this.#enter(state));
      } catch (unusable) {
        this.#enter("ended");
        throw unusable;
      }
      return this.#source;
    });
  }

  get state() {
    return this.#state;
  }

  async next() {
    this.#waiting += 1;
    try {
      return await this.#events.next();
    } finally {
      this.#waiting -= 1;
    }
  }

  return(value) {
    this.#leave();
    return this.#events.return(value);
  }

  throw(problem) {
    this.#leave();
    return this.#events.throw(problem);
  }

  /** Ends the connection of the moment, if there is one; the stream goes on over the next one, `pause` ms later. */
  reconnect(pause = 0) {
    if (!(pause >= 0)) throw new TypeError("pause: milliseconds");
    if (this.#state === "streaming") this.#source.cut(pause);
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** Interrupts a `next` that waits: the generator would end only with the next event. */
  #leave() {
    this.#enter("ended");
    if (this.#waiting) this.#source?.leave();
  }

  #enter(state) {
    const isLossBeforeAnswer = state === "reconnecting" && this.#state === "connecting";
    if (this.#state === "ended" || state === this.#state || isLossBeforeAnswer) return;
    this.#state = state;
    this.dispatchEvent(new Event("statechange"));
  }
}
if (Symbol.asyncDispose) {
  EventStream.prototype[Symbol.asyncDispose] = async function () {
    await this.return();
  };
}

// ---- one stream over many connections -----------------------------------------------------------------------------

async function* events(open) {
  const source = open();
  let end = null; // the `finish` or `error`
  let isOver = false;
  let tries = 0;
  try {
    for (;;) {
      source.throwIfStopped();
      let hasBrought = false;
      let problem = null; // the refusal, if there was one
      try {
        for await (const event of source.connect()) {
          source.throwIfStopped(); // an event may have come before that
          if (event.seq !== undefined) {
            if (event.seq <= source.seq) continue;
            source.seq = event.seq;
            tries = 0;
            source.progressed();
          }
          source.id ||= event.stream_id ?? "";
          if (event.type === "finish" || event.type === "error") end = event;
          hasBrought = true;
          isOver = event.type === "done";
          yield event;
          if (isOver) return;
        }
      } catch (thrown) {
        source.throwIfStopped();
        if (thrown instanceof Refused) problem = thrown.error;
      }
      if (end) {
        isOver = true;
        yield { type: "done", finished: end.type === "finish" };
        return;
      }
      if (!hasBrought && !source.isCut) source.fallBack();
      const isFinal = problem && !(problem.temporary && source.hasBegun);
      const hint = problem?.retry_after_ms > 0 ? problem.retry_after_ms : source.hint;
      if (isFinal || !(await source.rest(Math.max(Math.min(hint, PAUSE_LONGEST), pause(tries))))) {
        isOver = true;
        source.cancel();
        yield* failure(isFinal ? problem : source.loss, source.seq);
        return;
      }
      tries += 1;
    }
  } catch (thrown) {
    if (!(thrown instanceof Stopped)) throw thrown;
  } finally {
    if (!isOver && !end) source.cancel();
    source.close();
  }
}

/** An error of this side, as the events that end a stream. */
async function* failure(error, seq) {
  yield { type: "error", seq: seq + 1, error };
  yield { type: "done", finished: false };
}

/** The server's refusal of a request, or why what it sends is of no use. */
class Refused extends Error {
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

/** Ends a generator that the program stopped while it waited; `events` catches it. */
class Stopped extends Error {}

/** Returns the error for something from a server that is no event. */
function unreadable(message) {
  return new Refused({ code: "network", message, temporary: false, reason: "protocol" });
}

/** Where a stream comes from: its server, its id, its place, and the connection of the moment. */
class Source {
  #base;
  #headers;
  #key;
  #body; // of the request; none where a stream is followed
  #opening = null; // the response that is waited for, and what ends it
  #close = () => {}; // ends the connection of the moment; what waits for it then goes on
  #reject; // ends a wait that has no connection
  #isCancelled = false;
  #isReached = false; // whether any server has ever answered
  #enter; // tells the program of a state: rule 6
  #lostAt = null; // none while the server sends anything
  #disconnected = 0; // ms without a connection since the last event, up to the last sign of life
  #onAbort = () => this.#abort();
  isStopped = false; // by the program, while it waited for an event
  isCut = false; // the connection of the moment, by the program
  hint = 0; // ms that the server, or a program that cut the connection, wants this client to stay away
  id; // empty until the server has sent it
  seq; // of the last event that the program has

  constructor(baseUrl, { key, signal, transport = "sse" }, { body = null, id = "", after = 0, enter }) {
    if (!["sse", "ndjson", "ws"].includes(transport)) throw new TypeError('transport: "sse", "ndjson" or "ws"');
    if (body === null && (typeof id !== "string" || id === "")) throw new TypeError("streamId: the id of a stream");
    if (!Number.isSafeInteger(after) || after < 0) throw new TypeError("after: the number of an event");
    const base = new URL(String(baseUrl) || "/", globalThis.location?.href);
    if (!/^https?:$/.test(base.protocol) || base.username || base.password) {
      throw new TypeError("baseUrl: an address of HTTP, without a password");
    }
    if (key && !/^[!-~]+$/.test(key)) throw new TypeError("key: printable ASCII characters, without spaces");
    base.pathname = base.pathname.replace(/\/*$/, "/");
    this.#base = base;
    this.#key = key;
    this.#headers = key ? { authorization: `Bearer ${key}` } : {};
    this.#body = body;
    this.#enter = enter;
    this.id = id;
    this.seq = after;
    this.signal = signal;
    this.transport = transport === "ws" && typeof WebSocket !== "function" ? "sse" : transport;
    const canStream = typeof Response === "function" && "body" in Response.prototype;
    if (!canStream && this.transport !== "ws" && typeof EventSource === "function" && !key) {
      this.transport = "eventsource"; // which can send no key
    }
    signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Whether the server may have the stream. */
  get hasBegun() {
    return this.seq > 0 || this.id !== "";
  }

  /** Takes the next transport, which has as long as the one before: that may have been held up on its way. */
  fallBack() {
    if (this.transport === NEXT[this.transport]) return;
    this.transport = NEXT[this.transport];
    this.#lostAt = null;
    this.#disconnected = 0;
  }

  /** An event has come that the program did not have. */
  progressed() {
    this.#disconnected = 0;
  }

  /** The error of a stream whose connection could not be made, or not be made again. */
  get loss() {
    const message = this.#isReached
      ? "the connection to the server was lost, and could not be made again"
      : `no server answers at ${this.#base.origin}: check the address, that the server runs, and its cors_origins`;
    const phase = this.#isReached ? {} : { phase: "connect" };
    return { code: "network", message, temporary: true, reason: "closed", ...phase };
  }

  /** A connection is open. */
  #connected() {
    this.#isReached = true;
    this.#enter("streaming");
  }

  /** The server has sent something. */
  #heard() {
    if (this.#lostAt !== null) this.#disconnected += now() - this.#lostAt;
    this.#lostAt = null;
  }

  /** Waits before the next try; returns whether there is to be one: rule 2. */
  async rest(ms) {
    this.throwIfStopped();
    this.#lostAt ??= now();
    const without = this.#disconnected + now() + ms - this.#lostAt;
    if (without > (this.hasBegun ? AGAIN_FOR : FIRST_FOR)) return false;
    this.#enter("reconnecting");
    let timer;
    try {
      await this.until(new Promise((resolve) => (timer = setTimeout(resolve, ms))));
    } finally {
      clearTimeout(timer);
    }
    return true;
  }

  /** Waits for something, but no longer than the program wants the stream. */
  async until(promise) {
    const aborted = new Promise((_, reject) => {
      this.#reject = reject;
      if (this.signal?.aborted) reject(this.signal.reason);
    });
    try {
      return await Promise.race([aborted, promise]);
    } finally {
      this.#reject = undefined;
    }
  }

  /** One connection's events. */
  connect() {
    this.hint = 0;
    this.isCut = false;
    this.#lostAt ??= now();
    if (this.transport === "ws") return this.#socket();
    return this.transport === "eventsource" ? this.#eventSource() : this.#fetched(this.transport);
  }

  /** Throws if the program wants no more events. */
  throwIfStopped() {
    this.signal?.throwIfAborted();
    if (this.isStopped) throw new Stopped();
  }

  /** Ends the connection, for the next one to go on `ms` later. */
  cut(ms) {
    this.isCut = true;
    this.hint = ms;
    this.#close();
  }

  /** Interrupts whatever waits for an event. */
  leave() {
    this.isStopped = true;
    this.#interrupt(new Stopped());
  }

  /** The program is done with the stream. */
  close() {
    this.signal?.removeEventListener("abort", this.#onAbort);
    this.#close();
    this.#enter("ended");
  }

  /** Ends the generation, unless the stream is merely followed. Nobody waits for it; idempotent. */
  async cancel() {
    if (this.#isCancelled) return;
    this.#isCancelled = true;
    const opening = this.#opening;
    const controller = new AbortController();
    try {
      if (this.#body === null) return;
      if (opening && !this.id) await within(REPLY_WITHIN, opening.response); // it brings the id
      if (!this.id) return;
      const init = this.#init("DELETE", { keepalive: true, signal: controller.signal });
      await within(REPLY_WITHIN, fetch(this.#streamUrl(), init));
    } catch {
      // the server is out of reach; a stream without a client ends by itself
    } finally {
      controller.abort();
      opening?.controller.abort();
    }
  }

  #abort() {
    this.#interrupt(this.signal.reason);
    this.#enter("ended");
  }

  #interrupt(reason) {
    this.cancel(); // now: the program may never ask for the next event
    this.#reject?.(reason);
    this.#close();
  }

  // -- over fetch --

  async *#fetched(framing) {
    const response = await this.#opened(framing);
    if (response.status === 204) {
      yield { type: "done", finished: await this.#hasFinished() };
      return;
    }
    this.#connected();
    const parser = framing === "sse" ? new SSEParser() : new NDJSONParser();
    for await (const text of texts(response)) {
      this.#heard();
      for (const { data, retry } of parser.feed(text)) {
        const event = eventIn(data);
        // In the first frame it is for clients without pauses of their own; later, of a server that ends.
        if (retry !== undefined && event.seq > 1) this.hint = retry;
        yield event;
      }
    }
  }

  /** The response that brings the stream, or the rest of it. */
  async #opened(framing) {
    const controller = new AbortController();
    const limit = this.id ? SILENCE : HEAD_WITHIN;
    const opening = { controller, response: within(limit, this.#open(framing, controller.signal)) };
    this.#opening = opening;
    try {
      const response = await this.until(opening.response);
      this.#close = () => controller.abort();
      return response;
    } catch (problem) {
      if (!this.#isCancelled) controller.abort(); // else `cancel` does it, once it knows the stream's id
      throw problem;
    } finally {
      this.#opening = null;
    }
  }

  async #open(framing, signal) {
    const query = { envelope: "compact", framing };
    const accept = framing === "sse" ? "text/event-stream" : "application/x-ndjson";
    let response;
    if (this.id) {
      const place = this.seq ? { "last-event-id": `${this.id}.${this.seq}` } : {};
      response = await fetch(this.#streamUrl(query), this.#init("GET", { signal, headers: { accept, ...place } }));
      if (response.status === 204) return response;
    } else {
      const headers = { accept, "content-type": "application/json" };
      const init = this.#init("POST", { signal, headers, body: this.#body });
      response = await fetch(this.#url("api/v1/stream", query), init);
    }
    this.#isReached = true;
    if (!response.ok || !(response.headers.get("content-type") ?? "").startsWith(accept)) {
      throw new Refused(await refusal(response));
    }
    this.id ||= response.headers.get("x-gai-stream-id") ?? "";
    return response;
  }

  /** Whether a stream whose end the program has seen had finished. */
  async #hasFinished() {
    const controller = new AbortController();
    const init = this.#init("GET", { headers: { accept: "application/json" }, signal: controller.signal });
    try {
      const state = fetch(this.#streamUrl(), init).then((response) => response.ok && response.json());
      return ((await this.until(within(REPLY_WITHIN, state))).state ?? "failed") !== "failed";
    } finally {
      controller.abort();
    }
  }

  #url(path, query = {}) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url;
  }

  /** The address of the stream. */
  #streamUrl(query) {
    return this.#url(`api/v1/streams/${encodeURIComponent(this.id)}`, query);
  }

  #init(method, { headers = {}, ...more } = {}) {
    return { method, cache: "no-store", redirect: "error", headers: { ...headers, ...this.#headers }, ...more };
  }

  // -- over a WebSocket --

  async *#socket() {
    const url = this.#url("ws/stream");
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url.href, this.#key ? [SUBPROTOCOL, `bearer.${this.#key}`] : [SUBPROTOCOL]);
    const queue = new Queue();
    const say = (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
    const pings = setInterval(() => say({ type: "ping" }), PING_EVERY);
    const opened = new Promise((resolve) => {
      socket.onopen = resolve;
      this.#close = () => {
        queue.end();
        resolve();
      };
    });
    socket.onmessage = ({ data }) => queue.push(data);
    socket.onclose = ({ code }) => {
      if (code === RESTART) this.hint = 1000 * (1 + Math.random()); // by then a successor has started
      this.#close();
    };
    socket.onerror = () => this.#close(); // not every platform closes a socket that could not be opened
    try {
      await this.until(within(OPEN_WITHIN, opened));
      if (socket.readyState === WebSocket.OPEN) this.#connected();
      if (this.id) say({ stream: "s", type: "resume", after: `${this.id}.${this.seq}` });
      else say({ stream: "s", type: "request", request: JSON.parse(this.#body) });
      for (;;) {
        const data = await within(SILENCE, queue.next());
        if (data === undefined) return;
        this.#heard();
        const { stream: name, id: _, ...event } = eventIn(data);
        if (name === undefined) continue; // the answer to a ping
        // Over a socket a request is refused by an event; that of one to resume has a number that was there before.
        if (event.type === "error" && this.id && event.seq <= this.seq) throw new Refused(event.error);
        yield event;
      }
    } finally {
      clearInterval(pings);
      if (!this.id && this.#body !== null) say({ stream: "s", type: "cancel" }); // by its id, `cancel` does it
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    }
  }

  // -- in two steps, where only an EventSource can follow a response --

  async *#eventSource() {
    if (!this.id) {
      const init = this.#init("POST", { headers: { "content-type": "application/json" }, body: this.#body });
      const response = await this.until(within(HEAD_WITHIN, fetch(this.#url("api/v1/streams"), init)));
      this.#isReached = true;
      if (!response.ok) throw new Refused(await refusal(response));
      this.id = String((await response.json()).id);
    }
    const place = this.seq ? { after: `${this.id}.${this.seq}` } : {};
    const source = new EventSource(this.#streamUrl({ envelope: "compact", ...place }));
    const queue = new Queue();
    for (const type of TYPES) {
      source.addEventListener(type, ({ data }) => {
        if (data === undefined) queue.end(); // an `error` of its own: the connection is lost, and rule 2 makes it again
        else queue.push(data);
      });
    }
    source.onopen = () => this.#connected();
    this.#close = () => queue.end();
    try {
      for (;;) {
        const data = await queue.next();
        if (data === undefined) return;
        this.#heard();
        yield eventIn(data);
      }
    } finally {
      source.close();
    }
  }
}

/** The text of a response as it comes; where a platform has no streams, all at once. */
async function* texts(response) {
  if (!response.body) {
    yield await response.text();
    return;
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await within(SILENCE, reader.read());
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    reader.cancel().catch(() => {}); // ends the connection, if it has not ended
  }
}

/** The event in a record. */
function eventIn(data) {
  let event;
  try {
    event = JSON.parse(data);
  } catch {
    // the check below refuses it
  }
  const isNumbered = event?.seq === undefined || Number.isSafeInteger(event.seq);
  if (typeof event?.type !== "string" || !isNumbered) throw unreadable("the server sent data that is not an event");
  return event;
}

/** What has come and was not taken; `next` resolves to `undefined` at the end. */
class Queue {
  #items = []; // in order
  #next = []; // those before them, in reverse order: `shift` would move all that wait
  #wake = () => {};
  #isOver = false;

  push(item) {
    this.#items.push(item);
    this.#wake();
  }

  end() {
    this.#isOver = true;
    this.#wake();
  }

  async next() {
    if (this.#next.length) return this.#next.pop();
    while (!this.#items.length && !this.#isOver) await new Promise((resolve) => (this.#wake = resolve));
    this.#next = this.#items.reverse();
    this.#items = [];
    return this.#next.pop();
  }
}

// ---- helpers ------------------------------------------------------------------------------------------------------

/** The error in a response that is not a stream. */
export async function refusal(response) {
  const { status, statusText, headers } = response;
  let body = "";
  for await (const text of texts(response)) {
    body += text;
    if (body.length > ERROR_MOST) break;
  }
  let error;
  try {
    error = JSON.parse(body).error;
  } catch {
    // HTML or nothing at all, from something between this client and the server
  }
  if (typeof error?.code === "string" && typeof error.message === "string") return { ...error, status };
  const message = body.slice(0, 500) || statusText || `HTTP ${status}`;
  const temporary = [429, 502, 503, 504].includes(status);
  const seconds = Number(headers.get("retry-after"));
  const wait = temporary && seconds > 0 ? { retry_after_ms: 1000 * seconds } : {};
  return { code: "network", message, temporary, reason: "protocol", status, ...wait };
}

const now = () => performance.now();

/** Milliseconds before a try, half of them by chance; none before the first. */
function pause(tries) {
  return tries && Math.min(PAUSE_FIRST * 2 ** (tries - 1), PAUSE_LONGEST) * (0.5 + Math.random() / 2);
}

function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the connection is silent")), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** 128 random bits; `crypto.randomUUID` is only there in secure contexts. */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
