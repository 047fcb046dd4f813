// One request of the playground and what the page shows of it: its texts, its figures, its error, its raw events.
// Model text only ever reaches the page as text nodes, or as the elements of markdown.js.

import { NDJSONParser, SSEParser, follow, refusal, stream } from "../client.js";
import { FORMATS } from "./formats.js";
import { Markdown } from "./markdown.js";

const LOG_ROWS = 2000; // what a browser lays out without effort
const ROW_CHARACTERS = 4000; // an image in base64 is no reading matter
const CANCEL_BOUND = 2000; // ms that a cancelled stream has to end by itself
const SMOOTH_LAG = 350; // ms that the smooth display stays behind
const SMOOTH_END = 250; // ms to show what is left when the stream has ended

// ---- the page ------------------------------------------------------------------------------------------------------

export const $ = (id) => document.getElementById(id);
export const authorization = (key) => (key ? { authorization: `Bearer ${key}` } : {});
export const count = (value) => value?.toLocaleString("en") ?? "?";

/** Changes what is in a pane; keeps its end in view unless the reader scrolled up. */
function following(pane, change) {
  const isAtEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 24;
  change();
  if (isAtEnd) pane.scrollTop = pane.scrollHeight;
}

/** Text that appears as it comes, or smoothly: a queue that one animation frame after the other empties. */
class Display {
  text = "";
  #place;
  #node;
  #markdown = null;
  #shown = 0;
  #frame = 0;
  #last = 0;
  #deadline = 0;
  #drained = () => {};

  constructor(place, isMarkdown) {
    this.#place = place;
    this.setMarkdown(isMarkdown);
  }

  setMarkdown(isMarkdown) {
    this.#node = document.createTextNode("");
    this.#markdown = isMarkdown ? new Markdown(this.#place) : null;
    if (!isMarkdown) this.#place.replaceChildren(this.#node);
    this.#place.classList.toggle("markdown", isMarkdown);
    this.#draw();
  }

  push(text) {
    if (text === "") return;
    this.text += text;
    this.#wake();
  }

  clear() {
    this.text = this.#node.data = "";
    this.#shown = 0;
    this.#draw();
  }

  /** No more text comes; resolves once all of it is on the page. */
  end() {
    this.#deadline = performance.now() + SMOOTH_END;
    return new Promise((resolve) => {
      this.#drained = resolve;
      this.#wake();
    });
  }

  #draw() {
    if (this.#markdown) this.#markdown.show(this.text.slice(0, this.#shown));
    else this.#node.appendData(this.text.slice(this.#node.length, this.#shown));
  }

  #wake() {
    if (this.#frame) return;
    this.#last = performance.now();
    this.#frame = requestAnimationFrame((now) => this.#tick(now));
  }

