"""What the operating system and the event loop provide: clock, random ids, files, timers."""
