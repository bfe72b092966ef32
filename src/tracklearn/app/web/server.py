"""The server: routes and pages behind their guard, and running it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tracklearn import __version__, runtimes
from tracklearn.app.web import api
from tracklearn.app.web.guard import Guard, TooLarge, checked_token, is_loopback
from tracklearn.app.web.house import House
from tracklearn.app.web.opened import NotThere
from tracklearn.app.web.pages import Pages
from tracklearn.store.lock import InUseError
from tracklearn.types import Refusal

VARIABLE = "TRACKLEARN_TOKEN"
HOST, PORT = "127.0.0.1", 8000

fastapi = runtimes.load("fastapi")


def application(
    house: House,
    *,
    token: str | None = None,
    names: Iterable[str] = (),
    addresses: bool = False,
    **guard: Any,
) -> Guard:
    """The whole server as an ASGI application.

    Args:
        house: what it shows.
        token, names, addresses, guard: as `Guard`.
    """
    app = fastapi.FastAPI(
        title="Tracklearn",
        version=__version__,
        description="Search people over cameras, review who is who, look at a training, forget a person.",
        docs_url=None,  # its own pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        telemetry=dict.fromkeys(("tracing", "metrics", "logs", "auto_configure"), False),
    )
    pages = Pages(house, signed_in=token is not None)
    api.add_to(app, house)
    pages.add_to(app, api.described)

    def told(status: int) -> Any:
        def answer(request: Any, error: Exception) -> Any:
            text = str(error)
            if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
                return fastapi.responses.JSONResponse({"error": text}, status_code=status)
            return pages.error(status, text)

        return answer

    for kind, status in (
        (Refusal, 400),
        (NotThere, 404),
        (FileNotFoundError, 404),
        (InUseError, 409),
        (TooLarge, 413),
    ):
        app.add_exception_handler(kind, told(status))

    def misfit(request: Any, error: Any) -> Any:
        # What was sent is not repeated: it may be a name, or no JSON at all.
        wrong = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}".lstrip(": ") for e in error.errors()]
        return told(422)(request, Exception("; ".join(wrong[:5])))

    app.add_exception_handler(fastapi.exceptions.RequestValidationError, misfit)

    def defect(request: Any, error: Exception) -> Any:
        return told(500)(request, Exception("this is a defect of the program; its log names the details"))

    # It is answered here, and told by the guard, which gets it next.
    app.add_exception_handler(Exception, defect)

    def not_found(request: Any, error: Any) -> Any:
        return told(error.status_code)(request, Exception(str(error.detail)))

    app.add_exception_handler(runtimes.load("starlette.exceptions").HTTPException, not_found)
    app.state.house = house
    return Guard(app, token=token, names=names, addresses=addresses, login=pages.login, **guard)


def token_of(file: Path | None) -> str | None:
    """The token out of a file, or else the environment; None for none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no text.
    """
    if file is None:
        return os.environ.get(VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise Refusal(f"{file} is no text: write the token into it, one line") from None


def serve(
    house: House,
    *,
    host: str = HOST,
    port: int = PORT,
    token: str | None = None,
    names: Iterable[str] = (),
    tell: Callable[[str], None] | None = None,
) -> None:
    """Serve until Ctrl-C.

    Args:
        house: what is shown.
        host: address to listen at; beyond this machine only with a token.
        port: 0 for any that is free.
        token: asked for on every route.
        names: by which the server may be called, beside localhost.
        tell: told its address once it listens there.

    Raises:
        ValueError: others may reach it and there is no token; the port is taken.
    """
    uvicorn = runtimes.load("uvicorn")
    token = checked_token(host, token)
    listener = _listener(host, port)
    known = [*names, *([] if is_loopback(host) else [socket.gethostname(), host])]
    app = application(house, token=token, names=known, addresses=not is_loopback(host))
    shown = f"[{host}]" if ":" in host else host
    if tell is not None:
        tell(f"http://{shown}:{listener.getsockname()[1]}/")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # No log of requests: addresses hold numbers of people. Connections and bodies are bounded.
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=256,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=3,
        ws="none",
    )
    try:
        with suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
        house.close()


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise Refusal(
            f"cannot listen at {host}, port {port} ({error.strerror}): choose another --port"
        ) from None
    return listener
