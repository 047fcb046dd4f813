// The playground: one page, one request at a time, no dependencies.
// Model text only ever reaches the page as text nodes.

import { NDJSONParser, SSEParser, follow, refusal, stream } from "../client.js";
import { FORMATS } from "./formats.js";
import { snippets } from "./snippets.js";

const LOG_ROWS = 2000; // what a browser lays out without effort
const ROW_CHARACTERS = 4000; // an image in base64 is no reading matter
const CANCEL_BOUND = 2000; // ms that a cancelled stream has to end by itself
const SMOOTH_LAG = 350; // ms that the smooth display stays behind
const SMOOTH_END = 250; // ms to show what is left when the stream has ended

// ---- the page ------------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const authorization = (key) => (key ? { authorization: `Bearer ${key}` } : {});
const count = (value) => value?.toLocaleString("en") ?? "?";

/** Changes what is in a pane; keeps its end in view unless the reader scrolled up. */
function following(pane, change) {
  const isAtEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 24;
  change();
  if (isAtEnd) pane.scrollTop = pane.scrollHeight;
}

/** Text that appears as it comes, or smoothly: a queue that one animation frame after the other empties. */
class Display {
  text = "";
  #node = document.createTextNode("");
  #shown = 0;
  #frame = 0;
  #last = 0;
  #deadline = 0;
  #drained = () => {};

