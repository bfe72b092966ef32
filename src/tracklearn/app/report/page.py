"""The report of a run: one HTML file that needs nothing else.

`ReportData` is what it is made of, plain values and arrays; `build_report` draws it. Pictures are read one by
one and only those that are shown, so a set of any size gives a report of a few megabytes.
"""

from __future__ import annotations

from pathlib import Path

from tracklearn.app.formats import decimal, duration, number, percent
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.sections import context
from tracklearn.store.files import make_folder, write_atomic


def build_report(data: ReportData, out: Path | str) -> Path:
    """The report as the file `out`, whole or not at all: HTML with pictures and charts inside.

    Raises:
        OSError: the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tracklearn.app.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "duration": duration,
        "decimal": decimal,
    }
    html = environment.get_template("report.html.j2").render(context(data))
    out = Path(out)
    make_folder(out.parent)
    write_atomic(out, html.encode("utf-8", "replace"))
    return out
