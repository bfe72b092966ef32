"""Independent tasks, done in this process, in several of this machine, or on Ray."""
