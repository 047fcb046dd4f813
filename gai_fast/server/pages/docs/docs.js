// The page of /docs: shows openapi.json, after the login if the server has keys. All text goes through `textContent`.

import { refusal } from "../client.js";
import { address, authorization, hasKey, useKey } from "../dashboard/api.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head"];

/** Makes an element; children are elements or texts. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** The schema behind a reference, and its name. */
function resolve(schema, api) {
  const name = schema.$ref?.split("/").at(-1);
  return name ? [api.components.schemas[name], name] : [schema, ""];
}

/** A schema in a few words. */
function kindOf(schema, api) {
  const [found, name] = resolve(schema, api);
  if (name) return name;
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  const several = found.anyOf ?? found.oneOf;
  if (several) return several.map((each) => kindOf(each, api)).join(" | ");
  if (found.type === "array") return `list of ${kindOf(found.items ?? {}, api)}`;
  return found.type ?? "any value";
}

/** A text with code between backticks, as nodes. */
function prose(text) {
  return text.split(/(`[^`]+`)/).filter(Boolean).map((part) =>
    (/^`[^`]+`$/.test(part) ? code(part.slice(1, -1)) : part));
}

/** A table with a head; a column that is empty in all rows is left out. */
function table(heads, rows) {
  const filled = heads.map((_, at) => rows.some((cells) => cells[at] !== ""));
  const kept = (cells) => cells.filter((_, at) => filled[at]);
  const head = make("tr", {}, ...kept(heads).map((text) => make("th", { scope: "col" }, text)));
  const cell = (content) => make("td", {}, ...(typeof content === "string" ? prose(content) : [content]));
  const body = rows.map((cells) => make("tr", {}, ...kept(cells).map(cell)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

const code = (text) => make("code", {}, text);

/** The members of an object; of each named object below it, once. `isTop`: the name stands above already. */
function members(schema, api, shown = new Set(), isTop = false) {
  const [found, name] = resolve(schema, api);
  if (name) {
    if (shown.has(name)) return [];
    shown.add(name);
  }
  const parts = [];
  if (found.properties || (name && found.description)) {
    if (!isTop) parts.push(make("h3", {}, name || "Members"));
    if (found.description) parts.push(make("p", {}, ...prose(found.description)));
  }
  if (found.properties) {
    const required = new Set(found.required ?? []);
    const rows = Object.entries(found.properties).map(([key, value]) => [
      code(key + (required.has(key) ? " *" : "")), kindOf(value, api), value.description ?? "",
    ]);
    parts.push(table(["member", "type", "what it is"], rows));
  } else if (isTop) parts.push(make("p", {}, kindOf(found, api)));
  for (const each of [...Object.values(found.properties ?? {}), ...(found.anyOf ?? []), ...(found.oneOf ?? [])]) {
    for (const part of [each, each.items ?? {}, ...(each.anyOf ?? []), ...(each.items?.anyOf ?? [])]) {
      if (part.$ref) parts.push(...members(part, api, shown));
    }
  }
  return parts;
}

const JSON_HEADER = "-H 'content-type: application/json'";
const quoted = (value) => `'${JSON.stringify(value).replaceAll("'", "'\\''")}'`;

/** Lines for a shell, which run as they are. A stream that is named by its id is started first. */
function curl(path, method, operation, api) {
  const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
  const post = (to, body) => `curl -s '${base}${to}' \\\n  ${JSON_HEADER} \\\n  -d ${quoted(body)}`;
  const bodyOf = (to) => api.paths[to].post.requestBody.content["application/json"].example;
  let before = "";
  let named = path;
  for (const { in: place, name, schema } of operation.parameters) {
    if (place !== "path") continue;
    const isResponse = path.startsWith("/v1/responses/");
    if (schema.example) named = named.replace(`{${name}}`, schema.example);
    else if (name === "id") {
      const to = isResponse ? "/v1/responses" : "/api/v1/streams";
      const more = isResponse ? { stream: undefined, background: true } : {};
      before = `ID=$(${post(to, { ...bodyOf(to), ...more })} |\n  sed 's/.*"id":"\\([^"]*\\)".*/\\1/')\n`;
      // The demo's answer has ended by then: what runs has no items yet, and is not deleted.
      if (isResponse && (method === "delete" || path.endsWith("/input_items"))) before += "sleep 4\n";
      named = named.replace("{id}", "'$ID'"); // outside the quotes around the address
    }
  }
  const query = operation.parameters.filter((each) => each.in === "query" && each.required);
  if (query.length) named += `?${query.map(({ name }) => `${name}=Say%20hello`).join("&")}`;
  const isSocket = Boolean(operation.responses["101"]);
  const isForm = method === "post" && !operation.requestBody && operation.tags[0] === "Passed through" && !path.startsWith("/p/");
  const verb = { get: "", post: operation.requestBody || isForm ? "" : "-X POST", head: "-I" }[method] ?? `-X ${method.toUpperCase()}`;
  const words = ["curl -sN", verb, `'${base}${named}'`].filter(Boolean).join(" ").replace(/''$/, "");
  const example = operation.requestBody?.content["application/json"].example;
  const body = operation.requestBody ? ` \\\n  ${JSON_HEADER} \\\n  -d ${example ? quoted(example) : "@body.json"}` : "";
  const upgrade = ["connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-protocol: gai.events.v1"];
  const more = isSocket ? upgrade.map((header) => ` \\\n  -H '${header}'`).join("") : "";
  const form = isForm ? ` \\\n  -F model=your-model -F ${path.includes("audio") ? "file=@speech.wav" : "image=@image.png"}` : "";
  return before + words + body + more + form;
}

function answers(operation, api) {
  return Object.entries(operation.responses).map(([status, given]) => {
    const answer = given.$ref ? api.components.responses[given.$ref.split("/").at(-1)] : given;
    const content = Object.entries(answer.content ?? {});
    const kinds = content.map(([media, { schema = {}, "x-items": items }]) =>
      `${media}: ${items ? `events of ${kindOf(items, api)}` : kindOf(schema, api)}`);
    return [code(status), answer.description, kinds.join(" · ")];
  });
}

function operationOf(path, method, operation, api) {
  const content = make("div", {}, make("pre", { tabIndex: 0 }, curl(path, method, operation, api)));
  if (operation.parameters.length) {
    const rows = operation.parameters.map((each) => [
      code(each.name + (each.required ? " *" : "")), each.in, kindOf(each.schema, api), each.description ?? "",
    ]);
    content.append(make("h3", {}, "Parameters"), table(["name", "in", "type", "what it is"], rows));
  }
  const schema = operation.requestBody?.content["application/json"].schema;
  if (schema) content.append(...members(schema, api));
  content.append(make("h3", {}, "Answers"), table(["status", "meaning", "body"], answers(operation, api)));
  const summary = make("summary", {},
    make("span", { className: "method" }, method.toUpperCase()), code(path), make("span", {}, ...prose(operation.summary)));
  const details = make("details", { id: operation.operationId }, summary, content);
  details.dataset.words = `${method} ${path} ${operation.summary}`.toLowerCase();
  return details;
}

function show(api) {
  document.querySelector("#version").textContent = api.info.version;
  const main = document.querySelector("main");
  const groups = document.querySelector("#groups");
  main.replaceChildren();
  for (const { name } of api.tags) {
    const section = make("h2", { id: name }, name);
    main.append(section);
    groups.append(make("a", { href: `#${name}` }, name));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const method of METHODS) {
        const operation = methods[method];
        if (operation?.tags[0] === name) main.append(operationOf(path, method, operation, api));
      }
    }
  }
  main.append(make("h2", { id: "Schemas" }, "Schemas"));
  groups.append(make("a", { href: "#Schemas" }, "Schemas"));
  for (const name of Object.keys(api.components.schemas).sort()) {
    const content = make("div", {}, ...members({ $ref: `/${name}` }, api, new Set(), true));
    const details = make("details", { className: "schema" }, make("summary", {}, code(name)), content);
    details.dataset.words = name.toLowerCase();
    main.append(details);
  }
  document.querySelector("#find").addEventListener("input", ({ target }) => {
    const word = target.value.trim().toLowerCase();
    for (const each of main.querySelectorAll("details")) each.hidden = !each.dataset.words.includes(word);
    for (const heading of main.querySelectorAll("h2")) {
      let isEmpty = true; // nothing below it fits
      for (let each = heading.nextElementSibling; each && each.tagName !== "H2"; each = each.nextElementSibling) {
        isEmpty &&= each.hidden;
      }
      heading.hidden = isEmpty;
      groups.querySelector(`[href="#${CSS.escape(heading.id)}"]`)?.toggleAttribute("hidden", isEmpty);
    }
    document.querySelector("#none").hidden = Boolean(main.querySelector("details:not([hidden])"));
  });
  const named = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named) {
    named.open = true;
    named.scrollIntoView();
  }
}

const login = document.querySelector("#login");
const key = document.querySelector("#key");

/** Opens the page if the caller may: a browser that asked for it without a key got it as the login. */
async function open() {
  const allowed = await fetch(address("docs"), { headers: authorization(), cache: "no-store" });
  const isRefused = [401, 403].includes(allowed.status);
  login.hidden = !isRefused;
  document.querySelector("#whole").hidden = isRefused;
  if (isRefused) {
    const { message } = await refusal(allowed);
    document.querySelector("#why").textContent = hasKey() || allowed.status === 403
      ? `${message.charAt(0).toUpperCase()}${message.slice(1)}.` : "This server needs an admin's key.";
    useKey("");
    key.focus();
    return;
  }
  const response = await fetch(address("openapi.json"));
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  show(await response.json());
}

/** The same; says why, if the server does not answer: in the login, as long as that is what is shown. */
async function tryToOpen() {
  try {
    await open();
  } catch (problem) {
    const place = document.querySelector(login.hidden ? "main" : "#why");
    place.textContent = `The description cannot be read: ${problem.message}`;
  }
}

login.addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(key.value.trim());
  key.value = "";
  tryToOpen();
});
await tryToOpen();
