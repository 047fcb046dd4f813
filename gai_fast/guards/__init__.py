"""Guards: finds in a text that arrives in pieces what must not be said, and holds no more of it than it must.

Nothing here awaits, opens anything or reads a clock. `automaton` is the search: `compile_rules` makes one automaton a
guard, `Automaton.scan` the state of one text. `syntax` parses patterns, `pii` has the rules of personal data,
`arguments` searches the strings of JSON, `restore` issues placeholders and puts the own words back.
"""
