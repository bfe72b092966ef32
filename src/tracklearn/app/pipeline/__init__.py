"""The stages in order, from sources to a report, each done once."""
