"""Services of the operating system and the event loop: clock, random ids, files, timers."""
