"""The command line: each command calls one function of the pipeline and prints the path it wrote.

Progress and errors go to standard error; with --json one JSON object is the last line of standard output.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from tracklearn import __version__
from tracklearn.app.commands import check, datasets, evaluate, experiment, noise, settings
from tracklearn.app.commands.export import export
from tracklearn.app.commands.forget import forget
from tracklearn.app.commands.identities import calibrate, identities
from tracklearn.app.commands.ingest import ingest
from tracklearn.app.commands.run import demo, report, run
from tracklearn.app.commands.search import index, search
from tracklearn.app.commands.serve import serve
from tracklearn.app.commands.track import track
from tracklearn.app.commands.train import train
from tracklearn.app.refusals import defect, printable, refusal
from tracklearn.core import threads
from tracklearn.store import cache
from tracklearn.types import Refusal

app = typer.Typer(
    name="tracklearn",
    help="Learn person re-identification from unlabelled video.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    ingest,
    train,
    index,
    search,
    serve,
    identities,
    calibrate,
    track,
    report,
    run,
    demo,
    datasets.datasets,
    evaluate.evaluate,
    export,
    forget,
    experiment.experiment,
    check.check,
    settings.settings,
):
    app.command()(command)
app.add_typer(noise.app)


def _version(asked: bool) -> None:
    if asked:
        print(f"tracklearn {__version__}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Learn person re-identification from unlabelled video."""


_PACKAGE = Path(__file__).parent.parent
STOPPED = 130  # the exit code of a program stopped with Ctrl-C


def main() -> None:
    """Entry point: one clear line and exit code 2 for the user's errors, 1 for a defect, 130 when stopped."""
    _speak_plainly()
    threads.wait_briefly()
    cache.keep_home_clean()
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and sys.argv[1:2] != ["train"]:
            raise Refusal("torchrun is for tracklearn train alone: start other commands without it")
        app()
    except SystemExit as stop:
        if stop.code == STOPPED:
            print("tracklearn: stopped; a command that has --resume goes on with it", file=sys.stderr)
        raise
    except Exception as error:
        # Which errors are the user's to mend is decided in one place; any other is a defect.
        message = refusal(error, command="".join(sys.argv[1:2]))
        if message is not None:
            _refuse(error, message)
        if os.environ.get("TRACKLEARN_DEBUG"):
            raise
        print(f"tracklearn: {defect(error)}", file=sys.stderr)
        sys.exit(1)


def _speak_plainly() -> None:
    """What the terminal cannot show is replaced, and a warning of this program is one line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # neither closed nor somebody's own
            stream.reconfigure(errors="replace")
    others = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, *rest: Any, **named: Any
    ) -> None:
        if Path(filename).is_relative_to(_PACKAGE):
            if os.environ.get("RANK", "0") == "0":
                print(f"tracklearn: {printable(' '.join(str(message).split()))}", file=sys.stderr)
        else:
            others(message, category, filename, *rest, **named)

    warnings.showwarning = show
    # What takes its time while a set is opened; other loggers stay as they are.
    copies = logging.getLogger("tracklearn.store.sets.stored")
    copies.handlers, copies.propagate = [_Told()], False
    copies.setLevel(logging.INFO)


class _Told(logging.Handler):
    """Lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Of several processes the first says it."""
        if os.environ.get("RANK", "0") == "0":
            print(f"tracklearn: {printable(record.getMessage())}", file=sys.stderr)


def _refuse(error: BaseException, message: str) -> None:
    """Say what is wrong in one line and leave with exit code 2; TRACKLEARN_DEBUG=1 shows where it arose."""
    if os.environ.get("TRACKLEARN_DEBUG"):
        raise error
    # Of several processes all meet the same error; one line is enough.
    if os.environ.get("RANK", "0") == "0":
        print(f"tracklearn: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
