"""The page, seen through its interface: searching, people and their steps, the review, tracks, clips."""

import json
import re
import shutil
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.app.web_client import copied, opened
from tests.optional import needs
from tests.postgres_server import server, why_not
from tracklearn.app.identities.footage import gather
from tracklearn.app.identities.known import Names, latest, said
from tracklearn.app.search.index import index
from tracklearn.app.web import review
from tracklearn.app.web.drawing import alone, timeline
from tracklearn.store.files import write_json
from tracklearn.store.identities.folder import Identities, IdentityWriter
from tracklearn.store.identities.journal import (
    Decision,
    Place,
    add_cut,
    journal_path,
    read_cuts,
    read_journal,
)
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set

CURVE = {"distance": [0.2, 0.6, 1.2], "probability": [0.99, 0.5, 0.01]}


def with_people(folder):
    """A table of identities in which every three successive parts of a camera are one person."""
    table = Identities(folder / "identities")
    rows = table.rows
    rng = np.random.default_rng(3)
    for i, row in enumerate(rows):
        row["identity"] = 1 + i // 3
        row["probability"] = round(float(rng.uniform(0.2, 0.99)), 4)
        row["how"] = "compared"
    rows[-1] |= {"identity": None, "probability": None, "how": "nobody"}
    manifest = {k: v for k, v in table.manifest.items() if k not in ("files", "kind", "schema", "seal")}
    with IdentityWriter(table.path, replace=True) as writer:
        writer.write_table(rows)
        within = {"curve": CURVE, "different": {"0.5": 1.0}}
        write_json(writer.folder / "calibration.json", {"within_camera": within, "trusted": True})
        writer.manifest.update(manifest)
    return rows


@pytest.fixture(scope="module")
def work(done, tmp_path_factory):
    """The finished work, with a table of people, never changed."""
    folder = copied(done, tmp_path_factory.mktemp("shown"))
    with_people(folder)
    return folder


@pytest.fixture(scope="module")
def shown(work):
    served = opened(work)
    yield served
    served.house.close()


@pytest.fixture
def served(work, tmp_path):
    """A copy of it that may be changed."""
    shutil.copytree(work, tmp_path / "work")
    served = opened(tmp_path / "work")
    yield served
    served.house.close()


def ask(served, path, status=200, **body):
    answer = served.client.post(path, json=body) if body else served.client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


def people_of(served):
    """Number -> addresses of its parts."""
    listed = ask(served, "/api/people?size=500")["people"]
    return {
        one["person"]: {p["ref"] for p in ask(served, f"/api/people/{one['person']}")["parts"]}
        for one in listed
    }


# Searching


def test_a_part_finds_others_nearest_first_over_all_cameras(shown):
    ref = shown.house.finder.examples(1)[0]["ref"]
    found = ask(shown, "/api/search", part=ref, k=10)
    distances = [hit["distance"] for hit in found["results"]]
    assert len(distances) == 10
    assert distances == sorted(distances)
    assert len({hit["track"] for hit in found["results"]} | {found["query"]["track"]}) == 11, "one a track"
    assert {hit["camera"] for hit in found["results"]} == set(shown.house.summary()["cameras"])
    chances = {hit["camera"]: [] for hit in found["results"]}
    for hit in found["results"]:
        chances[hit["camera"]].append(hit["probability"])
    assert all(own == sorted(own, reverse=True) for own in chances.values()), (
        "of one camera the nearer the surer"
    )
    assert all(0 < p < 1 for own in chances.values() for p in own)


def test_distances_are_those_of_the_gallery(shown):
    ref = shown.house.finder.examples(1)[0]["ref"]
    found = ask(shown, "/api/search", part=ref, k=5, parts=True)
    with shown.house.served.opened() as now:
        query = now.gallery.feature(int(now.entries.row[now.position(ref)]))
        for hit in found["results"]:
            other = now.gallery.feature(int(now.entries.row[now.position(hit["ref"])]))
            assert hit["distance"] == pytest.approx(float(np.linalg.norm(query - other)), abs=1e-3)


