"""Google's generateContent: its answers. `gemini.py` writes the requests."""
