"""A server that speaks S3's language, on this machine, for tests; it keeps all in memory.

It is moto's, in a process of its own, so that a test may be killed or end without it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

INSTALL = 'pip install "tracklearn[dev]"'
SECRETS = {"AWS_ACCESS_KEY_ID": "id-of-a-test", "AWS_SECRET_ACCESS_KEY": "secret-of-a-test"}

_SERVER = """
import logging, sys, time
logging.getLogger("werkzeug").disabled = True
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def why_not() -> str:
    """Why there can be no server here; empty where there can."""
    missing = [name for name in ("moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: {INSTALL}" if missing else ""


@contextmanager
def server() -> Iterator[str]:
    """Host and port of a new, empty server, whose buckets `make_bucket` makes."""
    environment = {**os.environ, **SECRETS, "AWS_EC2_METADATA_DISABLED": "true"}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    try:
        port = next((line.strip() for line in process.stdout if line.strip().isdigit()), "")
        if not port:
            raise RuntimeError(f"the S3 server ended with {process.wait()} before it said its port")
        yield f"127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.kill()
        process.wait()


def make_bucket(host: str, name: str) -> None:
    """A bucket of that name."""
    asked = urllib.request.Request(f"http://{host}/{name}", method="PUT")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60).close()
