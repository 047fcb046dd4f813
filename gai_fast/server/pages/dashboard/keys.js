// The panel of keys: what each has spent; makes, limits, rotates and revokes those of the store. Names are text.
// A secret is on the page once, in the answer to the request that made it, until the panel is used again.

import { Refused, ask } from "./api.js";
import { money } from "./requests.js";
import { count, make, put } from "./streams.js";

const EVERY = 30_000; // ms between two questions
const NOT_HERE = [404, 405]; // statuses of a server that makes no keys at run time
const FIELDS = ["requests_per_minute", "tokens_per_minute", "streams"];

const path = (name, more = "") => `admin/v1/keys/${encodeURIComponent(name)}${more}`;

function button(text, label, action, className = "quiet") {
  const made = make("button", className, text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}

/** What a key may use, in one line. */
function limitsOf({ models, limits, expires }) {
  const { requests_per_minute: requests, tokens_per_minute: tokens, streams } = limits;
  return [
    models.includes("*") ? "all models" : models.join(", ") || "no models",
    requests !== null && `${count(requests)} requests/min`,
    tokens !== null && `${count(tokens)} tokens/min`,
    streams !== null && `${count(streams)} streams`,
    expires && `until ${expires.slice(0, 16).replace("T", " ")} UTC`,
  ].filter(Boolean).join(" · ");
}

/** A name that people gave. */
function named(name) {
  const element = make("b", "", name);
  element.dir = "auto";
  return element;
}

/** The panel. `root` is its section; `tell` announces what an action has led to. */
export class Keys {
  #root;
  #list;
  #form;
  #why;
  #tell;
  #keys = [];
  #editing = null; // the name of the key whose limits are in the form; none: a new one
  #before = {}; // what the form said when it was opened
  #currency = "";
  #asked = -Infinity;
  #isAsking = false;
  #isHere = true; // whether the server makes keys at run time, as far as is known

  constructor(root, tell) {
    this.#root = root;
    this.#tell = tell;
    this.#list = root.querySelector(".rows");
    this.#form = root.querySelector("form");
    this.#why = root.querySelector(".why");
    this.#opener.addEventListener("click", () => this.#open(null));
    root.querySelector("[data-close]").addEventListener("click", () => this.#close());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#form.addEventListener("keydown", ({ key }) => key === "Escape" && this.#close());
  }

  /** Whether a request needs a key. */
  get areNeeded() {
    return this.#keys.length > 0;
  }

  get #opener() {
    return this.#root.querySelector("[data-new]");
  }

  /** Asks again, if the last answer is old. `currency` is that of the spend. */
  async refresh(currency = this.#currency) {
    this.#currency = currency;
    if (this.#isAsking || performance.now() - this.#asked < EVERY) return;
    this.#isAsking = true;
    this.#asked = performance.now();
    try {
      this.#keys = (await ask("admin/v1/keys")).data;
      this.#show();
    } catch (problem) {
      this.#list.replaceChildren(make("p", "none", `The keys cannot be had: ${problem.message}`));
    } finally {
      this.#isAsking = false;
    }
  }

  forget() {
    this.#asked = -Infinity;
  }

  #show() {
    const rows = this.#keys.map((key) => this.#row(key));
    this.#list.replaceChildren(...(rows.length ? rows : [make("p", "none", "There is no key: anyone who reaches the server may use it.")]));
    if (!this.#isHere) return;
    if (this.#keys.some((key) => key.source === undefined)) this.#refuse("This server makes no keys at run time: they are in its file.");
    else if (!this.#keys.some(({ role }) => role === "admin")) {
      this.#refuse('Keys can be made here once the file has a [[key]] with role = "admin".');
    } else {
      this.#opener.hidden = false;
      this.#why.hidden = true;
    }
  }

  /** Hides what makes keys, and says why. */
  #refuse(text) {
    this.#opener.hidden = true;
    this.#why.hidden = false;
    put(this.#why, text);
  }

  #row(key) {
    const { name, role, source, spent, limits: { spend } } = key;
    const amount = spent === null ? "not known" : money(spent, this.#currency);
    const figure = spend ? `${amount} of ${money(spend.amount, "")} ${spend.period === "total" ? "in all" : `a ${spend.period}`}` : amount;
    const tag = role !== "user" ? role : source === "store" ? "" : "in the file";
    const row = make("div", "key", named(name), make("span", "hint", tag), make("span", "value", figure));
    row.append(make("span", "hint all", limitsOf(key)));
    if (key.grace_until) row.append(make("span", "hint all", `The former secret is valid until ${key.grace_until.slice(0, 16).replace("T", " ")} UTC.`));
    if (spend && spent !== null) row.style.setProperty("--share", Math.min(1, spent / (spend.amount || 1)).toFixed(3));
    row.dataset.key = name;
    if (source === "store") {
      row.append(make("span", "actions",
        button("Limits", `Change the limits of key ${name}`, () => this.#open(key)),
        button("Rotate", `Give key ${name} a new secret`, () => this.#rotate(name)),
        button("Revoke", `Revoke key ${name}`, () => this.#revoke(name), "quiet danger")));
    }
    return row;
  }

  /** Opens the form for a new key, or with the limits of one. */
  #open(key) {
    this.#hideSecret();
    const fields = this.#form.elements;
    this.#form.reset();
    this.#editing = key?.name ?? null;
    fields.name.disabled = Boolean(key);
    if (key) {
      fields.name.value = key.name;
      fields.models.value = key.models.includes("*") ? "" : key.models.join(", ");
      for (const name of FIELDS) fields[name].value = key.limits[name] ?? "";
      fields.spend.value = key.limits.spend?.amount ?? "";
      fields.period.value = key.limits.spend?.period ?? "day";
      fields.expires.value = key.expires ? new Date(key.expires).toISOString().slice(0, 16) : "";
    }
    fields.models.placeholder = key && !key.models.length ? "none; or names, with commas; * is all" : "all; or names, with commas";
    this.#before = this.#said();
    put(this.#form.querySelector("[type=submit]"), key ? "Save limits" : "Make key");
    this.#problem("");
    this.#form.hidden = false;
    fields[key ? "models" : "name"].focus();
  }

  #close() {
    this.#form.hidden = true;
    this.#opener.focus();
  }

  #problem(text) {
    put(this.#form.querySelector("[role=alert]"), text);
  }

  /** What the form says; `null` stands for an empty field. */
  #said() {
    const { models, spend, period, expires } = this.#form.elements;
    const number = ({ value, valueAsNumber }) => (value === "" ? null : valueAsNumber);
    const names = models.value.split(",").map((each) => each.trim()).filter(Boolean);
    return {
      models: names.length ? names : null,
      expires: expires.value ? `${expires.value}:00Z` : null,
      ...Object.fromEntries(FIELDS.map((name) => [name, number(this.#form.elements[name])])),
      spend: number(spend) === null ? null : { amount: number(spend), period: period.value },
    };
  }

  /** What has changed in the form since it was opened; what a key has of [key_defaults], or cannot be shown, stays so. */
  #changes() {
    const isNew = ([name, value]) => JSON.stringify(value) !== JSON.stringify(this.#before[name]);
    return Object.fromEntries(Object.entries(this.#said()).filter(isNew));
  }

  async #send() {
    const name = this.#editing ?? this.#form.elements.name.value.trim();
    try {
      if (this.#editing) await ask(path(name), "PATCH", this.#changes());
      else this.#showSecret(await ask("admin/v1/keys", "POST", { name, ...this.#changes() }));
      this.#tell(this.#editing ? `The limits of key ${name} are changed.` : `Key ${name} is made.`);
      this.#close();
      await this.#again();
    } catch (problem) {
      this.#fail(problem);
      this.#problem(problem.message);
    }
  }

  async #rotate(name) {
    if (!confirm(`Give key ${name} a new secret?\n\nThe one that it has stays valid for an hour.`)) return;
    await this.#act(async () => {
      this.#showSecret(await ask(path(name, "/rotate"), "POST"));
      this.#tell(`Key ${name} has a new secret.`);
    });
  }

  async #revoke(name) {
    if (!confirm(`Revoke key ${name}?\n\nIts streams end within a second, and its secret is refused from then on.`)) return;
    await this.#act(async () => {
      await ask(path(name), "DELETE");
      this.#tell(`Key ${name} is revoked.`);
    });
  }

  async #act(action) {
    this.#hideSecret();
    try {
      await action();
    } catch (problem) {
      this.#fail(problem);
      this.#tell(problem.message, true);
    }
    await this.#again();
  }

  /** Learns from a refusal that this server makes no keys. */
  #fail(problem) {
    const { status, reason } = problem instanceof Refused ? problem.error : {};
    const isNever = status === 405 || (status === 404 && reason !== "key") || (status === 409 && reason === "no_admin");
    if (!isNever) return;
    this.#isHere = false;
    this.#form.hidden = true;
    this.#refuse(NOT_HERE.includes(status) ? "This server makes no keys at run time: they are in its file." : problem.message);
  }

  #again() {
    this.forget();
    return this.refresh();
  }

  #showSecret({ name, secret, warning }) {
    const box = this.#root.querySelector(".secret");
    const shown = make("code", "", secret);
    shown.tabIndex = 0;
    const copy = button("Copy", `Copy the secret of key ${name}`, async () => {
      try {
        await navigator.clipboard.writeText(secret);
        put(copy, "Copied");
      } catch {
        getSelection().selectAllChildren(shown); // no clipboard outside a secure context: to be copied by hand
        put(copy, "Selected");
      }
    });
    const parts = [make("p", "", `The secret of ${name}, shown this once:`), make("p", "", shown, copy)];
    if (warning) parts.push(make("p", "hint", warning));
    box.replaceChildren(...parts);
    box.hidden = false;
  }

  #hideSecret() {
    const box = this.#root.querySelector(".secret");
    box.replaceChildren();
    box.hidden = true;
  }
}
