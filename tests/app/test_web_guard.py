"""Who may ask the server: hosts, origins, tokens, hostile pictures and paths; every route, one by one."""

import asyncio
import html.parser
import struct
import zlib
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from tests.app.web_client import TOKEN, client_of, copied, opened
from tracklearn.app.web.guard import COOKIE, MOST_BYTES, Guard, checked_token, is_loopback
from tracklearn.types import Refusal


@pytest.fixture(scope="module")
def served(done, tmp_path_factory):
    served = opened(copied(done, tmp_path_factory.mktemp("guarded")))
    yield served
    served.house.close()


@pytest.fixture
def time():
    """A clock that stands until it is moved."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def locked(served, time):
    """A client of a server that asks for a token."""
    client, _ = client_of(served.house, token=TOKEN, clock=time)
    return client


def routes(served):
    """(method, address) of every route, with something that fits in the place of its parameters."""
    app = served.guard.app
    found = []
    for route in app.routes:
        path = route.path
        for name, value in (("digest", "0" * 8), ("ref", "00000000-1-2-3"), ("name", "x")):
            path = path.replace(f"{{{name}}}", value)
        while "{" in path:
            path = path[: path.index("{")] + "1" + path[path.index("}") + 1 :]
        found += [(method, path) for method in sorted(route.methods)]
    return found


ASKED = b'{"error": "a token is needed: Authorization: Bearer TOKEN"}'


def test_there_are_routes_to_try(served):
    found = routes(served)
    assert len(found) > 40
    assert {("POST", "/api/forget"), ("GET", "/api/openapi.json"), ("GET", "/people/1")} <= set(found)


def test_every_route_asks_for_the_token(served, locked):
    for method, path in routes(served):
        for header in (
            {},
            {"authorization": "Bearer "},
            {"cookie": f"{COOKIE}=wrong"},
            {"authorization": "x"},
        ):
            answer = locked.request(method, path, headers=header)
            assert answer.status_code == 401, (method, path, header)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.content in (b"", ASKED)


def test_a_wrong_token_opens_no_route_and_too_many_make_it_wait(served, locked, time):
    for i, (method, path) in enumerate(routes(served)):
        answer = locked.request(method, path, headers={"authorization": f"Bearer {TOKEN[:-1]}x"})
        assert answer.status_code == (401 if i < 10 else 429)
    assert answer.headers["retry-after"] == "60"
    right = {"authorization": f"Bearer {TOKEN}"}
    assert locked.get("/api/run", headers=right).status_code == 429, "guessing is not rewarded"
    time.now += 61
    assert locked.get("/api/run", headers=right).status_code == 200


def test_what_is_open_without_a_token_tells_nothing_of_the_run(locked, served):
    page = locked.get("/login")
    assert page.status_code == 200
    assert served.house.served.title not in page.text
    assert locked.get("/static/style.css").status_code == 200
    assert locked.get("/static/page.js").status_code == 401


def test_a_browser_signs_in_once(locked, time):
    page = locked.get("/people", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert 'action="/login"' in page.text
    wrong = locked.post("/login", data={"token": "x" * 20}, headers={"accept": "text/html"})
    assert wrong.status_code == 401
    assert "that is not the token" in wrong.text
    right = locked.post("/login", data={"token": TOKEN})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/api/run").status_code == 200
    time.now += 13 * 3600
    assert locked.get("/api/run").status_code == 401, "a login ends"


def test_a_login_is_no_place_for_large_bodies(locked):
    answer = locked.post("/login", content=b"token=" + b"x" * 10_000)
    assert answer.status_code == 413


def test_a_token_never_comes_by_the_address(locked):
    assert locked.get(f"/api/run?token={TOKEN}").status_code == 401
    assert locked.get(f"/api/run?authorization=Bearer+{TOKEN}").status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "evil@localhost.example",
        "192.168.0.9",
        "localhost:80:80",
        "[::2]",
        "xn--localhost",
        "0x7f000001",
        "2130706433",
    ],
)
def test_names_that_lead_elsewhere_are_refused(served, host):
    answer = served.client.get("/api/run", headers={"host": host})
    assert answer.status_code in (400, 421)
    assert "entries" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_its_own_names_are_known(served, host):
    assert served.client.get("/api/run", headers={"host": host}).status_code == 200


def test_beyond_loopback_addresses_and_given_names_are_known(served):
    client, _ = client_of(served.house, token=TOKEN, names=["cam.example"], addresses=True)
    right = {"authorization": f"Bearer {TOKEN}"}
    for host, status in (("cam.example", 200), ("10.0.0.7:8000", 200), ("evil.example", 421)):
        assert client.get("/api/run", headers={**right, "host": host}).status_code == status


POSTS = ["/api/search", "/api/pictures", "/api/merge", "/api/split", "/api/move", "/api/name", "/api/undo"]
POSTS += ["/api/redo", "/api/review", "/api/cut", "/api/forget"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "header",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost:9999"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
        {"origin": "http://localhost", "sec-fetch-site": "same-site"},
    ],
)
def test_no_other_site_changes_anything(served, path, header):
    answer = served.client.post(path, json={}, headers=header)
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]


def test_every_route_that_changes_something_is_tried_above(served):
    assert {path for method, path in routes(served) if method not in ("GET", "HEAD")} == set(POSTS)


def test_who_signed_in_by_cookie_names_an_origin(served, time):
    client, _ = client_of(served.house, token=TOKEN, clock=time)
    client.post("/login", data={"token": TOKEN})
    del client.headers["origin"]
    assert client.post("/api/undo").status_code == 403
    client.cookies.clear()
    assert client.post("/api/undo", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_not_answered(served, method):
    assert served.client.request(method, "/api/people").status_code == 405


def test_what_is_too_large_is_refused_before_it_is_read(served):
    said = served.client.post("/api/pictures", headers={"content-length": str(MOST_BYTES + 1)}, content=b"x")
    assert said.status_code == 413

    def pieces():
        for _ in range(MOST_BYTES // (1 << 20) + 2):
            yield bytes(1 << 20)

    assert served.client.post("/api/pictures", content=pieces()).status_code == 413
    assert served.client.get("/api/run").status_code == 200


def test_a_server_for_others_needs_a_token():
    assert checked_token("127.0.0.1", None) is None
    assert checked_token("::1", None) is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "cam.example"):
        with pytest.raises(Refusal, match="a token is needed"):
            checked_token(host, None)
    with pytest.raises(Refusal, match="3 letters"):
        checked_token("0.0.0.0", "abc")
    assert checked_token("0.0.0.0", TOKEN) == TOKEN
    assert [is_loopback(h) for h in ("localhost", "127.1.2.3", "[::1]", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
    ]


# Pages


class Inline(html.parser.HTMLParser):
    """Everything by which a page would run or style something of its own, or ask elsewhere."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.found.append(tag)
        for name, value in given.items():
            if name == "style" or name.startswith("on"):
                self.found.append(f"{tag} {name}")
            if name in ("src", "href", "action", "srcset") and not (value or "").startswith(("/", "#")):
                self.found.append(f"{tag} {name}={value}")


