// Markdown of a model as elements, while it grows. The subset that models write: paragraphs, headings, lists, quotes, code,
// tables, rules, emphasis, links.
//
// 1. No text of a model is parsed as HTML: elements are made here, by name, and their texts are text nodes. HTML is text.
// 2. A link goes to http or https, by its whole address; any other stays text. An image is a link: nothing is loaded.
// 3. Text that grows changes what it changes: the last two blocks are read again, and nodes that are equal stay. A new
//    line can change the block before the last one ("#" is a heading, "#x" is more of a paragraph), but none above.
// 4. All work is in proportion to the text, in whatever pieces it comes: every repetition is bounded, no two that follow
//    each other in a pattern match the same, and long blocks are read again only as often as the text so far pays for.
//    Between two readings the new text stands at their end as it came. A mark's end is looked for in so many characters
//    (`REACH`): that work is paid for too, and a text with very many marks stays as it came.
// 5. Each block has the direction of its first letters (`dir="auto"`), but for code.

const DEPTH = 12; // of quotes, lists and emphasis in each other
const PARAGRAPH = 20_000; // characters of a text in which marks are looked for
const COLUMNS = 100; // of a table: more of them are none
const LONG_CELL = 24; // characters from which a cell has the width for some words a line
const SHORT = 2048; // characters of unfinished blocks that are read again with each piece
const CREDIT = 16; // characters of longer ones that may be read for each one that has come
const REACH = 1000; // characters behind a mark in which its end is looked for
const SEARCHED = 1_000_000; // characters that may be searched in this way for one text: 20 ms
const CHEAPER = 32; // characters that are searched for the price of one that is read
const CODE = /^ {0,3}(`{3,}|~{3,})([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:([ \t]+)(?=\S)|[ \t]*$)/;
const DELIMITER = /^:?-+:?$/; // a cell of the line below a table's head
const INLINE = new RegExp(
  [
    "\\\\([!-/:-@[-`{-~])", // 1: an escape
    "(`{1,8})(?!`)([^]{1,1000}?)(?<!`)\\2(?!`)", // 2, 3: code
    "\\*\\*(?=\\S)([^]{0,1000}?\\S)\\*\\*(?!\\*)", // 4: strong
    "(?<!\\w)__(?=\\S)([^]{0,1000}?\\S)__(?!\\w)", // 5: strong
    "~~(?=\\S)([^]{0,1000}?\\S)~~", // 6: deleted
    "\\*(?=[^\\s*])([^]{0,1000}?[^\\s*])\\*(?!\\*)", // 7: emphasis
    "(?<!\\w)_(?=[^\\s_])([^]{0,1000}?[^\\s_])_(?!\\w)", // 8: emphasis
    "!?\\[((?:[^\\[\\]]|\\[[^\\[\\]]{0,500}\\]){0,500})\\]" + // 9: the label of a link
      "\\([ \\t]*<?([^\\s<>()]{1,2000}(?:\\([^\\s<>()]{0,500}\\)[^\\s<>()]{0,500})?)>?" + // 10: its address
      '(?:[ \\t]+"[^"]{0,500}")?[ \\t]*\\)',
    "<(https?://[^\\s<>]{1,2000})>", // 11: an address
    "(?<![\\w/])(https?://[^\\s<>\"'`]{1,2000})", // 12: an address in a text
    "&(amp|lt|gt|quot|#39|nbsp);", // 13
  ].join("|"),
  "g",
);
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", nbsp: "\u00a0" };

