"""The routes of the server: their table, what each does first, and their answers that stand alone."""
