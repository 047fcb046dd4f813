// The panel of approvals: calls of tools that wait for a person, and the decisions about them. All that is shown of a call
// is text; what is decided is the digest of what was shown.

import { given, named, plain } from "../playground/approval.js";
import { ask } from "./api.js";
import { count, make, put } from "./streams.js";

const EVERY = 3_000; // ms between two questions

/** The panel. `root` is its section, hidden while nothing waits; `tell` announces what an action has led to. */
export class Approvals {
  #root;
  #list;
  #tell;
  #shown = "";
  #asked = -Infinity;
  #isAsking = false;

  constructor(root, tell) {
    this.#root = root;
    this.#list = root.querySelector(".rows");
    this.#tell = tell;
  }

  /** Asks again, if the last answer is old. */
  async refresh() {
    if (this.#isAsking || performance.now() - this.#asked < EVERY) return;
    this.#isAsking = true;
    this.#asked = performance.now();
    try {
      this.#show(await ask("admin/v1/approvals"));
    } catch (problem) {
      this.#shown = "";
      this.#list.replaceChildren(make("p", "none", `The approvals cannot be had: ${problem.message}`));
    } finally {
      this.#isAsking = false;
    }
  }

  forget() {
    this.#asked = -Infinity;
  }

  #show({ total, data }) {
    const shown = JSON.stringify(data);
    this.#root.hidden = !data.length;
    put(this.#root.querySelector(".hint"), total > data.length ? `${count(data.length)} of ${count(total)}` : "calls of tools that wait for a person");
    if (shown === this.#shown) return; // rows stay, with the focus
    this.#shown = shown;
    this.#list.replaceChildren(...data.map((each) => this.#row(each)));
  }

  #row(approval) {
    const row = make("div", "key", make("b", "", named(approval)), make("span", "hint", plain(approval.key)));
    row.append(make("span", "value", `until ${new Date(approval.expires).toISOString().slice(11, 16)} UTC`));
    row.append(make("code", "all", given(approval)));
    const button = (text, decision, className) => {
      const made = make("button", className, text);
      made.type = "button";
      made.setAttribute("aria-label", `${text} the call of ${named(approval)}`);
      made.addEventListener("click", () => this.#decide(approval, decision));
      return made;
    };
    row.append(make("span", "actions", button("Approve", "approve", "quiet"), button("Deny", "deny", "quiet danger")));
    row.dataset.approval = approval.id;
    return row;
  }

  async #decide(approval, decision) {
    const { id, stream_id: stream, digest } = approval;
    if (decision === "approve" && !confirm(`Make this call for ${plain(approval.key)}?\n\n${named(approval)} ${given(approval)}`)) return;
    try {
      const path = `api/v1/streams/${encodeURIComponent(stream)}/approvals/${encodeURIComponent(id)}`;
      await ask(path, "POST", { decision, digest });
      this.#tell(`The call of ${named(approval)} is ${decision === "approve" ? "approved" : "denied"}.`);
    } catch (problem) {
      this.#tell(problem.message, true);
    }
    this.forget();
    await this.refresh();
  }
}
