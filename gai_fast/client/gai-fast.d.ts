/** Streams of a gai-fast server, in pages and in Node (20 or newer). */

/** A part of a message; the fields of each type are those of the server's native request. */
export interface Part {
  type: "text" | "image" | "audio" | "file" | "video" | "reasoning" | "tool_call" | "provider_block";
  [field: string]: unknown;
}

export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content: string | Part[];
  call_id?: string;
  is_error?: boolean;
}

/** Marks the end of a part of the prompt that is cached. */
export type CacheMark = boolean | { ttl?: string };

/** A native request: `query`, `messages` or both. `stream` and `resumable` are set by this module. */
export interface Request {
  query?: string;
  messages?: Message[];
  model?: string;
  system?: string;
  tools?: (
    | {
        type?: "function";
        name: string;
        description?: string;
        parameters?: object;
        strict?: boolean;
        cache?: CacheMark;
      }
    | { type: "custom"; name: string; description?: string; format?: object; cache?: CacheMark }
    | { type: "web_search" | "code_execution"; name?: string; options?: object; cache?: CacheMark }
  )[];
  tool_choice?: "auto" | "none" | "required" | { name: string };
  response_format?: { type: "text" | "json" | "json_schema"; name?: string; schema?: object; strict?: boolean };
  reasoning?: {
    effort?: "none" | "minimal" | "low" | "medium" | "high" | "xhigh" | "max";
    max_tokens?: number;
    summary?: "none" | "auto" | "concise" | "detailed";
  };
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  stop?: string[];
  seed?: number;
  frequency_penalty?: number;
  presence_penalty?: number;
  repetition_penalty?: number;
  logit_bias?: Record<string, number>;
  logprobs?: boolean;
  top_logprobs?: number;
  parallel_tool_calls?: boolean;
  verbosity?: "low" | "medium" | "high";
  service_tier?: string;
  user?: string;
  safety_identifier?: string;
  cache?: { key?: string; ttl?: string };
  metadata?: Record<string, unknown>;
  provider_options?: Record<string, Record<string, unknown>>;
  extra?: Record<string, unknown>;
  json_snapshots?: number;
  request_id?: string;
  idempotency_key?: string;
  /** Names and patterns of the gateway's tools that the request may use; none if empty. */
  gateway_tools?: string[];
  max_steps?: number;
  approvals?: "deny";
}

export interface Options {
  /** The caller's key, where the server needs one. */
  key?: string;
  /** Ends the stream: the answer is cancelled on the server, and the loop throws the signal's reason. */
  signal?: AbortSignal;
  /** The transport that is tried first; "sse" by default. One that brings nothing is left: "ws", "sse", "ndjson". */
  transport?: "sse" | "ndjson" | "ws";
  /** Called with each state that the stream enters after `connecting`, its first one. */
  onState?: (state: State) => void;
}

/**
 * `connecting` until a server answers, `streaming` while a connection is open, `reconnecting` from its loss until the
 * next one is open, `ended`.
 */
export type State = "connecting" | "streaming" | "reconnecting" | "ended";

/** The events of one stream. Each change of its state dispatches `statechange`. */
export interface EventStream extends AsyncGenerator<Event, void, void>, EventTarget {
  readonly state: State;
  /**
   * Ends the open connection, as a loss does: the stream goes on over the next one, behind the last event, `pause` ms
   * later (0 by default). Without an open connection it does nothing.
   */
  reconnect(pause?: number): void;
}

export interface FollowOptions extends Options {
  /** The number of the last event that the program has; 0, the default: none. */
  after?: number;
}

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  cached_input_tokens?: number;
  cache_write_input_tokens?: number;
  cache_write_1h_input_tokens?: number;
  reasoning_tokens?: number;
  web_search_requests?: number;
  source?: "counted" | "estimated" | "partial";
  cost?: { amount: number; currency: string };
}

export interface StreamError {
  code: string;
  message: string;
  temporary?: boolean;
  retry_after_ms?: number;
  phase?: "connect" | "first_event" | "mid_stream";
  reason?: string;
  /** The member of the request that an upstream refuses. */
  param?: string;
  /** The guard that refuses, or that failed. */
  guard?: string;
  /** Where a response was refused: its HTTP status, and the id of the request. */
  status?: number;
  request_id?: string;
}

/** What every event but `done` has; the first one of a stream has the rest of the envelope. */
interface Numbered {
  seq: number;
  schema?: "gai.events.v1";
  ts?: number;
  request_id?: string;
  trace_id?: string;
  /** The first of several events that this one joins. */
  from_seq?: number;
  [more: string]: unknown;
}

export interface Start extends Numbered {
  type: "start";
  stream_id: string;
  provider: string;
  model: string;
}

export interface Delta extends Numbered {
  type: "text.delta" | "reasoning.delta" | "refusal.delta";
  text: string;
  choice?: number;
}

