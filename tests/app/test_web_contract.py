"""Everything that the page's OpenAPI allows, and what it does not, drawn by schemathesis: no answer is a
defect, the server goes on, and what was refused or only looked at has written nothing.

Addresses and numbers are drawn as the description has them, so that nearly all lead nowhere, and again out of
those that are there, so that steps are taken and people are forgotten in any order.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.app.test_web import with_people
from tests.app.web_client import TOKEN, client_of, copied, opened
from tests.optional import has

QUICK, THOROUGH = 4, 60  # requests of each kind to each route
LOOKS = {"/api/search", "/api/pictures"}  # are sent something and change nothing


@pytest.fixture
def served(done, tmp_path):
    has("schemathesis")
    folder = copied(done, tmp_path)
    with_people(folder)
    served = opened(folder)
    yield served
    served.house.close()


def described(served, *, there):
    """The description; with `there`, its addresses and numbers are some of this gallery's."""
    with served.house.served.opened() as now:
        refs = now.refs[:12]

    def narrowed(node):
        if isinstance(node, list):
            return [narrowed(each) for each in node]
        if not isinstance(node, dict):
            return node
        if str(node.get("pattern", "")).startswith("^[0-9a-f]{8}-"):
            return {"type": "string", "enum": refs}
        if node.get("maximum") == 2**53:
            return {**node, "minimum": 1, "maximum": 6}
        return {key: narrowed(each) for key, each in node.items()}

    return narrowed(served.guard.app.openapi()) if there else served.guard.app.openapi()


def written(served):
    """What is on disk, and how often the tables of people were changed."""
    files = {
        str(path.relative_to(served.folder)): (stat.st_size, stat.st_mtime_ns)
        for path in served.folder.rglob("*")
        if path.is_file() and ".sqlite" not in path.name
        for stat in [path.stat()]
    }
    with served.house.served.opened() as now:
        return files, now.people.version


def send_all(client, description, most, judge):
    """Send `most` requests of each kind, fitting ones and others, to each route; the answers go to `judge`.

    Nothing is drawn by chance and nothing depends on the clock: each run sends the same requests.
    """
    import requests
    import schemathesis

    bounded = settings(
        max_examples=most,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for found in schemathesis.openapi.from_dict(description).get_all_operations():
        operation = found.ok()
        taken = operation.body or operation.query or operation.path_parameters
        for mode in schemathesis.GenerationMode:
            if mode.value == "negative" and (not taken or operation.path == "/api/pictures"):
                continue  # it takes nothing, or any bytes: no request does not fit

            @bounded
            @given(operation.as_strategy(generation_mode=mode))
            def sent(case):
                plain = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
                answer = client.request(
                    plain.method, plain.path_url, content=plain.body or b"", headers=dict(plain.headers)
                )
                judge(case.operation.path, plain, answer)

            sent()


def check(served, client, most, *, there):
    """Send all; what was answered, as (method, path, status) with its count."""
    before, answered = written(served), Counter()

    def judge(path, plain, answer):
        nonlocal before
        answered[plain.method, path, answer.status_code] += 1
        assert answer.status_code < 500, (plain.method, plain.url, plain.body, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["error"]
        after = written(served)
        if plain.method == "GET" or path in LOOKS or answer.status_code >= 400:
            assert after == before, (plain.method, plain.url, plain.body, answer.text)
        before = after

    send_all(client, described(served, there=there), most, judge)
    assert client.get("/api/run").status_code == 200
    routes = {
        (method.upper(), path)
        for path, of in client.get("/api/openapi.json").json()["paths"].items()
        for method in of
    }
    assert {(method, path) for method, path, _ in answered} == routes, "every route was tried"
    return answered


def found_nothing(answered):
    """Whether people and steps were both asked for and refused or not there, and what fits was taken."""
    of = {(method, path): set() for method, path, _ in answered}
    for method, path, status in answered:
        of[method, path].add(status)
    assert 422 in of["POST", "/api/merge"]
    assert 404 in of["POST", "/api/split"]
    assert 200 in of["GET", "/api/people"]
    assert 200 in of["GET", "/api/tracks"]


def took_steps(answered):
    """Whether what was drawn really changed who is who, and people were forgotten."""
    taken = {path for method, path, status in answered if method == "POST" and status == 200}
    assert {"/api/merge", "/api/split", "/api/name", "/api/undo", "/api/review"} <= taken


JUDGED = {"anywhere": (False, found_nothing), "where something is": (True, took_steps)}


def shown_the_token(served):
    """A client that has the token of a server that asks for one."""
    client, _ = client_of(served.house, token=TOKEN)
    client.headers["authorization"] = f"Bearer {TOKEN}"
    return client


@pytest.mark.parametrize("where", JUDGED)
def test_no_request_finds_a_defect(served, where):
    there, judge = JUDGED[where]
    judge(check(served, shown_the_token(served) if there else served.client, QUICK, there=there))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", JUDGED)
@pytest.mark.parametrize("client", [lambda served: served.client, shown_the_token], ids=["open", "token"])
def test_many_requests_find_no_defect(served, where, client):
    there, judge = JUDGED[where]
    answered = check(served, client(served), THOROUGH, there=there)
    judge(answered)
    assert answered.total() > 15 * THOROUGH


@pytest.mark.parametrize("given", [{}, {"authorization": f"Bearer {TOKEN}x"}])
def test_who_has_no_token_learns_and_changes_nothing(served, given):
    client, _ = client_of(served.house, token=TOKEN, clock=lambda: 0.0)
    client.headers.update(given)
    before, asked = written(served), Counter()

    def judge(path, plain, answer):
        asked[answer.status_code] += 1
        assert set(answer.json()) == {"error"}

    send_all(client, described(served, there=True), 1, judge)
    assert written(served) == before
    # Wrong tokens are counted, and after ten all wait; none is no wrong one.
    assert set(asked) == ({401, 429} if given else {401})
    assert served.client.get("/api/run").status_code == 200
