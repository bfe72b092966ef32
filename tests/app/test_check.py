"""`tracklearn check`: what is whole is called so, what is damaged is named, folders in folders are found."""

import json
import shutil

import pytest

COMMAND = ["check"]


def flip(file, at=-40):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_all_that_run_left_is_looked_at(call, done):
    code, out, _ = call(done["out"])
    assert code == 0
    lines = out.splitlines()
    assert [line.split(" /")[0] for line in lines] == [
        "output folder",
        "identities",
        "run",
        "gallery",
        "tracklet set",
    ]
    assert all(line.endswith(": whole") for line in lines)
    assert done["out"].joinpath("report.html").is_file()


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("set", "shard-00000.arrow"),
        ("set", "crops.parquet"),
        ("set", "tracklets.parquet"),
        ("set", "manifest.json"),
        ("run", "weights.safetensors"),
        ("run", "isolation.safetensors"),
        ("run/gallery", "features-*.npy"),
        ("run/gallery", "entries-*.parquet"),
        ("identities", "identities.parquet"),
        ("identities/people", "0001.jpg"),
        (".", "report.html"),
        (".", "stages.json"),
    ],
)
def test_a_flipped_bit_is_found(call, done, tmp_path, where, name):
    out = tmp_path / "work"
    shutil.copytree(done["out"], out)
    (file,) = (out / where).glob(name)
    flip(file)
    code, text, _ = call(out, "--json")
    assert code == 2
    found = [line for each in json.loads(text)["checked"] for line in each["damages"]]
    assert len(found) == 1, found
    assert file.name in found[0]
    assert "damaged" in found[0]


def test_what_is_nothing_of_ours_is_said(call, tmp_path):
    (tmp_path / "a").mkdir()
    assert call("a")[0] == 2
    code, out, err = call("b", "--json")
    assert (code, out) == (2, "")
    assert err == "tracklearn: no such folder: b\n"