export interface ToolCall extends Numbered {
  type: "tool.call";
  call_id: string;
  tool_call: { name: string; input: unknown };
  /** `gateway`: the gateway makes the call, and the page must not. */
  executed_by?: string;
  /** The server of the gateway's tool; none for the gateway's own tools. */
  server?: string;
}

/** A turn of the model, from 1. A `reset` step is void; its second `step.start` follows. */
export interface Step extends Numbered {
  type: "step.start" | "step.end" | "step.reset";
  step: number;
  usage?: Usage;
  finish_reason?: string;
  reason?: string;
}

export interface ToolProgress extends Numbered {
  type: "tool.progress";
  call_id: string;
  progress?: number;
  total?: number;
  text?: string;
}

export interface ToolResult extends Numbered {
  type: "tool.result";
  call_id: string;
  tool_result?: unknown;
  /** All parts of the result, if one is no text. */
  parts?: Part[];
  is_error?: boolean;
  attempt?: number;
  duration_ms?: number;
  truncated?: boolean;
}

/** A call waits for a person, who sends `digest` with the decision. */
export interface ApprovalRequired extends Numbered {
  type: "approval.required";
  call_id: string;
  approval: { id: string; tool: string; server?: string; input?: unknown; digest: string; expires?: number };
}

export interface ApprovalDecided extends Numbered {
  type: "approval.decided";
  call_id: string;
  approval: { id: string; decision: "approve" | "deny"; by?: string; reason?: string };
}

export interface Finish extends Numbered {
  type: "finish";
  finish_reason: "stop" | "length" | "tool_calls" | "content_filter" | "cancelled" | "pause" | "other";
  finish_reason_raw?: string;
  /** Why the gateway ended the answer itself; `guard`: a guard stopped it. */
  reason?: string;
  usage?: Usage;
  /** The turns of a run. `tool_calls`: how many calls of the gateway's tools there were. */
  steps?: { step: number; provider?: string; model?: string; usage?: Usage; tool_calls?: number }[];
}

export interface Failure extends Numbered {
  type: "error";
  error: StreamError;
  usage?: Usage;
}

/** All that was missed; `text` is the whole text up to `to`. */
export interface Gap extends Numbered {
  type: "stream.gap";
  from: number;
  to: number;
  text?: string;
}

/** All since `start` is void; a second `start` follows. */
export interface Reset extends Numbered {
  type: "stream.reset";
  reason?: string;
}

export interface Done {
  type: "done";
  finished: boolean;
}

/** What a provider, or a guard of the gateway, says of a text. */
export interface Safety extends Numbered {
  type: "safety";
  safety: {
    category: string;
    action: string;
    score?: number;
    /** The guard's name, and what it looked at. */
    guard?: string;
    on?: "input" | "output" | "tool_input" | "tool_result";
  };
}

export interface Warning extends Numbered {
  type: "warning";
  reason: string;
  /** The guard that failed, if `reason` is `guard_failed`. */
  guard?: string;
}

export interface OtherEvent extends Numbered {
  type:
    | "audio.delta"
    | "citations"
    | "reasoning.signature"
    | "tool.call.start"
    | "tool.call.delta"
    | "server_tool"
    | "image"
    | "json.snapshot"
    | "provider.block"
    | "usage";
}

/** An event of `gai.events.v1`, in the compact envelope. A server may send types that are not here: ignore them. */
export type Event =
  | Start
  | Delta
  | ToolCall
  | ToolProgress
  | ToolResult
  | Step
  | ApprovalRequired
  | ApprovalDecided
  | Safety
  | Warning
  | Finish
  | Failure
  | Gap
  | Reset
  | Done
  | OtherEvent;

/**
 * Asks a server for one answer and gives its events, `done` last.
 *
 * A connection that is lost is made again for up to 60 s, and each event comes once. A failure is an `error` event.
 * Leaving the loop before `finish` or `error` cancels the answer on the server.
 *
 * @param baseUrl The server's address, with the prefix under which it is mounted.
 * @param request A native request.
 * @throws TypeError The address, the key or an option cannot be used.
 */
export function stream(baseUrl: string | URL, request: Request, options?: Options): EventStream;

/**
 * Follows a durable stream, of which a page has kept `stream_id` of `start`; leaving the loop cancels nothing.
 *
 * @param streamId The stream's id.
 * @throws TypeError As `stream`.
 */
export function follow(
  baseUrl: string | URL,
  streamId: string,
  options?: FollowOptions,
): EventStream;

/** Server-Sent Events: text in any pieces becomes whole events. */
export class SSEParser {
  feed(text: string): { type: string; data: string; id: string; retry?: number }[];
}

/** One JSON text a line; empty lines are skipped. */
export class NDJSONParser {
  feed(text: string): { data: string }[];
}

/** The error in a response that is not a stream. */
export function refusal(response: Response): Promise<StreamError>;
