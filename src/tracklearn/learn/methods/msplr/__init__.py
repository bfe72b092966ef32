"""MSPLR: settings, guesses, learning rates, and the method made of them."""