def test_filters_narrow_a_search(shown):
    ref = shown.house.finder.examples(1)[0]["ref"]
    camera = shown.house.summary()["cameras"][1]
    assert {h["camera"] for h in ask(shown, "/api/search", part=ref, camera=camera)["results"]} == {camera}
    late = ask(shown, "/api/search", part=ref, since="0:00:10", k=50)["results"]
    assert late
    assert all(hit["end"] >= 10 for hit in late)
    one = ask(shown, "/api/search", part=ref, identity=2, parts=True)["results"]
    assert {hit["person"] for hit in one} <= {2}
    good = ask(shown, "/api/search", part=ref, min_quality=0.5, k=100)["results"]
    assert all(hit["quality"] >= 0.5 for hit in good)
    for wrong in (
        {"camera": "nowhere"},
        {"since": "noon"},
        {"since": "9", "until": "1"},
        {"k": 0},
        {"identity": 10**6},
    ):
        answer = shown.client.post("/api/search", json={"part": ref, **wrong})
        assert 400 <= answer.status_code < 500
    assert shown.client.post("/api/search", json={}).status_code == 400
    assert shown.client.post("/api/search", json={"part": "00000000-1-2-3"}).status_code == 404


def test_a_picture_of_a_part_finds_that_part(shown):
    example = shown.house.finder.examples(1)[0]
    crop = shown.client.get(example["picture"])
    assert crop.headers["content-type"] == "image/jpeg"
    sent = shown.client.post("/api/pictures", content=crop.content).json()
    found = ask(shown, "/api/search", picture=sent["id"], k=5)
    assert len(found["results"]) == 5
    # A box that is the whole picture is the whole picture.
    box = [0, 0, sent["width"], sent["height"]]
    assert ask(shown, "/api/search", picture=sent["id"], k=5, box=box)["results"] == found["results"]
    assert (
        shown.client.post("/api/search", json={"picture": sent["id"], "box": [0, 0, 2, 2]}).status_code == 400
    )
    assert shown.client.post("/api/search", json={"picture": "gone"}).status_code == 404
    page = shown.client.get(f"/?picture={sent['id']}&box=0,0,{sent['width']},{sent['height']}")
    assert page.status_code == 200
    assert page.text.count("<li id=") == 24 or "nearest" in page.text


def test_what_sees_people_in_films_alone_says_so(shown):
    image = cv2.imencode(".png", np.full((200, 100, 3), 128, np.uint8))[1].tobytes()
    sent = shown.client.post("/api/pictures", content=image).json()
    assert sent["people"] == []
    assert sent["detector"] == "hog"
    assert "motion, sees people in films alone" in sent["note"]


def test_one_of_several_people_is_chosen_first(shown, monkeypatch):
    image = np.random.default_rng(1).integers(0, 255, (120, 120, 3)).astype(np.uint8)
    boxes = [[5.0, 5.0, 45.0, 100.0], [60.0, 5.0, 100.0, 100.0]]
    monkeypatch.setattr(shown.house.uploads, "_people", lambda *_: (boxes, "seen", ""))
    sent = shown.client.post("/api/pictures", content=cv2.imencode(".png", image)[1].tobytes()).json()
    assert sent["people"] == boxes
    page = shown.client.get(f"/?picture={sent['id']}").text
    links = re.findall(r'<a href="([^"]+)" aria-label="Search for person', page)
    assert len(links) == 2
    assert "nearest tracks" not in page
    chosen = shown.client.get(links[1].replace("&amp;", "&")).text
    assert "nearest tracks" in chosen
    assert "nearest tracks" in shown.client.get(f"/?picture={sent['id']}&whole=1").text


def test_only_the_last_pictures_are_kept(shown):
    image = cv2.imencode(".png", np.full((16, 16, 3), 128, np.uint8))[1].tobytes()
    first = shown.house.uploads.add(image, None).id
    for _ in range(16):
        shown.house.uploads.add(image, None)
    assert shown.client.get(f"/picture/{first}").status_code == 404


def test_the_page_shows_what_the_interface_finds(shown):
    ref = shown.house.finder.examples(1)[0]["ref"]
    found = ask(shown, "/api/search", part=ref)
    page = shown.client.get(f"/?part={ref}").text
    assert re.findall(r'<li id="part-([^"]+)"', page) == [hit["ref"] for hit in found["results"]]
    wrong = shown.client.get(f"/?part={ref}&since=noon")
    assert wrong.status_code == 400
    assert "is no time" in wrong.text


