// The playground: a conversation with one model, or with several side by side; no dependencies.

import { copy } from "./copy.js";
import { FORMATS } from "./formats.js";
import { bringBack, chats, keep, known, newId, remove, turnsOf, written } from "./history.js";
import { $, Log, Pane, Scroll, count, make, put } from "./pane.js";
import { Run, activity, authorization } from "./run.js";
import { snippets } from "./snippets.js";

const COLUMNS = 4; // side by side: a browser has six connections for a server, and a cancellation needs one
const WIDE = matchMedia("(width >= 1100px)"); // room for the settings beside the conversation
const TOUCH = matchMedia("(pointer: coarse)"); // where Enter is a new line, and the button sends

// ---- the conversation ------------------------------------------------------------------------------------------------

const log = new Log();
const reading = new Scroll($("reading"), (isAtEnd) => ($("down").hidden = isAtEnd));
const moved = () => reading.follow();
let turns = []; // `{query, answers, root, panes}`, the newest last; an answer is a record of pane.js with its texts
let runs = []; // of the newest turn
let isRunning = false;
let edited = null; // the turn whose prompt is written anew
let draft = ""; // what was being written before that
let chat = {}; // of `turns`, as history.js keeps it

const isSaid = ({ text, isRaw }) => text && !isRaw;

/** The conversation as a model has seen it: where it gave no answer, the first model's. */
const messages = (model) =>
  turns.flatMap(({ query: content, answers }) => {
    const said = answers.filter(isSaid);
    const own = said.find((answer) => answer.model === model) ?? said[0];
    return own ? [{ role: "user", content }, { role: "assistant", content: own.text }] : [];
  });

/** Adds a turn with a place for each answer to the page. */
function addTurn(query, columns, isMarkdown) {
  const root = $("turn-template").content.cloneNode(true).firstElementChild;
  const parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((each) => [each.dataset.part, each]));
  parts.question.textContent = query;
  parts.question.parentNode.hidden = !query;
  const panes = Array.from({ length: columns }, () => new Pane(isMarkdown, moved));
  parts.panes.append(...panes.map((pane) => pane.root));
  root.classList.toggle("several", columns > 1);
  const turn = { query, answers: [], root, panes, parts };
  setNewest(false);
  turns.push(turn);
  setNewest(true);
  $("turns").append(root);
  showFrame();
  return turn;
}

/** Gives the parts of the newest turn their ids, or takes them. */
function setNewest(isNewest) {
  const turn = turns.at(-1);
  if (!turn) return;
  turn.panes.forEach((pane, at) => pane.setNewest(isNewest && at === 0));
  for (const [name, part] of Object.entries(turn.parts)) {
    if (isNewest) part.id = name;
    else part.removeAttribute("id");
  }
  turn.root.classList.toggle("newest", isNewest);
}

/** Takes a turn, and those behind it, out of the conversation. */
function removeFrom(turn) {
  const at = turns.indexOf(turn);
  if (at < 0) return;
  setNewest(false);
  for (const each of turns.splice(at)) each.root.remove();
  setNewest(true);
}

/** What depends on whether there is a conversation. */
function showFrame() {
  $("hello").hidden = turns.length > 0;
  $("new").hidden = !turns.length;
  $("events").hidden = !turns.length;
  document.body.classList.toggle("wide", turns.some(({ panes }) => panes.length > 1));
  if (!turns.length) showChats();
}

const wholeTurns = () => turns.filter(({ answers }) => answers.length).map(({ query, answers }) => ({ query, answers }));

function keepTurns() {
  const whole = wholeTurns();
  chat = keep(chat, whole);
  keepChat(whole);
}

function keepChat(whole) {
  keepInTab(TURNS, written(whole));
  keepInTab(CHAT, chat.id ?? "");
}

function startAnew() {
  if (isRunning) return;
  const whole = wholeTurns();
  const isLost = !chat.isKept && whole.some(({ answers }) => answers.some(isSaid));
  if (isLost) undos.push(() => showChat({}, whole) ?? true);
  showChat({}, []);
  sayOfChats(isLost ? "The last one is not kept: it is too long, or this browser has no room for it." : "");
}

