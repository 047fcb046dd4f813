// A chat with the AI SDK's useChat that survives a reload: it keeps the messages of whoever writes, and an answer once
// it is whole. The address has `api`, the gateway's route, `id`, the chat, and perhaps `model`.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { useEffect } from "react";
import { createRoot } from "react-dom/client";

const { api, id, model = "fake" } = Object.fromEntries(new URLSearchParams(location.search));
window.ends = []; // the metadata of every answer that has ended

function Chat() {
  const { messages, sendMessage, status, error } = useChat({
    id,
    messages: JSON.parse(sessionStorage.getItem(id) ?? "[]"),
    resume: true,
    transport: new DefaultChatTransport({ api, body: { model } }),
    onFinish: ({ message }) => window.ends.push(message.metadata ?? null),
  });
  useEffect(() => {
    const isWhole = status === "ready" || messages.at(-1)?.role === "user";
    if (isWhole) sessionStorage.setItem(id, JSON.stringify(messages));
  }, [messages, status]);
  return (
    <main data-status={status} data-error={error?.message}>
      {messages.map((message) => (
        <p key={message.id} className={message.role}>
          {message.parts.map((part) => (part.type === "text" ? part.text : ""))}
        </p>
      ))}
      <button onClick={() => sendMessage({ text: "hold" })}>Send</button>
    </main>
  );
}

createRoot(document.body).render(<Chat />);
