// The wire formats: what each object of the wire means for a run, and how a program prints its text.
//
// framings    those that the format has
// unmarked    those in which nothing but the end of the response ends a stream
// isText      a record is text as it came, and no JSON
// read        takes a record into a run; returns whether it carries generated content
// failed      JavaScript's condition for an `event` that is an error
// print       JavaScript's statement that prints the text of an `event`, or the text as it came

const BOTH = ["sse", "ndjson"];
const HAS_ERROR = "event.error";
const hasType = (type) => `event.type === "${type}"`;
const printed = (type, member) => `if (event.type === "${type}") process.stdout.write(event.${member});`;

/** A value of a tool as text. */
const shown = (value) => (value === undefined || typeof value === "string" ? value : JSON.stringify(value));

const DECIDED = { approve: "approved", deny: "denied" };

/** How a call has ended. */
const resultOf = ({ step, is_error: isError, duration_ms: ms }) =>
  step === undefined ? undefined : `step ${step}, ${isError ? "failed" : "done"}${ms === undefined ? "" : ` in ${ms} ms`}`;

const source = ({ title, uri, url }) => `Source: ${[title, uri ?? url].filter(Boolean).join(", ")}`;

/** A call of a tool begins, whose arguments come in pieces. */
function open(run, place, name) {
  run.calls.set(place, { name, input: "" });
}

/** A piece of arguments; of no open call where the provider runs the tool. */
function add(run, place, piece) {
  if (run.calls.has(place)) run.calls.get(place).input += piece;
}

function close(run, place) {
  const call = run.calls.get(place);
  if (call) run.call(call);
  run.calls.delete(place);
}

function noteWarnings(run, aside) {
  for (const warning of aside?.warnings ?? []) run.note(`Warning: ${warning.reason ?? warning}`);
}

/** A chunk of OpenAI's chat dialect or of Completions, whose choices have `text` in place of `delta`. */
function readChunk(run, chunk) {
  if (chunk.error) run.fail(chunk.error);
  run.source ||= chunk.model ?? "";
  if (chunk.usage) {
    run.usage = {
      input_tokens: chunk.usage.prompt_tokens,
      output_tokens: chunk.usage.completion_tokens,
      cached_input_tokens: chunk.usage.prompt_tokens_details?.cached_tokens,
      reasoning_tokens: chunk.usage.completion_tokens_details?.reasoning_tokens,
      source: chunk.x_gai?.usage_source,
    };
  }
  noteWarnings(run, chunk.x_gai);
  let content = false;
  for (const { index, delta, text: legacy, finish_reason } of chunk.choices ?? []) {
    const text = legacy || delta?.content || delta?.refusal;
    content ||= Boolean(text || delta?.reasoning_content || delta?.tool_calls);
    if (index) continue;
    run.reasoning.push(delta?.reasoning_content ?? "");
    run.answer.push(text ?? "");
    for (const { index: place, function: piece } of delta?.tool_calls ?? []) {
      if (piece?.name) open(run, place, piece.name);
      add(run, place, piece?.arguments ?? "");
    }
    for (const { url_citation: citation } of delta?.annotations ?? []) run.note(source(citation ?? {}));
    if (finish_reason) {
      for (const place of [...run.calls.keys()]) close(run, place);
      run.finish = chunk.x_gai?.finish_reason ?? finish_reason;
      run.complete = true; // NDJSON has no [DONE]
    }
  }
  return content;
}

