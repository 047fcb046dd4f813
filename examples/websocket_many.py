"""Several answers at once over one WebSocket of a running gateway, and the cancelling of one of them.

gai-fast serve                          in another terminal
python examples/websocket_many.py [ws://127.0.0.1:8080/ws/stream]
"""

import asyncio
import sys

import aiohttp

QUESTIONS = {"a": "Tell me a story", "b": "Why is the sky blue?", "c": "Count to a thousand"}


async def main(url):
    answers = dict.fromkeys(QUESTIONS, "")
    running = {*QUESTIONS}
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=["gai.events.v1"]) as socket:
        for stream, question in QUESTIONS.items():
            await socket.send_json({"stream": stream, "type": "request", "request": {"query": question}})
        while running:
            event = await socket.receive_json()
            stream = event["stream"]
            match event["type"]:
                case "text.delta":
                    answers[stream] += event["text"]
                    if stream == "c" and len(answers[stream]) > 40:
                        await socket.send_json({"stream": stream, "type": "cancel"})
                case "finish":
                    print(f"{stream}: {event['finish_reason']}, {len(answers[stream])} characters")
                case "error":
                    print(f"{stream}: {event['error']['code']}: {event['error']['message']}")
                case "done":
                    running.discard(stream)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/ws/stream"))
