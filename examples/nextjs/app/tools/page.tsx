"use client";

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from "ai";
import { useState } from "react";

// The tools of the gateway come with the model; this one runs in the page.
const tools = [
  {
    name: "local_time",
    description: "The time where the user is",
    parameters: { type: "object", properties: {} },
  },
];
const transport = new DefaultChatTransport({ api: "/api/chat?ui=6", body: { model: "fast", tools } });

export default function Page() {
  const [text, setText] = useState("What time is it, and what do the docs say of time zones?");
  const { messages, sendMessage, addToolOutput, status, error } = useChat({
    transport,
    // The gateway's calls have ended by then: only those of the page are left.
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
    onToolCall: ({ toolCall }) => {
      if (toolCall.toolName !== "local_time") return; // the gateway's, which has called it itself
      const { toolCallId } = toolCall;
      void addToolOutput({ tool: "local_time", toolCallId, output: new Date().toString() });
    },
  });
  return (
    <main>
      {messages.map((message) => (
        <div key={message.id}>
          <b>{message.role}: </b>
          {message.parts.map((part, at) => {
            if (part.type === "text") return <span key={at}>{part.text}</span>;
            if (part.type !== "dynamic-tool") return null;
            return (
              <pre key={at}>
                {part.toolName} {JSON.stringify(part.input)} {JSON.stringify(part.output ?? part.errorText ?? "…")}
              </pre>
            );
          })}
        </div>
      ))}
      {error && <p role="alert">{error.message}</p>}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void sendMessage({ text });
        }}
      >
        <input value={text} onChange={(event) => setText(event.target.value)} />
        <button disabled={status === "submitted" || status === "streaming"}>Send</button>
      </form>
    </main>
  );
}
