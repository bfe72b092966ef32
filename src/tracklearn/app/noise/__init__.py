"""The noise of trackers: measured against ground truth, and put into clean sets."""
