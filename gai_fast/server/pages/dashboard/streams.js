// The list of live streams: rows that stay where they are, a view of a stream's text, and its cancellation.
// Whatever a client, a model or a configuration has named reaches the page as text only.

import { Refused, address, authorization } from "./api.js";
import { seconds } from "./charts.js";
import { events } from "./feed.js";
import { refusal } from "../client.js";

const ROWS = 100; // what a page lays out each second without effort, and more than anybody reads
const FOLLOWED = 2; // streams: a browser has six connections for a server, and the feed and a cancellation need some
const TEXT_MOST = 20_000; // characters of a followed stream that stay on the page
const LINGER = 3_000; // ms for which a stream that has ended stays in the list
const FOLLOW_PAUSE = 1_000; // ms before a lost view is asked for again
const FOLLOW_TRIES = 5;

/** Makes an element with a class and children. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Changes a text where it differs: nothing is laid out anew for a value that stays. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const count = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
export const rate = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

const age = (milliseconds) => {
  const whole = Math.floor(milliseconds / 1e3);
  if (whole < 60) return `${(milliseconds / 1e3).toFixed(1)} s`;
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
};

/** Tokens per second since the first one. */
const mean = ({ deltas, ttft_ms: first, duration_ms: time }) =>
  first !== null && deltas > 1 && time > first ? ((deltas - 1) * 1e3) / (time - first) : 0;

