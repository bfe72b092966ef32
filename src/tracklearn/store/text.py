"""Lines of text files as people have them: UTF-8, UTF-16 or Latin-1, any line ends, plain or gzipped."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tracklearn.types import Refusal

MAX_LINE = 1 << 20  # characters: a kilobyte of gzip can hold a line that fills the memory
_HEAD = 1 << 16
_PACKED = {
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
}
_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1a\x1b")


def read_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """The lines of a text file one after the other, with their ends; `\\r` and `\\r\\n` become `\\n`.

    The encoding is told by the mark at the beginning, or by every other byte being zero; what is neither is
    UTF-8. Bytes that are not (Latin-1 in a comment) become lone surrogates, which are no part of a number.
    The end-of-file sign of DOS (Ctrl-Z) is left where it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text, an archive, damaged gzip, a line of more than `MAX_LINE` characters.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    number = 0
    try:
        with io.BufferedReader(io.FileIO(path), _HEAD) as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream: Any = io.BufferedReader(gzip.GzipFile(fileobj=raw), _HEAD) if packed else raw
            encoding = _encoding(path, stream.peek(_HEAD))
            errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
            text = io.TextIOWrapper(stream, encoding, errors)
            while line := text.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise Refusal(
                        f"{path} line {number}: more than {MAX_LINE:,} characters; expected one row a line"
                    )
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Refusal(f"{path}: damaged or cut short after line {number}: unpack or copy it anew") from None


def _encoding(path: Path, head: bytes) -> str:
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            raise Refusal(f"{path}: {what}; unpack it (only .gz is read as it is)")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if 0 in head:
        # A few signs beyond Latin-1 in a comment leave bytes that are not zero.
        even, odd = head[::2], head[1::2]
        for zero, other, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
            if zero.count(0) > 0.8 * len(zero) and not other.count(0):
                return encoding
    if _CONTROL & set(head):
        raise Refusal(f"{path} line 1: not text")
    return "utf-8"
