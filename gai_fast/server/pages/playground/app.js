// The playground: a conversation with one model, or with several side by side; no dependencies.

import { FORMATS } from "./formats.js";
import { Markdown } from "./markdown.js";
import { $, Log, Pane, Run, activity, authorization, showError, showFigures, showNumbers, showStatus } from "./run.js";
import { snippets } from "./snippets.js";

const COLUMNS = 4; // side by side: a browser has six connections for a server, and a cancellation needs one
const KEPT = 500_000; // characters of a conversation that a reload brings back

// ---- the conversation ------------------------------------------------------------------------------------------------

const log = new Log();
const main = new Pane();
let turns = []; // `{query, answers: {model: text}}`, the newest last
let runs = []; // of the newest prompt, the first one in the page's own pane
let query = ""; // the newest prompt
let newest = null; // its turn, once it has ended
let isRunning = false;

/** The conversation as a model has seen it: where it gave no answer, the first model's. */
const messages = (model) =>
  turns.flatMap(({ query: content, answers }) => [
    { role: "user", content },
    { role: "assistant", content: answers[model] ?? Object.values(answers)[0] },
  ]);

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Shows a prompt with its answers above the newest one. */
function showTurn({ query: asked, answers }) {
  const panes = make("div", "panes", "");
  const entries = Object.entries(answers);
  for (const [model, text] of entries) {
    const pane = make("article", "pane", "");
    if (entries.length > 1) pane.append(make("p", "figures", model));
    const answer = make("div", "text answer markdown", "");
    if ($("markdown").checked) new Markdown(answer).show(text);
    else [answer.className, answer.textContent] = ["text answer", text];
    pane.append(answer);
    panes.append(pane);
  }
  const turn = make("section", "turn", "");
  turn.append(make("p", "question", asked), panes);
  $("turns").append(turn);
}

function showTurns() {
  $("turns").replaceChildren();
  for (const turn of turns) if (turn !== newest) showTurn(turn);
  $("new").hidden = !turns.length && !query;
}

function keepTurns() {
  const text = JSON.stringify(turns);
  keepInTab(TURNS, turns.length && text.length <= KEPT ? text : "");
}

function startAnew() {
  if (isRunning) return;
  turns = [];
  runs = [];
  query = "";
  newest = null;
  log.clear();
  keepTurns();
  showTurns();
  arrange(1);
  new Run(main, settings(), log).clear();
  $("question").hidden = main.error.hidden = main.reasoning.hidden = true;
  showStatus("idle", "Ready");
  $("prompt").focus();
}

