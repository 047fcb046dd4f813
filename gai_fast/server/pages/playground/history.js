// The conversations that this browser keeps, each under a key of its own: two tabs never write over each other's.

const PREFIX = "gai-fast.playground.chat.";
const MOST = 50; // conversations: a list to choose from
const LONGEST = 500_000; // characters of one
const ALL = 2_000_000; // of all of them: a browser gives an origin five millions

/** An answer as another version of this page, or somebody else, may have kept it; nothing if it is none. */
function answerOf(kept) {
  if (typeof kept?.text !== "string") return undefined;
  const list = (name) => (Array.isArray(kept[name]) ? kept[name].filter(Boolean) : []);
  const string = (name) => (typeof kept[name] === "string" ? kept[name] : "");
  const figure = (name) => Number(kept[name]) || 0;
  return {
    ...Object.fromEntries(["model", "source", "text", "reasoning", "rate", "unit", "finish"].map((name) => [name, string(name)])),
    ...Object.fromEntries(["thought", "first", "total", "events"].map((name) => [name, figure(name)])),
    ...Object.fromEntries(["notes", "seams"].map((name) => [name, list(name)])),
    calls: list("calls").map((call) => ({ ...call, approval: null })), // whoever follows the stream is asked again
    end: kept.end === "running" ? "idle" : string("end"),
    hasEnded: true,
    hasReasoning: string("reasoning") !== "",
    usage: kept.usage && Object(kept.usage),
    error: kept.error && Object(kept.error),
    isRaw: kept.isRaw === true,
  };
}

/** The turns of a kept conversation, without what is none. */
export const turnsOf = (kept) =>
  (Array.isArray(kept) ? kept : [])
    .map(Object)
    .map(({ query, answers }) => ({ query, answers: Array.isArray(answers) ? answers.map(answerOf).filter(Boolean) : [] }))
    .filter(({ query, answers }) => typeof query === "string" && answers.length);

/** Turns as JSON; nothing where there are none, or too many. */
export function written(turns) {
  const text = JSON.stringify(turns);
  return turns.length && text.length <= LONGEST ? text : "";
}

function read(id) {
  try {
    const { changed, turns } = Object(JSON.parse(localStorage.getItem(PREFIX + id)));
    return { id, changed: Number(changed) || 0, turns: turnsOf(turns) };
  } catch {
    return { id, changed: 0, turns: [] }; // damaged, or storage is switched off
  }
}

/** What is stored, `[id, text]`, also what cannot be read. */
function entries() {
  try {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
    return keys.map((key) => [key.slice(PREFIX.length), localStorage.getItem(key) ?? ""]);
  } catch {
    return [];
  }
}

function put(id, text) {
  try {
    localStorage.setItem(PREFIX + id, text);
    return true;
  } catch {
    return false; // full, or switched off
  }
}

/** The conversations, the newest first. */
export const chats = () =>
  entries()
    .map(([id]) => read(id))
    .filter(({ turns }) => turns.length)
    .sort((a, b) => b.changed - a.changed);

/** Takes conversations away, or all that is stored; returns what `bringBack` takes. */
export function remove(id) {
  const gone = entries().filter(([each]) => id === undefined || each === id);
  for (const [each] of gone) localStorage.removeItem(PREFIX + each);
  return gone;
}

/** Stores what was removed, but for what has come back meanwhile; returns whether all of it is there. */
export function bringBack(gone) {
  const there = new Set(entries().map(([id]) => id));
  return gone.map(([id, text]) => there.has(id) || put(id, text)).every(Boolean);
}

export const newId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;

const said = (turns) => JSON.stringify(turns.map(({ query, answers }) => [query, answers.map(({ text }) => text)]));

/**
 * Keeps a conversation; returns it, `{id, changed}`, as the next call takes it, with `isKept`. The oldest ones make room.
 * Where another tab has gone on with the same one otherwise, both are kept.
 */
export function keep(chat, turns) {
  const stored = read(chat.id);
  const isOurs = stored.changed === (chat.changed ?? 0) || said(stored.turns) === said(turns.slice(0, stored.turns.length));
  const changed = Date.now();
  const id = chat.id && isOurs ? chat.id : newId();
  const text = written(turns) && JSON.stringify({ changed, turns });
  if (!text) return { ...chat, isKept: false };
  const others = entries()
    .filter(([each]) => each !== id)
    .map((entry) => ({ entry, changed: read(entry[0]).changed }))
    .sort((a, b) => a.changed - b.changed)
    .map(({ entry }) => entry);
  const gone = [];
  const size = () => others.reduce((sum, [, each]) => sum + each.length, text.length);
  const drop = () => gone.push(...remove(others.shift()[0]));
  while (others.length >= MOST || (others.length && size() > ALL)) drop();
  while (!put(id, text)) {
    if (others.length) drop();
    else {
      bringBack(gone); // nothing is lost for what is not kept
      return { ...chat, isKept: false };
    }
  }
  return { id, changed, isKept: true };
}

/** The conversation of `turns` that a page finds when it is loaded; another tab may have gone on with it. */
export function known(id, turns) {
  const stored = read(id);
  const isKept = said(stored.turns) === said(turns);
  return { id, changed: isKept ? stored.changed : -1, isKept };
}
