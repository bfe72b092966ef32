"""Bad input files, made from seeds: what is wrong with each, a suffix, and bytes or a thing to make."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tests.faults import material

HUGE = 20 << 30  # bytes of a sparse file: more than anything here may read
PICTURES = (".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm")


class Bad(NamedTuple):
    """A bad file.

    Args:
        kind: what is wrong with it.
        suffix: of its name.
        data: its bytes, or a function that makes something else at a path.
        refusal: it must be refused; otherwise it may turn out harmless.
    """

    kind: str
    suffix: str
    data: bytes | Callable[[Path], Any]
    refusal: bool = False

    def put(self, path: Path) -> Path:
        """Make it at `path`."""
        if callable(self.data):
            self.data(path)
        else:
            path.write_bytes(self.data)
        return path


def mutations(data: bytes, n: int, seed: int, *, head: int = 64) -> Iterator[tuple[str, bytes]]:
    """n broken versions of `data`: cut, bits flipped, pieces lost, doubled or replaced at random."""
    rng = np.random.default_rng([seed, len(data)])
    for i in range(n):
        kind = ("cut", "flipped", "head flipped", "piece lost", "piece doubled", "piece random")[i % 6]
        at = int(rng.integers(len(data)))
        size = int(rng.integers(1, 1 + max(1, len(data) // 8)))
        made = bytearray(data)
        if kind == "cut":
            made = made[:at]
        elif "flipped" in kind:
            for _ in range(int(rng.integers(1, 9))):
                made[int(rng.integers(head if "head" in kind else len(data))) % len(data)] ^= 1 << int(
                    rng.integers(8)
                )
        elif kind == "piece lost":
            del made[at : at + size]
        elif kind == "piece doubled":
            made[at:at] = made[at : at + size]
        else:
            made[at : at + size] = rng.bytes(size)
        yield f"{kind} (seed {seed}, {i})", bytes(made)


def things(suffix: str) -> Iterator[Bad]:
    """What is no plain file with something in it."""

    def fifo(path: Path) -> None:
        os.mkfifo(path)

    def sparse(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(HUGE)

    def listening(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as end:
            here = os.getcwd()
            os.chdir(path.parent)  # the name of a socket must be short
            try:
                end.bind(path.name)
            finally:
                os.chdir(here)

    yield Bad("nothing in it", suffix, b"")
    yield Bad("a folder", suffix, lambda path: path.mkdir())
    yield Bad("a dangling link", suffix, lambda path: path.symlink_to("nowhere"))
    yield Bad("a link to itself", suffix, lambda path: path.symlink_to(path.name))
    yield Bad("a link to an endless device", suffix, lambda path: path.symlink_to("/dev/zero"))
    yield Bad("a link to what cannot be read", suffix, lambda path: path.symlink_to("/proc/self/mem"))
    yield Bad("a pipe", suffix, fifo)
    yield Bad("a socket", suffix, listening)
    yield Bad("a sparse file of 20 GB", suffix, sparse)


def _encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, material.figure(3, 1))[1].tobytes()


def _png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows or bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _jpeg(width: int, height: int) -> bytes:
    data = bytearray(_encoded(".jpg"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _bmp(width: int, height: int) -> bytes:
    data = bytearray(_encoded(".bmp"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def pictures(n: int) -> Iterator[Bad]:
    """About n bad pictures, and some dozens made by hand."""
    yield from things(".jpg")
    for suffix in (".jpg", ".png", ".tif"):
        yield Bad("the magic of OpenEXR", suffix, b"\x76\x2f\x31\x01" + bytes(60))
        yield Bad(
            "the magic of Radiance", suffix, b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 9 +X 9\n" + bytes(99)
        )
        yield Bad("a picture of text", suffix, b"This is no picture.\n" * 9)
        yield Bad("zeros", suffix, bytes(5000))
        yield Bad("a GIF", suffix, b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(40))
        yield Bad("an AVIF", suffix, b"\x00\x00\x00\x1cftypavif" + bytes(60))
        yield Bad("a JPEG 2000", suffix, b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60))
        yield Bad(
            "a Sun raster", suffix, b"\x59\xa6\x6a\x95" + struct.pack(">7I", 1 << 30, 4, 24, 0, 1, 0, 0)
        )
        yield Bad("a PAM", suffix, b"P7\nWIDTH 99999\nHEIGHT 99999\nDEPTH 3\nMAXVAL 255\nENDHDR\n")
        yield Bad("a PFM", suffix, b"PF\n99999 99999\n-1.0\n")
        yield Bad("a vector picture", suffix, b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    for side in (32769, 40000, 65500, 65535):
        yield Bad(f"a JPEG whose header says {side} squared", ".jpg", _jpeg(side, side))
        yield Bad(f"a JPEG whose header says {side} × 9", ".jpg", _jpeg(side, 9))
        yield Bad(f"a JPEG whose header says 9 × {side}", ".jpg", _jpeg(9, side))
    for side in (30000, 65501, 1 << 20, 2**31 - 1, 2**32 - 1):
        yield Bad(f"a PNG whose header says {side} squared", ".png", _png(side, side))
        yield Bad(f"a PNG whose header says {side} × 1", ".png", _png(side, 1))
        yield Bad(f"a PPM whose header says {side} squared", ".ppm", b"P6\n%d %d\n255\n" % (side, side))
        yield Bad(f"a PGM whose header says {side} squared", ".pgm", b"P5 %d %d 255 " % (side, side))
        yield Bad(f"a BMP whose header says {side} squared", ".bmp", _bmp(side % 2**31, side % 2**31))
    for width, height in ((70000, 3), (3, 70000), (20000, 20000)):
        rows = (
            (b"\0" + bytes(width * 3)) * min(height, 400)
            if width > height
            else bytes((width * 3 + 1) * height)
        )
        yield Bad(f"a whole PNG of {width} × {height}", ".png", _png(width, height, rows))
    yield Bad("a PNG without size", ".png", _png(0, 0))
    yield Bad("a BMP of negative size", ".bmp", _bmp(-5, -(2**31)))
    for i, suffix in enumerate(PICTURES):
        for kind, data in mutations(_encoded(suffix), n // len(PICTURES), seed=i):
            yield Bad(f"{suffix[1:]} {kind}", suffix, data)
        other = PICTURES[(i + 1) % len(PICTURES)]
        yield Bad(f"a {other[1:]} called {suffix[1:]}", suffix, _encoded(other))


def videos(film: bytes, n: int) -> Iterator[Bad]:
    """About n bad versions of a film, and what only pretends to be one."""
    yield from things(".mp4")
    for kind, data in mutations(film, n, seed=20, head=400):
        yield Bad(f"film {kind}", ".mp4", data)
    index = film.rindex(b"moov")  # what says where the pictures are
    for kind, data in mutations(film[index:], n // 2, seed=21, head=len(film) - index):
        yield Bad(f"index of a film {kind}", ".mp4", film[:index] + data)
    for kind, data in mutations(film[:index], n // 3, seed=22, head=index):
        yield Bad(f"pictures of a film {kind}", ".mp4", data + film[index:])
    for suffix in (".mp4", ".mkv", ".avi", ".264"):
        yield Bad("text", suffix, b"This is no film.\n" * 99)
        yield Bad("noise", suffix, np.random.default_rng(5).bytes(20000))
        yield Bad("a playlist of local files", suffix, b"#EXTM3U\n#EXTINF:9,\ndoor.mp4\n#EXT-X-ENDLIST\n")
        yield Bad("a list to concatenate", suffix, b"ffconcat version 1.0\nfile door.mp4\n")
        yield Bad("a playlist of addresses", suffix, b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n")
        yield Bad("a session description", suffix, b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n")


def tracks(good: str, n: int) -> Iterator[Bad]:
    """About n bad versions of a MOTChallenge text."""
    lines = good.splitlines()
    rng = np.random.default_rng(30)
    values = (
        *("nan", "inf", "-inf", "-1", "0", "1e308", "-1e308", "9223372036854775808", "-9223372036854775809"),
        *("1e15", "1.5", "", " ", "x", "é", "\0", "0x10", "1_000", "1e", "٣", "9" * 400, "--1", "1,2", '"1"'),
    )
    for column in range(10):
        for value in values:
            number = int(rng.integers(len(lines)))
            fields = lines[number].split(",")
            fields[column] = value
            text = "\n".join([*lines[:number], ",".join(fields), *lines[number + 1 :]])
            yield Bad(f"{value[:20]!r} in column {column + 1}", ".txt", text.encode())
    whole = good.encode()
    for kind, data in mutations(whole, n, seed=31):
        yield Bad(f"tracks {kind}", ".txt", data)
    yield from things(".txt")
    texts: dict[str, bytes] = {
        "with a mark of its order": b"\xef\xbb\xbf" + whole,
        "in UTF-16": good.encode("utf-16"),
        "with Windows' ends": whole.replace(b"\n", b"\r\n"),
        "with Mac's ends": whole.replace(b"\n", b"\r"),
        "with semicolons": whole.replace(b",", b";"),
        "with tabs": whole.replace(b",", b"\t"),
        "with a head": b"frame,id,left,top,width,height\n" + whole,
        "with a note": b"# made by hand\n" + whole,
        "one line of 30 MB": b"1," * (15 << 20),
        "100,000 columns": b",".join([b"1"] * 100_000),
        "a million empty lines": b"\n" * 1_000_000 + whole,
        "nothing but commas": b",,,,,,,,,\n" * 999,
        "boxes inside out": whole.replace(b",24,60,", b",-24,-60,"),
        "boxes without size": whole.replace(b",24,60,", b",0,0,"),
        "boxes far outside": whole.replace(b",24,60,", b",1e12,1e12,"),
        "a frame far away": whole + b"999999999999,1,1,1,24,60,1,-1,-1,-1\n",
        "all rows twice": whole * 2,
        "rows backwards": "\n".join(reversed(lines)).encode(),
        "null bytes": whole.replace(b"\n", b"\0\n"),
    }
    for kind, data in texts.items():
        yield Bad(kind, ".txt", data)


class _Runs:
    """Unpickled, it makes a file: code that must never run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def weights(arrays: dict[str, Any], marker: Path, n: int) -> Iterator[Bad]:
    """About n bad weights files, .safetensors and .pth; what is unpickled as code makes `marker`."""
    import torch
    from safetensors.numpy import save

    whole = save(arrays)
    length = struct.unpack("<Q", whole[:8])[0]
    for kind, data in mutations(whole[: 8 + length], n // 2, seed=40, head=200):
        yield Bad(f"header of safetensors {kind}", ".safetensors", data + whole[8 + length :])
    for kind, data in mutations(whole, n // 4, seed=41):
        yield Bad(f"safetensors {kind}", ".safetensors", data)
    for size in (0, 1, 10**9, 2**62, 2**64 - 1):
        yield Bad(f"a header of {size} bytes", ".safetensors", struct.pack("<Q", size) + whole[8:], True)
    head = json.loads(whole[8 : 8 + length])
    first = next(iter(head))
    for what, entry in {
        "an unknown type": {"dtype": "F99"},
        "a negative size": {"shape": [-1, 3]},
        "an absurd size": {"shape": [2**40, 2**40]},
        "offsets behind the end": {"data_offsets": [0, 2**50]},
        "offsets backwards": {"data_offsets": [99, 3]},
        "text for numbers": {"shape": "x"},
        "no offsets": {"data_offsets": None},
    }.items():
        yield Bad(
            what,
            ".safetensors",
            _header({**head, first: {**head[first], **entry}}) + whole[8 + length :],
            True,
        )
    yield Bad("a deep header", ".safetensors", struct.pack("<Q", 400_000) + b"[" * 400_000, True)
    yield Bad(
        "a deep note",
        ".safetensors",
        _header({**head, "__metadata__": {"meta": "[" * 100_000}}) + whole[8 + length :],
    )
    yield Bad(
        "a note that is no note",
        ".safetensors",
        _header({**head, "__metadata__": {"pixel_mean": "x", "pixel_std": "[1]"}}) + whole[8 + length :],
        True,
    )
    for name in ("complex64", "int64", "bool", "uint8"):
        made = {key: value.astype(name) for key, value in arrays.items()}
        yield Bad(f"arrays of {name}", ".safetensors", _plain(made), True)
    for value in (np.nan, np.inf):
        made = {k: np.full_like(v, value) if v.dtype.kind == "f" else v for k, v in arrays.items()}
        yield Bad(f"arrays of {value}", ".safetensors", save(made), True)
    yield Bad(
        "arrays without a size", ".safetensors", save({k: v.reshape(-1)[:0] for k, v in arrays.items()}), True
    )
    yield Bad(
        "arrays of another shape", ".safetensors", save({k: v.reshape(-1) for k, v in arrays.items()}), True
    )
    yield from things(".safetensors")
    yield from things(".pth")

    def torch_file(value: Any, **how: Any) -> bytes:
        file = io.BytesIO()
        torch.save(value, file, **how)
        return file.getvalue()

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    good = torch_file(tensors)
    for kind, data in mutations(good, n // 4, seed=42):
        yield Bad(f"torch file {kind}", ".pth", data)
    for kind, data in mutations(torch_file(tensors, _use_new_zipfile_serialization=False), n // 8, seed=43):
        yield Bad(f"old torch file {kind}", ".pth", data)
    for value in ({"a": _Runs(marker)}, _Runs(marker), {**tensors, "note": _Runs(marker)}):
        yield Bad("code in a torch file", ".pth", torch_file(value), True)
        yield Bad(
            "code in an old torch file", ".pth", torch_file(value, _use_new_zipfile_serialization=False), True
        )
        yield Bad(
            "code in a pickle",
            ".pth",
            pickle.dumps(value if not isinstance(value, dict) else _Runs(marker)),
            True,
        )
    some: dict[str, Any] = {
        "parameters": {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in tensors.items()},
        "bfloat16": {k: v.bfloat16() for k, v in tensors.items()},
        "numbers for names": dict(enumerate(tensors.values())),
        "complex": {k: v.to(torch.complex64) for k, v in tensors.items()},
        "integers": {k: v.long() for k, v in tensors.items()},
        "meta": {k: v.to("meta") for k, v in tensors.items()},
        "sparse": {k: v.to_sparse() if v.ndim else v for k, v in tensors.items()},
        "quantised": {
            k: torch.quantize_per_tensor(v.float(), 0.1, 0, torch.qint8) for k, v in tensors.items()
        },
        "nothing": {},
        "a list": list(tensors.values()),
        "text": "weights",
        "None": None,
        "one tensor": torch.zeros(3),
        "itself inside": {"state_dict": {"state_dict": {"state_dict": {}}}},
        "views of one enormous tensor": {k: torch.zeros(1).expand(2**40) for k in tensors},
    }
    harmless = ("parameters", "bfloat16", "sparse")
    for kind, value in some.items():
        yield Bad(f"a torch file of {kind}", ".pth", torch_file(value), kind not in harmless)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"archive/data/{number}", bytes(200 << 20))
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    yield Bad("a zip of 800 MB of zeros", ".pth", bomb.getvalue(), True)


def _header(head: dict[str, Any]) -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text


def _plain(arrays: dict[str, Any]) -> bytes:
    """Safetensors by hand: also of kinds that its own writer refuses."""
    names = {"complex64": "C64", "int64": "I64", "bool": "BOOL", "uint8": "U8"}
    head, body = {}, b""
    for key, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        place = [len(body), len(body) + len(data)]
        head[key] = {"dtype": names[str(array.dtype)], "shape": list(array.shape), "data_offsets": place}
        body += data
    return _header(head) + body


def _field(number: int, value: Any) -> bytes:
    """One field of a protocol buffer: an integer, or bytes with their length before them."""

    def varint(rest: int) -> bytes:
        out = b""
        while rest > 127:
            out, rest = out + bytes([rest & 127 | 128]), rest >> 7
        return out + bytes([rest])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_detector(shape: Sequence[int] = (1, 3, 8, 8)) -> bytes:
    """A network of the outer form of FastestDet, by the tables of onnx.proto: its input three times over."""

    def value(name: str, dims: Sequence[int]) -> bytes:
        sizes = b"".join(_field(1, _field(1, d)) for d in dims)
        return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, sizes)))

    axis = _field(1, "axis") + _field(3, 1) + _field(20, 2)
    node = b"".join(_field(1, "x") for _ in range(3)) + _field(2, "y") + _field(4, "Concat") + _field(5, axis)
    out = (shape[0], 3 * shape[1], *shape[2:])
    graph = (
        _field(1, node) + _field(2, "thrice") + _field(11, value("x", shape)) + _field(12, value("y", out))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))


