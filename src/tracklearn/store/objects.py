"""Objects in storage: S3 and what speaks its language, Google Cloud Storage, and folders addressed likewise.

    s3://bucket/films/cam1.mp4                                        Amazon's, or that of AWS_ENDPOINT_URL
    s3://bucket/cam1.mp4?endpoint_override=host:9000&scheme=http      another server's
    gs://bucket/films/cam1.mp4
    file:///mnt/bucket/cam1.mp4                                       a mounted bucket: no renames, no locks

Names are taken as they stand, as the tools of the clouds take them; of file: alone percent signs are decoded.
Credentials come from where `pyarrow.fs` looks for them (AWS_ACCESS_KEY_ID and its kin, ~/.aws, the machine's
role), or stand in the address. Whatever stands before an @ or behind a question mark leaves this module
towards the network alone: `Stored` shows itself, and is found in errors, without.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tracklearn.store.config import digest
from tracklearn.store.files import remove_folder
from tracklearn.store.lock import InUseError, locked
from tracklearn.types import Refusal

if TYPE_CHECKING:
    from pyarrow import fs

FORMS = "s3://bucket/name, gs://bucket/name or file:///folder/name"

# One stroke, too: pathlib takes one of two away.
_URL = re.compile(r"(s3|gs|file):/{1,3}(.+)", re.DOTALL | re.IGNORECASE)
_QUERY = re.compile(
    r"\?[A-Za-z_]+=.*", re.DOTALL
)  # a question mark of a pattern is followed by no such thing
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INSIDE = re.compile(r"\b(?:s3|gs|file):/{1,3}.+?(?=\+(?:s3|gs|file):/|$)", re.DOTALL | re.IGNORECASE)
_PIECE = 4 << 20  # bytes that are read or written at a time
_SAID = {
    "NETWORK_CONNECTION": "its server cannot be reached",
    "NO_SUCH_BUCKET": "there is no such bucket",
    "ACCESS_DENIED": "access is denied: check the credentials, and what they allow",
    "INVALID_ACCESS_KEY_ID": "the server does not know the access key",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is not the access key's",
    "INVALID_SIGNATURE": "the secret key is not the access key's",
    "EXPIRED_TOKEN": "the credentials have expired",
    "SLOW_DOWN": "the server is asked too much: use fewer workers",
}
_given: dict[str, tuple[str, str]] = {}  # bucket -> credentials and query, as last used by this process
_own: set[Path] = set()  # what this process uses of `scratch`


@dataclass(frozen=True)
class Info:
    """What an object is.

    Args:
        size: bytes.
        mark: another one whenever its content is: of its address, size, time of change and the sum that the
            storage keeps (ETag). Asking for it reads no byte of the object.
    """

    size: int
    mark: str


@dataclass(frozen=True, repr=False)
class Stored:
    """An object in storage, or a folder of objects; made by `Stored.of`. It can be pickled.

    Args:
        scheme: "s3", "gs" or "file". bucket: "" with file. key: of the object, without strokes around it.
        credentials: from before the @. query: from behind the question mark.
    """

    scheme: str
    bucket: str
    key: str
    credentials: str = field(default="", compare=False)
    query: str = field(default="", compare=False)

    @classmethod
    def of(cls, url: str | Path) -> Stored:
        """The object at an address. What was said of its bucket before holds where it says nothing.

        Raises:
            ValueError: it is none, or written wrongly; the message does not repeat what may be secret.
        """
        found = _URL.fullmatch(str(url))
        if found is None:
            raise Refusal(f"not an address in storage: {showable(str(url))}: write {FORMS}")
        scheme, rest, query = found[1].lower(), found[2], ""
        if asked := _QUERY.search(rest):
            rest, query = rest[: asked.start()], asked[0][1:]
        shown = showable(str(url))
        if scheme == "file":
            if re.fullmatch(r"file://[^/].*", str(url), re.DOTALL | re.IGNORECASE):
                raise Refusal(f"a folder of this machine has three strokes, file:///…: {shown}")
            bucket, credentials, key = "", "", unquote(rest).lstrip("/")
        else:
            head, _, key = rest.partition("/")
            credentials, _, bucket = head.rpartition("@")
            if not _BUCKET.fullmatch(bucket):
                raise Refusal(
                    f"no bucket can be told from {shown}: write {FORMS} (and %2F for / in a secret)"
                )
        key = key.rstrip("/")
        if any(part in ("", ".", "..") for part in key.split("/")) and key:
            raise Refusal(f"the address {shown} has an empty part, or one of dots: write it without")
        if not credentials and not query:
            credentials, query = _given.get(f"{scheme}://{bucket}", ("", ""))
        return cls(scheme, bucket, key, credentials, query)

    def __str__(self) -> str:
        """Its address, as far as it may be shown."""
        key = self.key.replace("%", "%25").replace("?", "%3F") if self.scheme == "file" else self.key
        return f"{self.scheme}://{self.bucket}/{key}"

    __repr__ = __str__

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]

    @property
    def server(self) -> str:
        """A digest of the server that is asked, by its address or the surroundings; of no credentials."""
        asked = dict(pair.partition("=")[::2] for pair in self.query.split("&"))
        names = {
            "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
            "gs": ("CLOUD_STORAGE_EMULATOR_ENDPOINT",),
        }
        around = (os.environ.get(name, "") for name in names.get(self.scheme, ()))
        server = unquote(asked.get("endpoint_override", "")) or next(filter(None, around), "")
        return digest([self.scheme, server.rpartition("://")[2].rstrip("/").lower()])

    @property
    def above(self) -> Stored:
        """The folder that it lies in."""
        return replace(self, key=self.key.rpartition("/")[0])

    def __truediv__(self, name: str) -> Stored:
        return replace(self, key=f"{self.key}/{name}" if self.key else name)

    def beside(self, *, before: str = "", after: str = "") -> Stored:
        """As of `files.beside`."""
        return self.above / f"{before}{self.name}{after}"

    # What may be asked of it

    def remember(self) -> None:
        """Let what is said of its bucket hold from now on, as the first question would.

        Raises:
            ValueError: it cannot be opened with that.
        """
        if self.credentials or self.query:
            _ = self._system

    def info(self) -> Info | None:
        """What it is; None where there is no such object.

        Raises:
            ValueError: the storage cannot be reached, refuses, or has no such bucket.
        """
        with self._told("looked at"):
            found = self._system.get_file_info(self._place)
            if not found.is_file:
                self._require_bucket()
                return None
            with self._system.open_input_stream(self._place) as stream:
                said = stream.metadata() or {}
        etag = next((value for name, value in said.items() if _text(name).lower() == "etag"), b"")
        return Info(found.size, digest([str(self), found.size, found.mtime_ns, _text(etag)]))

    def listed(self) -> dict[str, int]:
        """Names below it, with strokes for folders, and their sizes, in the order of names.

        Raises:
            ValueError: as `info`.
        """
        from pyarrow import fs

        with self._told("listed"):
            selector = fs.FileSelector(self._place, recursive=True, allow_not_found=True)
            found = self._system.get_file_info(selector)
            if not found:
                self._require_bucket()
        before = len(self._place.rstrip("/")) + 1
        return {one.path[before:]: one.size for one in sorted(found, key=lambda f: f.path) if one.is_file}

    def read(self) -> bytes:
        """Its content.

        Raises:
            FileNotFoundError: there is no such object.
            ValueError: as `info`.
        """
        with self._told("read"), self._system.open_input_stream(self._place) as stream:
            return bytes(stream.read())

    def fetch(self, to: Path) -> None:
        """Copy it to a new file.

        Raises:
            FileNotFoundError, ValueError: as `read`; it is cut off.
            OSError: the disk is full or failing.
        """
        with self._told("read"), self._system.open_input_file(self._place) as source, to.open("wb") as file:
            size = source.size()
            while piece := source.read(_PIECE):
                file.write(piece)
        if to.stat().st_size != size:
            raise Refusal(f"{self} came to {to.stat().st_size} bytes of {size}: try again")

    def write(self, data: bytes) -> None:
        """Put an object there, or in the place of the one that is there.

        Raises:
            ValueError: as `info`.
        """
        with self._told("written"):
            self._make_folder()
            with self._system.open_output_stream(self._place) as stream:
                stream.write(data)

    def put(self, file: Path) -> None:
        """Copy a file there. Broken off, it may leave a shorter object: what counts is written behind it.

        Raises:
            OSError: the file cannot be read.
            ValueError: as `info`.
        """
        with self._told("written"), file.open("rb") as source:
            self._make_folder()
            with self._system.open_output_stream(self._place) as stream:
                shutil.copyfileobj(source, stream, _PIECE)

    def copy(self, to: Stored) -> None:
        """Copy it to another place of the same storage, which does it by itself.

        Raises:
            FileNotFoundError, ValueError: as `read`.
        """
        with self._told("copied"):
            to._make_folder()
            self._system.copy_file(self._place, to._place)

    def remove(self) -> None:
        """Have no such object.

        Raises:
            ValueError: as `info`.
        """
        with suppress(FileNotFoundError), self._told("deleted"):
            self._system.delete_file(self._place)

    def remove_all(self) -> None:
        """Have nothing below it.

        Raises:
            ValueError: as `info`; it is a whole bucket.
        """
        if not self.key:
            raise Refusal(f"{self} is a whole bucket, which is not emptied")
        with suppress(FileNotFoundError), self._told("deleted"):
            self._system.delete_dir(self._place)

    # How it is asked

    @property
    def _system(self) -> fs.FileSystem:
        found = _opened(self.scheme, self.bucket, self.credentials, self.query)
        if self.credentials or self.query:  # not before: another address of the bucket may be written wrongly
            _given[f"{self.scheme}://{self.bucket}"] = self.credentials, self.query
        return found

    @property
    def _place(self) -> str:
        """Its path within the file system."""
        return f"/{self.key}" if self.scheme == "file" else f"{self.bucket}/{self.key}".rstrip("/")

    def _make_folder(self) -> None:
        if self.scheme == "file":  # elsewhere a folder is no more than a part of names
            self._system.create_dir(self.above._place, recursive=True)

    def _require_bucket(self) -> None:
        from pyarrow import fs

        if self.bucket and self._system.get_file_info(self.bucket).type == fs.FileType.NotFound:
            where = f"{self.scheme}://{self.bucket}"
            raise Refusal(f"there is no such bucket, or the credentials do not show it: {where}")

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        """Errors of the libraries beneath, which may hold what is secret, as ours."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"no such object in storage: {self}") from None
        except OSError as error:
            if error.errno is not None:  # a disk's
                raise
            raise Refusal(f"{self} cannot be {done}: {self._why(error)}") from None

    def _why(self, error: BaseException) -> str:
        text = " ".join(str(error).split())
        if code := re.search(r"AWS Error (\w+)", text):
            words = code[1].lower().replace("_", " ")
            return _SAID.get(code[1], f"the server says: {words}")
        values = [*re.split(r"[:&=]", f"{self.credentials}&{self.query}")]
        values += [value for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_"))]
        for value in sorted({*values, *map(unquote, values)}, key=len, reverse=True):
            text = text.replace(value, "…") if len(value) > 2 else text
        return text[:200]


def is_url(text: str | Path) -> bool:
    """Whether a text is an address in storage.

    >>> is_url("s3://bucket/films/a.mp4"), is_url("films/a.mp4"), is_url("rtsp://host/s")
    (True, False, False)
    """
    return _URL.fullmatch(str(text)) is not None


def require_folder(out: str | Path) -> None:
    """Refuse an address in storage where no more than a folder will do.

    Raises:
        ValueError: it is one.
    """
    if is_url(out):
        raise Refusal(
            f"{showable(str(out))}: tracklet sets alone are written to storage (ingest); name a folder"
        )


def showable(text: str) -> str:
    """A text with every address of storage in it without credentials and query, and with all its strokes.

    >>> showable("door=s3://id:secret@bucket/door.mp4?endpoint_override=host:9000")
    'door=s3://bucket/door.mp4'
    """

    def shown(found: re.Match[str]) -> str:
        head, _, rest = found[0].partition(":")
        body = _QUERY.sub("", rest.lstrip("/"))
        if head.lower() == "file":
            return f"{head}:///{body}"
        first, stroke, key = body.partition("/")
        bucket = first.rpartition("@")[2]
        if not _BUCKET.fullmatch(bucket) and bucket:  # a secret with a stroke: nobody knows where it ends
            return f"{head}://…"
        return f"{head}://{bucket}{stroke}{key}"

    return _INSIDE.sub(shown, text)


@lru_cache(maxsize=64)
def _opened(scheme: str, bucket: str, credentials: str, query: str) -> Any:
    """The file system of a bucket."""
    import pyarrow as pa
    from pyarrow import fs

    if scheme == "file":
        return fs.LocalFileSystem()
    user = f"{credentials}@" if credentials else ""
    asked = f"?{query}" if query else ""
    try:
        return fs.FileSystem.from_uri(f"{scheme}://{user}{bucket}/{asked}")[0]
    except (pa.ArrowException, ValueError, OSError) as error:
        where = f"{scheme}://{bucket}"
        if isinstance(error, OSError):
            why = Stored(scheme, bucket, "", credentials, query)._why(error)
            raise Refusal(f"{where} cannot be opened: {why}") from None
        raise Refusal(
            f"{where} cannot be opened with what stands before the @ or behind the question mark: known are "
            "id:secret@ and endpoint_override, scheme, region, joined by &"
        ) from None


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder of this machine for what is on its way to or from storage; it goes with the block.

    The next one to ask for one removes those of processes that were killed: what lies there shows people.
    `TMPDIR` says where they lie.

    Raises:
        OSError: the disk is full or failing.
    """
    root = sweep()
    folder = root / secrets.token_hex(8)
    with locked(folder):  # before it is there: the others remove what nobody has locked
        _own.add(folder)
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            remove_folder(folder)
            _own.discard(folder)


def sweep() -> Path:
    """Remove what killed processes of this user and machine left of `scratch`; where such folders lie."""
    root = Path(tempfile.gettempdir()) / f"tracklearn-{os.getuid() if hasattr(os, 'getuid') else 'scratch'}"
    root.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and (root.is_symlink() or root.stat().st_uid != os.getuid()):
        raise Refusal(f"{root} belongs to somebody else: name another folder in TMPDIR")
    for left in sorted(root.iterdir()):
        if left.is_dir() and left not in _own:
            with suppress(InUseError, FileNotFoundError), locked(left):
                remove_folder(left)
    return root