const button = (className, text, action) => {
  const made = make("button", className, text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
};

/** The text of a stream as it grows, the newest `TEXT_MOST` characters of it. */
class Follow {
  element = make("div", "followed");
  #text = make("pre");
  #end = make("p", "hint");
  #id;
  #control = null;
  #size = 0;
  #isOver = false;

  constructor(id) {
    this.#id = id;
    this.#text.tabIndex = 0;
    this.#text.dir = "auto";
    this.#text.setAttribute("aria-label", "Text of the stream");
    this.element.append(this.#text, this.#end);
    this.resume();
  }

  resume() {
    if (this.#isOver || this.#control) return;
    this.#control = new AbortController();
    this.#run(this.#control.signal);
  }

  pause() {
    this.#control?.abort();
    this.#control = null;
  }

  async #run(signal) {
    put(this.#end, "Following from here on…");
    for (let tries = 0; tries < FOLLOW_TRIES && !signal.aborted; tries += 1) {
      try {
        for await (const { data } of events(`admin/v1/streams/${encodeURIComponent(this.#id)}`, signal)) {
          if (signal.aborted) return;
          tries = 0;
          this.#receive(data);
        }
      } catch (thrown) {
        if (signal.aborted) return;
        if (thrown instanceof Refused && !thrown.error.temporary) {
          this.#over(thrown.error.status === 404 ? "The stream has ended." : thrown.message);
        }
      }
      if (this.#isOver) return;
      await new Promise((resolve) => setTimeout(resolve, FOLLOW_PAUSE));
      if (!signal.aborted) this.#say("\n⋯\n", "aside"); // what came meanwhile is not known
    }
    if (!signal.aborted) this.#over("The view was lost. Close it and follow again.");
  }

  #receive(event) {
    if (event.type === "text.delta" || event.type === "refusal.delta") this.#say(event.text, "said");
    else if (event.type === "reasoning.delta") this.#say(event.text, "thought");
    else if (event.type === "tool.call.start") this.#say(`\n${event.tool_call?.name ?? "tool"} `, "called");
    else if (event.type === "tool.call.delta") this.#say(event.arguments, "called");
    else if (event.type === "stream.reset") this.#say("\n⋯ the answer begins anew ⋯\n", "aside");
    else if (event.type === "warning" && event.reason === "skipped") this.#say("\n⋯\n", "aside");
    else if (event.type === "finish") put(this.#end, `Finished: ${event.finish_reason ?? "?"}.`);
    else if (event.type === "error") put(this.#end, `Error ${event.error.code}: ${event.error.message}`);
    else if (event.type === "done") this.#over();
  }

  /** Adds text; neighbouring texts of one kind share a node. */
  #say(text, kind) {
    if (!text) return;
    const pane = this.#text;
    const isAtEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 24;
    const last = pane.lastElementChild;
    if (last?.className === kind) last.firstChild.appendData(text);
    else pane.append(make("span", kind, text));
    this.#size += text.length;
    while (this.#size > TEXT_MOST) {
      const node = pane.firstElementChild.firstChild;
      const most = Math.min(node.length, this.#size - TEXT_MOST);
      node.deleteData(0, most);
      this.#size -= most;
      if (!node.length) pane.firstElementChild.remove();
    }
    if (isAtEnd) pane.scrollTop = pane.scrollHeight;
  }

  #over(text = "") {
    this.#isOver = true;
    if (text) put(this.#end, text);
  }
}

/** One stream. */
class Row {
  element = make("li");
  follow = null;
  hasEnded = false;
  #stream;
  #last = null; // deltas and time of the sample before
  #values;
  #dot = make("span", "dot");
  #state = make("span", "offscreen");
  #model = make("b");
  #route = make("span", "hint");
  #following;
  #cancel;
  #list;

  constructor(list, stream) {
    this.#list = list;
    this.element.dataset.streamId = stream.id;
    this.#values = ["First token", "Tokens", "Tokens/s", "Time"].map((label) => [label, make("span", "value")]);
    this.#following = button("quiet", "Follow", () => list.toggle(this));
    this.#following.setAttribute("aria-expanded", "false");
    this.#cancel = button("quiet danger", "Cancel", () => list.cancel(this));
    for (const [each, what] of [[this.#following, "Follow"], [this.#cancel, "Cancel"]]) {
      each.setAttribute("aria-label", `${what} stream ${stream.id}`);
    }
    const cells = this.#values.map(([label, value]) => make("div", "cell", make("span", "label", label), value));
    const who = make("div", "who", this.#dot, this.#state, this.#model, this.#route);
    for (const each of [this.#model, this.#route]) each.dir = "auto";
    const copying = button("quiet", "Id", () => {}); // dashboard.js copies
    copying.dataset.id = stream.id;
    copying.setAttribute("aria-label", `Copy the id of stream ${stream.id}`);
    this.element.append(make("div", "row", who, ...cells, make("div", "actions", copying, this.#following, this.#cancel)));
    this.update(stream);
  }

  get stream() {
    return this.#stream;
  }

  update(stream) {
    const { deltas, duration_ms: time, ttft_ms: first } = stream;
    const last = this.#last;
    const isNewer = last && time > last.time && deltas >= last.deltas;
    const speed = isNewer ? ((deltas - last.deltas) * 1e3) / (time - last.time) : mean(stream);
    if (!last || time > last.time) this.#last = { deltas, time };
    this.#stream = stream;
    this.#say(stream.state);
    put(this.#model, stream.model);
    put(this.#route, `${stream.key} → ${stream.upstream}`);
    this.element.title = `${stream.id}\n${stream.endpoint}, ${stream.transport}, since ${stream.started_at}`;
    const texts = [first === null ? "–" : seconds(first / 1e3), count(deltas), rate(speed), age(time)];
    this.#values.forEach(([, value], at) => put(value, texts[at]));
  }

  /** Shows the figures of the whole stream, as they were last known; only an open view can still be closed. */
  end() {
    this.hasEnded = true;
    this.#say("ended");
    put(this.#values[2][1], rate(mean(this.#stream)));
    this.#cancel.remove();
    if (!this.follow) this.#following.remove();
  }

  open() {
    this.follow = new Follow(this.#stream.id);
    this.element.append(this.follow.element);
    this.#followed("Close");
  }

  close() {
    this.follow.pause();
    this.follow.element.remove();
    this.follow = null;
    this.#followed("Follow");
  }

  #followed(text) {
    put(this.#following, text);
    this.#following.setAttribute("aria-label", `${text} stream ${this.#stream.id}`);
    this.#following.setAttribute("aria-expanded", String(Boolean(this.follow)));
  }

  #say(state) {
    this.element.dataset.state = state;
    put(this.#state, `${state}, `);
  }
}

/** The list. `tell` announces what an action has led to, and whether that is a problem. */
export class Streams {
  #rows = new Map();
  #place;
  #more;
  #empty;
  #count;
  #tell;
  #sample = null;
  #words = [];

  constructor({ place, more, empty, count: counted, find, tell }) {
    this.#place = place;
    this.#more = more;
    this.#empty = empty;
    this.#count = counted;
    this.#tell = tell;
    find.addEventListener("input", () => {
      this.#words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of [...this.#rows.values()]) if (!row.follow && !this.#fits(row.stream)) this.#remove(row);
      if (this.#sample) this.show(this.#sample);
    });
  }

  /**
   * Shows the streams of a sample: those that are in the list stay where they are, and new ones come last. Those that
   * have ended stand below (dashboard.css), and leave when live ones need their room.
   */
  show(sample) {
    this.#sample = sample;
    const { active, streams } = sample;
    const isWhole = streams.length >= active;
    const running = new Map(streams.map((each) => [each.id, each]));
    for (const [id, row] of [...this.#rows]) {
      const stream = running.get(id);
      if (row.hasEnded) continue;
      if (stream) row.update(stream);
      else if (isWhole) this.#end(row);
      else if (!row.follow) this.#remove(row); // one of those that a sample has no room for, or it has ended
    }
    const fitting = streams.filter((each) => this.#fits(each));
    const missing = fitting.filter(({ id }) => !this.#rows.has(id));
    for (const row of [...this.#rows.values()]) {
      if (this.#rows.size + missing.length <= ROWS) break;
      if (row.hasEnded && !row.follow) this.#remove(row);
    }
    const room = Math.max(0, ROWS - this.#rows.size);
    const added = missing.slice(0, room).reverse();
    for (const stream of added) {
      const row = new Row(this, stream);
      this.#rows.set(stream.id, row);
      this.#place.append(row.element);
    }
    this.#tellCounts(active, streams.length, fitting.length);
  }

  #tellCounts(active, sampled, fitting) {
    const shown = [...this.#rows.values()].filter((row) => !row.hasEnded).length;
    put(this.#count, active ? `${count(active)} live` : "");
    const isShort = shown < active;
    this.#more.hidden = !isShort;
    if (this.#words.length && isShort) {
      const among = sampled < active ? `the newest ${count(sampled)} of ${count(active)}` : count(active);
      put(this.#more, `${count(fitting)} of ${among} streams fit the filter; ${count(shown)} are shown.`);
    } else if (isShort) {
      put(this.#more, `${count(active - shown)} more streams are not shown. Filter by model, key, upstream or id.`);
    }
    this.#empty.hidden = active > 0 || this.#rows.size > 0;
  }

  #fits({ id, key, model, upstream }) {
    const text = `${id} ${key} ${model} ${upstream}`.toLowerCase();
    return this.#words.every((word) => text.includes(word));
  }

  #end(row) {
    row.end();
    if (row.follow) return; // until it is closed
    setTimeout(() => row.follow || this.#remove(row), LINGER);
  }

  #remove(row) {
    if (row.follow) row.close();
    if (this.#rows.get(row.stream.id) === row) this.#rows.delete(row.stream.id);
    row.element.remove();
    if (this.#sample) this.#empty.hidden = this.#sample.active > 0 || this.#rows.size > 0;
  }

  #followed() {
    return [...this.#rows.values()].filter((row) => row.follow);
  }

  /** Opens or closes the view of a stream; the one that was opened first makes room for a third. */
  toggle(row) {
    if (row.follow) {
      if (row.hasEnded) this.#remove(row);
      else row.close();
      return;
    }
    const open = this.#followed();
    if (open.length >= FOLLOWED) this.toggle(open[0]);
    row.open();
  }

  /** Asks, and cancels a stream. */
  async cancel(row) {
    const { id, key, model } = row.stream;
    if (!confirm(`Cancel this stream?\n\n${id}\nmodel ${model}, key ${key}\n\nIts client gets what was written so far.`)) return;
    try {
      const response = await fetch(address(`admin/v1/streams/${encodeURIComponent(id)}`), { method: "DELETE", headers: authorization() });
      if (response.ok) this.#tell(`Stream ${id} is cancelled.`);
      else if (response.status === 404) this.#tell(`Stream ${id} had ended.`);
      else this.#tell(`Stream ${id} could not be cancelled: ${(await refusal(response)).message}`, true);
    } catch (problem) {
      this.#tell(`Stream ${id} could not be cancelled: ${problem.message}`, true);
    }
  }

  pause() {
    for (const row of this.#followed()) row.follow.pause();
  }

  resume() {
    for (const row of this.#followed()) row.follow.resume();
  }
}
