"""Addresses of cameras and streams: which text is one, how it is shown, and with which password it is opened.

An address may hold a password. It leaves this module in one way only, by `opened_with`, towards the network;
whatever is printed, logged, hashed or written is what `showable` makes of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from urllib.parse import quote

from tracklearn.store import objects
from tracklearn.store.skipped import readable
from tracklearn.types import Refusal

NETWORK = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "srt")
# As FFmpeg calls them on Linux, macOS and Windows.
DEVICES = ("v4l2", "avfoundation", "dshow")
PASSWORD = "TRACKLEARN_PASSWORD"

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9-]+)://")
_NEAR = re.compile(rf"({'|'.join((*NETWORK, *DEVICES))}):", re.IGNORECASE)
_DEVICE_FILE = re.compile(r"/dev/(video\d+|v4l/.+)")
# Anything else behind a question mark may be a password: cameras call it pwd, loginpas, p, token, …
_HARMLESS = re.compile(
    r"(cam(era)?|ch(annel)?|fps|height|id|nr|number|profile|quality|rate|res(olution)?|size|stream|subtype|track"
    r"|type|video|width)=[\w.,:*-]*",
    re.IGNORECASE,
)
_SECRET = re.compile(r"((?:pass\w*|pwd|pw|token|secret|auth\w*|\w*key|sig\w*)=)[^&;/?#]*", re.IGNORECASE)
_LOOSE = re.compile(r":[^@]*@")

FORMS = (
    "rtsp://user@host/stream, rtsps://…, http(s)://… (MJPEG, HLS or a video), rtmp://…, udp://host:port, "
    "/dev/video0, v4l2:/dev/video0"
)


def is_address(text: str) -> bool:
    """Whether `text` begins like an address or names a camera of this machine, well written or not.

    >>> is_address("rtsp://user@host/stream"), is_address("/dev/video0"), is_address("cam1:front.mp4")
    (True, True, False)
    """
    return bool(_SCHEME.match(text) or _NEAR.match(text) or _DEVICE_FILE.fullmatch(text))


def holds_address(text: str) -> bool:
    """Whether an address begins somewhere in `text`."""
    return bool(_SCHEME.search(text))


def scheme(address: str) -> str:
    """What decides how an address is opened: "rtsp", "http", …; "v4l2" for a device file."""
    return "v4l2" if _DEVICE_FILE.fullmatch(address) else address.partition(":")[0].lower()


def check(address: str) -> None:
    """Refuses an address that is written wrongly or cannot be opened by any version of the program.

    Raises:
        ValueError: with the forms to use; it does not repeat a password.
    """
    kind, shown = scheme(address), showable(address)
    if kind not in (*NETWORK, *DEVICES):
        raise Refusal(f"no camera can be opened at {shown}: write {FORMS}")
    if kind in NETWORK and not re.match(r"[a-zA-Z]+://[^/?#\s]", address):
        raise Refusal(f"an address is written with two strokes and a host, {kind}://host/…: {shown}")
    if kind in DEVICES and not address.partition(":")[2] and not address.startswith("/dev/"):
        raise Refusal(f"{shown} names no device: write for example v4l2:/dev/video0")
    if any(ord(sign) < 33 for sign in address) and kind in NETWORK:
        raise Refusal(f"the address {shown} holds a blank: write %20 for it")


def showable(address: str) -> str:
    """An address without what may be secret: password, and all but harmless parts behind a question mark.

    Where it cannot be told what is the password (it holds a stroke or a question mark that should have been
    written %2F or %3F), everything from its colon on is left out.

    >>> showable("rtsp://user:secret@host/stream?channel=2&pwd=x")
    'rtsp://user@host/stream?channel=2&…'
    """
    if _DEVICE_FILE.fullmatch(address):
        return address
    if objects.is_url(address):
        return readable(objects.showable(address))
    head, colon, rest = address.partition(":")
    body = rest.lstrip("/")
    strokes = rest[: len(rest) - len(body)]
    authority = re.split(r"[/?#]", body, maxsplit=1)[0]
    before = body.rpartition("@")[0]
    if ":" in before:
        if body.count("@") == authority.count("@"):
            body = before.partition(":")[0] + "@" + body[len(before) + 1 :]
        else:
            return readable(f"{head}{colon}{strokes}{before.partition(':')[0]}:…")
    path, mark, query = body.partition("?")
    if not mark:
        path, mark, _ = body.partition("#")
        mark = "#…" if mark else ""
    else:
        parts = [part if _HARMLESS.fullmatch(part) else "…" for part in query.split("&")]
        mark += "&".join(dict.fromkeys(parts))
    path = _SECRET.sub(r"\1…", path)
    return readable(f"{head}{colon}{strokes}{path}{mark}")


def hide(text: str) -> str:
    """`text`, such as an argument of a command, with every address in it made showable.

    >>> hide("hall=rtsp://user:secret@host/stream")
    'hall=rtsp://user@host/stream'
    """
    found = _SCHEME.search(text) or re.search(rf"(?<![\w.-]){_NEAR.pattern}", text, re.IGNORECASE)
    if found:
        return text[: found.start()] + showable(text[found.start() :])
    return _LOOSE.sub(":…@", text)


def host(address: str) -> str:
    """What a camera is called that has no name: its host, or its device."""
    if scheme(address) in DEVICES:
        return re.sub(r"\W+", "-", address.rpartition("/")[2].rpartition(":")[2]).strip("-") or "camera"
    name = showable(address).partition("://")[2].rpartition("@")[2]
    return re.split(r"[/?#]", name, maxsplit=1)[0].rstrip("…:") or "camera"


def opened_with(address: str, camera: str, ask: Callable[[str], str | None] | None) -> str:
    """The address with its password, for the network alone.

    An address with a user and no password takes it from TRACKLEARN_PASSWORD_CAMERA (the camera's name in
    capitals, "_" for other signs than letters and digits), else TRACKLEARN_PASSWORD, else from `ask`, which
    is given the showable address and may return None.
    """
    kind = scheme(address)
    if kind not in NETWORK:
        return address
    head, _, rest = address.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if not at or ":" in user:
        return address
    password = os.environ.get(variable(camera), os.environ.get(PASSWORD))
    if password is None and ask is not None:
        password = ask(showable(address))
    if password is None:
        return address
    return f"{head}://{user}:{quote(password, safe='')}{rest[len(user) :]}"


def variable(camera: str) -> str:
    """Name of the environment variable that holds a camera's password.

    >>> variable("front door")
    'TRACKLEARN_PASSWORD_FRONT_DOOR'
    """
    return f"{PASSWORD}_{re.sub(r'[^A-Z0-9]+', '_', camera.upper())}"
