"""Files that tests of judging make: an .onnx model byte by byte, and JPEGs of a person's colour."""

import numpy as np

from tracklearn.store.picture.crops import encode_jpeg, resize
from tracklearn.store.picture.pictures import decode

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
COLOURS = np.random.default_rng(3).integers(40, 216, (64, 3))


def _field(number, value):
    """One field of a protocol buffer: an integer, or bytes with their length before them."""

    def varint(n):
        out = b""
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def _value(name, shape, kind):
    dims = b"".join(_field(1, _field(2 if isinstance(d, str) else 1, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def write_onnx(path, shape=("n", 3, 16, 8), *, notes=None, kind=1, pool="GlobalAveragePool", inputs=1):
    """A model whose feature is the mean of each channel, by the tables of onnx.proto."""
    nodes = [("x", "mean", pool), ("mean", "y", "Flatten")]
    graph = b"".join(_field(1, _field(1, a) + _field(2, b) + _field(4, op)) for a, b, op in nodes)
    graph += _field(2, "means")
    graph += b"".join(_field(11, _value("xz"[i], shape, kind)) for i in range(inputs))
    graph += _field(12, _value("y", (shape[0], 3), kind))
    data = _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))
    data += b"".join(_field(14, _field(1, k) + _field(2, v)) for k, v in (notes or {}).items())
    path.write_bytes(data)
    return path


def write_loop(path, turns, *, early=False, shape=(1, 3, 16, 8)):
    """The same model behind a loop of so many turns that changes nothing; its count may be the picture's own.

    Args:
        turns: a number, or None: the picture's greatest value says it.
        early: the loop does not depend on the picture: a runtime may run it while it loads the file.
    """

    def node(op, inputs, outputs, *attributes):
        named = b"".join(_field(1, name) for name in inputs) + b"".join(_field(2, name) for name in outputs)
        return _field(1, named + _field(4, op) + b"".join(_field(5, a) for a in attributes))

    def tensor(name, kind, dims, data):
        sides = b"".join(_field(1, side) for side in dims)
        return _field(5, sides + _field(2, kind) + _field(8, name) + _field(9, data))

    carried = (1,) if early else shape
    body = (
        node("Identity", ["go"], ["go_on"]) + node("Add", ["state", "nought"], ["next"]) + _field(2, "body")
    )
    body += tensor("nought", 1, (), np.float32(0).tobytes())
    body += _field(11, _value("turn", (), 7)) + _field(11, _value("go", (), 9))
    body += _field(11, _value("state", carried, 1)) + _field(12, _value("go_on", (), 9))
    body += _field(12, _value("next", carried, 1))
    graph = b""
    if turns is None:
        graph += node("ReduceMax", ["x"], ["most"], _field(1, "keepdims") + _field(3, 0) + _field(20, 2))
        graph += node("Cast", ["most"], ["turns"], _field(1, "to") + _field(3, 7) + _field(20, 2))
    loop = _field(1, "body") + _field(6, body) + _field(20, 5)
    graph += node("Loop", ["turns", "true", "start" if early else "x"], ["end"], loop)
    graph += node("Mul", ["x", "end"], ["all"]) if early else b""
    graph += node("GlobalAveragePool", ["all" if early else "end"], ["mean"]) + node(
        "Flatten", ["mean"], ["y"]
    )
    graph += (
        _field(2, "loop") + tensor("true", 9, (), b"\1") + tensor("start", 1, (1,), np.float32(1).tobytes())
    )
    if turns is not None:
        graph += tensor("turns", 7, (), np.int64(turns).tobytes())
    graph += _field(11, _value("x", shape, 1)) + _field(12, _value("y", (shape[0], 3), 1))
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13)))
    return path


def channel_means(file, mean=MEAN, std=STD, size=(16, 8)):
    """What the model makes of one image, by hand."""
    image = resize(decode(file.read_bytes()), *size).astype(np.float32) / 255
    feature = ((image - mean) / std).mean((0, 1))
    return feature / np.linalg.norm(feature)


def put(file, person, seed):
    """A JPEG of a person's colour, disturbed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shift = np.random.default_rng(seed).normal(0, 25, 3)
    image = np.broadcast_to(np.clip(COLOURS[person] + shift, 0, 255), (20, 10, 3)).astype(np.uint8)
    file.write_bytes(encode_jpeg(np.ascontiguousarray(image), quality=95))
