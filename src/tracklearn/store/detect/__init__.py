"""Who finds people in a picture."""
