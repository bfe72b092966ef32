"""Networks, losses and the training loop in torch; device and seed are arguments, no files."""
