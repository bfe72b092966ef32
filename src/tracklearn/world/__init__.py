"""The generated multi-camera world of the demo and the tests: frames and ground truth from a seed."""
