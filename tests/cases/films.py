"""Films as people have them, made on the spot: any stamps, codecs, shapes of pixels and damages."""

import struct
from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT, FPS = 160, 120, 10


def scene(i=0, people=((20, 30),), width=WIDTH, height=HEIGHT):
    """Grey ground; each person, at (x, y), is 24 x 60: a light head on a body of a colour of its own."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[: height // 4, : width // 4] = (70, 110, 90)  # so that no turn of the picture looks like another
    for k, (x, y) in enumerate(people):
        image[y : y + 60, x : x + 24] = ((200, 40, 40), (40, 60, 200), (40, 160, 60))[(i + k) % 3]
        image[y : y + 16, x : x + 24] = (230, 190, 160)
    return image


def film(path, images, *, stamps=None, base=Fraction(1, 1000), rate=FPS, codec="libx264", **more):
    """Writes images as a film; `stamps` in units of `base` (steady ones at `rate` if None).

    `more`: container `format`, `pix_fmt`, `options` of the encoder, `aspect` of a pixel, `tags`, `gop`.
    """
    images = list(images)
    height, width = images[0].shape[:2]
    with av.open(str(path), "w", format=more.get("format"), options=more.get("muxer", {})) as container:
        container.metadata.update(more.get("tags", {}))
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, more.get("pix_fmt", "yuv420p")
        stream.options = {"crf": "4", "preset": "ultrafast", "bf": "0"} | more.get("options", {})
        if "aspect" in more:
            stream.codec_context.sample_aspect_ratio = more["aspect"]
        if stamps is not None:
            stream.codec_context.time_base = stream.time_base = base
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            if stamps is not None:
                frame.pts, frame.time_base = int(stamps[i]), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_b_frames(path, images, **more):
    """H.264 with B-frames."""
    return film(path, images, options={"bf": "2", "b-adapt": "0", "preset": "medium"}, **more)


def stamped_anew(source, path, stamp):
    """A copy of a film, packets untouched but for their stamps: stamp(i, pts, dts) -> (pts, dts)."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for i, packet in enumerate(p for p in old.demux(stream) if p.size):
            packet.pts, packet.dts = stamp(i, packet.pts, packet.dts)
            packet.stream = copy
            new.mux(packet)
    return path


def display_matrix(path, a, b, c, d):
    """Writes a display matrix into the track header of an mp4: (p, q) is shown at (a p + c q, b p + d q)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, times, id, duration, layer, volume
    one = 1 << 16
    x, y = WIDTH if a + c < 0 else 0, HEIGHT if b + d < 0 else 0
    values = (a * one, b * one, 0, c * one, d * one, 0, x * one, y * one, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)
    return path


def boxes_text(path, rows):
    """MOTChallenge rows (frame from 0, id, x, y, w, h) with score 1."""
    path.write_text("".join(f"{f + 1},{i},{x},{y},{w},{h},1,-1,-1,-1\n" for f, i, x, y, w, h in rows))
    return path
