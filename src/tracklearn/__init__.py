"""Tracklearn learns person re-identification from unlabelled video."""
