"""Addresses: what of them is shown, and with which password they are opened."""

import pytest

from tracklearn.store.film import addresses
from tracklearn.store.film.addresses import check, hide, host, is_address, opened_with, showable, variable


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://host/stream", "rtsp://host/stream"),
        ("rtsp://user@host:554/stream", "rtsp://user@host:554/stream"),
        ("rtsp://user:secret@host:554/stream", "rtsp://user@host:554/stream"),
        ("rtsp://user:sec:ret@host/stream", "rtsp://user@host/stream"),
        ("rtsp://user:sec@ret@host/stream", "rtsp://user@host/stream"),
        ("rtsp://:secret@host/stream", "rtsp://@host/stream"),
        ("rtsp:/user:secret@host/stream", "rtsp:/user@host/stream"),
        ("rtsp:user:secret@host", "rtsp:user@host"),
        ("RTSP://user:secret@host/s", "RTSP://user@host/s"),
        ("http://[::1]:8080/video", "http://[::1]:8080/video"),
        ("http://user:secret@[::1]:8080/video", "http://user@[::1]:8080/video"),
        # a stroke or a question mark in the password: where it ends nobody can tell
        ("rtsp://user:se/secret@host/stream", "rtsp://user:…"),
        ("rtsp://user:12/secret@host/stream", "rtsp://user:…"),
        ("http://user:se?secret@host/stream", "http://user:…"),
        ("http://user:se#secret@host/stream", "http://user:…"),
        ("rtsp://user@host/stream@1", "rtsp://user@host/stream@1"),
        ("http://host/video?channel=2&subtype=1", "http://host/video?channel=2&subtype=1"),
        ("http://host/video?user=a&pwd=secret&channel=2", "http://host/video?…&channel=2"),
        ("http://host/video?loginpas=secret", "http://host/video?…"),
        ("http://host/video?secret", "http://host/video?…"),
        ("http://host/video#secret", "http://host/video#…"),
        ("rtsp://host/user=admin&password=secret&channel=1", "rtsp://host/user=admin&password=…&channel=1"),
        ("srt://host:9000?passphrase=secret&latency=20", "srt://host:9000?…"),
        ("rtmp://host/app?auth=secret", "rtmp://host/app?…"),
        ("/dev/video0", "/dev/video0"),
        ("v4l2:/dev/video0", "v4l2:/dev/video0"),
    ],
)
def test_nothing_secret_is_shown(address, shown):
    assert showable(address) == shown
    assert hide(f"hall={address}") == f"hall={shown}"
    assert "secret" not in shown


def test_what_is_no_address_is_left_as_it_is():
    for text in ("hall=cam2.mp4", "--out", "12:30:45.mp4", "hall@3=a:b.mp4", "C:\\films\\a.mp4", "a@b.mp4"):
        assert hide(text) == text
        assert not is_address(text)
    assert hide("user:secret@host/stream") == "user:…@host/stream"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://user:secret@host/a.mp4", r"no camera can be opened at ftp://user@host/a\.mp4: write rtsp://"),
        ("rtsp:/user:secret@host/s", "two strokes and a host, rtsp://host/…: rtsp:/user@host/s"),
        ("rtsp:user:secret@host", "two strokes"),
        ("http://", "two strokes and a host"),
        ("http:///video", "two strokes and a host"),
        ("v4l2:", "names no device"),
        ("rtsp://user:secret@host/my stream", "holds a blank: write %20"),
    ],
)
def test_what_is_written_wrongly_is_refused_with_the_form(address, message):
    with pytest.raises(ValueError, match=message) as caught:
        check(address)
    assert "secret" not in str(caught.value)


def test_good_addresses_pass():
    for address in (
        "rtsp://user@host/s",
        "HTTPS://host/a.m3u8",
        "udp://@:1234",
        "/dev/video0",
        "dshow:video=Cam",
    ):
        check(address)


def test_the_password_comes_from_the_variable_of_the_camera_then_the_general_one_then_a_question(monkeypatch):
    asked = []

    def ask(shown):
        asked.append(shown)
        return "typed"

    address = "rtsp://user@host/s?token=t"
    for name in ("TRACKLEARN_PASSWORD", "TRACKLEARN_PASSWORD_FRONT_DOOR"):
        monkeypatch.delenv(name, raising=False)
    assert opened_with(address, "front door", None) == address
    assert opened_with(address, "front door", ask) == "rtsp://user:typed@host/s?token=t"
    assert asked == ["rtsp://user@host/s?…"]
    monkeypatch.setenv("TRACKLEARN_PASSWORD", "a/b@c:d?")
    assert opened_with(address, "front door", ask) == "rtsp://user:a%2Fb%40c%3Ad%3F@host/s?token=t"
    monkeypatch.setenv("TRACKLEARN_PASSWORD_FRONT_DOOR", "own")
    assert opened_with(address, "front door", ask) == "rtsp://user:own@host/s?token=t"
    assert opened_with(address, "hall", ask).startswith("rtsp://user:a%2F")
    # nobody is named, or a password is there already
    for other in ("rtsp://host/s", "rtsp://user:given@host/s", "/dev/video0", "http://host/a@b"):
        assert opened_with(other, "front door", ask) == other
    assert len(asked) == 1
    assert variable("Küche 2") == "TRACKLEARN_PASSWORD_K_CHE_2"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://user:secret@192.0.2.1:554/stream", "192.0.2.1:554"),
        ("http://camera.example/video", "camera.example"),
        ("/dev/video0", "video0"),
        ("v4l2:/dev/video1", "video1"),
        ("dshow:video=Front Cam", "video-Front-Cam"),
        ("rtsp://user:se/secret@host/stream", "user"),
    ],
)
def test_a_camera_without_a_name_is_called_by_its_host(address, name):
    assert host(address) == name


def test_only_known_schemes_go_to_the_network():
    assert set(addresses.NETWORK).isdisjoint(
        {"file", "concat", "data", "pipe", "subfile", "fd", "ftp", "tcp"}
    )
