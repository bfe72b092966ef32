"""The pictures of a report: read one by one, of one size, grey where one cannot be read."""

from __future__ import annotations

import base64

import numpy as np

from tracklearn.app.pictures import fit
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.selection import tile
from tracklearn.core.shown import part_numbers, representative


class Shots:
    """Pictures of tracks and parts as the page holds them.

    Attributes:
        tile: width and height of all, pixels.
        best, best_isolated: row of the picture that stands for each track, and for each part.
        part, n_parts: (u,) number of each part in its track, and how many the track has.
        unreadable: how many could not be read.
    """

    def __init__(self, data: ReportData) -> None:
        self._data = data
        self.tile = tile(data.tracklets)
        self.best = representative(data.tracklets)
        self.best_isolated = representative(data.isolated)
        track, seen = data.parts.source, np.isin(data.parts.crop[data.parts.start[:-1]], data.isolated.crop)
        self.part, self.n_parts = part_numbers(track)[seen], np.bincount(track)[track][seen]
        self.unreadable = 0

    def shot(self, row: int, *, from_search: bool = False) -> str:
        """Picture `row` as a data URI of the tile's size; grey when it cannot be read."""
        import cv2

        picture = (from_search and self._data.search_picture) or self._data.picture
        width, height = self.tile
        try:
            tile = fit(picture(int(row)), width, height)
        except (ValueError, OSError):
            self.unreadable += 1
            tile = np.full((height, width, 3), 142, np.uint8)
        _, jpeg = cv2.imencode(".jpg", tile[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
        return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")
