"""Storages for tests: a folder addressed as one, always, and S3's language by a server of this machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests import s3_server

from tracklearn.store.objects import Stored

KINDS = ["file", pytest.param("s3", marks=pytest.mark.skipif(bool(s3_server.why_not()), reason="no moto"))]
ONE = ["file" if s3_server.why_not() else "s3"]  # for what takes long: the better of both that is there
_numbers = itertools.count()


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[str]:
    """The address of a new, empty place, to be asked with the surroundings of this process."""
    if kind == "file":
        yield f"file://{folder}"
        return
    with s3_server.server() as host, pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.SECRETS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        bucket = f"bucket-{next(_numbers)}"  # another each time: this process keeps what it opened
        s3_server.make_bucket(host, bucket)
        yield f"s3://{bucket}"


def put_folder(folder: Path, url: str) -> None:
    """All files of a folder as objects."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            Stored.of(f"{url}/{file.relative_to(folder).as_posix()}").put(file)


def contents(url: str) -> dict[str, bytes]:
    """Every object below a place."""
    return {name: Stored.of(f"{url}/{name}").read() for name in Stored.of(url).listed()}
