"""What is to be forgotten, where it lies, and how it goes."""
