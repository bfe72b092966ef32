"""Search: the gallery of a run is made, and asked."""
