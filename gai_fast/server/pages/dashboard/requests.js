// The list of requests that have ended, and what they come to; asked for every few seconds. Names are text.

import { ask } from "./api.js";
import { seconds } from "./charts.js";
import { count, make, put } from "./streams.js";

const EVERY = 5_000; // ms between two questions: a thousand rows are 5 ms of the server's work
const ROWS = 200; // what a page lays out without effort
const MODELS = 3; // whose cached parts fit into a line
const KEPT = 1000; // what the server keeps: `recent_requests`
const COLUMNS = ["Ended", "Key", "Model", "End", "Tokens", "Cached", "Cost", "First token", "Time", "Ids"];

const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
export const money = (amount, currency) => {
  const digits = { minimumFractionDigits: 2, maximumFractionDigits: amount !== 0 && amount < 1 ? 6 : 2 };
  return `${amount.toLocaleString("en", digits)} ${currency}`.trim();
};

/** The time of a moment, with its date unless that is today's. */
export function moment(given) {
  const time = new Date(given);
  const clock = time.toLocaleTimeString("en-GB");
  return time.toDateString() === new Date().toDateString() ? clock : `${time.toLocaleDateString("en-CA")} ${clock}`;
}

/** A button that copies an id (dashboard.js); nothing if there is none. */
export function idButton(what, id) {
  if (!id) return undefined;
  const button = make("button", "quiet", what);
  button.type = "button";
  button.dataset.id = id;
  button.title = id;
  button.ariaLabel = `Copy the ${what} id ${id}`;
  return button;
}

/** The part of the prompts that providers had in their caches; "" if nobody counted them. */
function cached(rows) {
  const counted = rows.filter((row) => row.input_tokens && row.cached_input_tokens !== null);
  const of = (name) => counted.reduce((sum, row) => sum + row[name], 0);
  return counted.length ? `${whole((100 * of("cached_input_tokens")) / of("input_tokens"))} %` : "";
}

/** The cached part of each model, of those with the most requests. */
function cachedByModel(rows) {
  const models = new Map();
  for (const row of rows) if (row.model) models.set(row.model, [...(models.get(row.model) ?? []), row]);
  const shown = [...models].map(([model, of]) => [model, cached(of), of.length]).filter(([, share]) => share);
  return shown.sort((a, b) => b[2] - a[2]).slice(0, MODELS).map(([model, share]) => `${model} ${share} cached`);
}

/** The sums of some requests, in one line. */
function summary(rows) {
  const failed = rows.filter(({ outcome }) => outcome === "failed" || outcome === "refused").length;
  const tokens = rows.reduce((sum, row) => sum + (row.output_tokens ?? 0), 0);
  const costs = new Map();
  for (const { cost, currency } of rows) if (cost !== null) costs.set(currency, (costs.get(currency) ?? 0) + cost);
  const first = rows.map((row) => row.ttft_ms).filter((each) => each !== null).sort((a, b) => a - b);
  return [
    `${count(rows.length)} ${rows.length === 1 ? "request" : "requests"}`,
    failed && `${count(failed)} failed`,
    tokens && `${whole(tokens)} tokens out`,
    ...cachedByModel(rows),
    ...[...costs].map(([currency, amount]) => money(amount, currency)),
    first.length && `first token p50 ${seconds(first[Math.floor((first.length - 1) / 2)] / 1e3)}`,
  ].filter(Boolean).join(" · ");
}

function cellsOf(row) {
  const tokens = row.input_tokens === null && row.output_tokens === null;
  return [
    moment(row.ended_at),
    row.key,
    row.model || "–",
    row.code ? [row.code, row.reason, row.status].filter(Boolean).join(" ") : row.outcome,
    tokens ? "–" : `${whole(row.input_tokens ?? 0)} → ${whole(row.output_tokens ?? 0)}`,
    cached([row]) || "–",
    row.cost === null ? "–" : money(row.cost, row.currency),
    row.ttft_ms === null ? "–" : seconds(row.ttft_ms / 1e3),
    seconds(row.duration_ms / 1e3),
  ];
}

