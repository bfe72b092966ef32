"""Numbers as the report prints them; a dash where there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np


def known(value: Any) -> bool:
    """Whether this is a finite number.

    >>> known(None), known(float("nan")), known(0)
    (False, False, True)
    """
    return value is not None and bool(np.isfinite(value))


def number(value: Any) -> str:
    """A count with thousands apart.

    >>> number(21720)
    '21,720'
    """
    return f"{int(value):,}" if known(value) else "–"


def percent(value: Any) -> str:
    """A fraction in percent: one decimal below ten.

    >>> percent(0.052), percent(0.5)
    ('5.2 %', '50 %')
    """
    if not known(value):
        return "–"
    return f"{100 * value:.0f} %" if value == 0 or value >= 0.0995 else f"{100 * value:.1f} %"


def decimal(value: Any, digits: int = 2) -> str:
    """A number with so many decimals."""
    return f"{value:.{digits}f}" if known(value) else "–"


def plain(value: Any) -> str:
    """A number of whatever kind: whole ones as counts, others with three decimals.

    >>> plain(2491.0), plain(0.4152), plain(None)
    ('2,491', '0.415', '–')
    """
    if not known(value):
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3f}"


def duration(seconds: Any) -> str:
    """Seconds as people say them.

    >>> duration(4.24), duration(83), duration(7380)
    ('4.2 s', '1 min 23 s', '2 h 03 min')
    """
    if not known(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def flat(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and text.

    >>> flat({"tmc": {"epochs": 4}, "seed": 0})
    [('tmc.epochs', '4'), ('seed', '0')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{before}{key}"
        rows += flat(value, name + ".") if isinstance(value, Mapping) else [(name, str(value))]
    return rows


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss.s`.

    >>> clock(3725.26)
    '1:02:05.3'
    """
    if not np.isfinite(seconds):
        return "–"
    tenths = round(abs(seconds) * 10)
    sign = "-" if seconds < 0 and tenths else ""
    whole, tenth = divmod(tenths, 10)
    return f"{sign}{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}.{tenth}"


def wall(moment: datetime | None) -> str:
    """Date and time as a clock on the wall there shows them; empty where unknown.

    >>> wall(datetime.fromisoformat("2026-05-01T08:00:12.9+02:00"))
    '2026-05-01 08:00:12'
    >>> wall(datetime.fromisoformat("2026-05-01T06:00:12Z")), wall(None)
    ('2026-05-01 06:00:12 UTC', '')
    """
    if moment is None:
        return ""
    # Creation times in files are UTC, which is on few walls.
    utc = moment.utcoffset() == timedelta(0)
    return moment.replace(tzinfo=None).isoformat(" ", "seconds") + (" UTC" if utc else "")


def slug(label: str) -> str:
    """A label as a part of a file name; empty where nothing of it may stand in one.

    >>> slug("Hall, cameras 1-3")
    'hall_cameras_1-3'
    """
    return re.sub(r"[^a-z0-9.-]+", "_", label.lower().replace("→", "to")).strip("_")