/** Shows another conversation in place of the one that is shown. */
function showChat(next, whole) {
  if (turns.length) removeFrom(turns[0]);
  runs = [];
  log.clear();
  setEdited(null);
  chat = next;
  keepChat(whole);
  showTurns(whole);
  showFrame();
  showStatus("idle", "Ready");
  $("prompt").focus();
}

function showTurns(whole) {
  for (const { query, answers } of whole) {
    const turn = addTurn(query, answers.length, isMarkdown(""));
    turn.answers = answers;
    turn.panes.forEach((pane, at) => pane.restore(answers[at]));
  }
  reading.follow(true);
}

// ---- the conversations before ----------------------------------------------------------------------------------------

const undos = []; // what brings back the last conversations that were taken away; each returns whether it has

/** Lists the conversations of this browser, where none is shown. */
function showChats() {
  const focused = document.activeElement?.dataset ?? {};
  const rows = chats().map(({ id, changed, turns: [{ query, answers }] }) => {
    const title = (query || answers[0].text).slice(0, 200);
    const open = make("button", "quiet", "");
    const bin = make("button", "quiet", "Delete");
    open.dataset.chat = bin.dataset.remove = id;
    open.type = bin.type = "button";
    bin.setAttribute("aria-label", `Delete “${title}”`);
    const when = new Date(changed).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
    open.append(Object.assign(make("span", "", title), { dir: "auto" }), make("small", "", when));
    const row = make("li", "", "");
    row.append(open, bin);
    return row;
  });
  $("chat-list").replaceChildren(...rows);
  $("chats-head").hidden = !rows.length;
  $("undo").hidden = !undos.length;
  const find = (name) => rows.flatMap(({ children: both }) => [...both]).find(({ dataset }) => dataset[name] === focused[name]);
  for (const name of ["chat", "remove"]) if (focused[name]) find(name)?.focus();
}

function sayOfChats(text) {
  showChats();
  put($("chats-said"), text);
}

function openChat(id) {
  const found = chats().find((each) => each.id === id);
  if (found) showChat({ id, changed: found.changed, isKept: true }, found.turns);
  else sayOfChats("This conversation is gone: another tab has deleted it.");
}

/** Deletes one conversation, or all. */
function removeChats(id) {
  const rows = [...$("chat-list").children];
  const at = rows.findIndex(({ lastChild }) => lastChild.dataset.remove === id);
  const gone = remove(id);
  undos.push(() => bringBack(gone));
  sayOfChats(id === undefined ? "All conversations are deleted." : "The conversation is deleted.");
  ($("chat-list").children[at]?.lastChild ?? $("undo")).focus();
}

function undo() {
  const isDone = undos.at(-1)();
  if (isDone) undos.pop();
  if (turns.length) return;
  sayOfChats(isDone ? "It is back." : "This browser's storage has no room for it.");
  if ($("undo").hidden) $("chat-list").querySelector("button")?.focus();
}

/** Writes the prompt of a turn anew; nothing is lost until it is sent. */
function setEdited(turn) {
  if (turn && !edited) draft = $("prompt").value;
  edited?.root.classList.remove("edited");
  edited = turn;
  turn?.root.classList.add("edited");
  $("editing").hidden = !turn;
  if (!turn) return;
  setPrompt(turn.query);
  $("prompt").focus();
}

/** Ends the editing; returns what was being written before. */
function endEditing() {
  const before = edited ? draft : "";
  setEdited(null);
  return before;
}

function setPrompt(text) {
  $("prompt").value = text;
  fitPrompt();
}

/** Where a browser has no `field-sizing`, the prompt is as tall as its text by hand. */
function fitPrompt() {
  if (CSS.supports("field-sizing", "content")) return;
  $("prompt").rows = Math.min(8, $("prompt").value.split("\n").length);
}

// ---- sending ---------------------------------------------------------------------------------------------------------

function numberIn(id) {
  const { value, valueAsNumber } = $(id);
  return value === "" || Number.isNaN(valueAsNumber) ? undefined : valueAsNumber;
}

