"""A conversation in the terminal: each answer is kept, its signatures included, and sent with the next question.

python examples/conversation.py [MODEL]
"""

import asyncio
import sys

import gai_fast


async def main(model):
    messages = []
    async with gai_fast.Gateway() as gateway:
        while question := (await asyncio.to_thread(ask, "you: ")).strip():
            messages.append({"role": "user", "content": question})
            print(f"{model}: ", end="")
            try:
                result = await answer(gateway, {"messages": messages, "model": model})
            except gai_fast.Error as error:
                print(f"[{error.code}: {error}]")
                messages.pop()  # the question may be asked again
            else:
                messages.append(result.message)
                print(f"[{len(messages)} messages, {result.usage['total_tokens']} tokens]")


async def answer(gateway, request):
    async with gateway.stream(request) as stream:
        async for event in stream:
            if event["type"] == "text.delta":
                print(event["text"], end="", flush=True)
        print()
        return await stream.result()


def ask(prompt):
    try:
        return input(prompt)
    except EOFError:
        return ""


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "demo"))
