"""The stages in order, the command line and the report."""