const gai = {
  framings: [...BOTH, "ws"],
  failed: HAS_ERROR,
  print: printed("text.delta", "text"),
  read(run, event) {
    switch (event.type) {
      case "start":
        run.source = [event.provider, event.model].filter(Boolean).join(" · ");
        return false;
      case "text.delta":
      case "refusal.delta":
        if (!event.choice) run.answer.push(event.text);
        return true;
      case "reasoning.delta":
        if (!event.choice) run.reasoning.push(event.text);
        return true;
      case "tool.call":
        run.call({
          id: event.call_id,
          name: event.tool_call.name,
          input: shown(event.tool_call.input),
          state: event.executed_by === "gateway" ? `step ${event.step}, by the gateway` : undefined,
        });
        return true;
      case "tool.result":
        run.call({ id: event.call_id, output: shown(event.tool_result), state: resultOf(event), approval: null });
        return false;
      case "tool.progress":
        run.call({ id: event.call_id, state: `step ${event.step}, ${event.text || `at ${event.progress}`}` });
        return false;
      case "approval.required":
        run.call({ id: event.call_id, state: `step ${event.step}, waits for an approval`, approval: event.approval });
        return false;
      case "approval.decided":
        run.call({ id: event.call_id, state: `step ${event.step}, ${DECIDED[event.approval.decision]}`, approval: null });
        return false;
      case "step.start":
        run.step();
        return false;
      case "step.reset":
        run.resetStep();
        return false;
      case "server_tool": {
        const { id, name, status, input, output } = event.server_tool;
        run.call({ id, name, state: status, input: shown(input), output: shown(output) });
        return false;
      }
      case "citations":
        for (const citation of event.citations) run.note(source(citation));
        return false;
      case "warning":
        run.note(`Warning: ${event.reason}`);
        return false;
      case "stream.reset":
        run.clear();
        return false;
      case "stream.gap":
        run.clear();
        run.answer.push(event.text);
        return false;
      case "usage":
        run.usage = event.usage;
        return false;
      case "finish":
        run.finish = event.finish_reason;
        run.usage = event.usage ?? run.usage;
        return false;
      case "error":
        run.usage = event.usage ?? run.usage;
        run.fail(event.error);
        return false;
      case "done":
        run.complete = true;
        return false;
      default:
        return /^(audio|image|tool\.call)/.test(event.type);
    }
  },
};

const openai = {
  framings: BOTH,
  failed: HAS_ERROR,
  print: 'process.stdout.write(event.choices[0]?.delta.content ?? "");',
  read: readChunk,
};

const completions = {
  framings: BOTH,
  failed: HAS_ERROR,
  print: 'process.stdout.write(event.choices[0]?.text ?? "");',
  read: readChunk,
};

const responses = {
  framings: BOTH,
  failed: hasType("error"),
  print: printed("response.output_text.delta", "delta"),
  read(run, event) {
    const { type, response } = event;
    run.source ||= response?.model ?? "";
    noteWarnings(run, response?.x_gai ?? event.x_gai);
    if (response?.usage) {
      const { usage } = response;
      run.usage = {
        ...usage,
        cached_input_tokens: usage.input_tokens_details?.cached_tokens,
        reasoning_tokens: usage.output_tokens_details?.reasoning_tokens,
        source: response.x_gai?.usage_source,
      };
    }
    if (type === "error") run.fail({ code: event.code, message: event.message });
    if (type === "response.failed" && response.error) run.fail(response.error);
    if (["response.completed", "response.incomplete", "response.failed"].includes(type)) {
      run.complete = true;
      run.finish = response.x_gai?.finish_reason ?? response.incomplete_details?.reason ?? response.status;
    }
    if (type === "response.output_item.done" && event.item.type === "function_call") {
      run.call({ name: event.item.name, input: event.item.arguments });
    }
    if (type === "response.output_text.annotation.added") run.note(source(event.annotation));
    if (/^response\.(output_text|refusal)\.delta$/.test(type)) run.answer.push(event.delta);
    if (/^response\.reasoning(_summary)?_text\.delta$/.test(type)) run.reasoning.push(event.delta);
    return /\.delta$/.test(type);
  },
};