def test_a_run_without_a_gallery_says_how_to_make_one(served):
    served.house.close()
    shutil.rmtree(served.folder / "run" / "gallery")
    page = served.client.get("/")
    assert page.status_code == 200
    assert "tracklearn index" in page.text
    for path in ("/people", "/review", "/forget"):
        assert served.client.get(path).status_code == 200
    assert served.client.post("/api/search", json={"part": "00000000-1-2-3"}).status_code == 404


# People


def test_people_are_those_of_the_table(work, shown):
    rows = Identities(work / "identities").rows
    listed = ask(shown, "/api/people?size=500")
    assert listed["total"] == len({row["identity"] for row in rows} - {None})
    assert listed["nobody"] == sum(row["identity"] is None for row in rows)
    person = ask(shown, "/api/people/1")
    assert len(person["parts"]) == 3
    belongs = [part["belongs"] for part in person["parts"]]
    assert belongs == sorted(belongs), "the least certain first"
    doubt = [one["least"] for one in ask(shown, "/api/people?order=doubt")["people"]]
    assert doubt == sorted(doubt)
    assert shown.client.get("/api/people/9999").status_code == 404
    assert shown.client.get("/people/9999").status_code == 404


def test_two_people_are_merged_and_parted_again(served):
    before = people_of(served)
    told = ask(served, "/api/merge", people=[1, 2])
    assert told["person"] in (1, 2)
    after = people_of(served)
    gone = ({1, 2} - {told["person"]}).pop()
    assert after[told["person"]] == before[1] | before[2]
    assert gone not in after
    assert served.client.post("/api/undo").status_code == 200
    assert people_of(served) == before
    assert served.client.post("/api/redo").status_code == 200
    assert people_of(served) == after
    assert served.client.post("/api/redo").status_code == 404


def test_a_part_is_split_off_and_moved(served):
    before = people_of(served)
    part = sorted(before[1])[0]
    told = ask(served, "/api/split", parts=[part])
    after = people_of(served)
    assert after[told["person"]] == {part}
    assert told["person"] not in before
    assert after[1] == before[1] - {part}
    ask(served, "/api/move", parts=[part], person=2)
    assert people_of(served)[2] == before[2] | {part}
    assert served.client.post("/api/undo").json()["gone"] == []
    assert served.client.post("/api/undo").json()["gone"] == [told["person"]]
    assert people_of(served) == before
    history = ask(served, "/api/history")
    assert [step["undone"] for step in history] == [True, True]


def test_what_makes_no_sense_is_refused(served):
    before = people_of(served)
    one, two = sorted(before[1])[0], sorted(before[2])[0]
    for path, body, words in (
        ("/api/merge", {"people": [1, 1]}, "cannot be merged"),
        ("/api/split", {"parts": sorted(before[1])}, "all parts"),
        ("/api/split", {"parts": [one, two]}, "several people"),
        ("/api/move", {"parts": [one], "person": 1}, "already"),
        ("/api/name", {"person": 1, "name": "a\u202eb"}, "cannot be shown"),
        ("/api/name", {"person": 1, "name": "x" * 61}, "60 are the most"),
        ("/api/review", {"a": one, "b": one, "answer": "same"}, "with itself"),
    ):
        assert words in ask(served, path, status=400, **body)["error"]
    assert "no person" in ask(served, "/api/merge", status=404, people=[1, 9999])["error"]
    assert people_of(served) == before
    assert ask(served, "/api/history") == []


def test_people_have_names_that_stay_with_them(served):
    ask(served, "/api/name", person=3, name="  The  man with the hat ")
    listed = ask(served, "/api/people")["people"]
    assert (listed[0]["person"], listed[0]["called"]) == (3, "The man with the hat"), "named first"
    assert (
        "has that name"
        in ask(served, "/api/name", status=400, person=1, name="The man with the hat")["error"]
    )
    assert ask(served, "/api/merge", people=[1, 3])["person"] == 3, "who has a name keeps the number"
    page = served.client.get("/people/3").text
    assert "<h1>The man with the hat</h1>" in page
    ask(served, "/api/name", person=3, name="<script>alert(1)</script>")
    assert "<script>alert" not in served.client.get("/people/3").text


def test_steps_are_there_after_the_server_was_started_again(served):
    before = people_of(served)
    ask(served, "/api/merge", people=[1, 2])
    after = people_of(served)
    served.house.close()
    again = opened(served.folder)
    assert people_of(again) == after
    assert again.client.post("/api/undo").status_code == 200
    assert people_of(again) == before
    again.house.close()


