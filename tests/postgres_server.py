"""A real PostgreSQL with pgvector for tests, from the files of the package pgserver; none of it outlives
them.

The package's own interface is not used: it would make a system user where root runs it.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

INSTALL = 'pip install "tracklearn[dev]" (pgserver has wheels for Linux on x86-64, Python to 3.12)'


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where the package is not installed."""
    spec = importlib.util.find_spec("pgserver")
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "pginstall" / "bin"
    return found if (found / "initdb").is_file() else None


def why_not() -> str:
    """Why there can be no server here; empty where there can."""
    for name in ("psycopg", "pgvector"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: {INSTALL}"
    if programs() is None:
        return f"pgserver is not installed: {INSTALL}"
    if os.getuid() == 0 and _nobody() is None:
        return "PostgreSQL does not run as root, and there is no user nobody to run it as"
    return ""


def _nobody() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return None


@contextmanager
def server() -> Iterator[str]:
    """The URL of a new, empty database; the server listens to a socket in a folder of its own alone.

    Raises:
        RuntimeError: it does not start; the message holds what it said.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user = {}
    if os.getuid() == 0:
        nobody = _nobody()
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data, sockets, log = folder / "data", folder, folder / "log"

    def run(name: str, *arguments: str) -> None:
        found = subprocess.run(
            [programs() / name, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)},
            timeout=240,
            **user,
        )
        if found.returncode:
            said = log.read_text() if log.is_file() else ""
            raise RuntimeError(f"{name} ended with {found.returncode}: {found.stderr}{found.stdout}{said}")

    try:
        run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        # Durable enough for tests: nothing is synced.
        options = f"-c listen_addresses= -k {sockets} -F -c full_page_writes=off -c shared_buffers=64MB"
        run("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-t", "120", "-o", options, "start")
        try:
            yield f"postgresql://postgres@{quote(str(sockets), safe='')}/postgres"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
