"""The JSON interface: everything that the pages can do, for programs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tracklearn import runtimes
from tracklearn.app.commands.search import clock_time
from tracklearn.app.web import people
from tracklearn.app.web.find import MOST, Query
from tracklearn.app.web.guard import MOST_BYTES
from tracklearn.app.web.house import House
from tracklearn.app.web.review import MOST_LETTERS
from tracklearn.types import Refusal

fastapi = runtimes.load("fastapi")
concurrency = runtimes.load("starlette.concurrency")
Request: Any = fastapi.Request  # injected by its type, which therefore cannot be a text

Ref = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}-\d{1,12}-\d{1,12}-\d{1,12}$", description="address of a part")
]
Number = Annotated[int, Field(ge=0, le=2**53)]


_PICTURE = {
    "required": True,
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Search(_Model):
    """A search: for a part of the gallery, or for a picture that was sent and a box in it."""

    part: Ref | None = None
    picture: Annotated[str, Field(max_length=64)] | None = None
    box: tuple[float, float, float, float] | None = Field(default=None, description="x1, y1, x2, y2, pixels")
    k: int = Field(default=24, ge=1, le=MOST)
    camera: Annotated[str, Field(max_length=300)] | None = None
    since: Annotated[str, Field(max_length=20)] | None = Field(default=None, description="H:MM:SS")
    until: Annotated[str, Field(max_length=20)] | None = None
    identity: Number | None = Field(default=None, description="only of this person")
    min_quality: float | None = Field(default=None, ge=0, le=1)
    parts: bool = Field(default=False, description="all parts, not the nearest of each track alone")

    def query(self) -> Query:
        """What is asked of the gallery.

        Raises:
            Refusal: a time that is none.
        """
        box = None if self.box is None else list(self.box)
        times: dict[str, Any] = {"since": clock_time(self.since), "until": clock_time(self.until)}
        return Query(**self.model_dump(exclude={"box", "since", "until"}), box=box, **times)


class Merge(_Model):
    """People who are one."""

    people: list[Number] = Field(min_length=2, max_length=100)


class Split(_Model):
    """Parts of one person who are somebody else."""

    parts: list[Ref] = Field(min_length=1, max_length=10_000)


class Moved(Split):
    """Parts of one person who are another person."""

    person: Number


class Name(_Model):
    """What a person is called; empty for no name."""

    person: Number
    name: str = Field(max_length=4 * MOST_LETTERS)


class Answer(_Model):
    """An answer of the review."""

    a: Ref
    b: Ref
    answer: Literal["same", "different", "unsure"]


class Cut(_Model):
    """A cut of a track before a frame, or (cut = false) one taken back."""

    track: Number
    frame: Number
    cut: bool = True


class Forget(_Model):
    """A person to forget; `confirm` is the number once more."""

    person: Number
    confirm: Number


def add_to(app: Any, house: House) -> None:
    """Make the routes below /api known to an application."""

    @app.get("/api/run", summary="What there is: gallery, cameras, people, training")
    def run() -> dict[str, Any]:
        return house.summary()

    @app.post(
        "/api/pictures",
        summary="Send a picture (JPEG, PNG, WebP as the body) and see who is in it",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def pictures(request: Request) -> dict[str, Any]:
        data = await request.body()
        if len(data) > MOST_BYTES:
            raise Refusal("the picture is too large")
        return await concurrency.run_in_threadpool(house.upload, data)

    @app.post("/api/search", summary="Find a person in all cameras")
    def search(asked: Search) -> dict[str, Any]:
        return house.finder.search(asked.query())

    @app.get("/api/people", summary="Who there is, by number")
    def people_of(
        page: Annotated[int, fastapi.Query(ge=1, le=10**6)] = 1,
        size: Annotated[int, fastapi.Query(ge=1, le=500)] = 60,
        order: Literal["number", "doubt", "parts"] = "number",
        camera: Annotated[str | None, fastapi.Query(max_length=300)] = None,
    ) -> dict[str, Any]:
        return people.listing(house.served, page=page, size=size, order=order, camera=camera)

    @app.get("/api/people/{number}", summary="One person: parts by camera and time, and the least certain")
    def person(number: Number) -> dict[str, Any]:
        return people.person(house.served, number)

    @app.post("/api/merge", summary="Several people are one")
    def merge(asked: Merge) -> dict[str, Any]:
        return house.reviewer.merge(asked.people)

    @app.post("/api/split", summary="Parts of a person are somebody else")
    def split(asked: Split) -> dict[str, Any]:
        return house.reviewer.split(asked.parts)

    @app.post("/api/move", summary="Parts of a person are another person")
    def move(asked: Moved) -> dict[str, Any]:
        return house.reviewer.move(asked.parts, asked.person)

    @app.post("/api/name", summary="Name a person")
    def name(asked: Name) -> dict[str, Any]:
        return house.reviewer.name(asked.person, asked.name)

    @app.post("/api/undo", summary="Take the last step back")
    def undo() -> dict[str, Any]:
        return house.reviewer.undo()

    @app.post("/api/redo", summary="Take the last step that was undone again")
    def redo() -> dict[str, Any]:
        return house.reviewer.redo()

    @app.get("/api/history", summary="The last steps, newest first")
    def history(limit: Annotated[int, fastapi.Query(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        return house.reviewer.history(limit)

    @app.get("/api/review", summary="The most uncertain links")
    def review(n: Annotated[int, fastapi.Query(ge=1, le=50)] = 1) -> dict[str, Any]:
        return house.reviewer.queue(n)

    @app.post("/api/review", summary="Same, different or unsure")
    def answer(asked: Answer) -> dict[str, Any]:
        return house.reviewer.answer(asked.a, asked.b, asked.answer)

    @app.get("/api/tracks", summary="Tracks, the most mixed first")
    def tracks(
        page: Annotated[int, fastapi.Query(ge=1, le=10**6)] = 1,
        size: Annotated[int, fastapi.Query(ge=1, le=500)] = 50,
        camera: Annotated[str | None, fastapi.Query(max_length=300)] = None,
    ) -> dict[str, Any]:
        return house.tracks.listing(page, size, camera)

    @app.get("/api/tracks/{number}", summary="One track, frame by frame")
    def track(
        number: Number, start: Annotated[int | None, fastapi.Query(ge=0, le=2**53)] = None
    ) -> dict[str, Any]:
        return house.tracks.track(number, start)

    @app.post("/api/cut", summary="Cut a track before a frame, or take a cut back")
    def cut(asked: Cut) -> dict[str, Any]:
        return house.tracks.set_cut(asked.track, asked.frame, cut=asked.cut)

    @app.get("/api/training", summary="Where training stands")
    def training() -> dict[str, Any]:
        return house.training.status()

    @app.get("/api/forget/{number}", summary="Everything that would go with a person")
    def preview(number: Number) -> dict[str, Any]:
        return house.preview(number)

    @app.post("/api/forget", summary="Forget a person: everything goes")
    def forget(asked: Forget) -> dict[str, Any]:
        if asked.person != asked.confirm:
            raise Refusal("the number to confirm is another: nobody was forgotten")
        return house.forget(asked.person)


def described(app: Any) -> list[dict[str, str]]:
    """Each route of the interface: method, path, what it does."""
    return [
        {"method": method.upper(), "path": path, "summary": entry.get("summary", "")}
        for path, methods in app.openapi()["paths"].items()
        for method, entry in methods.items()
    ]