function make(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

/** The address of a link, or nothing: rule 2. */
function addressOf(text) {
  if (!/^https?:\/\//i.test(text)) return undefined;
  try {
    return new URL(text).href;
  } catch {
    return undefined;
  }
}

function link(address, ...children) {
  const anchor = make("a", ...children);
  anchor.href = address;
  anchor.title = address;
  anchor.rel = "noopener noreferrer nofollow";
  anchor.target = "_blank";
  return anchor;
}

// ---- inside a block --------------------------------------------------------------------------------------------------

const marksIn = (text) => text.match(/[*_~`[]/g)?.length ?? 0;

/** A text as nodes. */
function inline(text, depth = 0) {
  if (depth > DEPTH || text.length > PARAGRAPH) return [text];
  const reach = Math.min(text.length, REACH);
  let open = marksIn(text);
  if (open * reach > SEARCHED) return [text];
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    const node = marked(match, depth);
    if (node === undefined) continue;
    open -= marksIn(match[0]);
    if (match.index > from) nodes.push(text.slice(from, match.index));
    nodes.push(node.shortened ?? node);
    from = match.index + (node.shortened?.textContent ?? match[0]).length;
  }
  if (from < text.length) nodes.push(text.slice(from));
  Markdown.searched += open * reach; // the end of each of these was looked for in vain
  return nodes;
}

function marked(match, depth) {
  const [, escaped, , code, starred, underlined, deleted, slanted, sloped, label, target, address, bare, entity] = match;
  const [strong, emphasis] = [starred ?? underlined, slanted ?? sloped];
  const within = (text) => inline(text, depth + 1);
  if (escaped) return escaped;
  if (code !== undefined) return make("code", code.replaceAll("\n", " ").replace(/^ (?=.*\S)(.*) $/, "$1"));
  if (strong !== undefined) return make("strong", ...within(strong));
  if (deleted !== undefined) return make("del", ...within(deleted));
  if (emphasis !== undefined) return make("em", ...within(emphasis));
  if (target !== undefined) {
    const found = addressOf(target);
    return found && link(found, ...(label ? withoutLinks(within(label)) : [found]));
  }
  if (address !== undefined) return addressOf(address) && link(addressOf(address), address);
  if (bare !== undefined) {
    let text = bare;
    while (/[.,;:!?*_~\]]$/.test(text.slice(-1)) || (text.endsWith(")") && !text.includes("("))) text = text.slice(0, -1);
    return addressOf(text) && { shortened: link(addressOf(text), text) };
  }
  return ENTITIES[entity];
}

/** A label without links of its own: they cannot be in a link. */
function withoutLinks(nodes) {
  return nodes.map((node) => (node.tagName === "A" ? node.textContent : node));
}

// ---- blocks ----------------------------------------------------------------------------------------------------------

const isBlank = (line) => line.trim() === "";
const isCell = (line) => line.includes("|") && !isBlank(line);

/** Whether a line ends the paragraph before it. */
function interrupts(line) {
  const item = ITEM.exec(line);
  const isItem = item && item[3] && (/^[-*+]$/.test(item[2]) || /^1[.)]$/.test(item[2]));
  return CODE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line) || Boolean(isItem);
}

/** The number of the line behind the block that begins with a line. */
function blockEnd(lines, from) {
  const first = lines[from];
  let at = from + 1;
  const fence = CODE.exec(first)?.[1];
  if (fence) {
    const isEnd = (line) => line.trim().length >= fence.length && line.trim() === fence[0].repeat(line.trim().length);
    while (at < lines.length && !(isEnd(lines[at]) && /^ {0,3}\S/.test(lines[at]))) at += 1;
    return Math.min(at + 1, lines.length);
  }
  if (HEADING.test(first) || RULE.test(first)) return at;
  if (QUOTE.test(first)) {
    while (at < lines.length && QUOTE.test(lines[at])) at += 1;
    return at;
  }
  const item = ITEM.exec(first);
  if (item) {
    const isNumbered = /\d/.test(item[2]);
    for (; at < lines.length; at += 1) {
      const line = lines[at];
      if (isBlank(line) || /^(?: {2,}|\t)/.test(line)) continue;
      const next = ITEM.exec(line);
      if (next && /\d/.test(next[2]) === isNumbered && !RULE.test(line)) continue;
      if (next || isBlank(lines[at - 1]) || interrupts(line)) break; // else more of the last item's paragraph
    }
    while (isBlank(lines[at - 1])) at -= 1;
    return at;
  }
  if (isTable(lines, from)) {
    while (at < lines.length && isCell(lines[at])) at += 1;
    return at;
  }
  while (at < lines.length && !isBlank(lines[at]) && !interrupts(lines[at]) && !isTable(lines, at)) at += 1;
  return at;
}

function isTable(lines, at) {
  const next = lines[at + 1];
  if (!next?.includes("-") || !isCell(lines[at]) || !isCell(next) || !/^ {0,3}\S/.test(next)) return false;
  const cells = cellsOf(next);
  return cells.length <= COLUMNS && cells.every((cell) => DELIMITER.test(cell));
}

/** The blocks of a text: `[begin, end]`, as places of lines. */
function split(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (isBlank(lines[at])) at += 1;
    else blocks.push([at, (at = blockEnd(lines, at))]);
  }
  return blocks;
}

function blocksOf(lines, depth) {
  if (depth > DEPTH) return [make("p", lines.join("\n"))];
  return split(lines).map(([begin, end]) => block(lines.slice(begin, end), depth));
}

function block(lines, depth) {
  const [first] = lines;
  const fence = CODE.exec(first);
  if (fence) return codeOf(lines, fence);
  const heading = HEADING.exec(first);
  if (heading) {
    const text = first.slice(heading[0].length).trim().replace(/(^|[ \t])#+$/, "");
    return make(`h${Math.min(6, heading[1].length + 2)}`, ...inline(text.trim())); // below the page's own
  }
  if (RULE.test(first)) return make("hr");
  if (QUOTE.test(first)) {
    return make("blockquote", ...blocksOf(lines.map((line) => line.replace(QUOTE, "")), depth + 1));
  }
  if (ITEM.test(first)) return listOf(lines, depth);
  if (isTable(lines, 0)) return tableOf(lines);
  return make("p", ...inline(lines.map((line) => line.trim()).join("\n")));
}

function codeOf(lines, [, fence, language]) {
  const last = lines.length > 1 ? lines.at(-1).trim() : "";
  const isClosed = last.length >= fence.length && last === fence[0].repeat(last.length);
  const text = lines.slice(1, isClosed ? -1 : undefined).join("\n");
  const name = make("span", language.trim().split(/\s/)[0].slice(0, 40));
  const button = make("button", "Copy");
  button.type = "button";
  button.className = "quiet";
  button.dataset.copy = "code";
  const head = make("div", name, button);
  const pre = make("pre", make("code", text));
  pre.tabIndex = 0; // it scrolls sideways
  const whole = make("div", head, pre);
  whole.className = "code";
  whole.dir = "ltr";
  return whole;
}

function listOf(lines, depth) {
  const [, { length: base }, marker] = ITEM.exec(lines[0]);
  const list = make(/\d/.test(marker) ? "ol" : "ul");
  const start = Number.parseInt(marker, 10);
  if (start !== 1 && start >= 0) list.start = start;
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length < base + 2) items.push({ indent: Math.max(2, item[0].length), lines: [line.slice(item[0].length)] });
    else {
      const { indent, lines: own } = items.at(-1);
      let from = 0;
      while (from < indent && line[from] === " ") from += 1;
      own.push(line.slice(from || Number(line[0] === "\t")));
    }
  }
  const isLoose = items.some(({ lines: own }) => own.slice(1).some(isBlank));
  for (const { lines: own } of items) {
    const task = /^\[([ xX])\](?=\s)/.exec(own[0]);
    if (task) own[0] = (task[1] === " " ? "☐" : "☑") + own[0].slice(3);
    const parts = blocksOf(own, depth + 1);
    const isPlain = !isLoose && parts[0]?.tagName === "P";
    list.append(make("li", ...(isPlain ? [...parts[0].childNodes, ...parts.slice(1)] : parts)));
  }
  return list;
}

/** The cells of a row; "\|" is no border, nor is one in code. */
function cellsOf(line) {
  const cells = [""];
  const text = line.trim().replace(/^\|/, "");
  let isCode = false;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "\\" && text[at + 1] === "|") cells[cells.length - 1] += text[(at += 1)];
    else if (text[at] === "|" && !isCode) cells.push("");
    else {
      if (text[at] === "`") isCode = !isCode;
      cells[cells.length - 1] += text[at];
    }
  }
  if (cells.length > 1 && cells.at(-1).trim() === "") cells.pop();
  return cells.map((cell) => cell.trim());
}

function tableOf(lines) {
  const sides = cellsOf(lines[1]).map((cell) => (/^:-+:$/.test(cell) ? "center" : /-:$/.test(cell) ? "end" : ""));
  const row = (line, tag) => {
    const cells = cellsOf(line);
    const made = cells.slice(0, sides.length).map((text, at) => {
      const cell = make(tag, ...inline(text));
      const names = [sides[at], text.length > LONG_CELL ? "long" : ""].filter(Boolean);
      if (names.length) cell.className = names.join(" ");
      return cell;
    });
    const missing = sides.length - made.length;
    if (missing) made.push(Object.assign(make(tag), { colSpan: missing }));
    return make("tr", ...made);
  };
  const body = make("tbody", ...lines.slice(2).map((line) => row(line, "td")));
  const whole = make("div", make("table", make("thead", row(lines[0], "th")), body));
  whole.className = "wide";
  whole.tabIndex = 0; // it scrolls sideways
  whole.role = "group";
  whole.ariaLabel = "Table";
  return whole;
}

// ---- growing ---------------------------------------------------------------------------------------------------------

/** Makes the children of an element those of another, and keeps what is equal: rule 3. */
function become(old, wanted) {
  const [now, then] = [[...old.childNodes], [...wanted.childNodes]];
  then.forEach((node, at) => {
    const kept = now[at];
    if (!kept) old.append(node);
    else if (kept.isEqualNode(node) || (kept.tagName === "BUTTON" && node.tagName === "BUTTON")) return;
    else if (kept.nodeType === 3 && node.nodeType === 3) {
      if (node.data.startsWith(kept.data)) kept.appendData(node.data.slice(kept.data.length));
      else kept.data = node.data;
    } else if (kept.nodeType === 1 && kept.cloneNode().isEqualNode(node.cloneNode())) become(kept, node);
    else kept.replaceWith(node);
  });
  for (const node of now.slice(then.length)) node.remove();
}

/** The Markdown of one element. */
export class Markdown {
  static steps = 0; // characters that were read, for the tests of rule 4
  static searched = 0; // characters in which ends of marks were looked for in vain

  #place;
  #rest = ""; // the text of the blocks that are not finished, with LF at the end of each line
  #isRead = true; // whether all of that has been read
  #credit = 0; // characters that may be read again
  #open = []; // the elements of these blocks
  #afterCR = false;

  constructor(place) {
    this.#place = place;
    place.replaceChildren();
  }

  /** Adds text, in any pieces. */
  append(text) {
    if (text === "") return;
    Markdown.steps += text.length;
    const isRestOfCRLF = this.#afterCR && text[0] === "\n";
    this.#afterCR = text.endsWith("\r"); // its LF may be in the next piece
    const piece = (isRestOfCRLF ? text.slice(1) : text).replace(/\r\n?/g, "\n");
    this.#rest += piece;
    this.#isRead = false;
    this.#credit += CREDIT * text.length;
    const { length } = this.#rest;
    if (this.#credit < 0 || (length > this.#credit && length > SHORT)) {
      this.#extend(piece);
      return;
    }
    if (length > SHORT) this.#credit -= length;
    this.#show();
  }

  /** No more text comes. */
  end() {
    if (!this.#isRead) this.#show();
  }

  /** Puts text at the end of the last block, as it came. */
  #extend(piece) {
    let node = this.#place.lastChild;
    while (node?.lastChild) node = node.lastChild;
    if (node?.nodeType === 3) node.appendData(piece);
    else {
      const more = make("p", piece);
      this.#place.append(more);
      this.#open.push(more);
    }
  }

  #show() {
    Markdown.steps += this.#rest.length;
    const before = Markdown.searched;
    const lines = this.#rest.split("\n");
    const blocks = split(lines);
    const shown = blocks.map(([begin, end], at) => {
      const made = block(lines.slice(begin, end), 0);
      made.dir ||= "auto";
      const kept = this.#open[at];
      if (!kept) this.#place.append(made);
      else if (kept.cloneNode().isEqualNode(made.cloneNode())) {
        become(kept, made);
        return kept;
      } else kept.replaceWith(made);
      return made;
    });
    for (const each of this.#open.slice(blocks.length)) each.remove();
    this.#open = shown.slice(-2);
    if (blocks.length > 2) this.#rest = lines.slice(blocks.at(-2)[0]).join("\n");
    this.#isRead = true;
    this.#credit -= (Markdown.searched - before) / CHEAPER;
  }
}
