"""Tracklet sets on disk."""
