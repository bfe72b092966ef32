"""The pages: each asks what the interface asks, and shows it as HTML."""

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from tracklearn import runtimes
from tracklearn.app.commands.search import clock_time
from tracklearn.app.formats import clock, decimal, duration, number, percent
from tracklearn.app.web import clips, people
from tracklearn.app.web.drawing import alone, timeline
from tracklearn.app.web.find import Query, seconds_of
from tracklearn.app.web.house import House
from tracklearn.types import Refusal

fastapi = runtimes.load("fastapi")
responses = runtimes.load("fastapi.responses")
concurrency = runtimes.load("starlette.concurrency")

_STATIC = {"style.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_EVERY = 2.0  # seconds between two looks at a training
_REPORT = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
Text = Annotated[str | None, fastapi.Query(max_length=300)]
Page = Annotated[int, fastapi.Query(ge=1, le=10**6)]
Whole = Annotated[int, fastapi.Path(ge=0, le=2**53)]


class Pages:
    """The HTML of one server.

    Args:
        house: what it shows.
        signed_in: whether people have to sign in.
    """

    def __init__(self, house: House, *, signed_in: bool) -> None:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        self.house, self.signed_in = house, signed_in
        self._environment = Environment(
            loader=PackageLoader("tracklearn.app.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "number": number,
            "percent": percent,
            "decimal": decimal,
            "duration": duration,
            "clock": clock,
        }

    def _html(self, template: str, *, code: int = 200, **values: Any) -> Any:
        return responses.HTMLResponse(self._text(template, **values), status_code=code)

    def _text(self, template: str, **values: Any) -> str:
        given: dict[str, Any] = {"name": self.house.served.title, "signed_in": self.signed_in, "here": ""}
        return self._environment.get_template(template).render(given | values)

    def login(self, wrong: str) -> str:
        """The page that asks for the token."""
        return self._text("login.html.j2", wrong=wrong)

    def error(self, status: int, text: str) -> Any:
        """A page that says what is wrong."""
        return self._html("error.html.j2", code=status, text=text)

    def add_to(self, app: Any, described: Any) -> None:
        """Make the pages known to an application.

        Args:
            app: FastAPI's.
            described: application -> routes of the interface, for their page.
        """
        self._add_searching(app)
        self._add_people(app)
        self._add_training(app, described)
        self._add_files(app)

    def _add_searching(self, app: Any) -> None:
        house = self.house

        @app.get("/", include_in_schema=False)
        def search(
            part: Text = None,
            picture: Text = None,
            box: Text = None,
            camera: Text = None,
            since: Text = None,
            until: Text = None,
            person: Text = None,
            quality: Text = None,
            whole: bool = False,
            parts: bool = False,
            k: Annotated[int, fastapi.Query(ge=1, le=200)] = 24,
        ) -> Any:
            asked = {
                "part": part,
                "picture": picture,
                "box": box,
                "camera": camera,
                "since": since,
                "until": until,
                "person": person,
                "quality": quality,
                "whole": "1" if whole else None,
                "parts": "1" if parts else None,
                "k": str(k) if k != 24 else None,
            }
            shown: dict[str, Any] = {"asked": asked, "here": "search", "summary": house.summary()}
            shown |= {"found": None, "upload": None, "wrong": "", "line": "", "zero": None, "examples": []}
            shown["link"] = lambda **other: "/?" + urlencode({k: v for k, v in (asked | other).items() if v})
            if shown["summary"]["missing"]:
                return self._html("search.html.j2", **shown)
            if picture is not None:
                shown["upload"] = house.uploads.get(picture).to_dict()
                if shown["upload"]["people"] and not box and not whole:  # one of them is to be chosen first
                    return self._html("search.html.j2", **shown)
            if part is None and picture is None:
                shown["examples"] = house.finder.examples()
                return self._html("search.html.j2", **shown)
            try:
                query = Query(
                    part=part if picture is None else None,
                    picture=picture,
                    box=_box(box),
                    k=k,
                    camera=camera or None,
                    since=clock_time(since or None),
                    until=clock_time(until or None),
                    identity=_whole("person", person),
                    min_quality=_share(quality),
                    parts=parts,
                )
                found = house.finder.search(query)
            except Refusal as error:
                shown["wrong"] = str(error)
                return self._html("search.html.j2", code=400, **shown)
            with house.served.opened() as opened:
                for hit in found["results"]:
                    hit["film"] = clips.film_of(opened, opened.position(hit["ref"])) is not None
            begin, zero = seconds_of(found["results"])
            line = timeline(
                found["results"], begin, shown["summary"]["cameras"], label="results in time", links=True
            )
            return self._html("search.html.j2", **(shown | {"found": found, "line": line, "zero": zero}))

    def _add_people(self, app: Any) -> None:
        house = self.house

        @app.get("/people", include_in_schema=False)
        def everybody(
            page: Page = 1, order: Literal["number", "doubt", "parts"] = "number", camera: Text = None
        ) -> Any:
            summary = house.summary()
            empty = {"people": [], "total": 0, "page": 1, "size": 60, "cameras": [], "nobody": 0}
            found = (
                empty
                if summary["missing"]
                else people.listing(house.served, page=page, order=order, camera=camera or None)
            )
            given: dict[str, Any] = {"found": found, "order": order, "camera": camera or ""}
            given |= {"summary": summary, "pages": _pages(found)}
            return self._html("people.html.j2", here="people", **given)

        @app.get("/people/{who}", include_in_schema=False)
        def one(who: Whole) -> Any:
            found = people.person(house.served, who)
            begin = [found["begin"][row["ref"]] for row in found["parts"]]
            cameras = house.summary()["cameras"]
            line = timeline(
                found["parts"], begin, cameras, label=f"when {found['called']} was seen", links=True
            )
            return self._html("person.html.j2", here="people", found=found, line=line)

        @app.get("/review", include_in_schema=False)
        def review() -> Any:
            summary = house.summary()
            found = {"pairs": [], "left": 0, "answers": 0} if summary["missing"] else house.reviewer.queue(1)
            return self._html("review.html.j2", here="review", found=found, summary=summary)

        @app.get("/history", include_in_schema=False)
        def history() -> Any:
            return self._html("history.html.j2", here="people", steps=house.reviewer.history())

        @app.get("/forget", include_in_schema=False)
        def forget_whom(person: Text = None) -> Any:
            if number := _whole("person", person):
                return responses.RedirectResponse(f"/forget/{number}", status_code=303)
            return self._html("forget.html.j2", here="forget", found=None, summary=house.summary())

        @app.get("/forget/{who}", include_in_schema=False)
        def forget_one(who: Whole) -> Any:
            return self._html(
                "forget.html.j2", here="forget", found=house.preview(who), summary=house.summary()
            )

    def _add_training(self, app: Any, described: Any) -> None:
        house = self.house

        @app.get("/tracks", include_in_schema=False)
        def tracks(page: Page = 1, camera: Text = None) -> Any:
            found = house.tracks.listing(page, camera=camera or None)
            given: dict[str, Any] = {"found": found, "camera": camera or "", "pages": _pages(found)}
            return self._html("tracks.html.j2", here="tracks", **given)

        @app.get("/tracks/{track}", include_in_schema=False)
        def track(track: Whole, start: Annotated[int | None, fastapi.Query(ge=0, le=2**53)] = None) -> Any:
            return self._html("track.html.j2", here="tracks", found=house.tracks.track(track, start))

        @app.get("/training", include_in_schema=False)
        def training() -> Any:
            panels = house.training.panels()
            return self._html(
                "training.html.j2", here="training", status=house.training.status(), panels=panels
            )

        @app.get("/training/events", include_in_schema=False)
        async def events() -> Any:
            return responses.StreamingResponse(self._events(), media_type="text/event-stream")

        @app.get("/report", include_in_schema=False)
        def report() -> Any:
            file = house.training.report()
            if file is None:
                raise Refusal("there is no report yet: make one with tracklearn report RUN")
            headers = {"content-security-policy": _REPORT}
            return responses.HTMLResponse(file.read_bytes(), headers=headers)

        @app.get("/docs", include_in_schema=False)
        def docs() -> Any:
            return self._html("docs.html.j2", here="docs", routes=described(app))

    async def _events(self) -> Any:
        """Where training stands, as server-sent events: once, then whenever it changes, until it ends."""
        import asyncio

        from tracklearn.store.files import plain_json

        before = None
        while True:
            status = await concurrency.run_in_threadpool(self.house.training.status)
            if status != before:
                yield f"data: {plain_json(status)}\n\n"
            else:
                yield ": still there\n\n"
            before = status
            if status["status"] != "training":
                return
            await asyncio.sleep(_EVERY)

    def _add_files(self, app: Any) -> None:
        house = self.house

        @app.get("/crop/{digest}/{row}", include_in_schema=False)
        def crop(digest: Annotated[str, fastapi.Path(pattern="^[0-9a-f]{8}$")], row: Whole) -> Any:
            return responses.Response(house.crop(digest, row), media_type="image/jpeg")

        @app.get("/picture/{name}", include_in_schema=False)
        def picture(name: Annotated[str, fastapi.Path(max_length=64)]) -> Any:
            return responses.Response(house.uploaded(name), media_type="image/jpeg")

        @app.get("/clip/{ref}", include_in_schema=False)
        def clip(
            ref: Annotated[str, fastapi.Path(max_length=64)],
            range: Annotated[str | None, fastapi.Header(max_length=100)] = None,
        ) -> Any:
            return _ranged(house.clips.clip(ref), range)

        @app.get("/chart/training/{which}", include_in_schema=False)
        def training_chart(which: Whole) -> Any:
            return responses.Response(alone(house.training.chart(which)), media_type="image/svg+xml")

        @app.get("/chart/track/{track}", include_in_schema=False)
        def track_chart(track: Whole) -> Any:
            return responses.Response(alone(house.tracks.curve(track)), media_type="image/svg+xml")

        @app.get("/static/{name}", include_in_schema=False)
        def static(name: Annotated[str, fastapi.Path(max_length=40)]) -> Any:
            from importlib.resources import files

            if name not in _STATIC:  # names, never paths
                raise fastapi.HTTPException(404, "there is no such file")
            content = files("tracklearn.app.web").joinpath("static", name).read_bytes()
            return responses.Response(content, media_type=_STATIC[name])


def _ranged(content: bytes, asked: str | None) -> Any:
    """A film, whole or the one range of bytes that a player asks for."""
    total = len(content)
    first, end = 0, total
    if asked is not None and asked.startswith("bytes=") and "," not in asked:
        left, _, right = asked[6:].partition("-")
        if left.isdecimal() and (right == "" or right.isdecimal()):
            first, end = int(left), min(int(right or total) + 1, total)
        elif not left and right.isdecimal():
            first = max(0, total - int(right))
        if first >= end:
            headers = {"content-range": f"bytes */{total}"}
            return responses.Response(status_code=416, headers=headers)
    headers = {"accept-ranges": "bytes"}
    if asked is None or (first, end) == (0, total):
        return responses.Response(content, media_type="video/mp4", headers=headers)
    headers["content-range"] = f"bytes {first}-{end - 1}/{total}"
    return responses.Response(content[first:end], status_code=206, media_type="video/mp4", headers=headers)


def _pages(found: dict[str, Any]) -> int:
    return max(1, -(-int(found["total"]) // int(found["size"])))


def _box(text: str | None) -> list[float] | None:
    """x1,y1,x2,y2 as numbers.

    Raises:
        Refusal: it is none.
    """
    if not text:
        return None
    try:
        box = [float(part) for part in text.split(",")]
    except ValueError:
        box = []
    if len(box) != 4 or not all(abs(v) < 1e6 for v in box):
        raise Refusal("a box is four numbers: x1,y1,x2,y2 in pixels")
    return box


def _whole(what: str, text: str | None) -> int | None:
    if not text:
        return None
    if not text.strip().isdecimal() or len(text) > 15:
        raise Refusal(f"{what} is {text[:20]!r}, expected a number")
    return int(text)


def _share(text: str | None) -> float | None:
    if not text:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise Refusal(f"quality is {text[:20]!r}, expected a number from 0 to 1")
    return share
