"""Who may ask: hosts, origins, tokens, sizes, and what every answer says to the browser.

The guard stands before everything else and knows nothing of what lies behind it. A loopback server is open to
whoever uses the machine; a token, which every other server has, is asked for on every route but the login
page and its stylesheet.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tracklearn.app.refusals import defect
from tracklearn.types import Refusal

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE = "tracklearn_session"
SHORTEST = 16  # letters of a token [chosen]
MOST_BYTES = 20 << 20  # of what is sent to the server [chosen]: a large photograph
_MOST_FORM = 4096  # bytes of a login
_SESSION = 12 * 3600.0  # seconds that a login lasts [chosen]
_TRIES, _WINDOW = 10, 60.0  # wrong tokens of one address in so many seconds, then it waits [chosen]
_MOST_ADDRESSES = 10_000  # whose tries are remembered
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/login", "/static/style.css")  # without a token
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; media-src 'self'; "
    "style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def checked_token(host: str, token: str | None) -> str | None:
    """The token that a server on this address asks for; None where it asks for none.

    Raises:
        ValueError: others may reach the address and there is no token, or one that can be guessed.
    """
    how = "set TRACKLEARN_TOKEN, or --token-file, to something long and random (openssl rand -hex 24)"
    if token is None:
        if is_loopback(host):
            return None
        raise Refusal(f"others may reach {host}, so a token is needed: {how}")
    token = token.strip()
    if len(token) < SHORTEST:
        raise Refusal(f"the token has {len(token)} letters, {SHORTEST} are the least: {how}")
    return token


class Guard:
    """The outermost layer of the server, an ASGI application around another.

    Args:
        app: what lies behind.
        token: asked for where it is not None.
        names: by which the server may be called, beside those of loopback.
        addresses: whether it may be called by any address of the Internet protocol, which no foreign name
            can be made to stand for.
        login: (wrong) -> HTML of the login page.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        app: Any,
        *,
        token: str | None = None,
        names: Iterable[str] = (),
        addresses: bool = False,
        login: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self._login, self._clock = app, login, clock
        self._token = None if token is None else _digest(token)
        self._names = {*_LOOPBACK, *(name.lower() for name in names)}
        self._addresses = addresses
        self._sessions: dict[bytes, float] = {}
        self._wrong: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no other protocol is spoken here
            return
        asked = _Asked(scope)
        answer = _Answer(send, asked)
        if refused := self._refused(asked):
            await answer.plain(*refused)
            return
        receive = _Bounded(receive, _MOST_FORM if asked.path == "/login" else MOST_BYTES)
        try:
            if asked.path == "/login":
                await self._at_login(asked, receive, answer)
            elif (why := self._stranger(asked)) is not None:
                await answer.stranger(*why, page=self._login)
            else:
                await self.app(scope, receive, answer.send)
        except TooLarge as error:
            if not answer.begun:
                await answer.plain(413, str(error))
        except Exception as error:
            # What was asked for may name people: the kind of the error and a file of this machine are told.
            logger.error("%s", defect(error))
            if not answer.begun:
                await answer.plain(500, "this is a defect of the program; its log names the details")

    def _refused(self, asked: _Asked) -> tuple[int, str] | None:
        """What is wrong with a request whoever sent it: status and words; None for nothing."""
        if not self._known_host(asked.host):
            return 421, "this server is not known by that name: call it by localhost, or see --name"
        if asked.method not in (*_SAFE, "POST"):
            return 405, f"{asked.method[:12]} is not answered here"
        length = asked.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return 413, f"more than {MOST_BYTES >> 20} MB were announced: send a smaller picture"
        if asked.method == "POST" and not self._own_origin(asked):
            return 403, "this was sent by another site, and only the server's own pages may change anything"
        return None

    def _known_host(self, host: str) -> bool:
        name = _name_of(host)
        if name in self._names:
            return True
        if not self._addresses:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _own_origin(self, asked: _Asked) -> bool:
        """Whether no foreign page sent this: browsers name the page's origin, programs none."""
        origin = asked.headers.get("origin")
        site = asked.headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            return False
        if origin is None:
            return site is not None or COOKIE not in asked.cookies
        return urlsplit(origin).netloc.lower() == asked.host.lower() and origin != "null"

    def _stranger(self, asked: _Asked) -> tuple[int, str] | None:
        """Why somebody may not come in; None for those who may."""
        if self._token is None or asked.path in _OPEN:
            return None
        session = asked.cookies.get(COOKIE)
        if session is not None and self._has_session(session):
            return None
        given = asked.headers.get("authorization", "")
        kind, _, token = given.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            return 401, ""
        return self._judged(asked.client, token.strip())

    def _judged(self, client: str, token: str) -> tuple[int, str] | None:
        """What a token that was shown comes to; wrong ones are counted, and too many make all wait."""
        now = self._clock()
        with self._lock:
            wrong = [at for at in self._wrong.get(client, []) if now - at < _WINDOW]
            if len(wrong) >= _TRIES:
                return 429, "too many wrong tokens: wait a minute"
            assert self._token is not None
            if hmac.compare_digest(_digest(token), self._token):
                self._wrong.pop(client, None)
                return None
            if len(self._wrong) >= _MOST_ADDRESSES:
                self._wrong.clear()
            self._wrong[client] = [*wrong, now]
        return 401, "that is not the token"

    def _has_session(self, session: str) -> bool:
        with self._lock:
            until = self._sessions.get(_digest(session), 0.0)
        return self._clock() < until

    async def _at_login(self, asked: _Asked, receive: Receive, answer: _Answer) -> None:
        if self._token is None:
            await answer.see("/")
        elif asked.method != "POST":
            await answer.html(200, self._login(""))
        else:
            body = await _whole(receive)
            fields = parse_qs(body.decode("utf-8", "replace"))
            why = self._judged(asked.client, fields.get("token", [""])[0].strip())
            if why is not None:
                await answer.stranger(*why, page=self._login)
                return
            session, now = secrets.token_urlsafe(32), self._clock()
            with self._lock:
                self._sessions = {key: until for key, until in self._sessions.items() if until > now}
                self._sessions[_digest(session)] = now + _SESSION
            await answer.see(
                "/", f"{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={int(_SESSION)}"
            )


