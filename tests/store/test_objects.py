"""Objects in storage: addresses and what of them is shown, reading and writing, errors in one line."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from tests import s3_server
from tests.store.storages import KINDS, storage

from tracklearn.store import objects
from tracklearn.store.film import addresses
from tracklearn.store.objects import Stored, scratch, showable
from tracklearn.types import Refusal

SECRET = "s3://id:se+cr%2Fet@bucket/a.mp4?endpoint_override=10.0.0.7:9000&scheme=http"


@pytest.fixture(scope="module", params=KINDS)
def place(request, tmp_path_factory):
    with storage(request.param, tmp_path_factory.mktemp("storage")) as url:
        yield url


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("s3://bucket/films/a b@2.mp4", "s3://bucket/films/a b@2.mp4", "a b@2.mp4"),
        (SECRET, "s3://bucket/a.mp4", "a.mp4"),
        ("gs://bucket/cam?.mp4", "gs://bucket/cam?.mp4", "cam?.mp4"),
        ("S3:/bucket/sets/site/", "s3://bucket/sets/site", "site"),
        ("file:///data/a%20b.mp4", "file:///data/a b.mp4", "a b.mp4"),
        ("file:///data/a%2520%3Fb=c.mp4", "file:///data/a%2520%3Fb=c.mp4", "a%20?b=c.mp4"),
    ],
)
def test_an_address_is_told_from_what_is_secret(text, shown, name):
    at = Stored.of(text)
    assert (str(at), repr(at), at.name) == (shown, shown, name)
    assert Stored.of(shown) == at
    again = pickle.loads(pickle.dumps(at))
    assert (again, again.credentials, again.query) == (at, at.credentials, at.query)


def test_nothing_secret_is_shown_of_arguments():
    both = f"door@2={SECRET}+{SECRET}"
    for show in (showable, addresses.hide):
        assert show(both) == "door@2=s3://bucket/a.mp4+s3://bucket/a.mp4"
    assert showable("s3:/bucket/a") == "s3://bucket/a"  # as a path has it
    assert showable("s3://id:se/cr@et@bucket/a.mp4") == "s3://…"  # where the secret ends cannot be told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://id:XY/ZZY@bucket/a", "no bucket can be told from s3://…: write s3://bucket/name"),
        ("s3://bucket//a", "has an empty part"),
        ("s3://bucket/../a", "or one of dots"),
        ("file://host/a", "three strokes"),
        ("http://host/a", "not an address in storage"),
        ("s3://bucket/a?nonsense=1", "known are id:secret@ and endpoint_override, scheme, region"),
    ],
)
def test_what_is_written_wrongly_is_refused_without_what_is_secret(text, said):
    with pytest.raises(Refusal) as caught:
        Stored.of(text).info()
    assert said in str(caught.value)
    assert "ZZY" not in str(caught.value)


def test_objects_are_written_read_listed_and_deleted(place, tmp_path):
    at = Stored.of(f"{place}/room")
    assert at.listed() == {}
    assert (at / "a").info() is None
    with pytest.raises(FileNotFoundError, match=f"^no such object in storage: {at}/a$"):
        (at / "a").read()
    (at / "deep/a b").write(b"one")
    before = (at / "deep/a b").info()
    assert (before.size, (at / "deep/a b").info()) == (3, before)
    (at / "deep/a b").write(b"another")
    assert (at / "deep/a b").info().mark != before.mark
    (tmp_path / "file").write_bytes(b"x" * 1000)
    (at / "b").put(tmp_path / "file")
    (at / "b").copy(at / "c")
    (at / "c").fetch(tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"x" * 1000
    assert at.listed() == {"b": 1000, "c": 1000, "deep/a b": 7}
    (at / "b").remove()
    (at / "b").remove()  # what is not there is gone
    assert (at / "deep").listed() == {"a b": 7}
    at.remove_all()
    at.remove_all()
    assert at.listed() == {}
    with pytest.raises(Refusal, match="whole bucket, which is not emptied"):
        replace(at, key="").remove_all()


@pytest.mark.parametrize("place", KINDS[1:], indirect=True)
def test_a_storage_that_does_not_answer_as_hoped_is_one_line(place):
    for ask in (Stored.info, Stored.listed, lambda at: at.write(b"")):
        with pytest.raises(Refusal, match=r"there is no such bucket") as caught:
            ask(Stored.of("s3://no-such-bucket/a"))
        assert "\n" not in str(caught.value)
    said = "When reading: AWS Error ACCESS_DENIED during HeadObject operation: No response body."
    assert Stored.of(f"{place}/a")._why(OSError(said)).startswith("access is denied: check the credentials")
    words = Stored.of(SECRET)._why(OSError("GET http://10.0.0.7:9000/ with id:se+cr/et failed"))
    assert not [secret for secret in ("10.0.0.7", "se+cr") if secret in words]


@pytest.mark.slow  # the libraries ask three times, which takes seconds
@pytest.mark.skipif(bool(s3_server.why_not()), reason="no moto")
def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    for name, value in s3_server.SECRETS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refusal, match=r"^s3://nowhere/a cannot be looked at: its server cannot be reached$"):
        Stored.of("s3://nowhere/a?endpoint_override=127.0.0.1:9&scheme=http").info()


def test_what_a_killed_process_left_on_its_way_goes_and_what_a_living_one_uses_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(objects.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    held = (
        "import sys\nfrom tracklearn.store.objects import scratch\n"
        "with scratch() as folder:\n    (folder / 'film').write_bytes(b'x')\n"
        "    print(folder, flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    left = other.stdout.readline().strip()
    with scratch() as mine:
        objects.sweep()
        assert mine.is_dir()
        assert os.listdir(left) == ["film"]
        other.kill()
        other.wait()
        objects.sweep()
        assert mine.is_dir()
        assert not os.path.exists(left)
    assert not mine.exists()
    other.stdin.close()
    other.stdout.close()
