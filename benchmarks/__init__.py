"""Measurements of the project; each module is a command: python -m benchmarks.NAME."""

from tracklearn.core import threads

threads.wait_briefly()  # as the command line does