const anthropic = {
  framings: BOTH,
  failed: HAS_ERROR,
  print: 'process.stdout.write(event.delta?.text ?? "");',
  read(run, event) {
    const { type, index, content_block: block, delta = {} } = event;
    run.source ||= event.message?.model ?? "";
    noteWarnings(run, event.x_gai);
    if (type === "error") run.fail(event.error);
    if (type === "message_stop") run.complete = true;
    if (type === "message_delta") {
      run.finish = event.x_gai?.finish_reason ?? delta.stop_reason;
      const { input_tokens: fresh, output_tokens, cache_read_input_tokens: read = 0 } = event.usage;
      const input_tokens = fresh + read + (event.usage.cache_creation_input_tokens ?? 0);
      run.usage = { input_tokens, output_tokens, cached_input_tokens: read, source: event.x_gai?.usage_source };
    }
    if (block?.type === "tool_use") open(run, index, block.name);
    if (type === "content_block_delta") {
      run.answer.push(delta.text ?? "");
      run.reasoning.push(delta.thinking ?? "");
      add(run, index, delta.partial_json ?? "");
      if (delta.citation) run.note(source(delta.citation));
    }
    if (type === "content_block_stop") close(run, index);
    return type === "content_block_delta";
  },
};

const simple = {
  framings: BOTH,
  unmarked: ["ndjson"],
  failed: HAS_ERROR,
  print: "process.stdout.write(event.content);",
  read(run, { content, error }) {
    if (error) run.fail(typeof error === "string" ? { message: error } : error);
    run.answer.push(content ?? "");
    return Boolean(content);
  },
};

const vercel = {
  framings: ["sse"],
  failed: hasType("error"),
  print: printed("text-delta", "delta"),
  read(run, part) {
    const { usage, finish_reason } = part.messageMetadata ?? {};
    run.usage = usage ?? run.usage;
    run.finish = finish_reason ?? run.finish;
    if (part.type === "error") run.fail({ message: part.errorText });
    if (part.type === "text-delta") run.answer.push(part.delta);
    if (part.type === "reasoning-delta") run.reasoning.push(part.delta);
    if (part.type === "tool-input-available") run.call({ name: part.toolName, input: JSON.stringify(part.input) });
    if (/^source-/.test(part.type)) run.note(source(part));
    if (part.type === "data-warning") run.note(`Warning: ${part.data.reason}`);
    return /-delta$|^(file|data-audio)$/.test(part.type);
  },
};

const agui = {
  framings: ["sse"],
  failed: hasType("RUN_ERROR"),
  print: printed("TEXT_MESSAGE_CONTENT", "delta"),
  read(run, event) {
    const { type, delta, toolCallId: id } = event;
    if (event.usage?.length) {
      const [{ inputTokens, outputTokens, cachedInputTokens, reasoningTokens, model }] = event.usage;
      run.source ||= model ?? "";
      run.usage = {
        input_tokens: inputTokens,
        output_tokens: outputTokens,
        cached_input_tokens: cachedInputTokens,
        reasoning_tokens: reasoningTokens,
        source: event.result?.usage_source,
      };
    }
    if (type === "RUN_ERROR") run.fail({ code: event.code, message: event.message });
    if (type === "RUN_FINISHED") {
      run.complete = true;
      run.finish = event.result?.finish_reason ?? "";
    }
    if (type === "TEXT_MESSAGE_CONTENT") run.answer.push(delta);
    if (type === "REASONING_MESSAGE_CONTENT") run.reasoning.push(delta);
    if (type === "TOOL_CALL_START") open(run, id, event.toolCallName);
    if (type === "TOOL_CALL_ARGS") add(run, id, delta);
    if (type === "TOOL_CALL_END") close(run, id);
    if (type === "CUSTOM" && event.name === "citations") for (const one of event.value) run.note(source(one));
    if (type === "CUSTOM" && event.name === "warning") run.note(`Warning: ${event.value}`);
    return delta !== undefined;
  },
};

const raw = {
  framings: ["sse"],
  unmarked: ["sse"],
  isText: true,
  print: "process.stdout.write(text);",
  read(run, text) {
    run.answer.push(text);
    return true;
  },
};

export const FORMATS = { gai, openai, responses, anthropic, simple, vercel, agui, completions, raw };
