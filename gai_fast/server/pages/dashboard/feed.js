// Server-sent events over `fetch`: one answer, and a feed that is asked for again after every loss.

import { SSEParser, refusal } from "../client.js";
import { Refused, address, authorization } from "./api.js";

const PAUSE_FIRST = 1_000; // ms before the first try to come back, doubled for each further one
const PAUSE_LONGEST = 30_000;
const SILENCE = 15_000; // ms without a byte of a feed that has something to say each second
const NO_KEY = [401, 403]; // statuses that no waiting mends

/** The events of one answer, `{type, data}`, as long as it goes on. */
export async function* events(path, signal, heard = () => {}) {
  const headers = { accept: "text/event-stream", ...authorization() };
  const response = await fetch(address(path), { headers, signal, cache: "no-store" });
  if (!response.ok) throw new Refused(await refusal(response));
  heard();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new SSEParser();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    for (const event of parser.feed(value)) yield { type: event.type, data: JSON.parse(event.data) };
  }
}

/**
 * A feed that never ends by itself. `onState` gets `{name, at, error}`: `busy`, `live`, `waiting` (until `at`, in ms of
 * `performance.now`), `refused` (only `start` tries again) or `paused`.
 */
export class Feed {
  #path;
  #onEvent;
  #onState;
  #control = null; // of the connection of the moment, or of the wait for the next
  #timer = 0;
  #tries = 0;

  constructor(path, onEvent, onState) {
    this.#path = path;
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  get isPaused() {
    return this.#control === null;
  }

  /** Connects now, whatever is waited for. */
  start() {
    this.#end();
    this.#control = new AbortController();
    this.#run(this.#control);
  }

  /** Ends the connection until `start`. */
  pause() {
    this.#end();
    this.#onState({ name: "paused" });
  }

  #end() {
    clearTimeout(this.#timer);
    this.#control?.abort();
    this.#control = null;
  }

  async #run(control) {
    let silence = 0;
    const inner = new AbortController(); // also ends a connection that is silent
    control.signal.addEventListener("abort", () => inner.abort());
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => inner.abort(), SILENCE);
    };
    let error = null;
    this.#onState({ name: "busy" });
    try {
      heard(); // the head must come, too
      for await (const event of events(this.#path, inner.signal, heard)) {
        if (control.signal.aborted) return;
        this.#tries = 0;
        this.#onState({ name: "live" });
        this.#onEvent(event);
      }
    } catch (thrown) {
      if (thrown instanceof Refused) error = thrown.error;
    } finally {
      clearTimeout(silence);
      inner.abort();
    }
    if (control.signal.aborted) return;
    if (NO_KEY.includes(error?.status)) {
      this.#onState({ name: "refused", error });
      return;
    }
    const pause = Math.min(PAUSE_FIRST * 2 ** this.#tries, PAUSE_LONGEST) * (0.75 + Math.random() / 4);
    const wait = Math.min(Math.max(pause, error?.retry_after_ms ?? 0), PAUSE_LONGEST);
    this.#tries += 1;
    this.#onState({ name: "waiting", at: performance.now() + wait, error });
    this.#timer = setTimeout(() => this.start(), wait);
  }
}
