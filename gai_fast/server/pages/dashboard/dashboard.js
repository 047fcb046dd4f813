// The dashboard: the server's last hour, and from then on one sample of its figures a second, over `admin/v1/events`.
// Memory does not grow: the page keeps an hour of half minutes, the samples of five minutes, one a minute of a day, a
// bounded list of streams and of their text.

import { copy } from "../playground/copy.js";
import { ask, hasKey, useKey } from "./api.js";
import { Approvals } from "./approvals.js";
import { Feed } from "./feed.js";
import { Keys } from "./keys.js";
import { Requests, moment, money } from "./requests.js";
import { Ring, Sparkline, histogram, quantile, seconds, since } from "./charts.js";
import { Streams, count, make, put, rate } from "./streams.js";

const SPAN = 300; // samples: five minutes
const DAY = 1440; // samples, one a minute
const SLOT = 30_000; // ms of one point of a tile's line, as the server keeps its last hour
const SLOTS = 120;
const FEWEST = 20; // points that take the whole width of a tile: the line of a young server is not a speck
const MINUTE = 60_000; // ms
const SMOOTHED = 5; // samples over which a rate is averaged
const HIDDEN_FOR = 5_000; // ms after which a hidden page leaves the server alone
const ROWS = 12; // of a list beside the streams
const STORED = "gai-fast.dashboard";
const STORED_RANGE = "gai-fast.dashboard.range";
const THEMES = ["auto", "light", "dark"];
const BREAKERS = ["closed", "probing", "open"];

const $ = (id) => document.getElementById(id);

// ---- the theme -----------------------------------------------------------------------------------------------------

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}

function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off
  }
}

function store(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // the page works without it
  }
}

$("theme").addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  setTheme(theme);
  store(STORED, theme);
});

// ---- figures over time ---------------------------------------------------------------------------------------------

const bytes = (value) => {
  if (typeof value !== "number") return "–";
  const [size, unit] = value < 2 ** 30 ? [value / 2 ** 20, "MiB"] : [value / 2 ** 30, "GiB"];
  return `${size.toFixed(size < 99.5 ? 1 : 0)} ${unit}`;
};

class Tile {
  #figure;
  #hint;
  #trend;
  #ring = new Ring(SLOTS);
  #slot = 0; // the number of the last point
  #sum = 0; // of the samples within it
  #count = 0;

  constructor(name) {
    const tile = document.querySelector(`[data-tile="${name}"]`);
    this.#figure = tile.querySelector(".figure");
    this.#hint = tile.querySelector(".hint");
    this.#trend = new Sparkline(tile.querySelector(".trend"), FEWEST);
  }

