"""The sketch of a site: its arithmetic by hand, and the command on figures that are given."""

import json

import pytest
from tests.benchmarks.made import film

from benchmarks import scale, scale_measure

QUIET = scale.Figures(decoded=400, ingested=100, crops=2, crop_bytes=5e3, track=100, embedded=200)
OWN = ["--decoded=400", "--ingested=100", "--crops=2", "--crop-bytes=5000", "--track=100", "--embedded=200"]


def test_a_day_by_hand():
    found = scale.day(scale.Site(cameras=1000, hours=24, fps=25, stride=5), QUIET)
    assert found.frames == 1000 * 86400 * 25
    assert found.used == found.frames / 5
    assert found.ingest == pytest.approx((found.used / 100 + 4 * found.used / 400) / 3600)
    assert found.crops == 2 * found.used
    assert found.bytes == 5e3 * found.crops
    assert found.tracks == found.crops / 100
    assert found.extraction == pytest.approx(found.crops / 200 / 3600)
    assert found.cores == pytest.approx((found.ingest + found.extraction) / 24)


def test_clustering_grows_by_the_square_from_what_was_measured():
    exact = scale.exact_seconds()
    assert set(exact) == {"float32", "int8"}
    hours, gigabytes = scale.clustering(100_000, 2048, exact["float32"])
    assert hours * 3600 == pytest.approx(exact["float32"])
    assert gigabytes == pytest.approx(0.8192)
    assert scale.clustering(1_000_000, 512, 160.0)[0] == pytest.approx(25 * 160 / 3600)


def test_the_command_takes_own_figures_and_asks_for_missing_ones(capsys, tmp_path):
    arguments = ["--cameras", "10", "--hours", "1", "--fps", "10", "--stride", "1", "--price", "0.05"]
    assert scale.main([*arguments, *OWN, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "360,000" in said
    assert "price of both" in said
    assert scale.main([*arguments, *OWN[1:], "--out", str(tmp_path)]) == 2
    assert "give --decoded, or --measure first" in capsys.readouterr().err


def test_measured_figures_are_the_defaults(capsys, tmp_path):
    figures = {"ingested": 100.0, "crops": 2.0, "crop_bytes": 5e3, "track": 100.0}
    result = {
        "decode": {"decoded": 400.0},
        "ingest": {"motion": figures},
        "extraction": {"osnet_x0_25": 200.0},
    }
    (tmp_path / "scale.json").write_text(json.dumps({"result": result}))
    assert scale.main(["--out", str(tmp_path)]) == 0
    measured = capsys.readouterr().out
    assert scale.main([*OWN, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == measured


def test_what_is_measured_are_the_figures_of_a_set(tmp_path):
    path = film(tmp_path / "a.mp4")
    assert scale_measure.decoding(path) > 0
    found = scale_measure.ingesting(path, f"file:{path.with_suffix('.txt')}", tmp_path / "set")
    assert found["crops"] == pytest.approx(18 / 20, abs=0.1)  # the tracker's first frames give none
    assert found["track"] == found["crops"] * 20
    assert found["crop_bytes"] > 100


def test_what_sources_cost_the_process_that_asks(tmp_path, capsys):
    from benchmarks import scale_sources

    assert scale_sources.main(["--sizes", "3", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "scale_sources.png").read_bytes()[:4] == b"\x89PNG"
    (row,) = json.loads((tmp_path / "scale_sources.json").read_text())["result"]["rows"]
    assert row["sources"] == 3
    assert min(row[name] for name in ("names", "look", "digest", "place", "join")) >= 0
    assert "ms a source" in capsys.readouterr().out
