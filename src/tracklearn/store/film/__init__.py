"""What moves: videos, folders of frames, cameras, and the boxes that belong to their frames."""
