"""Features of people, to be searched."""
