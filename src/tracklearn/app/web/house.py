"""All that a server is made of, joined: one object that routes and pages ask."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tracklearn.app.web.clips import Clips
from tracklearn.app.web.find import Finder
from tracklearn.app.web.opened import NotThere, Opened, Served
from tracklearn.app.web.review import Reviewer
from tracklearn.app.web.tracks import Tracks
from tracklearn.app.web.training import Training
from tracklearn.app.web.uploads import Uploads, jpeg
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.types import Array, Refusal


class House:
    """What one server shows and can do.

    Args:
        run: run folder.
        identities, gallery, device: as `Served`.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        identities: str | Path | None = None,
        gallery: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.served = Served(run, identities=identities, gallery=gallery, device=device)
        self.uploads = Uploads()
        self.finder = Finder(self.served, self.uploads)
        self.reviewer = Reviewer(self.served, self.finder)
        self.tracks = Tracks(self.served)
        self.training = Training(self.served)
        self.clips = Clips(self.served)
        self._own: tuple[str, TrackletSet] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of all files and pictures."""
        self.uploads.forget()
        self.clips.forget()
        self.tracks.close()
        with self._lock:
            self._own = None
        self.served.close()

    def summary(self) -> dict[str, Any]:
        """What there is; "missing" says what is not there yet, and how to make it."""
        status = self.training.status()
        found: dict[str, Any] = {"name": self.served.title, "training": status, "missing": ""}
        try:
            with self.served.opened() as opened:
                found |= {
                    "entries": len(opened.refs),
                    "cameras": list(opened.gallery.cameras),
                    "people": len(opened.members),
                    "sets": [one.digest[:8] for one in opened.gallery.sets],
                }
        except (Refusal, OSError) as error:
            found |= {"entries": 0, "cameras": [], "people": 0, "sets": [], "missing": str(error)}
        return found

    def upload(self, data: bytes) -> dict[str, Any]:
        """Take a picture to search for.

        Raises:
            ValueError: it is none that is taken.
        """
        try:
            with self.served.opened() as opened:
                searched = opened.searcher.tracklet_set(0)
        except (Refusal, OSError):
            searched = None
        return self.uploads.add(data, searched).to_dict()

    def uploaded(self, name: str) -> bytes:
        """JPEG of a picture that was sent."""
        return jpeg(self.uploads.get(name).image)

    def crop(self, digest: str, row: int) -> bytes:
        """JPEG of a crop of a set.

        Args:
            digest: first eight letters of the set's.
            row: of its pictures.

        Raises:
            NotThere: no such set or row, or the picture cannot be read.
        """
        image: Array | None = None
        with self.served.opened_if_there() as opened:
            one = self._set(digest, opened)
            if 0 <= row < one.n_crops:
                try:
                    image = one.image(row)
                except (Refusal, OSError):
                    image = None
        if image is None:
            raise NotThere(f"set {digest[:8]} has no picture {row} that can be read")
        return jpeg(image)

    def _set(self, digest: str, opened: Opened | None) -> TrackletSet:
        """The set of that digest: one of the gallery, or that of the run."""
        if opened is not None:
            for number, one in enumerate(opened.gallery.sets):
                if one.digest[:8] == digest:
                    return opened.searcher.tracklet_set(number)
        with self._lock:
            if self._own is None or self._own[0] != digest:
                run = self.served.run()
                learned = next((each for each in run.sets if each["digest"][:8] == digest), None)
                if learned is None:
                    raise NotThere(f"there is no set {digest[:8]} here")
                self._own = digest, open_set(run.path / learned["path"])
            return self._own[1]

    def preview(self, person: int) -> dict[str, Any]:
        """Everything that would go with a person.

        Raises:
            NotThere: nobody has the number.
            ValueError: it cannot be done; the message says why.
        """
        from tracklearn.app.forget import preview

        with self.served.opened() as opened:
            opened.of_person(person)
            called = opened.called(person)
        found = preview(self.served.path, person=person)
        return {"person": person, "called": called, "text": found.text(), **found.to_dict()}

    def forget(self, person: int) -> dict[str, Any]:
        """Forget a person, here and on disk.

        Raises:
            NotThere: nobody has the number.
            ValueError: it cannot be done; nothing was changed.
        """
        from tracklearn.app.forget import forget

        with self.served.deciding:
            with self.served.opened() as opened:
                opened.of_person(person)
            with self.served.closed():
                self._let_go()
                done = forget(self.served.path, person=person)
        return {"text": done.text(), **done.to_dict()}

    def _let_go(self) -> None:
        """Keep nothing of anybody in memory either."""
        self.uploads.forget()
        self.clips.forget()
        self.tracks.close()
        with self._lock:
            self._own = None