  constructor(element) {
    element.replaceChildren(this.#node);
  }

  push(text) {
    if (text === "") return;
    this.text += text;
    this.#wake();
  }

  clear() {
    this.text = this.#node.data = "";
    this.#shown = 0;
  }

  /** No more text comes; resolves once all of it is on the page. */
  end() {
    this.#deadline = performance.now() + SMOOTH_END;
    return new Promise((resolve) => {
      this.#drained = resolve;
      this.#wake();
    });
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
      following($("reading"), () => this.#node.appendData(this.text.slice(this.#shown, end)));
      this.#shown = Math.min(end, this.text.length);
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
class Log {
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

/** Text as it came: each piece is a record. */
class TextParser {
  feed(text) {
    return text ? [{ data: text }] : [];
  }
}

/** One request and all that is known of it. */
class Run {
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
  calls = new Map(); // of tools, whose arguments still come: {name, input} by their place

  /** `kept` is what `keep` returned before the page was loaded again. */
  constructor(settings, kept) {
    this.settings = settings;
    if (kept) {
      this.id = String(kept.id);
      this.seenBefore = Number(kept.seq) || 0;
      this.started -= Math.max(0, Date.now() - kept.at) || 0;
      this.first = Number(kept.first) || 0;
    }
    this.answer = new Display($("answer"));
    this.reasoning = new Display($("reasoning-text"));
  }

  clear() {
    this.answer.clear();
    this.reasoning.clear();
    $("notes").replaceChildren();
  }

  note(text) {
    const item = document.createElement("li");
    item.textContent = text;
    following($("reading"), () => $("notes").append(item));
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
      log.push(at, "[DONE]", "");
      return;
    }
    const format = FORMATS[this.settings.format];
    const event = format.isText ? data : JSON.parse(data);
    log.push(at, event.type ?? (event.error ? "error" : type ?? "message"), data);
    if (format.read(this, event)) {
      this.first ||= at;
      this.last = at;
      this.deltas += 1;
    }
  }

  /** The answer in the native format, as the client for pages has it: it survives a lost connection. */
  async followEvents() {
    const { framing, model, query, key } = this.settings;
    const onState = (state) => {
      this.state = state;
      this.onState();
    };
    const options = { key, transport: framing, signal: this.controller.signal, onState };
    const request = { model: model || undefined, query };
    const server = new URL(".", location.href);
    // The text before a reload is not kept: the server has it, so the stream is followed from its beginning.
    const events = this.id ? follow(server, this.id, options) : stream(server, request, options);
    this.state = events.state;
    if (this.seenBefore) this.note(`The page was loaded again after event ${count(this.seenBefore)}: the stream goes on.`);
    for await (const event of events) {
      if (!this.id && event.stream_id) {
        this.id = event.stream_id;
        this.keep();
      }
      this.seq = event.seq ?? this.seq;
      this.requestId ||= event.request_id ?? "";
      this.receive({ data: JSON.stringify(event) }, performance.now() - this.started);
    }
  }

  /** Keeps what a reload needs to follow the stream: in this tab only, as the key. */
  keep() {
    if (this.settings.format !== "gai" || !this.id || this.ended) return;
    const { settings: { framing, model, query }, id, seq, seenBefore, first, started } = this;
    const at = Date.now() - (performance.now() - started);
    keepInTab(RUNNING, JSON.stringify({ id, seq: Math.max(seq, seenBefore), framing, model, query, first, at }));
  }

  /** The answer in another format, as it is on the wire. */
  async followBytes() {
    const { framing, format, model, query, key } = this.settings;
    const response = await fetch(`api/v1/stream?framing=${framing}&format=${format}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...authorization(key) },
      body: JSON.stringify({ model: model || undefined, query }),
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

function showNumbers(run) {
  const { usage, first, last, deltas } = run;
  const elapsed = run.elapsed();
  $("source").textContent = run.source;
  show("ttft", first ? duration(first) : "–");
  show("total", duration(elapsed));
  show("count", count(run.events), run.events ? `${count(deltas)} deltas` : "");

  // An answer that came in one piece has no rate of its own: then the whole request counts.
  const end = run.ended ? last : elapsed;
  const span = end - first >= 1 ? end - first : elapsed;
  const basis = span === elapsed ? "over all the time" : "after the first";
  const amount = usage?.output_tokens ?? deltas;
  $("rate-label").textContent = usage?.output_tokens === undefined && run.deltas ? "Deltas/s" : "Tokens/s";
  const known = first && amount && (run.ended || span >= 250);
  show("rate", known ? number((amount * 1000) / span) : "–", run.ended && known ? basis : "");

  if (usage) {
    const { reasoning_tokens: reasoning, cached_input_tokens: cached } = usage;
    const details = [usage.source, reasoning && `${count(reasoning)} reasoning`, cached && `${count(cached)} cached`];
    const amounts = `${count(usage.input_tokens)} → ${count(usage.output_tokens)}`;
    show("usage", amounts, details.filter(Boolean).join(", ") || "in → out");
  } else {
    show("usage", "–", run.ended ? "not reported" : "");
  }
  show("finish", run.finish || (run.error ? "error" : run.cancelled && run.ended ? "cancelled" : "–"));
  $("reasoning").hidden = run.reasoning.text === "";
}

/** What a running request is doing. */
function activity({ cancelled, state, first }) {
  if (cancelled) return "Cancelling…";
  if (state === "connecting") return "Connecting…";
  if (state === "reconnecting") return "Connection lost: reconnecting…";
  return first ? "Streaming" : "Waiting for the first token";
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  if ($("status").textContent !== text) $("status").textContent = text;
}

function showError(run) {
  const { error } = run;
  $("error").hidden = !error;
  if (!error) return;
  const status = error.status ? `HTTP ${error.status}` : "";
  $("error-code").textContent = error.code || error.type || status || "error";
  $("error-message").textContent = error.message ?? "";
  const wait = error.retry_after_ms;
  $("error-details").textContent = [
    status,
    error.reason && `reason ${error.reason}`,
    error.phase && `phase ${error.phase}`,
    error.temporary && (wait ? `temporary: retry after ${duration(wait)}` : "temporary"),
    (error.request_id || run.requestId) && `request ${error.request_id || run.requestId}`,
  ].filter(Boolean).join(" · ");
}

// ---- sending ---------------------------------------------------------------------------------------------------------

const log = new Log();
let current = null;

function settings() {
  return {
    framing: document.querySelector('input[name="framing"]:checked').value,
    format: $("format").value,
    model: $("model").value || $("model-other").value.trim(),
    query: $("prompt").value,
    key: $("key").value,
  };
}

async function send(kept) {
  if (current) return;
  const run = (current = new Run(settings(), kept));
  log.clear();
  run.clear();
  $("answer").ariaBusy = "true";
  setRunning(true);
  showError(run);
  const live = () => {
    showNumbers(run);
    if (!run.ended) showStatus("busy", activity(run));
  };
  run.onState = live;
  live();
  const timer = setInterval(live, 100);
  $("result").scrollIntoView({ block: "nearest" });

  try {
    await (run.settings.format === "gai" ? run.followEvents() : run.followBytes());
  } catch (error) {
    const code = error instanceof SyntaxError ? "internal" : "network"; // an event that is no JSON; no connection
    if (!run.cancelled) run.fail({ code, message: `${error.message} (reported by this browser)` });
  } finally {
    run.ended = performance.now() - run.started;
    keepInTab(RUNNING, "");
    run.controller.abort(); // whatever is still open, with its timer
    clearInterval(timer);
  }
  await Promise.all([run.answer.end(), run.reasoning.end()]);

  showNumbers(run);
  showError(run);
  const cancelled = run.finish ? run.finish === "cancelled" : run.cancelled;
  if (run.error) showStatus("bad", "Failed");
  else if (cancelled) showStatus("idle", "Cancelled");
  else showStatus("good", "Complete");
  $("answer").ariaBusy = "false";
  current = null;
  setRunning(false);
}

function setRunning(running) {
  const [from, to] = running ? [$("send"), $("cancel")] : [$("cancel"), $("send")];
  const focused = document.activeElement === from;
  to.disabled = false;
  if (focused) to.focus();
  from.disabled = true;
}

// ---- models, settings, theme -----------------------------------------------------------------------------------------

const STORED = "gai-fast.playground"; // the settings; in the tab's storage the key
const RUNNING = "gai-fast.playground.running";
const THEMES = ["auto", "light", "dark"];

function stored() {
  try {
    return Object(JSON.parse(localStorage.getItem(STORED)));
  } catch {
    return {}; // storage is switched off, or holds something else
  }
}

function store() {
  const { framing, format, model } = settings();
  const theme = document.documentElement.dataset.theme;
  try {
    localStorage.setItem(STORED, JSON.stringify({ framing, format, model, smooth: $("smooth").checked, theme }));
  } catch {
    // the page works without it
  }
}

// The key and the running stream are kept until the tab is closed, and in no other tab.
function keptInTab(name) {
  try {
    return sessionStorage.getItem(name) ?? "";
  } catch {
    return ""; // storage is switched off
  }
}

function keepInTab(name, text) {
  try {
    if (text) sessionStorage.setItem(name, text);
    else sessionStorage.removeItem(name);
  } catch {
    // the page works without it
  }
}

/** Follows the stream that ran when the page was loaded again, with its prompt and its settings. */
function followKept() {
  let kept;
  try {
    kept = Object(JSON.parse(keptInTab(RUNNING) || "{}"));
  } catch {
    return; // something else stored it
  }
  if (typeof kept.id !== "string" || kept.id === "") return;
  $("prompt").value = String(kept.query ?? "");
  $("format").value = "gai";
  for (const input of document.getElementsByName("framing")) input.checked = input.value === kept.framing;
  if (!document.querySelector('input[name="framing"]:checked')) $("framing-sse").checked = true;
  limitFormats();
  send(kept);
}

/** Offers the formats that the chosen framing has, and takes the native one where it lacks the chosen one. */
function limitFormats() {
  const { framing } = settings();
  for (const option of $("format").options) option.disabled = !FORMATS[option.value].framings.includes(framing);
  if ($("format").selectedOptions[0].disabled) $("format").value = "gai";
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}

let descriptions = new Map(); // by model, if the server has one

/** Shows what belongs to the chosen model, or why there is no list of models. */
function showModel(problem = "") {
  const { value } = $("model");
  $("model-other").hidden = value !== "";
  const description = descriptions.get(value);
  $("model-hint").textContent = problem || (description ? `${value}: ${description}` : "");
}

/** Offers the server's models, and selects the wanted one where it is offered or names its upstream. */
async function loadModels(wanted, insist) {
  const { key } = settings();
  let ids = [];
  let problem = "";
  try {
    const response = await fetch("v1/models", { headers: authorization(key), cache: "no-store" });
    if (response.ok) {
      const { data } = await response.json();
      ids = data.map(({ id }) => id);
      descriptions = new Map(data.map(({ id, description }) => [id, description]));
    } else if (response.status === 401 && key) problem = "This server does not know this API key.";
    else if (response.status === 401) problem = "This server needs an API key.";
    else problem = `No list of models: HTTP ${response.status}.`;
  } catch {
    problem = "No list of models: no answer.";
  }
  if (wanted && !ids.includes(wanted) && (insist || wanted.includes("/"))) ids.push(wanted);
  $("model").replaceChildren(...ids.map((id) => new Option(id, id)), new Option("Other…", ""));
  $("model").value = ids.includes(wanted) ? wanted : (ids[0] ?? "");
  showModel(problem);
}

// ---- copying ---------------------------------------------------------------------------------------------------------

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard API outside a secure context: the old way needs a selection.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "offscreen";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

const SOURCES = { answer: () => current?.answer.text ?? $("answer").textContent, events: () => log.text() };

async function copyFrom(button) {
  button.dataset.label ??= button.textContent;
  const kind = button.dataset.copy;
  const text = SOURCES[kind]?.() ?? snippets({ origin: new URL(".", location.href).href.replace(/\/$/, ""), ...settings() })[kind];
  button.textContent = (await copy(text)) ? "Copied" : "Not copied";
  button.focus();
  clearTimeout(button.timer);
  button.timer = setTimeout(() => (button.textContent = button.dataset.label), 1500);
}

// ---- wiring ----------------------------------------------------------------------------------------------------------

const saved = stored();
const asked = new URLSearchParams(location.search);
const isApple = /Mac|iPhone|iPad/.test(navigator.platform);

setTheme(THEMES.includes(saved.theme) ? saved.theme : "auto");
for (const input of document.getElementsByName("framing")) input.checked ||= input.value === saved.framing;
$("format").replaceChildren(...Object.keys(FORMATS).map((name) => new Option(name, name)));
$("format").value = Object.hasOwn(FORMATS, saved.format) ? saved.format : "gai";
limitFormats();
$("smooth").checked = saved.smooth === true;
$("send-keys").textContent = isApple ? "⌘ ↵" : "Ctrl ↵";
setRunning(false); // some browsers keep the buttons' state over a reload
$("key").value = keptInTab(STORED);
if (asked.has("q")) $("prompt").value = asked.get("q");
loadModels(asked.get("model") ?? String(saved.model ?? ""), asked.has("model"));

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("composer").addEventListener("change", () => {
  limitFormats();
  store();
});
// A reload follows the stream; the server ends it if nobody does (`detach_ttl`). Another format cannot be followed.
addEventListener("pagehide", () => {
  if (current?.settings.format === "gai") current.keep();
  else current?.controller.abort();
});
$("cancel").addEventListener("click", () => current?.cancel());
$("model").addEventListener("change", () => {
  showModel();
  if ($("model").value === "") $("model-other").focus();
});
$("key").addEventListener("change", () => {
  keepInTab(STORED, settings().key);
  loadModels(settings().model, false);
});
$("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
  store();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copyFrom(button);
});
document.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "Escape") {
    current?.cancel();
  }
});

followKept();
