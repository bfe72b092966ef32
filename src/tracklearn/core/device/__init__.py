"""The work that grows with n², done by torch where the features lie; only tensors lead here."""
