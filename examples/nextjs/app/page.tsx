"use client";

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { useEffect, useState } from "react";

// One chat a tab: after a reload `resume` goes on with its running answer.
function chatOfThisTab(): string {
  const id = sessionStorage.getItem("chat") ?? crypto.randomUUID();
  sessionStorage.setItem("chat", id);
  return id;
}

export default function Page() {
  const [id, setId] = useState<string>();
  useEffect(() => setId(chatOfThisTab()), []);
  return id === undefined ? null : <Chat id={id} />;
}

function Chat({ id }: { id: string }) {
  const [text, setText] = useState("Tell me a story");
  const transport = new DefaultChatTransport({ api: "/api/chat", body: { model: "demo" } });
  const { messages, sendMessage, status, error } = useChat({ id, resume: true, transport });
  return (
    <main>
      {messages.map((message) => (
        <p key={message.id}>
          <b>{message.role}: </b>
          {message.parts.map((part) => (part.type === "text" ? part.text : ""))}
        </p>
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
