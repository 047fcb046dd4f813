"""Parts of a run that know no session: its records, its approvals, its messages, what it adds to events."""