/** The request of the page for a model; an empty member is not sent. */
function requestTo(model) {
  const effort = $("effort").value;
  const before = messages(model);
  return {
    model: model || undefined,
    system: $("system").value.trim() || undefined,
    messages: before.length ? before : undefined,
    query: $("prompt").value,
    temperature: numberIn("temperature"),
    max_tokens: numberIn("max-tokens"),
    reasoning: effort ? { effort } : undefined,
  };
}

const isMarkdown = (format = $("format").value) => $("markdown").checked && format !== "raw";

function settings(model = chosenModel()) {
  return {
    framing: document.querySelector('input[name="framing"]:checked').value,
    format: $("format").value,
    key: $("key").value,
    isResumable: $("resumable").checked,
    request: requestTo(model),
  };
}

const chosenModel = () => $("model").value || $("model-other").value.trim();

/** The models that get the prompt, the chosen one first. */
function models() {
  const others = [...$("compare").querySelectorAll("input:checked")].map(({ value }) => value);
  return [...new Set([chosenModel(), ...others])].slice(0, COLUMNS);
}

/** Sends the prompt; or follows the streams that are `kept`: after a reload, or of another page. */
async function send(kept) {
  if (isRunning || (!kept && $("prompt").value.trim() === "")) return;
  isRunning = true;
  chat.id ||= newId(); // a tab that follows the stream keeps the same conversation
  keepInTab(CHAT, chat.id);
  if (edited) removeFrom(edited);
  const before = endEditing();
  if (turns.length && !turns.at(-1).answers.some(isSaid)) removeFrom(turns.at(-1)); // it has said nothing
  const chosen = kept ? kept.runs.map(({ model }) => String(model ?? "")) : models();
  const query = kept ? kept.query : $("prompt").value;
  const wanted = chosen.map((model) => settings(model)); // before the turn: a request has those before it
  const turn = addTurn(query, chosen.length, isMarkdown());
  const all = wanted.map((each, at) => new Run(turn.panes[at], each, at ? null : log, kept?.runs[at]));
  runs = all;
  if (!kept) setPrompt(before);
  log.clear();
  setRunning(true);
  for (const run of all) {
    run.onState = () => showRuns(all);
    run.onId = keepRuns;
  }
  showRuns(all);
  const timer = setInterval(() => showRuns(all), 100);
  reading.follow(true);

  await Promise.all(all.map(async (run) => {
    await run.run();
    keepRuns();
    showRuns(all);
  }));

  clearInterval(timer);
  turn.answers = all.map((run) => ({ ...run.whole, isRaw: run.settings.format === "raw" }));
  isRunning = false;
  showRuns(all);
  if (turn.answers.some(isSaid)) keepTurns();
  else if (!$("prompt").value) setPrompt(query); // to be sent again
  setRunning(false);
}

/** Shows what is known of the newest answers. */
function showRuns(all) {
  const isAlone = all.length === 1;
  for (const run of all) {
    run.pane.show(run.record);
    run.pane.root.querySelector("[data-act=stop]").hidden = isAlone || run.ended > 0;
  }
  const running = all.filter((run) => !run.ended);
  const followable = running.filter((run) => run.isFollowable);
  $("wire").hidden = !followable.length;
  $("cut").disabled = followable.every(({ seams }) => seams.at(-1)?.resumed === 0);
  if (followable.length) $("open").href = `./?follow=${encodeURIComponent(followable[0].id)}`;
  put($("place"), followable.length && isAlone && !$("cut").disabled ? `event ${count(all[0].seq)}` : "");
  if (running.length) {
    const doing = activity(running[0]);
    showStatus("busy", isAlone ? doing : `${running.length} of ${all.length}: ${doing}`);
  } else {
    const of = (end) => all.filter((run) => run.end === end).length;
    const [bad, idle, good] = [of("bad"), of("idle"), of("good")];
    const ends = [[good, "complete"], [idle, "cancelled"], [bad, "failed"]].filter(([some]) => some);
    const text = isAlone || ends.length === 1 ? ends[0][1] : ends.map(([some, word]) => `${some} ${word}`).join(", ");
    showStatus(bad ? "bad" : idle ? "idle" : "good", text.charAt(0).toUpperCase() + text.slice(1));
  }
  moved();
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  put($("status"), text); // a reader hears each change
}

