// The server's API as the dashboard asks it: the addresses, the admin's key, and one answer.
// A key that was typed is kept in this tab until it is closed, and goes with each request; a browser that was asked for it
// by the server (Basic) sends it by itself.

import { refusal } from "../client.js";

const KEY = "gai-fast.dashboard.key";

let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  // storage is switched off: the key is kept until the page is left
}

/** The address of a path beside this page, without the name and password that the page may have been opened with. */
export const address = (path) => new URL(path, location.origin + location.pathname).href;

export const authorization = () => (key ? { authorization: `Bearer ${key}` } : {});

/** Uses a key from now on; an empty text forgets it. */
export function useKey(text) {
  key = text;
  try {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  } catch {
    // as above
  }
}

export const hasKey = () => key !== "";

/** A refusal of the server; `error` is its error object, with the status. */
export class Refused extends Error {
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

/** The JSON of an answer; throws a `Refused`, or what `fetch` throws. */
export async function ask(path, method = "GET", body = undefined) {
  const headers = { ...authorization(), ...(body ? { "content-type": "application/json" } : {}) };
  const init = { method, headers, cache: "no-store", body: body && JSON.stringify(body) };
  const response = await fetch(address(path), init);
  if (!response.ok) throw new Refused(await refusal(response));
  return response.json();
}
