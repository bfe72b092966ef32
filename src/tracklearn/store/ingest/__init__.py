"""From sources to a tracklet set."""