function cancelAll() {
  for (const run of runs) if (!run.ended) run.cancel();
}

function setRunning(running) {
  const [from, to] = running ? [$("send"), $("cancel")] : [$("cancel"), $("send")];
  const focused = document.activeElement === from;
  to.disabled = false;
  if (focused) to.focus();
  from.disabled = true;
  $("new").disabled = running;
  document.body.classList.toggle("running", running);
}

/** What a button in a turn does. */
function act(button) {
  const turn = turns.find(({ root }) => root.contains(button));
  if (button.dataset.act === "stop") {
    const run = runs.find(({ pane }) => pane.root.contains(button));
    if (run && !run.ended) run.cancel();
  } else if (isRunning) return;
  else if (button.dataset.act === "edit") setEdited(turn);
  else {
    const before = $("prompt").value === turn.query ? "" : $("prompt").value;
    setPrompt(turn.query);
    setEdited(null);
    [edited, draft] = [turn, before];
    send();
  }
}

// ---- models, settings, theme -----------------------------------------------------------------------------------------

const STORED = "gai-fast.playground"; // the settings; in the tab's storage the key
const RUNNING = "gai-fast.playground.running"; // these four in the tab's storage
const TURNS = "gai-fast.playground.turns";
const CHAT = "gai-fast.playground.chat";
const PARAMETERS = "gai-fast.playground.parameters";
const PARAMETER_IDS = ["system", "temperature", "max-tokens", "effort"];
const THEMES = ["auto", "light", "dark"];

function stored() {
  try {
    return Object(JSON.parse(localStorage.getItem(STORED)));
  } catch {
    return {}; // storage is switched off, or holds something else
  }
}

function store() {
  const { framing, format, request: { model } } = settings();
  const theme = document.documentElement.dataset.theme;
  const [smooth, markdown] = [$("smooth").checked, $("markdown").checked];
  try {
    localStorage.setItem(STORED, JSON.stringify({ framing, format, model, smooth, markdown, theme }));
  } catch {
    // the page works without it
  }
  const parameters = Object.fromEntries(PARAMETER_IDS.map((id) => [id, $(id).value]));
  keepInTab(PARAMETERS, JSON.stringify({ ...parameters, resumable: $("resumable").checked }));
}

// The key, the conversation and its running streams are kept until the tab is closed; a tab that this one opens has them too.
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

/** What the tab has kept as JSON, or an empty object. */
function keptObject(name) {
  try {
    return Object(JSON.parse(keptInTab(name) || "{}"));
  } catch {
    return {}; // something else stored it
  }
}

/** Keeps what a reload needs to follow the streams. */
function keepRuns() {
  const kept = runs.map((run) => run.kept).filter(Boolean);
  const [{ settings: { framing } }] = runs;
  keepInTab(RUNNING, kept.length ? JSON.stringify({ framing, query: turns.at(-1).query, runs: kept }) : "");
}

/** Shows the conversation before a reload, and follows the streams that ran; or the one that the address names. */
function followKept() {
  const running = keptObject(RUNNING);
  let found = Array.isArray(running.runs) ? running.runs.filter((run) => run?.id && typeof run.id === "string") : [];
  const named = asked.get("follow");
  const isKnown = !named || found.some(({ id }) => id === named);
  if (isKnown) showKept();
  else found = [{ id: named }];
  if (!found.length) return;
  $("format").value = "gai";
  $("resumable").checked = true;
  for (const input of document.getElementsByName("framing")) input.checked = input.value === running.framing;
  if (!document.querySelector('input[name="framing"]:checked')) $("framing-sse").checked = true;
  limitFormats();
  send({ query: isKnown ? String(running.query ?? "") : "", runs: found.slice(0, COLUMNS) });
}

function showKept() {
  const whole = turnsOf(keptObject(TURNS));
  chat = known(keptInTab(CHAT), whole);
  showTurns(whole);
}