class TooLarge(Exception):
    """More was sent than is taken."""


class _Bounded:
    """The body of a request, which ends with `TooLarge` where it is too large."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise TooLarge(f"more than {MOST_BYTES >> 20} MB were sent: send a smaller picture")
        return message


async def _whole(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


class _Asked:
    """What the guard looks at of a request."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.method, self.path = str(scope["method"]), str(scope["path"])
        pairs = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in scope["headers"]]
        self.headers = dict(pairs)
        hosts = [value for key, value in pairs if key == "host"]
        self.host = hosts[0] if len(hosts) == 1 else ""
        client = scope.get("client")
        self.client = str(client[0]) if client else ""
        self.cookies = dict(
            part.strip().split("=", 1) for part in self.headers.get("cookie", "").split(";") if "=" in part
        )


class _Answer:
    """What is sent back, with the headers that every answer has."""

    def __init__(self, send: Send, asked: _Asked) -> None:
        self._send, self._asked = send, asked
        self.begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            given = {key.lower() for key, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message["headers"] = [*message["headers"], *more]
        await self._send(message)

    async def _whole(self, status: int, kind: str, body: bytes, *more: tuple[str, str]) -> None:
        headers = [("content-type", kind), ("content-length", str(len(body))), *more]
        encoded = [(key.encode(), value.encode()) for key, value in headers]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})
        await self._send({"type": "http.response.body", "body": body})

    async def plain(self, status: int, text: str, *more: tuple[str, str]) -> None:
        """An error as the API has them."""
        await self._whole(status, "application/json", json.dumps({"error": text}).encode(), *more)

    async def html(self, status: int, text: str, *more: tuple[str, str]) -> None:
        """A page."""
        await self._whole(status, "text/html; charset=utf-8", text.encode(), *more)

    async def see(self, path: str, cookie: str = "") -> None:
        """Another page is to be asked for."""
        await self._whole(
            303, "text/plain", b"", ("location", path), *([("set-cookie", cookie)] if cookie else [])
        )

    async def stranger(self, status: int, why: str, *, page: Callable[[str], str]) -> None:
        """Who has no token is asked for it: a browser with the login page, a program in words."""
        more = ("retry-after", str(int(_WINDOW))) if status == 429 else ("www-authenticate", "Bearer")
        if "text/html" in self._asked.headers.get("accept", ""):
            await self.html(status, page(why), more)
        else:
            await self.plain(status, why or "a token is needed: Authorization: Bearer TOKEN", more)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; "" for nonsense."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").lower() if found else ""
