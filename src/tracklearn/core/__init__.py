"""Mathematics on arrays: no files, no logging, no state."""