/** Offers the formats that the chosen framing has; says why, where it takes the native one in place of the chosen one. */
function limitFormats() {
  const framing = document.querySelector('input[name="framing"]:checked').value;
  for (const option of $("format").options) option.disabled = !FORMATS[option.value].framings.includes(framing);
  const { value, disabled } = $("format").selectedOptions[0];
  let why = framing === "ws" ? "A WebSocket carries native events only: the format is gai." : "";
  if (disabled) {
    $("format").value = "gai";
    if (framing !== "ws") why = `${value} is a format of SSE only: the format is gai.`;
  }
  $("format-hint").textContent = why;
  const isNative = $("format").value === "gai";
  $("resumable").disabled = !isNative || framing === "ws"; // a WebSocket is always followed
  showParameters();
}

/** How many parameters are not the default, and how many models are compared. */
function showParameters() {
  const set = PARAMETER_IDS.filter((id) => $(id).value.trim() !== "").length;
  $("more-hint").textContent = set ? `${set} set` : "";
  const others = models().length - 1;
  $("compare-hint").textContent = others > 0 ? `with ${others}` : "";
}

/** Offers the other models for a comparison. */
function offerModels(ids) {
  const chosen = new Set(models().slice(1));
  const labels = ids.map((id) => {
    const label = make("label", "", "");
    const box = Object.assign(make("input", "", ""), { type: "checkbox", value: id, checked: chosen.has(id) });
    label.append(box, id);
    return label;
  });
  $("compare").replaceChildren($("compare").firstElementChild, ...labels);
  limitColumns();
}

/** At most `COLUMNS` models are asked; the chosen one is always. */
function limitColumns() {
  const boxes = [...$("compare").querySelectorAll("input")];
  const isFull = models().length >= COLUMNS;
  for (const box of boxes) box.disabled = box.value === chosenModel() || (isFull && !box.checked);
  showParameters();
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
  $("prompt").placeholder = value ? `Ask ${value}` : "Ask anything";
}

/** Offers the server's models, and selects the wanted one where it is offered or names its upstream. */
async function loadModels(wanted, insist) {
  const key = $("key").value;
  let ids = [];
  let problem = "";
  try {
    const response = await fetch("v1/models", { headers: authorization(key), cache: "no-store" });
    if (response.ok) {
      const { data } = await response.json();
      ids = data.map(({ id }) => id);
      descriptions = new Map(data.map(({ id, description }) => [id, description]));
    } else if (response.status === 401) {
      problem = key ? "This server does not know this API key." : "This server needs an API key: type it in the settings.";
      openSettings("key");
    } else problem = `No list of models: HTTP ${response.status}.`;
  } catch {
    problem = "No list of models: no answer.";
  }
  if (wanted && !ids.includes(wanted) && (insist || wanted.includes("/"))) ids.push(wanted);
  $("model").replaceChildren(...ids.map((id) => new Option(id, id)), new Option("Other…", ""));
  $("model").value = ids.includes(wanted) ? wanted : (ids[0] ?? "");
  offerModels(ids);
  showModel(problem);
}

/** Opens the settings: beside the conversation, or over it where there is no room. */
function openSettings(field) {
  const dialog = $("settings");
  if (!dialog.open && WIDE.matches) dialog.show();
  else if (!dialog.open) dialog.showModal();
  $("open-settings").setAttribute("aria-expanded", "true");
  (field === "compare" ? $("compare").querySelector("input:enabled") : $(field))?.focus();
}

// ---- copying ---------------------------------------------------------------------------------------------------------

const SOURCES = {
  answer: (button) => turns.flatMap(({ panes }) => panes).find(({ root }) => root.contains(button)).answer.text,
  events: () => log.text(),
  code: (button) => button.closest(".code").querySelector("pre").textContent,
};

/** The request as code: of what would be sent now, or of what was sent last if there is no prompt. */
function program(kind) {
  const now = settings();
  const asked = now.request.query.trim() || !runs.length ? now : runs[0].settings;
  return snippets({ origin: new URL(".", location.href).href.replace(/\/$/, ""), ...asked, key: now.key })[kind];
}