/** The panel. `root` is its section. */
export class Requests {
  #root;
  #body;
  #sum;
  #more;
  #rows = [];
  #span = Infinity; // ms before now
  #words = [];
  #outcome = "";
  #asked = -Infinity;
  #isAsking = false;

  constructor(root) {
    this.#root = root;
    this.#body = root.querySelector("tbody");
    this.#sum = root.querySelector(".head .hint");
    this.#more = root.querySelector(".more");
    root.querySelector("thead tr").append(...COLUMNS.map((name) => {
      const cell = make("th", "", name);
      cell.scope = "col";
      return cell;
    }));
    const [find, outcome] = [root.querySelector("input"), root.querySelector("select")];
    find.addEventListener("input", () => {
      this.#words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.#show();
    });
    outcome.addEventListener("change", () => {
      this.#outcome = outcome.value;
      this.#show();
    });
  }

  /** Asks again, if the last answer is old; never while the page is hidden, which has no feed that calls this. */
  async refresh() {
    if (this.#isAsking || performance.now() - this.#asked < EVERY) return;
    this.#isAsking = true;
    this.#asked = performance.now();
    try {
      this.#rows = (await ask("admin/v1/requests")).data;
      this.#show();
    } catch (problem) {
      put(this.#sum, `The list cannot be had: ${problem.message}`);
    } finally {
      this.#isAsking = false;
    }
  }

  /** Asks at the next sample, whenever the last answer was. */
  forget() {
    this.#asked = -Infinity;
  }

  /** Shows those of a range: ms before now. */
  within(span) {
    this.#span = span;
    if (this.#rows.length) this.#show();
  }

  #show() {
    const since = Date.now() - this.#span;
    const rows = this.#rows.filter((row) => Date.parse(row.ended_at) >= since && this.#fits(row));
    const oldest = this.#rows.at(-1);
    const isCut = this.#rows.length >= KEPT && Date.parse(oldest.ended_at) > since;
    put(this.#sum, [rows.length && summary(rows), isCut && `the list begins at ${moment(oldest.ended_at)}`].filter(Boolean).join(" · "));
    const shown = rows.slice(0, ROWS);
    const known = JSON.stringify(shown.map((row) => [row.request_id, row.stream_id, row.ended_at]));
    const more = rows.length - shown.length;
    this.#more.hidden = rows.length > 0 && !more;
    put(this.#more, more ? `${count(more)} older ones are counted and not shown.` : this.#rows.length ? "No request fits." : "No request has ended yet.");
    this.#root.querySelector("table").hidden = !rows.length;
    if (this.#body.dataset.known === known) return;
    this.#body.dataset.known = known;
    const focused = this.#body.contains(document.activeElement) && document.activeElement.dataset.id;
    this.#body.replaceChildren(...shown.map((row) => {
      const cells = cellsOf(row).map((text) => make("td", "", text));
      for (const cell of cells.slice(1, 4)) cell.dir = "auto"; // names that people gave
      const ids = [idButton("request", row.request_id), idButton("stream", row.stream_id)].filter(Boolean);
      const line = make("tr", "", ...cells, make("td", "", ...ids));
      line.dataset.outcome = row.outcome;
      line.title = [row.endpoint, row.upstream, row.transport, row.session && `session ${row.session}`].filter(Boolean).join("\n");
      return line;
    }));
    if (focused) this.#body.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  #fits(row) {
    if (this.#outcome && row.outcome !== this.#outcome) return false;
    const text = [row.key, row.model, row.upstream, row.endpoint, row.outcome, row.code, row.reason, row.request_id, row.stream_id, row.session].join(" ");
    return this.#words.every((word) => text.toLowerCase().includes(word));
  }
}
