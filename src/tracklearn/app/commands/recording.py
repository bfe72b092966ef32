"""What the command line adds to sources: how long cameras are recorded, when films begin, Ctrl-C."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tracklearn.types import Refusal

if TYPE_CHECKING:
    from tracklearn.store.film.connection import Live
    from tracklearn.store.ingest.sources import Source

For = Annotated[
    str | None,
    typer.Option("--for", help="How long cameras are recorded: 90s, 30m, 2h; until Ctrl-C unless given."),
]
Start = Annotated[
    list[str] | None,
    typer.Option(
        "--start",
        help="When a camera's first film begins, NAME=2026-05-01T08:00:00 (local time, or with +02:00 or Z); "
        "may be repeated, for one camera too: once for each of its films.",
    ),
]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"(\d+(?:\.\d+)?)([smh])"


def seconds_of(text: str) -> float:
    """Seconds of a duration such as 90s, 30m, 2h or 1h30m.

    Raises:
        ValueError: it is none, or nothing.

    >>> seconds_of("1h30m")
    5400.0
    """
    text = text.strip().lower()
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
    if not re.fullmatch(f"({_PART})+", text) or not 0 < seconds < float("inf"):
        raise Refusal(f"--for {text!r} is no duration: write 90s, 30m, 2h or 1h30m")
    return seconds


def starts_of(texts: Sequence[str] | None) -> dict[str, list[datetime]]:
    """Camera -> when its films begin, with the time zone, of --start NAME=TIME.

    Raises:
        ValueError: another form, or no such time.
    """
    starts: dict[str, list[datetime]] = {}
    for text in texts or ():
        camera, _, when = text.rpartition("=")
        try:
            moment = datetime.fromisoformat(when.strip())
            # A time without a zone is the clock on this machine's wall.
            moment = moment if moment.tzinfo else moment.astimezone()
        except (ValueError, OverflowError):
            camera = ""
        if not camera:
            raise Refusal(
                f"--start {text!r} is no camera and time: write NAME=2026-05-01T08:00:00 or, with the time "
                "zone, NAME=2026-05-01T08:00:00+02:00"
            )
        starts.setdefault(camera, []).append(moment)
    return starts


def parsed(texts: Sequence[str], tell: Callable[[str], None]) -> list[Source]:
    """The sources; tells what folders and patterns of recordings hold.

    Raises:
        FileNotFoundError, ValueError: as `parse_sources`.
    """
    from tracklearn.store.ingest.sources import parse_sources

    sources = parse_sources(texts)
    for source in sources:
        if source.found is not None:
            tell(f"{source.camera}: {source.found}")
    return sources


def live_of(sources: Sequence[Source], duration: str | None, tell: Callable[[str], None]) -> Live:
    """How the cameras among the sources are recorded.

    Raises:
        ValueError: --for is no duration, or there is no camera.
    """
    from tracklearn.store.film.connection import Live

    seconds = None if duration is None else seconds_of(duration)
    cameras = [source for source in sources if source.address]
    if seconds is not None and not cameras:
        raise Refusal("--for is the length of a recording, but no source is a live camera: leave it out")
    if cameras:
        length = "until Ctrl-C" if duration is None else f"for {duration}; Ctrl-C ends it earlier"
        for source in cameras:
            tell(f"{source.camera}: recording {source} {length}")
    return Live(
        seconds=seconds, tell=tell, ask=_ask if sys.stdin is not None and sys.stdin.isatty() else None
    )


def _ask(shown: str) -> str | None:
    from getpass import getpass

    return getpass(f"password for {shown}: ") or None


@contextmanager
def ended_by_ctrl_c(live: Live, tell: Callable[[str], None]) -> Iterator[None]:
    """While cameras are recorded, Ctrl-C ends the recordings and keeps them; the next stops as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: object) -> None:
        if live.recording and not live.stop.is_set():
            live.stop.set()
            tell("ending the recording, what there is will be kept; Ctrl-C again stops at once")
        else:
            signal.default_int_handler(number, frame)  # type: ignore[arg-type]

    # None: a handler from outside Python, or Ctrl-C is ignored on purpose: leave it so.
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