/** Makes room for answers side by side. */
function arrange(columns) {
  const panes = [main, ...Array.from({ length: columns - 1 }, () => main.copy())];
  $("panes").replaceChildren(...panes.map(({ root }) => root));
  $("panes").classList.toggle("several", columns > 1);
  $("numbers").hidden = columns > 1;
  $("source").hidden = columns > 1;
  return panes;
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

function settings(model = chosenModel()) {
  return {
    framing: document.querySelector('input[name="framing"]:checked').value,
    format: $("format").value,
    key: $("key").value,
    isMarkdown: $("markdown").checked && $("format").value !== "raw",
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

/** Sends the prompt; or, after a reload, follows the streams that are `kept`. */
async function send(kept) {
  if (isRunning || (!kept && $("prompt").value.trim() === "")) return;
  isRunning = true;
  if (newest) showTurn(newest);
  newest = null;
  const chosen = kept ? kept.runs.map(({ model }) => String(model ?? "")) : models();
  query = $("prompt").value;
  const panes = arrange(chosen.length);
  const all = chosen.map((model, at) => new Run(panes[at], settings(model), at ? null : log, kept?.runs[at]));
  runs = all;
  $("prompt").value = "";
  $("question").textContent = query;
  $("question").hidden = $("new").hidden = false;
  log.clear();
  setRunning(true);
  const isAlone = all.length === 1;
  const live = () => {
    if (isAlone) showNumbers(all[0]);
    else all.forEach(showFigures);
    const running = all.filter((run) => !run.ended);
    const text = isAlone || !running.length ? activity(all[0]) : `${running.length} of ${all.length}: ${activity(running[0])}`;
    if (running.length) showStatus("busy", text);
  };
  for (const run of all) {
    run.clear();
    run.pane.answer.ariaBusy = "true";
    run.onState = live;
    run.onId = keepRuns;
    showError(run);
  }
  live();
  const timer = setInterval(live, 100);
  $("question").scrollIntoView({ block: "nearest" });

  await Promise.all(all.map(async (run) => {
    await run.run();
    run.pane.answer.ariaBusy = "false";
    keepRuns();
    showError(run);
    live();
  }));

  clearInterval(timer);
  live();
  const isCancelled = (run) => (run.finish ? run.finish === "cancelled" : run.cancelled);
  if (all.some(({ error }) => error)) showStatus("bad", "Failed");
  else if (all.some(isCancelled)) showStatus("idle", "Cancelled");
  else showStatus("good", "Complete");
  const answers = all.filter((run) => run.answer.text && run.settings.format !== "raw");
  if (answers.length) {
    const ofModels = answers.map((run) => [run.settings.request.model ?? "", run.answer.text]);
    newest = { query, answers: Object.fromEntries(ofModels) };
    turns.push(newest);
    keepTurns();
  } else {
    $("prompt").value ||= query; // to be sent again
  }
  isRunning = false;
  setRunning(false);
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
}

// ---- models, settings, theme -----------------------------------------------------------------------------------------

const STORED = "gai-fast.playground"; // the settings; in the tab's storage the key
const RUNNING = "gai-fast.playground.running"; // these three in the tab's storage
const TURNS = "gai-fast.playground.turns";
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

// The key, the conversation and its running streams are kept until the tab is closed, and in no other tab.
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
  const { framing } = runs[0].settings;
  keepInTab(RUNNING, kept.length ? JSON.stringify({ framing, query, runs: kept }) : "");
}

/** Shows the conversation before a reload, and follows the streams that ran. */
function followKept() {
  const kept = keptObject(TURNS);
  const isTurn = (turn) => typeof turn?.query === "string" && Object.keys(Object(turn.answers)).length;
  if (Array.isArray(kept)) turns = kept.filter(isTurn);
  showTurns();
  const running = keptObject(RUNNING);
  const found = Array.isArray(running.runs) ? running.runs.filter((run) => run?.id && typeof run.id === "string") : [];
  if (!found.length) return;
  $("prompt").value = String(running.query ?? "");
  $("format").value = "gai";
  $("resumable").checked = true;
  for (const input of document.getElementsByName("framing")) input.checked = input.value === running.framing;
  if (!document.querySelector('input[name="framing"]:checked')) $("framing-sse").checked = true;
  limitFormats();
  send({ runs: found.slice(0, COLUMNS) });
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

/** How many parameters are not the default, beside the name of their hidden part. */
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
    } else if (response.status === 401 && key) problem = "This server does not know this API key.";
    else if (response.status === 401) problem = "This server needs an API key: type it below.";
    else problem = `No list of models: HTTP ${response.status}.`;
  } catch {
    problem = "No list of models: no answer.";
  }
  if (wanted && !ids.includes(wanted) && (insist || wanted.includes("/"))) ids.push(wanted);
  $("model").replaceChildren(...ids.map((id) => new Option(id, id)), new Option("Other…", ""));
  $("model").value = ids.includes(wanted) ? wanted : (ids[0] ?? "");
  offerModels(ids);
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

const SOURCES = {
  answer: () => (runs.length > 1 ? runs.map((run) => run.answer.text).join("\n\n") : (runs[0]?.answer.text ?? "")),
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
const isApple = /Mac|iPhone|iPad/.test(navigator.platform);

setTheme(THEMES.includes(saved.theme) ? saved.theme : "auto");
for (const input of document.getElementsByName("framing")) input.checked ||= input.value === saved.framing;
$("format").replaceChildren(...Object.keys(FORMATS).map((name) => new Option(name, name)));
$("format").value = Object.hasOwn(FORMATS, saved.format) ? saved.format : "gai";
$("smooth").checked = saved.smooth === true;
$("markdown").checked = saved.markdown !== false;
const parameters = keptObject(PARAMETERS);
for (const id of PARAMETER_IDS) if (typeof parameters[id] === "string") $(id).value = parameters[id];
$("resumable").checked = parameters.resumable !== false;
$("send-keys").textContent = isApple ? "⌘ ↵" : "Ctrl ↵";
setRunning(false); // some browsers keep the buttons' state over a reload
$("key").value = keptInTab(STORED);
limitFormats();
if (asked.has("q")) $("prompt").value = asked.get("q");
loadModels(asked.get("model") ?? String(saved.model ?? ""), asked.has("model"));

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("composer").addEventListener("change", () => {
  limitFormats();
  limitColumns();
  store();
});
$("markdown").addEventListener("change", () => {
  for (const run of runs) run.answer.setMarkdown($("markdown").checked && run.settings.format !== "raw");
  showTurns();
});
// A reload follows the streams; the server ends them if nobody does (`detach_ttl`). Another format cannot be followed.
addEventListener("pagehide", () => {
  if (!isRunning) return;
  keepRuns();
  for (const run of runs) if (!run.kept) run.controller.abort();
});
$("new").addEventListener("click", startAnew);
$("cancel").addEventListener("click", cancelAll);
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
    cancelAll();
  }
});

followKept();
