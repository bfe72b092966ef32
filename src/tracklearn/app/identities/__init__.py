"""Who is who in all the footage: one table over cameras and sets."""
