"""Sets in storage: the set of a folder, whoever is killed on the way; copies that never outlive it."""

import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest
from tests import s3_server
from tests.store.killed_workers import CONFIG, KILLER, write_films
from tests.store.storages import KINDS, ONE, contents, put_folder, storage
from tests.store.test_pieces import Colours, write

from tracklearn.store.files import DamagedError
from tracklearn.store.ingest import jobs
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.ingest.request import Request
from tracklearn.store.objects import Stored
from tracklearn.store.sets.referenced import regroup
from tracklearn.store.sets.stored import Storage, local
from tracklearn.store.sets.tracklets import open_set, read_truth, write_truth
from tracklearn.types import Refusal

pytestmark = pytest.mark.long

N = 4
S3 = pytest.mark.skipif(bool(s3_server.why_not()), reason=s3_server.why_not() or "none")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), N)


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
    """What is made of the films in a folder."""
    texts = [f"{path.with_suffix('.txt')}+{path}" for path in sorted(films.glob("*.mp4"))]
    return open_set(ingest(texts, tmp_path_factory.mktemp("whole") / "set", config=CONFIG))


@pytest.fixture(scope="module", params=KINDS)
def place(request, films, tmp_path_factory):
    """A storage that holds the films."""
    with storage(request.param, tmp_path_factory.mktemp("storage")) as url:
        put_folder(films, f"{url}/films")
        yield url


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where copies lie; of what is on its way nothing is left, whatever happened."""
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield tmp_path / "cache"
    assert not [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]


@pytest.fixture
def sources(place):
    return [f"{place}/films/c{i:02d}.txt+{place}/films/c{i:02d}.mp4" for i in range(N)]


def same(url, whole, sources):
    made = open_set(url)
    made.verify()
    assert made.digest == whole.digest
    timed = {"seconds", "per_second", "path", "results"}
    for one, other, source in zip(made.manifest["sources"], whole.manifest["sources"], sources, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }
        assert f"{one['results']}+{one['path']}" == source
    at = Stored.of(url)
    assert not [name for name in at.above.listed() if name.startswith((f"{at.name}.partial", ".site"))]
    return made


def test_the_set_is_that_of_a_folder(place, sources, whole):
    url = f"{place}/one/site"
    assert ingest(sources, url, config=CONFIG) == url
    made = same(url, whole, sources)
    assert set(Stored.of(url).listed()) == {"manifest.json", *made.manifest["files"]} | {
        shard["name"] for shard in made.manifest["shards"]
    }
    assert ingest(sources, url, config=CONFIG, resume=True) == url  # the same request
    with pytest.raises(FileExistsError, match="--resume keeps it if sources"):
        ingest(sources, url, config=CONFIG)
    with pytest.raises(FileExistsError, match="was not made from these sources"):
        ingest(sources[1:], url, config=CONFIG, resume=True)


def test_films_in_storage_may_go_to_a_folder_and_the_other_way_round(place, films, sources, whole, tmp_path):
    made = open_set(ingest(sources, tmp_path / "set", config=CONFIG))
    assert made.digest == whole.digest
    assert made.manifest["sources"][0]["path"] == f"{place}/films/c00.mp4"
    texts = [f"{path.with_suffix('.txt')}+{path}" for path in sorted(films.glob("*.mp4"))]
    url = ingest(texts, f"{place}/two/site", config=CONFIG)
    assert open_set(url).digest == whole.digest
    assert open_set(url).manifest["sources"][0]["path"] == str((films / "c00.mp4").resolve())


def test_patterns_and_folders_of_storage(place):
    def asked(text):
        return [(job.source.camera, str(job.source)) for job in Request([text], CONFIG).jobs]

    films = [f"{place}/films/c{i:02d}.mp4" for i in range(N)]
    assert asked(f"{place}/films/c0[12].mp4") == [("films", films[1]), ("films", films[2])]
    assert asked(f"door={place}/**/*.mp4") == [("door", film) for film in films]
    (first, *_) = Request([f"{place}/films/"], CONFIG).jobs
    assert first.source.found.left_out.total() == N  # the results
    for text, kind, said in (
        ("films/*.avi", FileNotFoundError, "nothing in storage fits"),
        ("films/*.txt", Refusal, "no video among the 4 objects"),
        ("films/c00.txt", Refusal, "tracker results need their video"),
        ("films/none.mp4", FileNotFoundError, r"no such object in storage: \S+$"),
        (
            "films",
            FileNotFoundError,
            r"in storage: \S+ \(for the videos below it write \S+/films/\)",
        ),
    ):
        with pytest.raises(kind, match=said):
            asked(f"{place}/{text}")
    with pytest.raises(Refusal, match="given twice"):
        Request([films[0], films[0]], CONFIG)
    with pytest.raises(Refusal, match="belong to one video"):
        Request([f"{place}/films/c00.txt+{place}/films/*.mp4"], CONFIG)
    with pytest.raises(Refusal, match="when both do"):
        Request([f"c00.txt+{place}/films/c00.mp4"], CONFIG)


def test_the_key_of_a_part_follows_the_object_and_nothing_else(place, films):
    text = f"door={place}/changing.mp4"
    at = Stored.of(f"{place}/changing.mp4")
    at.put(films / "c00.mp4")
    key = Request([text], CONFIG).part_keys
    assert Request([text], CONFIG).part_keys == key
    (job,) = Request([text], CONFIG).jobs
    at.put(films / "c01.mp4")
    assert Request([text], CONFIG).part_keys != key
    with pytest.raises(Refusal, match="has changed since it was looked at"), job.here():
        pass


def test_an_object_that_is_no_film_is_left_out_when_it_is_read(place, sources, whole):
    Stored.of(f"{place}/text.mp4").write(b"this is no video")
    url = ingest([f"{place}/text.mp4", *sources], f"{place}/three/site", config=CONFIG)
    made = open_set(url)
    record = made.manifest["sources"][0]
    assert (record["status"], record["path"], made.n_crops) == ("skipped", f"{place}/text.mp4", whole.n_crops)
    assert "tracklearn-" not in record["reason"]  # names no folder of the machine that read it
    with pytest.raises(Refusal, match=r"text\.mp4: .*text\.mp4"):
        ingest([f"{place}/text.mp4", *sources], f"{place}/strict/site", config=CONFIG, strict=True)
    with pytest.raises(Refusal, match=r"no people found in .*text\.mp4"):
        ingest([f"{place}/text.mp4"], f"{place}/strict/none", config=CONFIG)
    assert not [name for name in Stored.of(f"{place}/strict").listed() if name.startswith("none")]


def test_where_no_set_may_be_written(place, sources):
    if place.startswith("s3:"):
        with pytest.raises(Refusal, match="is a whole bucket: name a place in it"):
            ingest(sources, place, config=CONFIG)
    with pytest.raises(FileExistsError, match=r"holds other objects, such as c00\.mp4"):
        ingest(sources, f"{place}/films", config=CONFIG)
    site = Storage(Stored.of(f"{place}/four/site"))
    with (
        site.locked(),
        pytest.raises(Refusal, match=r"is being written by process \d+ .* delete .*\.site\.lock"),
    ):
        ingest(sources, f"{place}/four/site", config=CONFIG)
    over = {"pid": 2**22 + 1, "host": socket.gethostname(), "born": "1"}
    site.at.beside(before=".", after=".lock").write(json.dumps(over).encode())
    with site.locked():  # of a process that is no more
        pass
    (site.at.beside(after=".partial") / "part-0/done.json").write(b"{}")
    with pytest.raises(FileExistsError, match=r"site\.partial holds an unfinished set: go on with --resume"):
        ingest(sources, f"{place}/four/site", config=CONFIG)


@pytest.fixture(scope="module")
def hook(tmp_path_factory):
    """Every interpreter started meanwhile looks into a plan before its calls to the disk for a part."""
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(KILLER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PLAN", str(folder / "plan.json"))
        yield folder


@pytest.mark.parametrize("place", ONE, indirect=True)
@pytest.mark.parametrize("call", [3, 12])
def test_a_worker_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    place, sources, whole, hook, call, tmp_path
):
    # 3 is among the tables, on the worker's disk; 12 opens what it wrote, to copy it to the storage.
    key = Request([sources[2]], CONFIG).part_keys[0]
    words = {"part": f"part-{key[:24]}", "call": call, "always": False, "full": False}
    (hook / "plan.json").write_text(json.dumps({**words, "mark": str(tmp_path / "killed")}))
    try:
        url = ingest(sources, f"{place}/killed-{call}/site", config=CONFIG, workers=2)
    finally:
        (hook / "plan.json").unlink()
    assert (tmp_path / "killed").exists()
    same(url, whole, sources)


DRIVER = """
import os, signal, sys
from tracklearn.store.ingest import jobs
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.objects import Stored