  /** Shows a value of the moment `at`, its text and a hint; `null` is a value that is not known. */
  show(at, value, text, hint = "") {
    this.#goTo(Math.floor(at / SLOT));
    if (value !== null) {
      this.#sum += value;
      this.#count += 1;
      this.#ring.put(this.#sum / this.#count);
    }
    put(this.#figure, text);
    put(this.#hint, hint);
    this.#trend.show(this.#ring.values);
  }

  /** Begins with values that were taken before this page was there: `{at, value}`, the oldest first. */
  recall(points) {
    const [now, value] = [this.#slot, this.#ring.values.at(-1) ?? null];
    const earlier = points.map((point) => [Math.floor(point.at / SLOT), point.value]).filter(([slot]) => slot < now);
    this.#ring.clear();
    if (earlier.length) this.#slot = earlier[0][0] - 1;
    for (const [slot, each] of earlier) {
      this.#goTo(slot);
      this.#ring.put(each);
    }
    if (now) {
      this.#goTo(now);
      this.#ring.put(value);
    }
    this.#trend.show(this.#ring.values);
  }

  /** Goes to another point; those between, in which nobody looked, are gaps. */
  #goTo(slot) {
    if (slot === this.#slot) return;
    const missed = this.#slot && slot > this.#slot ? Math.min(SLOTS, slot - this.#slot) : 1;
    this.#ring.push(...Array(missed).fill(null));
    this.#slot = slot;
    this.#sum = this.#count = 0;
  }
}

const tiles = Object.fromEntries(
  ["active", "requests", "tokens", "first", "errors", "memory"].map((name) => [name, new Tile(name)]),
);
const past = new Ring(SPAN); // the sums of each sample
const minutes = new Ring(DAY); // those of one sample a minute
const rates = new Ring(SMOOTHED);
let span = Infinity; // ms before now
let newest = null;

/** The mean of a rate over the newest samples; `null` before there is one. */
function smoothed(name) {
  const values = rates.values.map((each) => each[name] ?? 0);
  return values.length ? values.reduce((sum, each) => sum + each, 0) / values.length : null;
}

/** The sums at the begin of a range, or when this page was opened; `null` stands for the server's start. */
function begin(ms) {
  const isWithin = ({ at }) => at >= newest.at - ms;
  const found = ms === Infinity ? null : (minutes.values.find(isWithin) ?? past.values.find(isWithin));
  return found === newest ? null : found;
}

/** The distribution of the last five minutes, or as far as is known; all there is where nothing has come since. */
function recent(name) {
  const earlier = begin(SPAN * 1_000);
  const left = earlier && since(newest[name], earlier[name]);
  return left?.some((each) => each.count) ? left : newest[name];
}

const nameOf = ({ code, upstream, provider }) => JSON.stringify([code, upstream, provider]);

/** The errors and refusals since a sample, without zeros. */
function errorsSince(earlier) {
  const before = new Map((earlier?.errors ?? []).map((each) => [nameOf(each), each.count]));
  const errors = newest.errors.map((each) => ({ ...each, count: each.count - (before.get(nameOf(each)) ?? 0) }));
  const limits = Object.entries(newest.limited).map(([name, number]) => [name, number - (earlier?.limited[name] ?? 0)]);
  return { errors: errors.filter((each) => each.count > 0), limits: limits.filter(([, number]) => number > 0) };
}

/** What depends on the range. */
function showRange() {
  const earlier = begin(span);
  const text = earlier ? `since ${moment(earlier.at)}` : "since the server started";
  for (const each of document.querySelectorAll("[data-since]")) put(each, text);
  for (const [id, name, what] of [
    ["first-token", "first_token_seconds", "first token"], ["gaps", "gap_seconds", "gap between tokens"],
  ]) histogram($(id), earlier ? since(newest[name], earlier[name]) : newest[name], what);
  showErrors(errorsSince(earlier));
}

function showTiles({ at: moment, active, streams, rates: given, memory_bytes: memory }) {
  if (given) rates.push(given);
  const at = Date.parse(moment);
  const waiting = streams.filter(({ state }) => state === "waiting").length;
  const [requests, tokens, all, clients] = ["requests", "deltas", "errors", "client_errors"].map(smoothed);
  const errors = all === null ? null : Math.max(0, all - clients);
  const shown = (value) => (value === null ? "–" : rate(value));
  tiles.active.show(at, active, count(active), waiting ? `${count(waiting)} wait for the first token` : "");
  tiles.requests.show(at, requests, shown(requests), "mean of 5 s");
  tiles.tokens.show(at, tokens, shown(tokens), "of all streams");
  const [p50, p95] = [0.5, 0.95].map((share) => quantile(recent("first_token_seconds"), share));
  tiles.first.show(at, p50, seconds(p50), p95 === null ? "" : `median; p95 ${seconds(p95)}`);
  tiles.errors.show(at, errors, shown(errors), `and ${rate(clients ?? 0)} of clients`);
  tiles.memory.show(at, memory ?? null, bytes(memory), "of all processes");
}

// ---- lists ---------------------------------------------------------------------------------------------------------

/** Replaces a list where it has changed. */
function replace(place, known, rows) {
  const text = JSON.stringify(known);
  if (place.dataset.known === text) return;
  place.dataset.known = text;
  place.replaceChildren(...rows());
}

const nothing = (text) => [make("p", "none", text)];

/** A row with a bar behind its figure: its share of the largest. */
function barred(name, detail, figure, share) {
  const row = make("div", "item", make("span", "name", name), make("span", "hint", detail), make("span", "value", figure));
  row.firstChild.dir = "auto";
  row.style.setProperty("--share", share.toFixed(3));
  row.title = `${name} ${detail}`;
  return row;
}

/** At most `ROWS` of a list, and how many more there are. */
function some(list, show) {
  const rows = list.slice(0, ROWS).map(show);
  if (list.length > ROWS) rows.push(make("p", "none", `and ${count(list.length - ROWS)} more`));
  return rows;
}

const SIDES = { upstream: "Of upstreams", gateway: "Of this gateway", client: "Of clients" };

function showErrors({ errors, limits }) {
  replace($("errors"), [errors, limits], () => {
    if (!errors.length && !limits.length) return nothing("No error.");
    const most = Math.max(1, ...errors.map((each) => each.count));
    const rows = Object.entries(SIDES).flatMap(([side, title]) => {
      const own = errors.filter((each) => each.side === side);
      if (!own.length) return [];
      return [make("h3", "", title), ...some(own, (each) =>
        barred(each.code, each.upstream || each.provider, count(each.count), each.count / most))];
    });
    if (limits.length) {
      const text = limits.map(([limit, number]) => `${limit} ${count(number)}`).join(" · ");
      rows.push(make("p", "none", `Refused by limits: ${text}`));
    }
    return rows;
  });
}

function showBreakers({ breakers }) {
  replace($("breakers"), breakers, () => {
    const all = Object.entries(breakers).sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
    if (!all.length) return nothing("No upstream has a breaker. Set one with [[upstream]] breaker.");
    return some(all, ([upstream, state]) => {
      const word = BREAKERS[state] ?? "?";
      const row = make("div", "item", make("span", "name", upstream), make("span", "state", word));
      row.dataset.breaker = word;
      return row;
    });
  });
}

function showSpend({ spend }) {
  put($("spend-day"), spend ? `${spend.day}, UTC` : "");
  replace($("spend"), spend, () => {
    if (!spend) return nothing("The store is out of reach: the spend is not known now.");
    if (!spend.keys.length) return nothing("Nothing is spent today. Models with a price are counted: see [[model]] price.");
    const part = (title, name, rows) => {
      const most = Math.max(...rows.map(({ amount }) => amount)) || 1;
      const shown = some(rows, (row) => {
        const requests = `${count(row.requests)} ${row.requests === 1 ? "request" : "requests"}`;
        return barred(row[name], requests, money(row.amount, row.currency), row.amount / most);
      });
      return [make("h3", "", title), ...shown];
    };
    return [...part("By key", "key", spend.keys), ...part("By model", "model", spend.models)];
  });
}

function showChange({ configuration }) {
  put($("change-at"), configuration ? `${configuration.at.slice(0, 19).replace("T", " ")} UTC` : "");
  replace($("change"), configuration, () => {
    if (!configuration) return nothing("None since the server started. Edit its file, then send SIGHUP or POST /admin/v1/reload.");
    if (!configuration.changes.length) return nothing("It was loaded again; nothing in it had changed.");
    return some(configuration.changes, ({ section, name, change }) =>
      make("div", "item", make("span", "name", name ?? `[${section}]`), make("span", "hint", name ? section : ""),
        make("span", "value", change)));
  });
}

// ---- the feed ------------------------------------------------------------------------------------------------------

function say(text, isProblem = false) {
  put($("announcement"), text);
  $("notice").hidden = !isProblem;
  if (isProblem) put($("notice"), text);
}

const streams = new Streams({
  place: $("streams"),
  more: $("streams-more"),
  empty: $("streams-empty"),
  count: $("streams-count"),
  find: $("find"),
  tell: say,
});

const requests = new Requests($("requests"));
const keys = new Keys($("keys"), say);
const approvals = new Approvals($("approvals"), say);

function receive({ type, data }) {
  if (type === "unavailable") {
    feedState = "late";
    state("busy", `The figures are late: ${data.error.message}`);
    return;
  }
  if (type !== "sample") return;
  const { first_token_seconds, gap_seconds, errors, limited } = data;
  newest = { at: Date.now(), first_token_seconds, gap_seconds, errors, limited };
  if (past.oldest && !since(first_token_seconds, past.values.at(-1).first_token_seconds)) {
    past.clear(); // a new server
    minutes.clear();
  }
  past.push(newest);
  if (!(newest.at - minutes.values.at(-1)?.at < MINUTE)) minutes.push(newest);
  showTiles(data);
  showRange();
  if (!isRecalled) recall(newest, newest.at - Date.parse(data.at));
  showBreakers(data);
  showSpend(data);
  showChange(data);
  streams.show(data);
  requests.refresh();
  approvals.refresh();
  showCurl();
  keys.refresh(data.spend?.keys[0]?.currency ?? "");
}

function state(name, text) {
  $("status").dataset.state = name;
  put($("status"), text);
}

let isRecalled = false; // since the connection of the moment

/** Shows the server's last hour, from a sample backwards. `skew`: ms by which this clock is ahead of the server's. */
async function recall(sample, skew) {
  isRecalled = true;
  let rows;
  try {
    ({ data: rows } = await ask("admin/v1/history"));
  } catch {
    return; // the lines begin when the page was opened
  }
  const bounds = sample.first_token_seconds.map(({ le }) => le);
  const p50 = (row) => quantile(row.first_token_seconds.map((each, at) => ({ le: bounds[at], count: each })), 0.5);
  const perSecond = (sum) => (sum * 1e3) / SLOT;
  const lines = {
    active: (row) => row.active,
    requests: (row) => perSecond(row.requests),
    tokens: (row) => perSecond(row.deltas),
    first: p50,
    errors: (row) => perSecond(Math.max(0, row.errors - row.client_errors)),
  };
  const over = rows.slice(0, -1); // the last one is not
  for (const [name, value] of Object.entries(lines)) {
    tiles[name].recall(over.map((row) => ({ at: Date.parse(row.at), value: value(row) })));
  }
  const earlier = before(sample, rows, skew);
  const older = minutes.values.filter(({ at }) => !earlier.length || at < earlier[0].at);
  minutes.clear();
  minutes.push(...older, ...earlier, sample);
  showRange();
}

/** The sums of a sample at the begin of each row: those of the sample less what has come since. */
function before(sample, rows, skew) {
  const sums = [];
  let { first_token_seconds: first, gap_seconds: gaps, errors, limited } = sample;
  const less = (buckets, counts) => buckets.map(({ le, count: all }, at) => ({ le, count: Math.max(0, all - counts[at]) }));
  for (const row of rows.toReversed()) {
    const kinds = new Map(row.kinds.map((each) => [nameOf(each), each.count]));
    first = less(first, row.first_token_seconds);
    gaps = less(gaps, row.gap_seconds);
    errors = errors.map((each) => ({ ...each, count: Math.max(0, each.count - (kinds.get(nameOf(each)) ?? 0)) }));
    limited = Object.fromEntries(Object.entries(limited).map(([name, all]) => [name, all - (row.limited[name] ?? 0)]));
    sums.unshift({ at: Date.parse(row.at) + skew, first_token_seconds: first, gap_seconds: gaps, errors, limited });
  }
  return sums;
}

let countdown = 0;
let feedState = "";

function showState({ name, at, error }) {
  if (name === feedState) return; // each event says that the feed is live
  feedState = name;
  clearInterval(countdown);
  $("retry").hidden = name !== "waiting";
  $("login").hidden = name !== "refused";
  document.querySelector("main").hidden = name === "refused";
  if (name !== "live") rates.clear();
  if (name === "live") {
    isRecalled = false;
    state("good", "Live");
    say("The figures are live.");
    requests.forget();
    keys.forget();
    approvals.forget();
  } else if (name === "busy") {
    state("busy", "Connecting…");
  } else if (name === "paused") {
    state("idle", "Paused while this page is hidden");
  } else if (name === "refused") {
    state("idle", "A key is needed");
    const why = `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`;
    say(hasKey() || error.status !== 401 ? why : "This server needs an admin's key.");
    put($("login-why"), $("announcement").textContent);
    useKey("");
    $("login-key").focus();
  } else {
    const why = error ? error.message : "Connection lost";
    const tick = () => {
      const left = Math.max(0, Math.ceil((at - performance.now()) / 1e3));
      state("bad", `${why}. Next try in ${left} s`);
    };
    say(`${why}. This page tries to come back.`); // once, not each second
    tick();
    countdown = setInterval(tick, 1_000);
  }
}

const feed = new Feed("admin/v1/events", receive, showState);
let hiding = 0;

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      feed.pause();
      streams.pause();
    }, HIDDEN_FOR);
  } else if (feed.isPaused) {
    feed.start();
    streams.resume();
  }
});
addEventListener("online", () => feed.isPaused || feed.start());
addEventListener("pagehide", () => {
  feed.pause();
  streams.pause();
});
addEventListener("pageshow", ({ persisted }) => {
  if (!persisted) return; // it was kept by the browser, and comes back as it was
  feed.start();
  streams.resume();
});
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("login-key").value.trim());
  $("login-key").value = "";
  feed.start();
});
$("retry").addEventListener("click", () => feed.start());
const ranges = [...document.querySelectorAll("[data-minutes]")];