def test_no_page_has_anything_inline_or_from_elsewhere(served):
    part = served.house.finder.examples(1)[0]["ref"]
    number = served.client.get("/api/people").json()["people"][0]["person"]
    paths = [
        "/",
        f"/?part={part}",
        "/people",
        f"/people/{number}",
        "/review",
        "/history",
        "/tracks",
        "/tracks/0",
    ]
    for path in [*paths, "/training", "/docs", "/forget", "/nowhere"]:
        answer = served.client.get(path, headers={"accept": "text/html"})
        assert answer.status_code == (404 if path == "/nowhere" else 200), path
        seen = Inline()
        seen.feed(answer.text)
        assert seen.found == [], path
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_report_may_be_styled_and_nothing_else(served):
    answer = served.client.get("/report")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script" not in policy


def test_a_defect_is_told_without_what_was_asked(served, monkeypatch, caplog):
    monkeypatch.setattr(served.house, "summary", lambda: 1 / 0)
    answer = served.client.get("/api/run?who=Anna")
    assert (answer.status_code, "defect" in answer.json()["error"]) == (500, True)
    assert "ZeroDivisionError" not in answer.text
    assert "Anna" not in caplog.text


def test_nothing_is_logged_of_who_is_looked_for(served, caplog):
    import logging

    with caplog.at_level(logging.DEBUG):
        part = served.house.finder.examples(1)[0]["ref"]
        assert served.client.get(f"/?part={part}").status_code == 200
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "asyncio"))]
    assert [line for line in ours if part in line] == []