sources, out = eval(sys.argv[1])
partial = Stored.of(out + ".partial")


def progress(*_):
    if sum(name.endswith("done.json") for name in partial.listed()) == 2:
        os.kill(os.getpid(), signal.SIGKILL)


ingest(sources, out, config=Config(min_length=4), progress=progress)
"""


def test_the_process_that_asks_is_killed_and_resumed(place, sources, whole):
    out = f"{place}/driver/site"
    driver = subprocess.run([sys.executable, "-c", DRIVER, repr((sources, out))], stdin=subprocess.DEVNULL)
    assert driver.returncode == -signal.SIGKILL
    partial = Stored.of(f"{out}.partial")
    left = [name for name in partial.listed() if name.endswith("done.json")]
    assert len(left) == 2
    with pytest.raises(FileNotFoundError, match=r"it is unfinished: finish it with --resume"):
        open_set(out)
    # What a worker leaves that died with the rest, and a part whose shard was lost.
    (partial / "part-0/attempt-0/shard-00000.arrow").write(b"half")
    shard = next(n for n in partial.listed() if n.startswith(left[0].partition("/")[0]) and "shard" in n)
    (partial / shard).write(b"")
    seen = []
    assert ingest(sources, out, config=CONFIG, resume=True, progress=lambda *a: seen.append(a[0])) == out
    assert len(set(seen)) == N - 1
    same(out, whole, sources)


def test_a_joining_that_was_broken_off_is_done_again(place, sources, whole, monkeypatch):
    url, copied, copy = f"{place}/broken/site", itertools.count(), Stored.copy

    def once(self, to):
        if next(copied):
            raise Refusal(f"{to} cannot be written: its server cannot be reached")
        copy(self, to)

    monkeypatch.setattr(Stored, "copy", once)
    with pytest.raises(Refusal, match="cannot be written"):
        ingest(sources, url, config=CONFIG)
    monkeypatch.undo()
    (Stored.of(url) / "shard-00099.arrow").write(b"of more sources")
    seen = []
    assert ingest(sources, url, config=CONFIG, resume=True, progress=lambda *a: seen.append(a)) == url
    assert not seen  # no source was read again
    assert "shard-00099.arrow" not in Stored.of(url).listed()
    assert (Storage(Stored.of(url)).manifest() or {})["digest"] == whole.digest


def test_long_films_are_read_in_pieces_from_storage(tmp_path):
    place = f"file://{tmp_path}/storage"

    config = Config(detector="motion", piece_minutes=3 / 60, piece_overlap=3, min_length=2)
    path = write(tmp_path / "hall.mp4", 90)
    Stored.of(f"{place}/long/hall.mp4").put(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "open_detector", lambda *_, **__: Colours())
        made = open_set(ingest([path], tmp_path / "set", config=config))
        there = open_set(ingest([f"{place}/long/hall.mp4"], f"{place}/long/set", config=config))
    assert there.manifest["sources"][0]["pieces"] == made.manifest["sources"][0]["pieces"] == 3
    assert there.digest == made.digest
    assert not Stored.of(f"{place}/long/set.partial").listed()


# Copies


@pytest.fixture
def site(place, whole, tmp_path):
    """A set in storage, which was copied there as a folder."""
    url = f"{place}/{tmp_path.name}/site"
    put_folder(whole.path, url)
    yield url
    Stored.of(url).remove_all()


def test_a_copy_is_fetched_once_and_its_files_are_compared(site, whole, cache, monkeypatch):
    first = open_set(site)
    assert first.path.is_relative_to(cache / "sets")
    assert first.jpeg(0) == whole.jpeg(0)
    monkeypatch.setattr(Stored, "fetch", None)  # nothing more is copied
    assert open_set(site).path == open_set(first.path).path == first.path
    monkeypatch.undo()
    monkeypatch.setenv("TRACKLEARN_CACHE", str(cache.with_name("other")))
    shard = whole.manifest["shards"][0]
    (Stored.of(site) / shard["name"]).write(b"x" * shard["bytes"])
    with pytest.raises(DamagedError, match=r"shard-00000\.arrow is damaged \(its content is not"):
        open_set(site)
    assert not [p for p in cache.with_name("other").rglob("*") if p.suffix in (".arrow", ".parquet")]
    (Stored.of(site) / shard["name"]).remove()
    with pytest.raises(DamagedError, match=r"shard-00000\.arrow is missing"):
        open_set(site)


def test_a_copy_never_outlives_what_it_is_of(site, whole, films, cache, tmp_path):
    path = open_set(site).path
    other = ingest([f"{films}/c00.txt+{films}/c00.mp4"], tmp_path / "other", config=CONFIG)
    Stored.of(site).remove_all()
    put_folder(other, site)
    with pytest.raises(Refusal, match=r"has changed since it was read here, .* is removed: give"):
        open_set(path)
    assert not path.exists()
    assert open_set(site).digest == open_set(other).digest
    made = open_set(site)
    with pytest.raises(Refusal, match="would share the pictures of"):
        regroup(made, made.tracklets, tmp_path / "regrouped", settings={})
    Stored.of(site).remove_all()
    with pytest.raises(FileNotFoundError, match=f"^no such tracklet set in storage: {site}$"):
        open_set(path)
    assert not [p for p in cache.rglob("*") if p.suffix in (".arrow", ".parquet")]
    with pytest.raises(FileNotFoundError, match=f"the copy of {site} here has gone: give {site}"):
        open_set(path)


def test_truth_comes_along(site, whole, tmp_path):
    labelled = shutil.copytree(whole.path, tmp_path / "labelled")
    file = write_truth(labelled, [7] * whole.n_crops)
    Stored.of(f"{site}.truth.parquet").put(file)
    assert read_truth(site).pid.tolist() == [7] * whole.n_crops
    with pytest.raises(Refusal, match="is in storage: write the truth of a set in a folder"):
        write_truth(site, [7] * whole.n_crops)
    Stored.of(f"{site}.truth.parquet").remove()


def test_what_is_no_set_is_refused(place, tmp_path):
    at = Stored.of(f"{place}/{tmp_path.name}/odd")
    (at / "manifest.json").write(b'{"kind": "run", "files": {}, "shards": [], "digest": ""}')
    with pytest.raises(Refusal, match="is a run: only whole tracklet sets"):
        local(str(at))
    (at / "manifest.json").write(
        b'{"kind": "tracklet set", "files": {"../../x": ""}, "shards": [], "digest": ""}'
    )
    with pytest.raises(DamagedError, match=r"it names '\.\./\.\./x'"):
        local(str(at))


@S3
def test_nothing_secret_is_written_anywhere(films, tmp_path, cache, monkeypatch, capfd):
    """Credentials and server in the address: in no object, no copy, nothing that is printed."""
    from tracklearn.app import cli

    with s3_server.server() as host:
        s3_server.make_bucket(host, "bucket")
        identity, secret = s3_server.SECRETS.values()
        for name in s3_server.SECRETS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        asked = f"?endpoint_override={host}&scheme=http"
        url = f"s3://{identity}:{secret}@bucket"
        put_folder_with(films, url, asked)
        printed, film = "", f"{url}/films/c00"
        more = ["--set", "ingest.min_length=4", "--workers", "1"]
        for words in (
            ["ingest", f"{film}.txt{asked}+{film}.mp4{asked}", "--out", f"{url}/sets/site{asked}", *more],
            ["check", f"{url}/sets/site{asked}"],
            ["check", f"{url}/sets/site{asked}", "--json"],
            ["check", f"{url}/sets/none{asked}"],
            ["ingest", f"{url}/films/none.mp4{asked}", "--out", str(tmp_path / "set")],
            ["ingest", f"{url}/films/none.mp4{asked}&odd=1", "--out", str(tmp_path / "set")],
        ):
            monkeypatch.setattr(sys, "argv", ["tracklearn", *words])
            code = 0
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code or 0
            out, err = capfd.readouterr()
            printed += out + err
            assert bool(code) == ("none" in "".join(words)), out + err
        assert printed.count("tracklearn: copying s3://bucket/sets/site here, ") == 1
        written = {**contents("s3://bucket/sets"), "printed": printed.encode()}
        assert len(written) == 5
        for folder in (cache, tmp_path):
            written |= {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            written |= {f"name {p}": str(p).encode() for p in folder.rglob("*")}
    for name, data in written.items():
        assert not [word for word in (identity, secret, host) if word.encode() in data], name


def put_folder_with(folder, url, asked):
    """As `put_folder`, whose address is asked with more."""
    for file in sorted(folder.iterdir()):
        Stored.of(f"{url}/films/{file.name}{asked}").put(file)
