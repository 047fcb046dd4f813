// The words of a call that waits for a person: all of it is text, and every character of it is seen.

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g;

/** A text whose characters are all seen: none changes the direction or the place of the others. */
export const plain = (text) => text.replace(UNSEEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

export const named = ({ server, tool }) => plain(server ? `${server}.${tool}` : tool);
export const given = ({ input }) => plain(JSON.stringify(input, null, 1).replace(/\n */g, " "));