  #tick(now) {
    this.#frame = 0;
    const waiting = this.text.length - this.#shown;
    const within = this.#deadline ? Math.max(1, this.#deadline - this.#last) : SMOOTH_LAG;
    const share = $("smooth").checked ? Math.min(1, Math.max(0, now - this.#last) / within) : 1;
    let end = this.#shown + Math.min(waiting, Math.max(1, Math.round(waiting * share)));
    if (/[\ud800-\udbff]/.test(this.text.charAt(end - 1))) end += 1; // never half a character
    if (waiting) {
      this.#shown = Math.min(end, this.text.length);
      following($("reading"), () => this.#draw());
    }
    if (this.#shown < this.text.length) {
      this.#last = now;
      this.#frame = requestAnimationFrame((next) => this.#tick(next));
    } else {
      this.#drained();
    }
  }
}

/** The raw events, the newest `LOG_ROWS` of them; follows the end unless the reader scrolled up. */
export class Log {
  #pane = $("log");
  #rows = [];
  #dropped = 0;
  #frame = 0;

  clear() {
    this.#rows = [];
    this.#dropped = 0;
    this.#pane.replaceChildren();
    $("dropped").textContent = "";
  }

  push(milliseconds, type, data) {
    this.#rows.push([milliseconds, type, data]);
    if (this.#rows.length > LOG_ROWS) this.#dropped += this.#rows.splice(0, this.#rows.length - LOG_ROWS).length;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  text() {
    const cells = (row) => [...row.children].map((cell) => cell.textContent);
    return [...this.#pane.children].map((row) => cells(row).join("\t")).join("\n");
  }

  #flush() {
    this.#frame = 0;
    following(this.#pane, () => {
      this.#pane.append(...this.#rows.map((row) => this.#row(...row)));
      this.#rows = [];
      while (this.#pane.childElementCount > LOG_ROWS) {
        this.#pane.firstElementChild.remove();
        this.#dropped += 1;
      }
    });
    if (this.#dropped) $("dropped").textContent = `the last ${count(LOG_ROWS)}; ${count(this.#dropped)} older dropped`;
  }

  #row(milliseconds, type, data) {
    const [row, time, name, code] = ["div", "time", "b", "code"].map((tag) => document.createElement(tag));
    time.textContent = (milliseconds / 1000).toFixed(3);
    name.textContent = type;
    name.dataset.kind = type === "error" ? "error" : /^(finish|done|\[DONE\])$/.test(type) ? "end" : "";
    const isLong = data.length > ROW_CHARACTERS;
    code.textContent = isLong ? `${data.slice(0, ROW_CHARACTERS)}… (${count(data.length)} characters)` : data;
    row.append(time, name, code);
    return row;
  }
}

/** The place of one answer. The first is in the page; those of a comparison are copies of it. */
export class Pane {
  constructor(root = $("pane")) {
    const find = (selector) => root.querySelector(selector);
    this.root = root;
    [this.name, this.figures] = find(".figures").children;
    this.error = find(".error");
    [this.code, this.message, this.details] = [find(".error code"), find(".error span"), find(".error .hint")];
    this.reasoning = find(".reasoning");
    this.thought = find(".reasoning .text");
    this.answer = find(".answer");
    this.notes = find(".notes");
  }

  copy() {
    const root = this.root.cloneNode(true);
    for (const each of [root, ...root.querySelectorAll("[id]")]) each.removeAttribute("id");
    return new Pane(root);
  }
}

/** Text as it came: each piece is a record. */
class TextParser {
  feed(text) {
    return text ? [{ data: text }] : [];
  }
}

/** One request and all that is known of it. */
export class Run {
  started = performance.now();
  controller = new AbortController();
  id = "";
  seq = 0; // of the newest event
  seenBefore = 0; // the newest event before the page was loaded again
  requestId = "";
  source = ""; // who answers
  first = 0; // arrival of the first content, ms after `started`
  last = 0; // arrival of the newest content
  ended = 0;
  events = 0;
  deltas = 0;
  usage = null;
  finish = "";
  error = null;
  complete = false;
  cancelled = false;
  state = "streaming"; // of the connection, as gai-fast.js has it; the other formats have one connection
  onState = () => {}; // called when it changes
  onId = () => {}; // called once the stream can be followed after a reload
  calls = new Map(); // of tools, whose arguments still come: {name, input} by their place

  /**
   * `settings`: `{framing, format, key, isMarkdown, isResumable, request}`; `log`, where the events are listed; `kept`, what
   * the run of this stream had `kept` before the page was loaded again.
   */
  constructor(pane, settings, log, kept) {
    this.pane = pane;
    this.settings = settings;
    this.log = log;
    if (kept) {
      this.id = String(kept.id);
      this.seenBefore = Number(kept.seq) || 0;
      this.started -= Math.max(0, Date.now() - kept.at) || 0;
      this.first = Number(kept.first) || 0;
    }
    this.answer = new Display(pane.answer, settings.isMarkdown);
    this.reasoning = new Display(pane.thought, false);
  }

  clear() {
    this.answer.clear();
    this.reasoning.clear();
    this.pane.notes.replaceChildren();
  }

  note(text) {
    const item = document.createElement("li");
    item.textContent = text;
    following($("reading"), () => this.pane.notes.append(item));
  }

  fail(error) {
    this.error ??= error;
  }

  elapsed() {
    return this.ended || performance.now() - this.started;
  }

  /** One record of the wire, which arrived `at` ms after the start. */
  receive({ type, data }, at) {
    this.events += 1;
    if (data === "[DONE]") {
      this.complete = true;
      this.log?.push(at, "[DONE]", "");
      return;
    }
    const format = FORMATS[this.settings.format];
    const event = format.isText ? data : JSON.parse(data);
    this.log?.push(at, event.type ?? (event.error ? "error" : type ?? "message"), data);
    if (format.read(this, event)) {
      this.first ||= at;
      this.last = at;
      this.deltas += 1;
    }
  }

  /** Runs to the end. */
  async run() {
    const { framing, format, isResumable } = this.settings;
    try {
      await (format === "gai" && (isResumable || framing === "ws") ? this.followEvents() : this.followBytes());
    } catch (error) {
      const code = error instanceof SyntaxError ? "internal" : "network"; // an event that is no JSON; no connection
      if (!this.cancelled) this.fail({ code, message: `${error.message} (reported by this browser)` });
    } finally {
      this.ended = performance.now() - this.started;
      this.controller.abort(); // whatever is still open, with its timer
    }
    await Promise.all([this.answer.end(), this.reasoning.end()]);
  }

  /** The answer in the native format, as the client for pages has it: it survives a lost connection. */
  async followEvents() {
    const { framing, key, request } = this.settings;
    const onState = (state) => {
      this.state = state;
      this.onState();
    };
    const options = { key, transport: framing, signal: this.controller.signal, onState };
    const server = new URL(".", location.href);
    // The text before a reload is not kept: the server has it, so the stream is followed from its beginning.
    const events = this.id ? follow(server, this.id, options) : stream(server, request, options);
    this.state = events.state;
    if (this.seenBefore) this.note(`The page was loaded again after event ${count(this.seenBefore)}: the stream goes on.`);
    for await (const event of events) {
      if (!this.id && event.stream_id) {
        this.id = event.stream_id;
        this.onId();
      }
      this.seq = event.seq ?? this.seq;
      this.requestId ||= event.request_id ?? "";
      this.receive({ data: JSON.stringify(event) }, performance.now() - this.started);
    }
  }

  /** What a reload needs to follow the stream; nothing if it cannot be followed. */
  get kept() {
    const { id, seq, seenBefore, first, started, settings: { format, isResumable, framing, request } } = this;
    if (format !== "gai" || !(isResumable || framing === "ws") || !id || this.ended) return undefined;
    const at = Date.now() - (performance.now() - started);
    return { id, seq: Math.max(seq, seenBefore), model: request.model ?? "", first, at };
  }

  /** The answer in another format, as it is on the wire. */
  async followBytes() {
    const { framing, format, key, request } = this.settings;
    const response = await fetch(`api/v1/stream?framing=${framing}&format=${format}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...authorization(key) },
      body: JSON.stringify(request),
      cache: "no-store",
      signal: this.controller.signal,
    });
    this.id = response.headers.get("x-gai-stream-id") ?? "";
    this.requestId = response.headers.get("x-request-id") ?? "";
    if (!response.ok) {
      this.fail(await refusal(response));
      return;
    }
    const { isText, unmarked } = FORMATS[format];
    const parser = isText ? new TextParser() : framing === "sse" ? new SSEParser() : new NDJSONParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const at = performance.now() - this.started;
      for (const record of parser.feed(decoder.decode(part.value, { stream: true }))) this.receive(record, at);
    }
    this.complete ||= Boolean(unmarked?.includes(framing));
    if (this.complete || this.cancelled) return;
    this.fail({ code: "network", message: "The stream ended without its end mark." });
  }

  /** Asks the server, so that the stream ends with its partial usage; closes the connection where that fails. */
  async cancel() {
    if (this.cancelled || !this.id) this.controller.abort();
    this.cancelled = true;
    if (this.controller.signal.aborted) return;
    const bound = setTimeout(() => this.controller.abort(), CANCEL_BOUND);
    this.controller.signal.addEventListener("abort", () => clearTimeout(bound));
    try {
      const answer = await fetch(`api/v1/streams/${encodeURIComponent(this.id)}`, {
        method: "DELETE",
        headers: authorization(this.settings.key),
        signal: this.controller.signal,
      });
      if (!answer.ok) this.controller.abort();
    } catch {
      this.controller.abort();
    }
  }
}

// ---- what the page shows of a run ------------------------------------------------------------------------------------

const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);
const number = (value) => (value < 10 ? value.toFixed(1) : count(Math.round(value)));

function show(id, value, hint = "") {
  $(id).textContent = value;
  $(`${id}-hint`).textContent = hint;
}

/** Output tokens, or deltas if no usage is known, a second; and over what time. */
function rateOf(run) {
  const { usage, first, last, deltas } = run;
  const elapsed = run.elapsed();
  // An answer that came in one piece has no rate of its own: then the whole request counts.
  const end = run.ended ? last : elapsed;
  const span = end - first >= 1 ? end - first : elapsed;
  const amount = usage?.output_tokens ?? deltas;
  const isKnown = first && amount && (run.ended || span >= 250);
  return [isKnown ? number((amount * 1000) / span) : "–", span === elapsed ? "over all the time" : "after the first"];
}

const unitOf = ({ usage, deltas }) => (usage?.output_tokens === undefined && deltas ? "Deltas/s" : "Tokens/s");
const endOf = (run) => run.finish || (run.error ? "error" : run.cancelled && run.ended ? "cancelled" : "–");

/** The figures of one of several runs, above its answer. */
export function showFigures(run) {
  const { usage, first, pane } = run;
  const figures = [
    run.ended ? endOf(run) : activity(run),
    first && `first token ${duration(first)}`,
    `${rateOf(run)[0]} ${unitOf(run).toLowerCase()}`,
    duration(run.elapsed()),
    usage && `${count(usage.input_tokens)} → ${count(usage.output_tokens)} tokens`,
  ];
  pane.name.textContent = run.settings.request.model || "default";
  pane.figures.textContent = figures.filter(Boolean).join(" · ");
  pane.reasoning.hidden = run.reasoning.text === "";
}

export function showNumbers(run) {
  const { usage, first, deltas } = run;
  $("source").textContent = run.source;
  show("ttft", first ? duration(first) : "–");
  show("total", duration(run.elapsed()));
  show("count", count(run.events), run.events ? `${count(deltas)} deltas` : "");

  const [rate, basis] = rateOf(run);
  $("rate-label").textContent = unitOf(run);
  show("rate", rate, run.ended && rate !== "–" ? basis : "");

  if (usage) {
    const { reasoning_tokens: reasoning, cached_input_tokens: cached } = usage;
    const details = [usage.source, reasoning && `${count(reasoning)} reasoning`, cached && `${count(cached)} cached`];
    const amounts = `${count(usage.input_tokens)} → ${count(usage.output_tokens)}`;
    show("usage", amounts, details.filter(Boolean).join(", ") || "in → out");
  } else {
    show("usage", "–", run.ended ? "not reported" : "");
  }
  show("finish", endOf(run));
  run.pane.reasoning.hidden = run.reasoning.text === "";
}

/** What a running request is doing. */
export function activity({ cancelled, state, first }) {
  if (cancelled) return "Cancelling…";
  if (state === "connecting") return "Connecting…";
  if (state === "reconnecting") return "Connection lost: reconnecting…";
  return first ? "Streaming" : "Waiting for the first token";
}

export function showStatus(state, text) {
  $("status").dataset.state = state;
  if ($("status").textContent !== text) $("status").textContent = text;
}

export function showError(run) {
  const { error, pane } = run;
  pane.error.hidden = !error;
  if (!error) return;
  const status = error.status ? `HTTP ${error.status}` : "";
  pane.code.textContent = error.code || error.type || status || "error";
  pane.message.textContent = error.message ?? "";
  const wait = error.retry_after_ms;
  pane.details.textContent = [
    status,
    error.reason && `reason ${error.reason}`,
    error.phase && `phase ${error.phase}`,
    error.temporary && (wait ? `temporary: retry after ${duration(wait)}` : "temporary"),
    (error.request_id || run.requestId) && `request ${error.request_id || run.requestId}`,
  ].filter(Boolean).join(" · ");
  // Below the text that had come: there the reader is.
  following($("reading"), () => (run.answer.text ? pane.answer : pane.figures.parentNode).after(pane.error));
}

