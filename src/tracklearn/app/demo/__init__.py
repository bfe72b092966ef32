"""The demo: a generated camera network, filmed, learned from, and judged."""
