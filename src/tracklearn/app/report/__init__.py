"""The report of a run: its data, its sections, its page."""
