// One request of the playground: its connections, and all that is known of its answer, as a record for pane.js.

import { NDJSONParser, SSEParser, follow, refusal, stream } from "../client.js";
import { FORMATS } from "./formats.js";
import { count } from "./pane.js";

const CANCEL_BOUND = 2000; // ms that a cancelled stream has to end by itself
const CUT_FOR = 1500; // ms without a connection: long enough to be seen
const NOTED = 200; // notes, calls and connections of an answer that are kept

export const authorization = (key) => (key ? { authorization: `Bearer ${key}` } : {});
const number = (value) => (value < 10 ? value.toFixed(1) : count(Math.round(value)));

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
  thoughtFrom = 0; // arrival of the first reasoning
  thoughtTo = 0; // and of the newest, or of the answer behind it
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
  onId = () => {}; // called once the stream can be followed by another page
  calls = new Map(); // of tools, whose arguments still come: {name, input} by their place
  called = []; // those that are whole
  notes = [];
  seams = []; // where one connection ended and the next went on
  #events = null; // those of the client for pages
  #lostAt = 0;
  #atStep = { answer: "", reasoning: "", calls: 0 }; // what there was when the newest turn of the model began

  /**
   * `settings`: `{framing, format, key, isMarkdown, isResumable, request}`; `log`, where the events are listed; `kept`, what
   * another page, or this one before it was loaded again, had `kept` of this stream.
   */
  constructor(pane, settings, log, kept) {
    this.pane = pane;
    this.settings = settings;
    this.log = log;
    if (kept) {
      this.id = String(kept.id);
      this.seenBefore = Number(kept.seq) || 0;
      this.started -= Math.max(0, Date.now() - kept.at) || 0;
      for (const name of ["first", "thoughtFrom", "thoughtTo"]) this[name] = Number(kept[name]) || 0;
    }
    pane.decide = (approval, decision) => this.decide(approval, decision);
    this.answer = pane.answer;
    this.reasoning = pane.reasoning;
  }

  /** The answer begins again, but for what stays of it. */
  clear(notes = [], called = []) {
    this.answer.clear();
    this.reasoning.clear();
    this.notes = notes;
    this.called = called;
  }

  /** A turn of the model begins. */
  step() {
    this.#atStep = { answer: this.answer.text, reasoning: this.reasoning.text, calls: this.called.length };
  }

  /** The newest turn is void, and is asked again. */
  resetStep() {
    const { answer, reasoning, calls } = this.#atStep;
    this.clear(this.notes, this.called.slice(0, calls));
    this.answer.push(answer);
    this.reasoning.push(reasoning);
  }

  note(text) {
    if (this.notes.length < NOTED) this.notes.push(text);
  }

  /** A call of a tool; what is known of it later is added by its id. */
  call({ id, name, input, output, state, approval }) {
    const known = id === undefined ? undefined : this.called.find((each) => each.id === id);
    const given = { id, name, input, output, state, approval };
    const news = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
    if (known) Object.assign(known, news);
    else if (name !== undefined && this.called.length < NOTED) this.called.push({ input: "", ...news });
  }

  fail(error) {
    this.error ??= error;
  }

  elapsed() {
    return this.ended || performance.now() - this.started;
  }

  /** Whether another connection, or another page, can go on with the stream. */
  get isFollowable() {
    const { format, isResumable, framing } = this.settings;
    return format === "gai" && (isResumable || framing === "ws") && this.id !== "" && !this.ended;
  }

  /** All that the page shows of the answer but the running texts. */
  get record() {
    const { model } = this.settings.request;
    const isThinking = !this.ended && this.thoughtFrom > 0 && this.answer.length === 0;
    const to = isThinking ? this.elapsed() : this.thoughtTo;
    return {
      model: model ?? "",
      source: this.source,
      activity: activity(this),
      end: this.end,
      hasEnded: this.ended > 0,
      hasReasoning: this.reasoning.length > 0,
      isThinking,
      thought: this.thoughtFrom ? to - this.thoughtFrom : 0,
      first: this.first,
      total: this.elapsed(),
      rate: this.#rate(),
      unit: this.usage?.output_tokens === undefined && this.deltas ? "Deltas/s" : "Tokens/s",
      events: this.events,
      usage: this.usage,
      finish: this.finish || (this.error ? "error" : this.end === "idle" ? "cancelled" : ""),
      error: this.error && { request_id: this.requestId, ...this.error },
      notes: this.notes,
      calls: this.ended ? this.called.map((call) => ({ ...call, approval: null })) : this.called, // nobody waits any more
      seams: this.seams,
    };
  }

  /** That, and the texts: what a page needs to show the answer again, and a model to go on. */
  get whole() {
    return { ...this.record, text: this.answer.text, reasoning: this.reasoning.text };
  }

  /** How the answer has ended, each one for itself. */
  get end() {
    if (!this.ended) return "running";
    if (this.error) return "bad";
    return (this.finish ? this.finish === "cancelled" : this.cancelled) ? "idle" : "good";
  }

  /** Output tokens, or deltas if no usage is known, a second after the first. */
  #rate() {
    const { usage, first, last, deltas } = this;
    const elapsed = this.elapsed();
    // An answer that came in one piece has no rate of its own: then the whole request counts.
    const until = this.ended ? last : elapsed;
    const span = until - first >= 1 ? until - first : elapsed;
    const amount = usage?.output_tokens ?? deltas;
    return first && amount && (this.ended || span >= 250) ? number((amount * 1000) / span) : "–";
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
    const [thought, said] = [this.reasoning.length, this.answer.length];
    if (format.read(this, event)) {
      this.first ||= at;
      this.last = at;
      this.deltas += 1;
    }
    if (this.reasoning.length > thought) {
      this.thoughtFrom ||= at;
      this.thoughtTo = Math.max(this.thoughtTo, at);
    } else if (this.thoughtFrom && !said && this.answer.length) {
      this.thoughtTo = Math.max(this.thoughtTo, at);
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
      if (state === "reconnecting") this.#open(false);
      this.onState();
    };
    const options = { key, transport: framing, signal: this.controller.signal, onState };
    const server = new URL(".", location.href);
    // The text before a reload is not kept: the server has it, so the stream is followed from its beginning.
    const events = this.id ? follow(server, this.id, options) : stream(server, request, options);
    this.#events = events;
    this.state = events.state;
    if (this.seenBefore) this.note(`The page was loaded again after event ${count(this.seenBefore)}: the stream goes on.`);
    for await (const event of events) {
      if (!this.id && event.stream_id) this.id = event.stream_id;
      if (event.seq === 1) this.onId();
      this.#close(event.seq);
      this.seq = event.seq ?? this.seq;
      this.requestId ||= event.request_id ?? "";
      this.receive({ data: JSON.stringify(event) }, performance.now() - this.started);
    }
  }

  /** Ends the connection of the moment; the stream goes on over the next one. */
  cut() {
    if (!this.isFollowable || this.seams.at(-1)?.resumed === 0) return;
    this.#open(true);
    this.#events.reconnect(CUT_FOR);
  }

  /** The connection is gone: its successor goes on behind the newest event. */
  #open(isCut) {
    if (this.seams.at(-1)?.resumed === 0 || this.seams.length >= NOTED) return;
    this.#lostAt = performance.now();
    this.seams.push({ after: this.seq, resumed: 0, ms: 0, missing: 0, isCut });
  }

  /** An event has come over it. */
  #close(seq) {
    const seam = this.seams.at(-1);
    if (seam?.resumed !== 0 || seq === undefined) return;
    Object.assign(seam, { resumed: seq, ms: performance.now() - this.#lostAt, missing: seq - seam.after - 1 });
  }

  /** What another page needs to follow the stream; nothing if it cannot be followed. */
  get kept() {
    if (!this.isFollowable) return undefined;
    const { id, seq, seenBefore, first, thoughtFrom, thoughtTo, started, settings: { request } } = this;
    const at = Date.now() - (performance.now() - started);
    return { id, seq: Math.max(seq, seenBefore), model: request.model ?? "", first, thoughtFrom, thoughtTo, at };
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

  /** Decides about a call that waits for a person. What is decided is the digest of what was shown. */
  async decide({ id, digest }, decision) {
    try {
      const path = `api/v1/streams/${encodeURIComponent(this.id)}/approvals/${encodeURIComponent(id)}`;
      const headers = { "content-type": "application/json", ...authorization(this.settings.key) };
      const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify({ decision, digest }) });
      if (!answer.ok) this.note(`Not decided: ${(await refusal(answer)).message}`);
    } catch (error) {
      this.note(`Not decided: ${error.message} (reported by this browser)`);
    }
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

/** What a running request is doing. */
export function activity({ cancelled, state, first, thoughtFrom, answer, seams }) {
  const seam = seams.at(-1);
  if (cancelled) return "Cancelling…";
  if (state === "connecting") return "Connecting…";
  if (seam?.resumed === 0) {
    return seam.isCut ? `Cut after event ${count(seam.after)}: reconnecting…` : "Connection lost: reconnecting…";
  }
  if (thoughtFrom && !answer.length) return "Thinking";
  return first ? "Streaming" : "Waiting for the first token";
}