# Paths

FILES = ["etc/passwd", "manifest.json", "set/manifest.json", "proc/self/environ"]
UPS = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..\\", "%252e%252e%252f", "....//", "..;/", "..%00/"]
UPS += ["..%c0%af", "%c0%ae%c0%ae/", "..%ef%bc%8f", "/", "//", "file:///", "%2f", "..%01/"]
BEFORE = ["/static/", "/crop/", "/clip/", "/picture/", "/", "/chart/track/", "/api/people/"]
SPELLINGS = [
    f"{before}{up * depth}{file}"
    for i, before in enumerate(BEFORE)
    for up in UPS
    for depth in (3,)
    for file in FILES[i % 4 :][:1]
]


def test_there_are_a_hundred_spellings():
    assert len(set(SPELLINGS)) >= 100


def raw(guard, path):
    """Status and body of a path that no client has tidied up."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_no_path_leads_to_a_file(served):
    for path in SPELLINGS:
        for sent in {path, unquote(path)}:
            status, body = raw(served.guard, sent)
            assert 400 <= status < 500, sent
            assert b"root:" not in body
            assert b'"kind"' not in body
    assert served.client.get("/api/run").status_code == 200


# Pictures


def encoded(kind, image=None, **options):
    image = np.full((64, 32, 3), 99, np.uint8) if image is None else image
    return cv2.imencode(kind, image)[1].tobytes()


def chunk(name, content, length=None):
    crc = zlib.crc32(name + content)
    return (
        struct.pack(">I", len(content) if length is None else length)
        + name
        + content
        + struct.pack(">I", crc)
    )


def png(width, height, rows=b"", *, depth=8, colour=2):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


JPEG, PNG, WEBP = encoded(".jpg"), encoded(".png"), encoded(".webp")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
SIZE = JPEG.index(b"\xff\xc0") + 5
HOSTILE = {
    "nothing": b"",
    "one byte": b"\xff",
    "zeros": bytes(1000),
    "chance": np.random.default_rng(0).bytes(5000),
    "text": b"hello",
    "json": b'{"a": 1}',
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": SVG,
    "svg behind a declaration": b'<?xml version="1.0"?>' + SVG,
    "entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>',
    "gif": b"GIF89a" + struct.pack("<HH", 10, 10) + bytes(20),
    "gif that is a script": b"GIF89a/*" + bytes(8) + b"*/=1;alert(1)",
    "bmp": encoded(".bmp"),
    "tiff": encoded(".tiff"),
    "pnm": encoded(".ppm"),
    "sun raster": b"\x59\xa6\x6a\x95" + bytes(28),
    "openexr": b"\x76\x2f\x31\x01" + bytes(60),
    "radiance": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 9999 +X 9999\n",
    "jpeg 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(40),
    "avif": b"\x00\x00\x00\x1cftypavif" + bytes(40),
    "mp4": b"\x00\x00\x00\x18ftypmp42" + bytes(40),
    "pdf": b"%PDF-1.7\n",
    "zip": b"PK\x03\x04" + bytes(40),
    "gzip bomb": zlib.compress(bytes(10_000_000)),
    "elf": b"\x7fELF" + bytes(60),
    "icon": b"\x00\x00\x01\x00\x01\x00" + bytes(40),
    "png of 4 gigapixels": png(65_535, 65_535),
    "png bomb": png(20_000, 20_000, bytes(20_000 * 2501), depth=1, colour=0),
    "png of no width": png(0, 100),
    "png of no height": png(100, 0),
    "png that is too small": png(2, 2, bytes(2 * 7)),
    "png with a lie of its length": PNG[:33] + struct.pack(">I", 1 << 31) + PNG[37:],
    "png cut off": PNG[: len(PNG) // 2],
    "png head alone": PNG[:33],
    "png that ends first": PNG[:8] + chunk(b"IEND", b""),
    "png of no known depth": png(64, 64, bytes(64 * 193), depth=7),
    "jpeg cut in its head": JPEG[: SIZE + 1],
    "jpeg of nothing": JPEG[:SIZE] + struct.pack(">HH", 0, 0) + JPEG[SIZE + 4 :],
    "jpeg of 4 gigapixels": JPEG[:SIZE] + struct.pack(">HH", 65_535, 65_535) + JPEG[SIZE + 4 :],
    "jpeg of 12 bits": JPEG[: SIZE - 1] + b"\x0c" + JPEG[SIZE:],
    "jpeg start alone": b"\xff\xd8",
    "jpeg starts again and again": b"\xff\xd8" * 1000,
    "jpeg of many scans": JPEG[:-2] + b"\xff\xda\x00\x0c" * 200 + b"\xff\xd9",
    "webp cut off": WEBP[:24],
    "riff of sound": b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(40),
    "webp of a lie": b"RIFF"
    + struct.pack("<I", 30)
    + b"WEBPVP8X"
    + struct.pack("<I", 10)
    + b"\x00" * 4
    + b"\xff" * 6,
    "strip": png(100_000, 1, bytes(300_001)),
}
POLYGLOT = {
    "jpeg and page": JPEG + b"<html><script>alert(1)</script>",
    "png and archive": PNG + b"PK\x03\x04" + b"secret-payload" + bytes(30),
    "jpeg with a comment": JPEG[:2] + b"\xff\xfe\x00\x1a<script>alert(1)</script>"[:28] + JPEG[2:],
    "webp and page": WEBP + b"<script>alert(1)</script>",
}


def test_there_are_forty_kinds():
    assert len(HOSTILE) + len(POLYGLOT) >= 40


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pictures_are_refused(served, kind):
    before = sorted(p for p in served.folder.rglob("*") if p.is_file())
    answer = served.client.post("/api/pictures", content=HOSTILE[kind])
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]
    assert served.client.get("/api/run").status_code == 200
    assert sorted(p for p in served.folder.rglob("*") if p.is_file()) == before, "nothing is written"


@pytest.mark.parametrize("kind", POLYGLOT)
def test_what_comes_with_a_picture_does_not_go_out_again(served, kind):
    answer = served.client.post("/api/pictures", content=POLYGLOT[kind])
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        back = served.client.get(f"/picture/{answer.json()['id']}")
        assert back.headers["content-type"] == "image/jpeg"
        assert back.content[:2] == b"\xff\xd8"
        assert b"script" not in back.content
        assert b"payload" not in back.content


@pytest.mark.parametrize("data", [JPEG, PNG, WEBP])
def test_the_three_formats_are_taken(served, data):
    answer = served.client.post("/api/pictures", content=data)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["width"], answer.json()["height"]) == (32, 64)


@pytest.mark.parametrize("path", [p for p in POSTS if p != "/api/pictures"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b"\xff", b'{"x": 1}', b"[" * 5000]
)
def test_nonsense_is_refused_by_every_route(served, path, body):
    answer = served.client.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert served.client.get("/api/run").status_code == 200


def test_the_interface_is_described(served):
    described = served.client.get("/api/openapi.json").json()
    assert described["openapi"].startswith("3.")
    assert set(described["paths"]) == {
        p.replace("/1", "/{number}")
        for _, p in routes(served)
        if p.startswith("/api/") and p != "/api/openapi.json"
    }
    assert served.client.get("/redoc").status_code == 404


def test_other_protocols_are_not_spoken():
    sent = []

    async def ask():
        await Guard(None)({"type": "websocket"}, None, lambda message: sent.append(message))

    asyncio.run(ask())
    assert sent == []