# The review


def test_the_most_uncertain_links_come_first_and_are_asked_once(served):
    found = ask(served, "/api/review?n=50")
    doubt = [
        (min(pair["a"]["n_crops"], pair["b"]["n_crops"]) < 4, abs(pair["probability"] - 0.5))
        for pair in found["pairs"]
    ]
    assert [scrap for scrap, _ in doubt] == sorted(scrap for scrap, _ in doubt), "scraps come last"
    whole = [chance for scrap, chance in doubt if not scrap]
    assert whole == sorted(whole)
    assert found["left"] > 10
    pair = found["pairs"][0]
    ask(served, "/api/review", a=pair["a"]["ref"], b=pair["b"]["ref"], answer="unsure")
    after = ask(served, "/api/review?n=50")
    ends = {pair["a"]["ref"], pair["b"]["ref"]}
    assert all({p["a"]["ref"], p["b"]["ref"]} != ends for p in after["pairs"])
    assert after["answers"] == 1
    served.client.post("/api/undo")
    assert ask(served, "/api/review")["pairs"][0] == pair


def test_after_so_many_answers_it_says_what_changed(served, monkeypatch):
    assert review.SUMMED == 20
    monkeypatch.setattr(review, "SUMMED", 6)
    before = people_of(served)
    told = {}
    for i in range(6):
        pair = ask(served, "/api/review")["pairs"][0]
        answer = ("same", "different", "unsure")[i % 3]
        told = ask(served, "/api/review", a=pair["a"]["ref"], b=pair["b"]["ref"], answer=answer)
        assert (told["summary"] is None) == (i < 5)
    summary = told["summary"]
    assert (summary["same"], summary["different"], summary["unsure"]) == (2, 2, 2)
    after = people_of(served)
    assert summary["people"] == len(after)
    assert summary["text"].startswith("6 answers: 2 same, 2 different, 2 unsure.")
    changed = {
        ref
        for refs in before.values()
        for ref in refs
        if next(n for n, r in before.items() if ref in r)
        != next((n for n, r in after.items() if ref in r), None)
    }
    assert summary["moved"] >= len(changed)


def test_different_takes_a_part_out_of_its_person(served):
    before = people_of(served)
    pair = next(p for p in ask(served, "/api/review?n=50")["pairs"] if p["kind"] == "inside")
    ask(served, "/api/review", a=pair["a"]["ref"], b=pair["b"]["ref"], answer="different")
    number = pair["a"]["person"]
    assert people_of(served)[number] == before[number] - {pair["a"]["ref"]}


def test_the_review_without_a_table_says_what_to_do(served):
    served.house.close()
    shutil.rmtree(served.folder / "identities")
    for file in (served.folder / "run").glob("gallery.people*"):
        file.unlink()
    again = opened(served.folder)
    assert "tracklearn identities RUN SET" in again.client.get("/review").text
    assert "tracklearn identities RUN SET" in again.client.get("/people").text
    again.house.close()


# Tracks


def test_a_track_is_told_frame_by_frame(work, shown):
    listed = ask(shown, "/api/tracks")
    tracks = open_set(work / "set").tracklets
    assert listed["total"] == len(tracks)
    first = listed["tracks"][0]
    found = ask(shown, f"/api/tracks/{first['track']}")
    assert found["n_crops"] == int(tracks.length[first["track"]])
    assert sum(part["n_crops"] for part in found["parts"]) + found["n_dropped"] == found["n_crops"]
    assert len(found["parts"]) == first["n_parts"]
    some = ask(shown, f"/api/tracks/{first['track']}?start=2")["frames"]
    assert [f["index"] for f in some] == list(range(2, 2 + len(some)))
    svg = shown.client.get(f"/chart/track/{first['track']}")
    assert svg.headers["content-type"].startswith("image/svg+xml")
    assert "prefers-color-scheme" in svg.text
    assert shown.client.get("/api/tracks/99999").status_code == 404
    assert shown.client.get("/tracks/99999").status_code == 404