def openvino_detector() -> bytes:
    """The same network as an OpenVINO model; it has no weights, so its .bin may be empty."""

    def port(number: int, channels: int) -> str:
        dims = "".join(f"<dim>{d}</dim>" for d in (1, channels, 8, 8))
        return f'<port id="{number}" precision="FP32">{dims}</port>'

    layers = (
        '<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1,3,8,8" element_type="f32"/>'
        f"<output>{port(0, 3)}</output></layer>"
        '<layer id="1" name="y" type="Concat" version="opset1"><data axis="1"/>'
        f"<input>{port(0, 3)}{port(1, 3)}{port(2, 3)}</input><output>{port(3, 9)}</output></layer>"
        f'<layer id="2" name="out" type="Result" version="opset1"><input>{port(0, 9)}</input></layer>'
    )
    edges = "".join(f'<edge from-layer="0" from-port="0" to-layer="1" to-port="{i}"/>' for i in range(3))
    edges += '<edge from-layer="1" from-port="3" to-layer="2" to-port="0"/>'
    return f'<net name="n" version="11"><layers>{layers}</layers><edges>{edges}</edges></net>'.encode()


def networks(n: int) -> Iterator[Bad]:
    """About n bad networks, .onnx and .xml."""
    for kind, data in mutations(onnx_detector(), n, seed=50):
        yield Bad(f"onnx {kind}", ".onnx", data)
    for kind, data in mutations(openvino_detector(), n // 2, seed=51, head=1200):
        yield Bad(f"OpenVINO {kind}", ".xml", data)
    for dims in ((1, 3, 2**40, 2**40), (1, 3, 60000, 60000), (0, 3, 8, 8), (2**62, 3, 8, 8)):
        yield Bad(f"an input of {dims}", ".onnx", onnx_detector(dims))
    deep = b"<a>" * 100_000
    laughs = (
        b'<?xml version="1.0"?><!DOCTYPE n [<!ENTITY a "'
        + b"x" * 999
        + b'">'
        + b"".join(b'<!ENTITY %c "' % (98 + i) + b"&%c;" % (97 + i) * 99 + b'">' for i in range(9))
    )
    yield Bad("deep XML", ".xml", deep)
    yield Bad("XML that grows", ".xml", laughs + b"]><net name='&j;' version='11'/>")
    yield Bad(
        "XML that names a file", ".xml", b'<!DOCTYPE n [<!ENTITY a SYSTEM "/etc/passwd">]><net name="&a;"/>'
    )
    for suffix in (".onnx", ".xml"):
        yield from things(suffix)
