// What the page shows of one answer, while it runs, afterwards, and after a reload: the same record, the same elements.
// Model text only ever reaches the page as text nodes, or as the elements of markdown.js.

import { given, named } from "./approval.js";
import { Markdown } from "./markdown.js";

const LOG_ROWS = 2000; // what a browser lays out without effort
const ROW_CHARACTERS = 4000; // an image in base64 is no reading matter
const SMOOTH_LAG = 350; // ms that the smooth display stays behind
const SMOOTH_END = 250; // ms to show what is left when the stream has ended
const NEAR = 24; // pixels from the end of a pane that still count as its end

export const $ = (id) => document.getElementById(id);
export const count = (value) => value?.toLocaleString("en") ?? "?";
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);
const seconds = (ms) => `${Math.round(ms / 1000)} s`;

export function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Changes a text where it differs: nothing is laid out anew, or read aloud again, for a value that stays. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A pane that scrolls, and keeps its end in view unless the reader scrolled up. */
export class Scroll {
  #pane;
  #isAtEnd = true;

  constructor(pane, onMove = () => {}) {
    this.#pane = pane;
    pane.addEventListener("scroll", () => {
      this.#isAtEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR;
      onMove(this.#isAtEnd);
    });
  }

  /** Goes to the end if the reader is there, or `always`. */
  follow(always = false) {
    if (always) this.#isAtEnd = true;
    if (this.#isAtEnd) this.#pane.scrollTop = this.#pane.scrollHeight;
  }
}

/** Text that appears as it comes, or smoothly: a queue that one animation frame after the other empties. */
export class Display {
  #pieces = []; // all that has come
  #waiting = ""; // what is not on the page
  #place;
  #node;
  #markdown = null;
  #frame = 0;
  #last = 0;
  #deadline = 0;
  #drained = () => {};
  #moved;
  length = 0; // of the text

  /** `moved` is called after each change of the page. */
  constructor(place, isMarkdown, moved = () => {}) {
    this.#place = place;
    this.#moved = moved;
    this.setMarkdown(isMarkdown);
  }

  get text() {
    return this.#pieces.join("");
  }

  setMarkdown(isMarkdown) {
    this.#node = document.createTextNode("");
    this.#markdown = isMarkdown ? new Markdown(this.#place) : null;
    if (!isMarkdown) this.#place.replaceChildren(this.#node);
    this.#place.classList.toggle("markdown", isMarkdown);
    this.#draw(this.text.slice(0, this.length - this.#waiting.length));
  }

  push(text) {
    if (text === "") return;
    this.#pieces.push(text);
    this.length += text.length;
    this.#waiting += text;
    this.#wake();
  }

  /** Shows a whole text at once. */
  show(text) {
    this.#pieces = [text];
    this.length = text.length;
    this.#draw(text);
    this.#markdown?.end();
  }

  clear() {
    this.#pieces = [];
    this.#waiting = "";
    this.length = 0;
    this.setMarkdown(this.#markdown !== null);
  }

  /** No more text comes; resolves once all of it is on the page. */
  end() {
    this.#deadline = performance.now() + SMOOTH_END;
    return new Promise((resolve) => {
      this.#drained = resolve;
      this.#wake();
    });
  }

  #draw(text) {
    if (this.#markdown) this.#markdown.append(text);
    else this.#node.appendData(text);
  }

  #wake() {
    if (this.#frame) return;
    this.#last = performance.now();
    this.#frame = requestAnimationFrame((now) => this.#tick(now));
  }

  #tick(now) {
    this.#frame = 0;
    const waiting = this.#waiting;
    const within = this.#deadline ? Math.max(1, this.#deadline - this.#last) : SMOOTH_LAG;
    const share = $("smooth").checked ? Math.min(1, Math.max(0, now - this.#last) / within) : 1;
    let end = Math.min(waiting.length, Math.max(1, Math.round(waiting.length * share)));
    if (/[\ud800-\udbff]/.test(waiting.charAt(end - 1))) end += 1; // never half a character
    this.#waiting = waiting.slice(end);
    if (waiting) this.#draw(waiting.slice(0, end));
    if (this.#waiting) {
      this.#last = now;
      this.#frame = requestAnimationFrame((next) => this.#tick(next));
    } else if (this.#deadline) {
      this.#markdown?.end();
      this.#drained();
    }
    this.#moved();
  }
}

/** The raw events of the newest answer, the newest `LOG_ROWS` of them. */
export class Log {
  #pane = $("log");
  #scroll = new Scroll($("log"));
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
    if (this.#rows.length > 2 * LOG_ROWS) this.#dropped += this.#rows.splice(0, LOG_ROWS).length;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  text() {
    const cells = (row) => [...row.children].map((cell) => cell.textContent);
    return [...this.#pane.children].map((row) => cells(row).join("\t")).join("\n");
  }

  #flush() {
    this.#frame = 0;
    this.#pane.append(...this.#rows.map((row) => this.#row(...row)));
    this.#rows = [];
    while (this.#pane.childElementCount > LOG_ROWS) {
      this.#pane.firstElementChild.remove();
      this.#dropped += 1;
    }
    this.#scroll.follow();
    const shown = count(this.#pane.childElementCount);
    put($("dropped"), this.#dropped ? `the last ${shown}; ${count(this.#dropped)} older dropped` : shown);
  }

  #row(milliseconds, type, data) {
    const name = make("b", "", type);
    name.dataset.kind = type === "error" ? "error" : /^(finish|done|\[DONE\])$/.test(type) ? "end" : "";
    const isLong = data.length > ROW_CHARACTERS;
    const text = isLong ? `${data.slice(0, ROW_CHARACTERS)}… (${count(data.length)} characters)` : data;
    const row = make("div", "", "");
    row.append(make("time", "", (milliseconds / 1000).toFixed(3)), name, make("code", "", text));
    return row;
  }
}

// ---- an answer -------------------------------------------------------------------------------------------------------

const money = ({ amount, currency }) => {
  const digits = { minimumFractionDigits: 2, maximumFractionDigits: amount !== 0 && amount < 1 ? 6 : 2 };
  return `${Number(amount).toLocaleString("en", digits)} ${currency}`;
};

/** The tokens, and what is to be known of them. */
function tokensOf({ usage, hasEnded }) {
  if (!usage) return ["–", hasEnded ? "not reported" : ""];
  const { input_tokens: asked, output_tokens: made, reasoning_tokens: reasoning, cached_input_tokens: cached } = usage;
  const details = [usage.source, reasoning && `${count(reasoning)} reasoning`, cached && `${count(cached)} cached`];
  return [`${count(asked)} → ${count(made)}`, details.filter(Boolean).join(", ")];
}

const thoughtOf = ({ thought, isThinking }) => (isThinking ? `Thinking ${seconds(thought)}` : `Thought for ${seconds(thought)}`);

/** The words of an end, and its state, as `showStatus` has it. */
const ENDS = { running: ["", "busy"], good: ["Complete", "good"], bad: ["Failed", "bad"], idle: ["Cancelled", "idle"] };

const RECORDING = "a recording: this story, whatever is asked";

/** Whether the model without an upstream has answered. */
const isPlayed = ({ model, source }) => model === "demo" || /^demo( ·|$)/.test(source ?? "");

/** The place of one answer. Its parts have ids while it is the newest one. */
export class Pane {
  root = $("pane-template").content.cloneNode(true).firstElementChild;
  #parts = Object.fromEntries([...this.root.querySelectorAll("[data-part]")].map((each) => [each.dataset.part, each]));
  #known = {}; // what stands in its lists
  decide = async () => {}; // called with an approval and what a person has decided

  constructor(isMarkdown, moved) {
    this.answer = new Display(this.#parts.answer, isMarkdown, moved);
    this.reasoning = new Display(this.#parts["reasoning-text"], false, moved);
  }

  /** Names the parts, or takes their names away. */
  setNewest(isNewest) {
    for (const [name, part] of Object.entries(this.#parts)) {
      if (isNewest) part.id = name;
      else part.removeAttribute("id");
    }
    // A reader hears the newest answer once it is whole (`aria-busy`), and none of the older ones again.
    if (isNewest) this.#parts.answer.setAttribute("aria-live", "polite");
    else this.#parts.answer.removeAttribute("aria-live");
  }

  /** Shows an answer of which only the record is left. */
  restore(record) {
    this.answer.show(record.text);
    this.reasoning.show(record.reasoning);
    this.show(record);
  }

  /** Shows all of a record but its texts, which come by `answer` and `reasoning`. */
  show(record) {
    const { usage, error, end } = record;
    const parts = this.#parts;
    const isRunning = end === "running";
    put(parts.speaker, record.model || "Default model");
    put(parts.source, isPlayed(record) ? RECORDING : record.source === record.model ? "" : record.source);
    const [word, state] = ENDS[end] ?? ENDS.idle;
    put(parts.end, isRunning ? record.activity : word);
    parts.end.dataset.state = state;
    parts.answer.ariaBusy = String(isRunning);
    this.root.dataset.end = end;
    parts.reasoning.hidden = !record.hasReasoning;
    parts.reasoning.dataset.busy = String(Boolean(record.isThinking));
    put(parts.thought, thoughtOf(record));

    const [tokens, hint] = tokensOf(record);
    const figures = {
      ttft: record.first ? duration(record.first) : "–",
      rate: record.rate,
      total: duration(record.total),
      usage: tokens,
      cost: usage?.cost ? money(usage.cost) : "–",
      count: count(record.events),
      finish: record.finish || "–",
    };
    for (const [name, text] of Object.entries(figures)) put(parts[name], text);
    put(parts["usage-hint"], hint);
    put(parts["rate-label"], record.unit);
    for (const [name, text] of Object.entries(figures)) parts[name].closest("div").hidden = text === "–";
    parts.usage.closest("div").hidden &&= !hint;

    this.#list("notes", record.notes, (text) => auto(make("li", "", text)));
    this.#list("calls", record.calls, (call) => callOf(call, this.decide));
    this.#list("seams", record.seams, seamOf);
    parts.error.hidden = !error;
    if (error) this.#showError(error);
  }

  #showError(error) {
    const parts = this.#parts;
    const status = error.status ? `HTTP ${error.status}` : "";
    const wait = error.retry_after_ms;
    put(parts["error-code"], String(error.code || error.type || status || "error"));
    put(parts["error-message"], String(error.message ?? ""));
    put(parts["error-details"], [
      status,
      error.reason && `reason ${error.reason}`,
      error.phase && `phase ${error.phase}`,
      error.temporary && (wait ? `temporary: retry after ${duration(wait)}` : "temporary"),
      error.request_id && `request ${error.request_id}`,
    ].filter(Boolean).join(" · "));
  }

  /** Changes the elements of a list whose items have changed; the others stay, open or shut as they are. */
  #list(name, items, element) {
    const place = this.#parts[name];
    const known = (this.#known[name] ??= []);
    items.forEach((item, at) => {
      const text = JSON.stringify(item);
      if (known[at] === text) return;
      known[at] = text;
      const made = element(item);
      const old = place.children[at];
      if (!old) place.append(made);
      else {
        if (old.open) made.open = true;
        old.replaceWith(made);
      }
    });
    while (place.children.length > items.length) place.lastElementChild.remove();
    known.length = items.length;
  }
}

function auto(element) {
  element.dir = "auto";
  return element;
}

/** A call of a tool: its name, and what it was given and gave when it is opened. One that waits for a person is open. */
function callOf({ name, input, output, state, approval }, decide) {
  const call = make("details", "call", "");
  const head = make("summary", "", "");
  head.append(make("span", "hint", "Tool call "), auto(make("code", "", name)), make("span", "hint", state ? ` ${state}` : ""));
  call.append(head, auto(make("pre", "", input)));
  if (output) call.append(auto(make("pre", "", output)));
  if (approval) {
    call.open = true;
    call.append(askOf(approval, decide));
  }
  return call;
}

/** What a person is asked about a call: the call as it would be made, and two buttons. */
function askOf(approval, decide) {
  const ask = make("div", "ask", "");
  const button = (text, decision, className) => {
    const made = make("button", className, text);
    made.type = "button";
    made.setAttribute("aria-label", `${text} the call of ${named(approval)}`);
    made.addEventListener("click", async () => {
      buttons.forEach((each) => (each.disabled = true));
      await decide(approval, decision);
      buttons.forEach((each) => (each.disabled = false)); // where it is not decided
    });
    return made;
  };
  const buttons = [button("Approve", "approve", "quiet"), button("Deny", "deny", "quiet danger")];
  ask.append(make("code", "", `${named(approval)} ${given(approval)}`), ...buttons);
  return ask;
}

/** Where the connection was cut or lost, and the stream went on: with the numbers of the events on both sides. */
function seamOf({ after, resumed, ms, missing, isCut }) {
  const seam = make("li", "seam", "");
  seam.dataset.state = resumed ? "whole" : "open";
  const verb = isCut ? "Cut" : "Lost";
  const gap = resumed ? `${duration(ms)} without a connection` : "no connection";
  const end = resumed ? `Resumed with event ${count(resumed)}` : "Resuming…";
  const check = resumed ? (missing ? `${count(missing)} missing` : "nothing is missing") : "";
  seam.append(make("b", "", `${verb} after event ${count(after)}`), make("i", "", gap), make("b", "", end));
  if (check) seam.append(make("span", missing ? "bad" : "good", check));
  return seam;
}
