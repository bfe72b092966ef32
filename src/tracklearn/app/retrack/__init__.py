"""Tracking again with what was learned."""
