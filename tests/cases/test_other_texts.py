"""The other texts that are read: files of splits and lists of images, in any encoding, of any content."""

import json

import pytest

from tracklearn.store.benchmarks import stills, videos

PEOPLE = [f"person_{i:04d}" for i in range(1, 9)]
SPLITS = [{"train": [1, "person_0002"], "test": [3, "4"]}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_splits_are_read_in_any_encoding(tmp_path, encoding):
    file = tmp_path / "splits.json"
    file.write_bytes(json.dumps(SPLITS, indent=1).replace("\n", "\r\n").encode(encoding))
    names = [[f"person_{i:04d}" for i in pair] for pair in ((1, 2), (3, 4))]
    assert videos._read_splits(file, PEOPLE) == [tuple(names)]


@pytest.mark.parametrize("person", [None, True, 1.5, [1], {}, "", "x"])
def test_splits_with_what_is_no_person_are_refused(tmp_path, person):
    file = tmp_path / "splits.json"
    file.write_text(json.dumps([{"train": [person], "test": [3]}]))
    with pytest.raises(ValueError, match=r"splits\.json is not a list of splits: expected"):
        videos._read_splits(file, PEOPLE)


def test_splits_nested_without_end_are_refused(tmp_path):
    file = tmp_path / "splits.json"
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not a list of splits"):
        videos._read_splits(file, PEOPLE)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_images_are_read_in_any_encoding(tmp_path, encoding):
    file = tmp_path / "list_train.txt"
    text = "0000/0000_000_01_0303morning_0008_0.jpg 0\r\n\r\n0000/0000_001_02_0303noon_0009_0.jpg 12 \r\n"
    file.write_bytes(text.encode(encoding))
    found = stills._read_list(file, "train", 0)
    assert [image.pid for image in found] == [0, 12]
