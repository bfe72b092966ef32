"""Weights that their authors have published: fetched once over the network, checked, kept in the cache.

Sources: torchvision (BSD-3-Clause) for `resnet50` and `mobilenet_v2`, IBN-Net (MIT) for `ibn_resnet50_a`, all
learned on ImageNet; the author of torchreid (MIT) for OSNet, learned with the labels of MSMT17.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tracklearn.store.cache import cache_folder
from tracklearn.store.files import hash_file, replacing, write_atomic
from tracklearn.types import Progress, Refusal

# What a file of torch.save begins with, in its newer and its older form.
_TORCH = (b"PK\x03\x04", b"\x80\x02")


@dataclass(frozen=True)
class Published:
    """A file on the network.

    Args:
        url: where it is; the same address has the same content for good.
        sha256: first digits of its sum, in hex. Where its author tells none it is "": then the sum of the
            file that came first is kept beside it, and compared from then on.
        labels: the data set of people whose labels it learned from; "" for none.
    """

    url: str
    sha256: str = ""
    labels: str = ""

    @property
    def name(self) -> str:
        """Of the file, in the cache too."""
        return self.url.rsplit("/", 1)[1]

    @property
    def owes(self) -> tuple[str, ...]:
        """What its weights owe to labels, for the record of what grows out of them."""
        return (f"the starting weights were trained with labels on {self.labels}",) if self.labels else ()

    @property
    def notice(self) -> str:
        """What the user must know of it; "" for nothing."""
        return f"{self.owes[0]}: know the terms of that data set before you use them" if self.labels else ""


def _torch_hub(url: str) -> Published:
    """A file whose name ends in the first eight digits of its sum."""
    return Published(url, sha256=url.removesuffix(".pth").rsplit("-", 1)[1])


_HUB = "https://huggingface.co/kaiyangzhou/osnet/resolve/a5c5cc037c24235cda3b21085b93ad77c9616224"
_ALL_OF_MSMT17 = (
    "msmt17_combineall_256x128_amsgrad_ep150_stp60_lr0.0015_b64_fb10_softmax_labelsmooth_flip_jitter.pth"
)

# `--weights imagenet`, by backbone. ResNet-50's first version: the second, trained by a longer recipe,
# transfers worse to fine distinctions.
IMAGENET = {
    "resnet50": _torch_hub("https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    "mobilenet_v2": _torch_hub("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
    "ibn_resnet50_a": _torch_hub(
        "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/resnet50_ibn_a-d9d0bb7b.pth"
    ),
}

# `--weights NAME`; each is the name of its backbone too.
NAMED = {
    name: Published(f"{_HUB}/{name}_{_ALL_OF_MSMT17}", labels="MSMT17")
    for name in ("osnet_x0_25", "osnet_x1_0")
}


def imagenet(backbone: str | None) -> Published:
    """The backbone's file, learned on ImageNet.

    Raises:
        ValueError: there is none.
    """
    if backbone in IMAGENET:
        return IMAGENET[backbone]
    others = ["--weights PATH", "--weights none"]
    if backbone in NAMED:
        others.insert(0, f"--weights {backbone} (trained with labels on {NAMED[backbone].labels})")
    raise Refusal(
        f"no published ImageNet weights for backbone {backbone}: choose one of {', '.join(IMAGENET)}, or "
        + ", or ".join(others)
    )


def fetch(file: Published, *, cache: Path | None, progress: Progress | None) -> Path:
    """The file in the cache, downloaded if it is not there.

    Args:
        file: which.
        cache: folder of downloaded files; `cache_folder()` for None.
        progress: called as progress("weights", bytes so far, bytes in all or None) while downloading.

    Raises:
        ValueError: no network, no place to keep it, or another content than it should have; the line names
            the ways out.
    """
    path = (cache or _cache()) / file.name
    if not path.is_file():
        with _told(file, path):
            _download(file, path, progress)
    digest, expected = hash_file(path), file.sha256 or _noted(path)
    if not digest.startswith(expected):
        delete = "delete it" if file.sha256 else f"delete it and {_note(path).name}"
        raise Refusal(f"{path} is damaged: its SHA-256 is {digest[:8]}…, expected {expected[:8]}…; {delete}")
    if not expected:
        with suppress(OSError):  # a folder that others write, who answer for what is in it
            write_atomic(_note(path), f"{digest}  {path.name}\n".encode())
    return path


def _cache() -> Path:
    try:
        return cache_folder()
    except ValueError as error:
        raise Refusal(
            f"{error}, give a file of your own with --weights PATH, or start from random weights with "
            "--weights none"
        ) from None


@contextmanager
def _told(file: Published, path: Path) -> Iterator[None]:
    """Says of what may go wrong while a file is fetched what can be done instead."""
    try:
        yield
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise Refusal(
            f"cannot download {file.url} ({getattr(error, 'reason', error)}): give a file of your own with "
            f"--weights PATH, start from random weights with --weights none, or put {path.name} into "
            f"{path.parent}"
        ) from error
    except OSError as error:
        raise Refusal(
            f"{path.name} cannot be kept in {path.parent} ({error.strerror or error}): name another folder "
            "in TRACKLEARN_CACHE, give a file of your own with --weights PATH, or start from random weights "
            "with --weights none"
        ) from error


def _download(file: Published, path: Path, progress: Progress | None) -> None:
    """Fetch a file to path; it appears there only when it is whole and what it should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The sum of an earlier file, which is gone, says nothing of this one.
    _note(path).unlink(missing_ok=True)
    with urllib.request.urlopen(file.url, timeout=30) as answer, replacing(path) as temporary:
        _copy(file, answer, temporary, progress)


def _copy(
    file: Published, answer: http.client.HTTPResponse, to: IO[bytes], progress: Progress | None
) -> None:
    length = answer.headers.get("Content-Length")
    total = int(length) if length else None
    digest, done, begins = hashlib.sha256(), 0, b""
    while block := answer.read(1 << 20):
        to.write(block)
        digest.update(block)
        begins = begins or block[:4]
        done += len(block)
        if progress is not None:
            progress("weights", done, total)
    if not digest.hexdigest().startswith(file.sha256):
        raise urllib.error.URLError(
            f"{done} bytes came with SHA-256 {digest.hexdigest()[:8]}…, expected {file.sha256}…"
        )
    # Without a sum to compare: a connection that broke, or the page that a network puts before all others.
    if total is not None and done != total:
        raise urllib.error.URLError(f"{done} of {total} bytes came")
    if not begins.startswith(_TORCH):
        raise urllib.error.URLError(f"{done} bytes came that are no torch file")


def _note(path: Path) -> Path:
    """Where the sum of the file that came first is kept."""
    return path.with_name(f"{path.name}.sha256")


def _noted(path: Path) -> str:
    """That sum, "" where none is kept."""
    try:
        text = _note(path).read_text(encoding="ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return text.split()[0] if text.split() else ""
