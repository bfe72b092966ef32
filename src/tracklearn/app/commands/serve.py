"""The page in a browser: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.options import Device, Json, say, say_json


def serve(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, finished or in training.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the token that is asked for; else TRACKLEARN_TOKEN."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Name by which the server may be called; may be repeated."),
    ] = None,
    identities: Annotated[
        Path | None,
        typer.Option("--identities", help="Folder of identities; the one beside the run by default."),
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option("--gallery", help="Gallery: a folder or postgresql://…; the run's own by default."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Serve pages to search people, review who is who, watch a training and forget somebody."""
    from tracklearn import runtimes
    from tracklearn.app.model.device import pick_device

    for library in ("fastapi", "uvicorn"):  # said before anything is opened
        runtimes.load(library)
    from tracklearn.app.web.house import House
    from tracklearn.app.web.server import serve as run
    from tracklearn.app.web.server import token_of
    from tracklearn.store.runs import Run

    Run(run_path)  # what is no run is said now, not by every page
    house = House(run_path, identities=identities, gallery=gallery, device=pick_device(device))

    def tell(address: str) -> None:
        say_json({"address": address}) if as_json else say(f"{address}  (Ctrl-C ends it)")

    run(house, host=host, port=port, token=token_of(token_file), names=name or (), tell=tell)
