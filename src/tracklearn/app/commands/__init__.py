"""The commands, one module a subject; `cli.py` joins them."""
