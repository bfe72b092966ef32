"""A served run for tests: the small world's, in a folder of its own, asked without a network."""

import shutil
from types import SimpleNamespace

from tests.optional import needs
from tracklearn import runtimes

TOKEN = "a-token-of-the-tests-0123456789"
OWN = {"origin": "http://localhost"}


def copied(done, folder):
    """The finished work in `folder`/work, its films as near as before."""
    needs("fastapi")
    needs("uvicorn")
    shutil.copytree(done["out"], folder / "work")
    return folder / "work"


def client_of(house, **options):
    """A client whose pages are the server's own."""
    from tracklearn.app.web.server import application

    test = runtimes.load("starlette.testclient")
    guard = application(house, **options)
    client = test.TestClient(guard, base_url="http://localhost", headers=OWN, follow_redirects=False)
    return client, guard


def opened(folder, **options):
    """House, client and guard of a run's work folder."""
    from tracklearn.app.web.house import House

    house = House(folder / "run")
    client, guard = client_of(house, **options)
    return SimpleNamespace(house=house, client=client, guard=guard, folder=folder)