function setRange(chosen) {
  span = Number(chosen.dataset.minutes) * MINUTE || Infinity;
  for (const each of ranges) each.setAttribute("aria-pressed", String(each === chosen));
  requests.within(span);
  if (newest) showRange();
}

for (const each of ranges) {
  each.addEventListener("click", () => {
    setRange(each);
    store(STORED_RANGE, each.dataset.minutes);
  });
}

const root = location.origin + location.pathname.replace(/\/[^/]*$/, "");

/** A request for a shell: with a key, if the server has keys; it is named, and never written. */
function showCurl() {
  const key = hasKey() || keys.areNeeded ? ' \\\n  -H "authorization: Bearer $GAI_API_KEY"' : "";
  put($("curl"), `curl -N ${root}/api/v1/stream \\\n  -H 'content-type: application/json'${key} \\\n  -d '{"query": "Tell me a story"}'`);
}

const copying = new Map(); // timers by button

document.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-id], #curl-copy");
  if (!button) return;
  const text = button.textContent;
  const isCopied = await copy(button.dataset.id ?? $("curl").textContent);
  clearTimeout(copying.get(button)?.timer);
  const shown = copying.get(button)?.text ?? text;
  put(button, isCopied ? "Copied" : "Not copied");
  const back = () => {
    copying.delete(button);
    put(button, shown);
  };
  copying.set(button, { text: shown, timer: setTimeout(back, 1_500) });
});

showCurl();
setTheme(THEMES.includes(stored(STORED)) ? stored(STORED) : "auto");
setRange(ranges.find((each) => each.dataset.minutes === stored(STORED_RANGE)) ?? ranges.at(-1));
feed.start();
