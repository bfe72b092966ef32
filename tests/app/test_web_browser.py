"""The page in a real browser: from search to review by keyboard, forgetting, and what axe-core finds.

`make test-browser` runs this, and brings Chromium and axe-core where it may.
"""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.app.test_web import people_of, with_people
from tests.app.web_client import copied, opened
from tests.optional import needs
from tracklearn import runtimes
from tracklearn.app.identities import link
from tracklearn.core.scan import quantise
from tracklearn.store.sets.tracklets import open_set

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
AXE = Path(__file__).parents[2] / ".venv/axe/node_modules/axe-core/axe.min.js"
QUIET = ("background-networking", "component-update", "sync", "quic", "gpu")
# Every rule that is on of itself: WCAG to level AA, and axe-core's own of good practice.
RUN = """() => axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
    (v) => ({id: v.id, impact: v.impact, where: v.nodes.map((n) => n.target.join(" "))})))"""


@pytest.fixture
def site(done, tmp_path):
    """A server in a thread, and its address."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed: apt-get install chromium, then make test-browser")
    pytest.importorskip(
        "playwright.sync_api", reason='playwright is not installed: pip install "tracklearn[dev]"'
    )
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
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=120_000)  # a busy machine is slow, not wrong
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            timeout=300_000,
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in QUIET)],
        )
        yield made
        made.close()


@pytest.fixture
def pictures(tmp_path):
    """Where pictures of pages are kept for people to look at: TRACKLEARN_SCREENSHOTS, or nowhere for long."""
    folder = Path(os.environ.get("TRACKLEARN_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_a_review_from_search_to_identities(site, browser, pictures, width, scheme):
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
        page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png", full_page=True)

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


@pytest.fixture
def axe():
    """The file of axe-core."""
    found = Path(os.environ.get("AXE_CORE", AXE))
    if not found.is_file():
        pytest.skip(f"axe-core is not at {found}: make test-browser brings it (npm), or name it in AXE_CORE")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(site, browser, axe, scheme):
    served, address = site
    ref = served.house.finder.examples(1)[0]["ref"]
    paths = ["", f"?part={ref}", "people", "people/1", "review", "history", "tracks", "tracks/0"]
    paths += ["training", "docs", "forget", "forget/1", "nowhere"]
    found = {}
    for width in (1200, 400):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.set_default_timeout(120_000)
        page.add_init_script(path=axe)
        for path in paths:
            page.goto(f"{address}/{path}")
            for wrong in page.evaluate(RUN):
                found.setdefault((wrong["impact"], wrong["id"]), []).append((path, width, wrong["where"]))
        # What the rules look at is there to be found: a picture without a text is a fault of theirs.
        page.evaluate("document.querySelector('main').append(document.createElement('img'))")
        assert "image-alt" in [wrong["id"] for wrong in page.evaluate(RUN)]
        page.close()
    assert {key: places for key, places in found.items() if key[0] in ("serious", "critical")} == {}


@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (400, "light")])
def test_a_person_is_forgotten_by_the_page(site, browser, pictures, width, scheme):
    from playwright.sync_api import expect

    served, address = site
    with served.house.served.opened() as now:
        person = max(now.members, key=lambda number: len(now.members[number]))
        own = now.members[person]
        crops = now.entries.crop[own].tolist()
        features = [now.gallery.feature(int(row)) for row in now.entries.row[own]]
    opened = open_set(served.folder / "set")
    secret = [opened.jpeg(crop) for crop in crops]
    for feature in features:
        secret += [feature.tobytes(), feature.astype(np.float16).tobytes()]
        secret.append(quantise(feature[None])[0].tobytes())
    counts = served.house.preview(person)["counts"]

    def holding(blobs):
        data = [path.read_bytes() for path in served.folder.rglob("*") if path.is_file()]
        return [blob for blob in blobs if any(blob in each for each in data)]

    assert len(holding(secret)) >= 2 * len(crops), "crops and features are there to be found"
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(120_000)

    def shot(name):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png", full_page=True)

    page.goto(f"{address}/forget")
    page.get_by_label("Number of the person").fill(str(person))
    page.get_by_role("button", name="Show what would go").click()
    page.wait_for_url(f"**/forget/{person}")
    expect(page.locator("pre")).to_contain_text(f"{counts['crops']} crops")
    shot("preview")
    page.get_by_label("To confirm").fill(str(person + 1))
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_text("nobody was forgotten")).to_be_visible()
    assert person in {row["person"] for row in served.client.get("/api/people?size=500").json()["people"]}
    page.get_by_label("To confirm").fill(str(person))
    page.get_by_role("button", name="Forget").click()
    page.wait_for_url("**/forget")
    expect(page.get_by_text(f"{counts['crops']} crops")).to_be_visible()
    assert page.evaluate(
        "(({scrollWidth: all, clientWidth: seen}) => all <= seen)(document.querySelector('#said'))"
    )
    shot("forgotten")
    page.keyboard.press("Escape")
    expect(page.locator("#said")).to_be_hidden()

    assert holding(secret) == []
    assert open_set(served.folder / "set").n_crops == opened.n_crops - counts["crops"]
    assert page.goto(f"{address}/people/{person}").status == 404
    shot("nobody")
    assert page.goto(f"{address}/people").ok
    assert page.locator(f"#grid input[value='{person}']").count() == 0
    page.close()