def test_a_cut_by_hand_holds_for_index_and_identities(served):
    run = served.folder / "run"
    whole = open_set(served.folder / "set")
    track = int(np.argmax(whole.tracklets.length))
    before = gather(run, [served.folder / "set"]).parts
    own = before.frame[np.isin(before.tracklet, np.flatnonzero(before.source == track))]
    frame = int(np.sort(own)[len(own) // 2])
    told = ask(served, "/api/cut", track=track, frame=frame)
    assert told["did"] == f"track {track} is cut before frame {frame}"
    assert read_cuts(journal_path(run)) == [Place(whole.digest, track, frame)]
    (said,) = read_journal(journal_path(run))
    assert (said.same, said.b.frame) == (False, frame)

    after = gather(run, [served.folder / "set"]).parts
    for part in np.flatnonzero(after.source == track):
        frames = after.frame[after.tracklet == part]
        assert (frames < frame).all() or (frames >= frame).all()
    assert len(after) > len(before)
    assert np.array_equal(np.sort(after.crop), np.sort(before.crop)), "no picture is lost"
    served.house.close()
    index(run, served.folder / "set", device="cpu", resume=True)
    again = opened(served.folder)
    with again.house.served.opened() as now:
        spans = [(k.first, k.last) for k in now.keys if k.track == track]
    assert all(last < frame or first >= frame for first, last in spans)

    assert "already" in ask(again, "/api/cut", status=400, track=track, frame=frame)["error"]
    assert "Cut by hand" in again.client.get(f"/tracks/{track}").text
    ask(again, "/api/cut", track=track, frame=frame, cut=False)
    assert read_cuts(journal_path(run)) == []
    assert read_journal(journal_path(run)) == []
    assert len(gather(run, [served.folder / "set"]).parts) == len(before)
    assert (
        again.client.post("/api/cut", json={"track": track, "frame": frame, "cut": False}).status_code == 404
    )
    again.house.close()


def test_a_cut_is_where_the_track_has_a_picture(served):
    first = int(open_set(served.folder / "set").tracklets.frame[0])
    assert "is the first" in ask(served, "/api/cut", status=400, track=0, frame=first)["error"]
    assert "no picture" in ask(served, "/api/cut", status=400, track=0, frame=10**6)["error"]
    assert not journal_path(served.folder / "run").exists()


def test_a_journal_of_before_is_read_with_cuts_in_it(tmp_path):
    journal = tmp_path / "run.review.jsonl"
    a, b = {"set": "f", "track": 1, "frame": 2}, {"set": "f", "track": 1, "frame": 5}
    journal.write_text(json.dumps({"decision": "same", "a": a, "b": {**b, "track": 3}, "who": "me"}) + "\n")
    add_cut(journal, Place(**a), Place(**b), cut=True)
    assert [d.same for d in read_journal(journal)] == [True, False]
    add_cut(journal, Place(**a), Place(**b), cut=False)
    assert [d.same for d in read_journal(journal)] == [True]
    assert len(journal.read_text().splitlines()) == 3, "nothing is taken out of it"


# Clips, training, forgetting


def test_the_moment_is_played_from_the_film_with_a_box(shown, tmp_path):
    listed = [p for n in (1, 2) for p in ask(shown, f"/api/people/{n}")["parts"]]
    part = max(listed, key=lambda p: p["end"] - p["start"])
    found = shown.client.get(f"/clip/{part['ref']}")
    assert found.status_code == 200
    assert found.headers["content-type"] == "video/mp4"
    (tmp_path / "clip.mp4").write_bytes(found.content)
    with av.open(str(tmp_path / "clip.mp4")) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264"
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
        rate = float(stream.average_rate)
    seconds = part["end"] - part["start"]
    assert seconds * rate - 2 <= len(pictures) <= (seconds + 2) * rate + 3
    yellow = [((p[..., 0] > 200) & (p[..., 1] > 150) & (p[..., 2] < 110)).sum() for p in pictures]
    assert max(yellow) > 60, "a box is drawn"
    piece = shown.client.get(f"/clip/{part['ref']}", headers={"range": "bytes=10-19"})
    assert (piece.status_code, piece.content) == (206, found.content[10:20])
    assert piece.headers["content-range"] == f"bytes 10-19/{len(found.content)}"
    assert (
        shown.client.get(f"/clip/{part['ref']}", headers={"range": "bytes=-5"}).content == found.content[-5:]
    )
    beyond = {"range": f"bytes={len(found.content)}-"}
    assert shown.client.get(f"/clip/{part['ref']}", headers=beyond).status_code == 416


def test_a_film_that_is_gone_is_not_offered(done, tmp_path):
    needs("fastapi")
    folder = tmp_path / "deep" / "deeper" / "work"
    shutil.copytree(done["out"], folder)  # the films are elsewhere, seen from here
    served = opened(folder)
    ref = served.house.finder.examples(1)[0]["ref"]
    answer = served.client.get(f"/clip/{ref}")
    assert answer.status_code == 404
    assert "not where it was" in answer.json()["error"]
    assert "data-clip" not in served.client.get(f"/?part={ref}").text
    served.house.close()


def test_a_training_is_told_with_its_curves(shown):
    status = ask(shown, "/api/training")
    assert (status["finished"], status["rounds"], status["status"]) == (True, 2, "finished")
    page = shown.client.get("/training").text
    charts = re.findall(r'src="(/chart/training/\d+)\?n=2"', page)
    assert len(charts) >= 3
    for path in charts:
        assert shown.client.get(path).text.startswith("<svg")
    assert shown.client.get("/chart/training/99").status_code == 404
    events = shown.client.get("/training/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    (line,) = events.text.strip().splitlines()
    assert json.loads(line.removeprefix("data: "))["rounds"] == 2


def test_a_training_that_goes_on_says_how_long_it_takes(served):
    from tracklearn.store.sealed import read_sealed, write_sealed

    file = served.folder / "run" / "manifest.json"
    manifest = dict(read_sealed(file, remedy="")) | {"status": "training"}
    manifest["settings"] = {**manifest["settings"], "epochs": 10}
    write_sealed(file, {k: v for k, v in manifest.items() if k != "seal"})
    status = ask(served, "/api/training")
    assert (status["finished"], status["rounds"], status["of"]) == (False, 2, 10)
    spent = sum(Run(served.folder / "run").seconds.values())
    assert status["seconds_left"] == pytest.approx(8 * spent / 2, abs=0.06)
    assert 'data-events="/training/events"' in served.client.get("/training").text


def test_a_person_is_forgotten(served):
    person = ask(served, "/api/people/1")
    told = ask(served, "/api/forget/1")
    assert told["person"] == 1
    assert str(told["counts"]["crops"]) in told["text"]
    assert "person 1" in served.client.get("/forget/1").text
    assert ask(served, "/api/people/1") == person, "a preview changes nothing"
    assert "another" in ask(served, "/api/forget", status=400, person=1, confirm=2)["error"]

    sent = served.client.post(
        "/api/pictures", content=served.client.get(person["pictures"][0]).content
    ).json()
    before = open_set(served.folder / "set")
    keys = {(part["track"], part["start"]) for part in person["parts"]}
    ask(served, "/api/forget", person=1, confirm=1)
    after = open_set(served.folder / "set")
    assert after.n_crops < before.n_crops
    assert served.client.get("/api/people/1").status_code == 404
    assert served.client.get(person["pictures"][0]).status_code == 404
    assert served.client.get(f"/picture/{sent['id']}").status_code == 404, "what was sent is let go too"
    ref = served.house.finder.examples(1)[0]["ref"]
    left = ask(served, "/api/search", part=ref, k=200, parts=True)["results"]
    assert left
    assert not keys & {(hit["track"], hit["start"]) for hit in left}
    assert served.client.get("/people").status_code == 200
    assert served.client.get("/tracks").status_code == 200


def test_bars_of_a_time_line_lead_to_their_parts():
    row = {
        "ref": "f-1-2-3",
        "name": "1",
        "camera": "a<b",
        "start": 1.0,
        "end": 3.0,
        "wall": "",
        "span": "s",
        "rank": 1,
    }
    svg = timeline(
        [row, {**row, "ref": "f-2-2-3", "camera": "c"}], [1.0, 9.0], ["a<b", "c"], label="x", links=True
    )
    assert svg.count("<rect") == 2
    assert 'href="#part-f-1-2-3"' in svg
    assert "a&lt;b" in svg
    assert "style=" not in svg
    assert timeline([], [], [], label="x", links=False) == ""


def test_bars_at_one_time_have_lines_of_their_own_as_far_as_there_are_any():
    row = {"name": "1", "camera": "a", "start": 0.0, "end": 10.0, "wall": "", "span": "s"}
    rows = [{**row, "ref": f"f-{i}"} for i in range(9)]
    tall = [
        float(y)
        for y in re.findall(r'<rect[^>]* y="(\d+)"', timeline(rows, range(9), ["a"], label="x", links=False))
    ]
    assert len(tall) == 9
    assert len(set(tall)) == 6  # and no more: hundreds of results are a page of lines
    apart = timeline(rows[:3], [0.0, 20.0, 40.0], ["a"], label="x", links=False)
    assert len(set(re.findall(r'<rect[^>]* y="(\d+)"', apart))) == 1


def test_a_picture_of_its_own_brings_its_colours():
    assert alone("<svg a='b'><g/></svg>").startswith("<svg a='b'><style>")


def test_the_last_word_of_a_review_holds(served):
    """Split, then merged again: `identities` is told what was said last, and nothing that contradicts it."""
    before = people_of(served)
    one = sorted(before[1])
    split = ask(served, "/api/split", parts=[one[0]])["person"]
    names = Names.of(gather(served.folder / "run", [served.folder / "set"]))
    with served.house.served.opened() as now:
        first = now.people.decisions()
    assert sorted(d.same for d in first) == [False, False]
    assert latest(first, names) == first
    kept_number = ask(served, "/api/merge", people=[split, 1])["person"]
    with served.house.served.opened() as now:
        both = now.people.decisions()
    kept = latest(both, names)
    assert all(decision.same for decision in kept), "the split holds no more"
    said(kept, names, Path("journal"))  # nothing contradicts
    assert people_of(served)[kept_number] == before[1]


def test_of_contradictions_the_earlier_goes(served):
    names = Names.of(gather(served.folder / "run", [served.folder / "set"]))
    footage = names.footage
    place = [names.place(names(i)) for i in range(4)]
    same = [Decision(True, place[a], place[b]) for a, b in ((0, 1), (1, 2), (2, 3))]
    apart = Decision(False, place[0], place[3])
    assert latest([*same, apart], names) == [same[1], same[2], apart], "the link said first gives way"
    assert latest([apart, *same], names) == same
    elsewhere = Decision(False, Place("f" * 64, 0, 0), place[0])
    assert latest([elsewhere], names) == [elsewhere]
    assert len(footage.parts) > 4


def test_serve_says_what_is_missing(call, done, monkeypatch):
    needs("fastapi")
    run = done["out"] / "run"
    code, out, err = call("serve", "nowhere")
    assert (code, out) == (2, "")
    assert "no such run: nowhere" in err
    code, _, err = call("serve", run, "--host", "0.0.0.0")
    assert code == 2
    assert "a token is needed: set TRACKLEARN_TOKEN" in err
    monkeypatch.setenv("TRACKLEARN_TOKEN", "short")
    assert "5 letters" in call("serve", run)[2]
    monkeypatch.delenv("TRACKLEARN_TOKEN")
    assert "No such file" in call("serve", run, "--token-file", "none.txt")[2]
    for name, title in (("uvicorn", "uvicorn"), ("fastapi", "FastAPI")):
        monkeypatch.setitem(sys.modules, name, None)
        code, _, err = call("serve", run)
        assert (code, err) == (2, f'tracklearn: {title} is not installed: pip install "tracklearn[web]"\n')


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a server")
def test_pages_of_a_gallery_in_postgresql_are_those_of_files(work, shown, tmp_path):
    shutil.copytree(work, tmp_path / "work")
    run = tmp_path / "work" / "run"
    with server() as url:
        index(run, tmp_path / "work" / "set", gallery=url, device="cpu", resume=True).gallery.close()
        other = opened(tmp_path / "work")
        with other.house.served.opened() as now:
            assert now.gallery.where.startswith("postgresql://")
        assert people_of(other) == people_of(shown)
        ref = shown.house.finder.examples(1)[0]["ref"]
        hits = [ask(each, "/api/search", part=ref, k=8)["results"] for each in (shown, other)]
        assert [hit["ref"] for hit in hits[0]] == [hit["ref"] for hit in hits[1]]
        assert [hit["distance"] for hit in hits[0]] == pytest.approx(
            [hit["distance"] for hit in hits[1]], abs=1e-3
        )
        before = people_of(other)
        ask(other, "/api/merge", people=[1, 2])
        assert len(people_of(other)) == len(before) - 1
        assert other.client.post("/api/undo").status_code == 200
        assert people_of(other) == before
        for path in ("/", f"/?part={ref}", "/people", "/people/1", "/review", "/history", "/forget/1"):
            assert other.client.get(path).status_code == 200
        other.house.close()
