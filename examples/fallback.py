"""Several providers with fallback: whoever answers first, in the order of fallback.toml, gives the text.

OPENAI_API_KEY=… ANTHROPIC_API_KEY=… GEMINI_API_KEY=… python examples/fallback.py "Why is the sky blue?"
"""

import asyncio
import sys
from pathlib import Path

import gai_fast


async def main(question, config):
    async with (
        gai_fast.Gateway.from_config(config) as gateway,
        gateway.stream({"query": question, "model": "fast"}) as stream,
    ):
        async for event in stream:
            match event["type"]:
                case "start":
                    print(f"[{event['provider']}: {event['model']}]")
                case "text.delta":
                    print(event["text"], end="", flush=True)
                case "error":
                    sys.exit(f"nobody has answered: {event['error']['message']}")
    print()


if __name__ == "__main__":
    question = sys.argv[1] if len(sys.argv) > 1 else "Why is the sky blue?"
    config = sys.argv[2] if len(sys.argv) > 2 else Path(__file__).with_name("fallback.toml")
    asyncio.run(main(question, config))
