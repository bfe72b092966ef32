"""The page in a real browser, from search to review by keyboard. Needs Chromium and playwright."""

import shutil
import threading

import pytest

from tests.app.test_web import people_of, with_people
from tests.app.web_client import copied, opened
from tests.optional import needs
from tracklearn.app.identities import link
from tracklearn.store import runtimes

pytestmark = pytest.mark.slow


@pytest.fixture
def site(done, tmp_path):
    """A server in a thread, and its address."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    needs("uvicorn")
    folder = copied(done, tmp_path)
    with_people(folder)
    served = opened(folder)
    uvicorn = runtimes.load("uvicorn")
    server = uvicorn.Server(uvicorn.Config(served.guard, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive(), "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    yield served, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    served.house.close()


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield made
        made.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_a_review_from_search_to_identities(site, browser, tmp_path, width, scheme):
    from playwright.sync_api import expect

    served, address = site
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(120_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    before = people_of(served)

    def shot(name):
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} pixels wide"
        page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=True)

    page.goto(f"{address}/")
    shot("search")
    page.locator(".hits a").first.click()
    page.wait_for_selector("ol.hits li")
    assert page.locator("ol.hits li").count() > 3
    page.select_option("select[name=camera]", index=1)
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**camera=**")
    shot("found")

    page.goto(f"{address}/people/1")
    page.locator("#parts input[type=checkbox]").first.check()
    shot("person")
    page.get_by_role("button", name="The chosen are somebody else").click()
    page.wait_for_url(lambda url: not url.endswith("/people/1"))
    assert len(people_of(served)[1]) == len(before[1]) - 1
    page.get_by_role("button", name="Undo").click()
    page.wait_for_url("**/people")  # whom the split had made is nobody any more
    assert people_of(served) == before
    page.locator("#grid input[value='1']").check()
    page.locator("#grid input[value='2']").check()
    shot("people")
    page.get_by_role("button", name="Merge the chosen").click()
    page.wait_for_url("**/people/*")
    assert len(people_of(served)) == len(before) - 1

    page.goto(f"{address}/review")
    for i in range(10):
        page.keyboard.press("sdu"[i % 3])
        expect(page.locator("#answers")).to_have_text(str(i + 1))
    shot("review")
    for path in ("tracks", "tracks/0", "training", "docs", "forget", "history"):
        page.goto(f"{address}/{path}")
        shot(path.replace("/", "-"))
    assert wrong == []
    page.close()

    # Made again, the table has what was said; what was not asked may be compared anew.
    with served.house.served.opened() as now:
        said = now.people.decisions()
    table = link.identities(
        served.folder / "run",
        [served.folder / "set"],
        served.folder / "identities",
        resume=True,
        device="cpu",
    )
    number = {}
    for row in table.rows:
        number[row["set_digest"], row["track"], row["first_frame"]] = row["identity"]
    for decision in said:
        a, b = (number.get((p.set, p.track, p.frame)) for p in (decision.a, decision.b))
        if a is not None and b is not None and not decision.same:
            assert a != b
