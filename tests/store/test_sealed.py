"""What is read is what was written: a flipped bit is found, and no stop makes a whole file look damaged."""

import json
import os

import pytest

from tracklearn.store import files, sealed
from tracklearn.store.files import DamagedError
from tracklearn.store.sealed import SealedFolder, damage, read_sealed, write_sealed

VALUE = {"kind": "run", "n": 12, "ratio": 0.25, "names": ["a", "b"], "seal2": "x" * 64}


def outcome(path):
    """What a file holds, or what is said of it."""
    try:
        return read_sealed(path, remedy="make it again")
    except DamagedError as error:
        return str(error)


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "m.json"
    write_sealed(path, VALUE)
    whole = path.read_bytes()
    harmless = 0
    for i in range(len(whole) * 8):
        data = bytearray(whole)
        data[i // 8] ^= 1 << i % 8
        path.write_bytes(data)
        said = outcome(path)
        if isinstance(said, str):
            assert "m.json is damaged" in said
            assert "make it again" in said
        else:
            assert said == VALUE
            harmless += 1
    assert harmless < 20
    for n in range(len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(DamagedError):
            read_sealed(path, remedy="make it again")


def test_what_an_older_program_wrote_has_no_seal_and_is_read(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(VALUE))
    assert read_sealed(tmp_path / "m.json", remedy="") == VALUE
    write_sealed(tmp_path / "n.json", {**VALUE, "seal": "of before"})
    assert read_sealed(tmp_path / "n.json", remedy="") == VALUE


def test_what_is_lacking_is_named(tmp_path):
    write_sealed(tmp_path / "m.json", VALUE)
    with pytest.raises(DamagedError, match=r"m\.json is damaged \(it lacks 'digest'\): make it again"):
        read_sealed(tmp_path / "m.json", remedy="make it again")["digest"]


def test_what_is_of_another_type_is_named(tmp_path):
    write_sealed(tmp_path / "m.json", VALUE)
    manifest = read_sealed(tmp_path / "m.json", remedy="make it again")
    manifest.require(kind=str, n=int, names=list)
    with pytest.raises(DamagedError, match=r"m\.json is damaged \('n' is int\): make it again"):
        manifest.require(n=dict)


def deep():
    return "[" * 100_000


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", "", '"x"', deep(), "\xff"])
def test_what_is_no_object_is_damaged(tmp_path, text):
    (tmp_path / "m.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedError, match=r"m\.json is damaged"):
        read_sealed(tmp_path / "m.json", remedy="make it again")


class Stop(Exception):
    pass


def content(folder, names=("a", "sub/b", "c")):
    return {name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in names}


def test_the_manifest_is_true_wherever_writing_stops(tmp_path, monkeypatch):
    """Files replaced, added and removed, stopped before every rename and every removal."""
    steps = 0

    def begin(path):
        path.mkdir()
        folder = SealedFolder(path, {"kind": "x"})
        folder.put({"a": b"old", "c": b"gone"})
        return folder

    def change(folder):
        folder.put({"a": b"new", "sub/b": b"added"}, drop=["c"])
        folder.save()

    whole = begin(tmp_path / "whole")
    old = content(whole.path)
    change(whole)
    new = content(whole.path)
    assert old == {"a": b"old", "sub/b": None, "c": b"gone"}
    assert new == {"a": b"new", "sub/b": b"added", "c": None}
    while True:
        folder = begin(tmp_path / f"at{steps}")
        left = steps

        def counted(call):
            def run(*args, **kwargs):
                nonlocal left
                if left == 0:
                    raise Stop
                left -= 1
                return call(*args, **kwargs)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(files.Path, "replace", counted(files.Path.replace))
            patch.setattr(files.Path, "unlink", counted(files.Path.unlink))
            try:
                change(folder)
                stopped = False
            except Stop:
                stopped = True
        manifest = read_sealed(folder.path / "manifest.json", remedy="")
        for name in manifest["files"]:
            if (folder.path / name).is_file():
                assert damage(folder.path, name, manifest) is None, (steps, name)
        again = SealedFolder(folder.path, dict(manifest))
        assert all(damage(again.path, name, again.manifest) is None for name in again.manifest["files"])
        change(again)
        assert content(again.path) == new
        assert read_sealed(again.path / "manifest.json", remedy="") == read_sealed(
            whole.path / "manifest.json", remedy=""
        )
        if not stopped:
            break
        steps += 1
    assert steps >= 4


def test_damage_is_told_apart(tmp_path):
    folder = SealedFolder(tmp_path, {})
    folder.put({"a": b"1", "b": b"2"})
    folder.save()
    manifest = read_sealed(tmp_path / "manifest.json", remedy="")
    (tmp_path / "a").write_bytes(b"3")
    os.remove(tmp_path / "b")
    (tmp_path / "c").write_bytes(b"4")
    assert damage(tmp_path, "a", manifest) == "its content is not what was written"
    assert damage(tmp_path, "b", manifest) == "it is missing"
    assert damage(tmp_path, "c", manifest) == "the manifest does not know it"
    assert damage(tmp_path, "c", {}) is None  # an older program kept no sums
    assert sealed.MANIFEST == "manifest.json"
