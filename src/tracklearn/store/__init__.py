"""Everything that reads or writes: video, detections, tracklet sets, weights, runs, galleries."""
