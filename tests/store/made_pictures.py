"""Pictures of every accepted format, made by hand where no encoder makes them, and files that only claim."""

import struct
import zlib

import cv2
import numpy as np


def noise(height, width, channels=3, *, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def encoded(suffix, image, *options):
    ok, data = cv2.imencode(suffix, image, list(options))
    assert ok
    return data.tobytes()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *, depth=8, colour=2, interlaced=False, extra=b"", data=b""):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def interlaced_png(width, height):
    """A grey Adam7 picture of zeros."""
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = b""
    for x, y, dx, dy in passes:
        w, h = -(-(width - x) // dx), -(-(height - y) // dy)
        if w > 0 and h > 0:
            rows += (b"\0" * (1 + w)) * h
    return png(width, height, colour=0, interlaced=True, data=rows)


def palette_png(width, height):
    return png(width, height, colour=3, extra=chunk(b"PLTE", bytes(range(9))), data=bytes(1 + width) * height)


def tiff(width, height, *, order="<", big=False, tile=None, rows=None, bits=8, samples=1, data=None):
    """An uncompressed grey picture, or the claim of one."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (277, 3, samples)]
    n_bytes = width * height if data is None else len(data)
    n = len(entries) + (4 if tile else 3)
    offset = (16 + 8 + 20 * n + 8) if big else (8 + 2 + 12 * n + 4)
    if tile:
        entries += [(322, 4, tile[0]), (323, 4, tile[1]), (324, 4, offset), (325, 4, tile[0] * tile[1])]
        n_bytes = tile[0] * tile[1] if data is None else len(data)
    else:
        entries += [(273, 4, offset), (278, 4, rows or height), (279, 4, min(n_bytes, 2**32 - 1))]
    mark = b"II" if order == "<" else b"MM"
    out = mark + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8))
    out += struct.pack(order + ("Q" if big else "H"), n)
    for tag, kind, value in sorted(entries):
        out += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, 1)
        packed = struct.pack(order + ("I" if kind == 4 else "H"), value)
        out += packed.ljust(8 if big else 4, b"\0")
    out += bytes(8 if big else 4)
    assert len(out) == offset
    return out + (bytes(min(n_bytes, 1 << 20)) if data is None else data)


def core_bmp(width, height):
    """A BMP with the header of OS/2: 16-bit sizes."""
    rows = bytes((3 * width + 3) // 4 * 4) * height
    return (
        b"BM"
        + struct.pack("<IHHI", 26 + len(rows), 0, 0, 26)
        + struct.pack("<IHHHH", 12, width, height, 1, 24)
        + rows
    )


def claiming_jpeg(width, height, *, progressive=False):
    """Some hundred bytes that say they are so large; libjpeg decodes them, to grey."""
    data = bytearray(encoded(".jpg", noise(16, 16), cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)))
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def claiming_webp(width, height, *, animated=False):
    if not animated:
        body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(40)
        return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    side = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    frame = encoded(".webp", noise(16, 16), cv2.IMWRITE_WEBP_QUALITY, 80)[12:]
    small = struct.pack("<I", 15)[:3] * 2
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + side
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(6) + small + b"\1\0\0\0" + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def every_format(height, width):
    """(name, bytes) of a picture of this size in every accepted format and form."""
    colour, grey = noise(height, width), noise(height, width, 1)
    deep = noise(height, width, dtype=np.uint16)
    yield "jpeg", encoded(".jpg", colour)
    yield "grey jpeg", encoded(".jpg", grey)
    yield "progressive jpeg", encoded(".jpg", colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    yield "jpeg with restarts", encoded(".jpg", colour, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    yield "png", encoded(".png", colour)
    yield "png with alpha", encoded(".png", noise(height, width, 4))
    yield "16-bit png", encoded(".png", deep)
    yield "1-bit png", encoded(".png", grey, cv2.IMWRITE_PNG_BILEVEL, 1)
    yield "palette png", palette_png(width, height)
    yield "interlaced png", interlaced_png(width, height)
    yield "bmp", encoded(".bmp", colour)
    yield "grey bmp", encoded(".bmp", grey)
    yield "core bmp", core_bmp(width, height)
    yield "webp", encoded(".webp", colour, cv2.IMWRITE_WEBP_QUALITY, 80)
    yield "lossless webp", encoded(".webp", colour)
    yield "webp with alpha", encoded(".webp", noise(height, width, 4), cv2.IMWRITE_WEBP_QUALITY, 80)
    yield "tiff", encoded(".tiff", colour)
    yield "16-bit tiff", encoded(".tiff", deep)
    yield "motorola tiff", tiff(width, height, order=">")
    yield "big tiff", tiff(width, height, big=True)
    yield "big motorola tiff", tiff(width, height, order=">", big=True)
    yield "ppm", encoded(".ppm", colour)
    yield "pgm", encoded(".pgm", grey)
    yield (
        "text ppm",
        f"P3\n# a note\n {width}\t{height} # more\n255\n".encode() + b"1 2 3\n" * (width * height),
    )
    yield "pbm", f"P4 {width} {height}\n".encode() + bytes((width + 7) // 8 * height)
