// Charts as inline SVG, and the figures behind them. All text goes through `textContent`.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 120;
const HEIGHT = 28;
const BARS = 11; // of a distribution, at least
const TOP = 12; // above the bars, for what their height means

function shape(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The newest `size` values. */
export class Ring {
  #values = [];
  #size;

  constructor(size) {
    this.#size = size;
  }

  push(...values) {
    this.#values.push(...values);
    if (this.#values.length > this.#size) this.#values.splice(0, this.#values.length - this.#size);
  }

  /** Changes the newest one. */
  put(value) {
    this.#values[this.#values.length - 1] = value;
  }

  clear() {
    this.#values = [];
  }

  get oldest() {
    return this.#values[0];
  }

  get values() {
    return this.#values;
  }
}

/** A line of values over time; those that are missing (`null`) leave a gap. It is made once and then changed. */
export class Sparkline {
  #line = shape("path", { class: "line" });
  #area = shape("path", { class: "area" });
  #fewest;

  /** `fewest` values take the whole width; more of them share it. */
  constructor(place, fewest) {
    this.#fewest = fewest;
    const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    place.append(shape("svg", attributes, this.#area, this.#line));
  }

  show(values) {
    const most = Math.max(...values.filter((each) => each !== null), 0) || 1;
    const slots = Math.max(values.length, this.#fewest);
    let line = "";
    let area = "";
    let begin = null;
    let last = null;
    values.forEach((value, at) => {
      if (value === null) {
        if (begin !== null) area += `L${last} ${HEIGHT}L${begin} ${HEIGHT}Z`;
        begin = null;
        return;
      }
      const x = (((slots - values.length + at) / (slots - 1)) * WIDTH).toFixed(2);
      const point = `${x} ${(HEIGHT - 1.5 - (value / most) * (HEIGHT - 4)).toFixed(2)}`;
      line += (begin === null ? "M" : "L") + point;
      area += begin === null ? `M${x} ${HEIGHT}L${point}` : `L${point}`;
      begin ??= x;
      last = x;
    });
    if (begin !== null) area += `L${last} ${HEIGHT}Z`;
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
  }
}

/** Seconds in three digits. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.0995) return `${(value * 1e3).toPrecision(value < 0.00095 ? 1 : 2)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1e3)} ms`;
  return value < 99.5 ? `${value.toPrecision(3)} s` : `${Math.round(value)} s`;
}

/**
 * The value below which a share of all lies, from buckets `{le, count}`; `null` where there are none. Within a bucket
 * values are taken to be spread evenly; of those above the last bound only that bound is known.
 */
export function quantile(buckets, share) {
  const total = buckets.reduce((sum, { count }) => sum + count, 0);
  if (!total) return null;
  let below = 0;
  let from = 0;
  for (const { le, count } of buckets) {
    if (count && below + count >= share * total) {
      return le === null ? from : from + (le - from) * ((share * total - below) / count);
    }
    below += count;
    from = le ?? from;
  }
  return from;
}

/** The buckets of one distribution less those of an earlier moment; `null` where a count has fallen: a new server. */
export function since(buckets, earlier) {
  if (earlier?.length !== buckets.length) return null;
  const left = buckets.map(({ le, count }, at) => ({ le, count: count - earlier[at].count }));
  return left.some(({ count }) => count < 0) ? null : left;
}

/** A distribution as bars, one a bucket, from the first to the last that holds anything. */
export function histogram(figure, buckets, what) {
  const total = buckets.reduce((sum, { count }) => sum + count, 0);
  const marks = figure.querySelector(".marks");
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((share) => seconds(quantile(buckets, share)));
  marks.textContent = total ? `p50 ${p50} · p95 ${p95} · p99 ${p99}` : "";
  const known = JSON.stringify(buckets);
  if (figure.dataset.known === known) return;
  figure.dataset.known = known;
  figure.querySelector("svg, .none")?.remove();
  if (!total) {
    const none = document.createElement("p");
    none.className = "none";
    none.textContent = `No ${what} yet.`;
    figure.append(none);
    return;
  }
  let first = buckets.findIndex(({ count }) => count);
  let last = buckets.findLastIndex(({ count }) => count);
  while (last - first < BARS - 1 && (first > 0 || last < buckets.length - 1)) { // neighbours, for comparison
    first = Math.max(0, first - 1);
    last = Math.min(buckets.length - 1, last + 1);
  }
  const shown = buckets.slice(first, last + 1);
  const most = Math.max(...shown.map(({ count }) => count));
  const [width, height] = [320, 64];
  const step = width / shown.length;
  const label = `${what}: p50 ${p50}, p95 ${p95}, p99 ${p99}, ${total} values`;
  const picture = shape("svg", { viewBox: `0 ${-TOP} ${width} ${TOP + height + 24}`, role: "img", "aria-label": label });
  const every = Math.ceil(shown.length / 6);
  shown.forEach(({ le, count }, at) => {
    const from = buckets[first + at - 1]?.le ?? 0;
    const tall = count ? Math.max(2, (count / most) * (height - 2)) : 1;
    const bar = shape("rect", {
      class: count ? "bar" : "bar none",
      x: (at * step + 1).toFixed(2),
      y: (height - tall).toFixed(2),
      width: (step - 2).toFixed(2),
      height: tall.toFixed(2),
      rx: 1.5,
    });
    const title = shape("title", {});
    const share = ((100 * count) / total).toFixed(1);
    title.textContent = `${seconds(from)} to ${le === null ? "more" : seconds(le)}: ${count.toLocaleString("en")} (${share} %)`;
    bar.append(title);
    picture.append(bar);
    if (at % every === 0 && le !== null) {
      const text = shape("text", { x: ((at + 1) * step - 1).toFixed(2), y: height + 11, "text-anchor": "end" });
      text.textContent = seconds(le);
      picture.append(text);
    }
  });
  const axis = (x, y, anchor, words) => {
    const text = shape("text", { x, y, "text-anchor": anchor });
    text.textContent = words;
    return text;
  };
  picture.append(axis(0, -3, "start", `${most.toLocaleString("en")} of ${total.toLocaleString("en")} at most`));
  picture.append(axis(width, height + 22, "end", `${what}, up to`));
  figure.append(picture);
}