async function copyFrom(button) {
  button.dataset.label ??= button.textContent;
  const kind = button.dataset.copy;
  const text = SOURCES[kind]?.(button) ?? program(kind);
  button.textContent = (await copy(text)) ? "Copied" : "Not copied";
  button.focus();
  clearTimeout(button.timer);
  button.timer = setTimeout(() => (button.textContent = button.dataset.label), 1500);
}

// ---- wiring ----------------------------------------------------------------------------------------------------------

const saved = stored();
const asked = new URLSearchParams(location.search);

setTheme(THEMES.includes(saved.theme) ? saved.theme : "auto");
for (const input of document.getElementsByName("framing")) input.checked ||= input.value === saved.framing;
$("format").replaceChildren(...Object.keys(FORMATS).map((name) => new Option(name, name)));
$("format").value = Object.hasOwn(FORMATS, saved.format) ? saved.format : "gai";
$("smooth").checked = saved.smooth === true;
$("markdown").checked = saved.markdown !== false;
const parameters = keptObject(PARAMETERS);
for (const id of PARAMETER_IDS) if (typeof parameters[id] === "string") $(id).value = parameters[id];
$("resumable").checked = parameters.resumable !== false;
setRunning(false); // some browsers keep the buttons' state over a reload
$("key").value = keptInTab(STORED);
limitFormats();
setPrompt(asked.get("q") ?? "");
loadModels(asked.get("model") ?? String(saved.model ?? ""), asked.has("model"));

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
document.addEventListener("change", () => {
  limitFormats();
  limitColumns();
  store();
});
$("prompt").addEventListener("input", fitPrompt);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.shiftKey || TOUCH.matches) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("markdown").addEventListener("change", () => {
  for (const { panes, answers } of turns) {
    panes.forEach((pane, at) => {
      const isRaw = answers[at]?.isRaw ?? runs[at]?.settings.format === "raw";
      pane.answer.setMarkdown($("markdown").checked && !isRaw);
    });
  }
});
// A reload follows the streams; the server ends them if nobody does (`detach_ttl`). Another format cannot be followed.
addEventListener("pagehide", () => {
  if (!isRunning) return;
  keepRuns();
  for (const run of runs) if (!run.kept) run.controller.abort();
});
$("new").addEventListener("click", startAnew);
$("remove-all").addEventListener("click", () => removeChats());
$("undo").addEventListener("click", undo);
addEventListener("storage", showChats); // another tab has kept one, or deleted one
$("keep").addEventListener("click", () => {
  setPrompt(endEditing());
  $("prompt").focus();
});
$("cancel").addEventListener("click", cancelAll);
$("cut").addEventListener("click", () => {
  for (const run of runs) run.cut();
  showRuns(runs);
});
$("down").addEventListener("click", () => reading.follow(true));
$("open").addEventListener("click", keepRuns); // the other tab has a copy of what this one keeps
$("open-settings").addEventListener("click", () => ($("settings").open ? $("settings").close() : openSettings("key")));
$("open-compare").addEventListener("click", () => openSettings("compare"));
$("settings").addEventListener("close", () => {
  $("open-settings").setAttribute("aria-expanded", "false");
  $("open-settings").focus();
});
$("settings").addEventListener("click", (event) => {
  if (event.target === $("settings")) $("settings").close(); // beside it, where it lies over the page
});
$("model").addEventListener("change", () => {
  showModel();
  if ($("model").value === "") $("model-other").focus();
});
$("key").addEventListener("change", () => {
  keepInTab(STORED, $("key").value);
  loadModels(chosenModel(), false);
});
$("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
  store();
});
document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button?.dataset.copy) copyFrom(button);
  else if (button?.dataset.act) act(button);
  else if (button?.dataset.chat) openChat(button.dataset.chat);
  else if (button?.dataset.remove) removeChats(button.dataset.remove);
  else if (button && "idea" in button.dataset) {
    setPrompt(button.textContent);
    $("prompt").focus();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "Escape") {
    // What is closed may keep the focus until the page is drawn again.
    if ($("settings").matches("[open]:is(:modal, :focus-within)")) $("settings").close();
    else if (isRunning) cancelAll();
    else if ($("settings").open) $("settings").close();
    else if (edited) $("keep").click();
  }
});

showFrame();
followKept();
