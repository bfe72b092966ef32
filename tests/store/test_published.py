"""Published weights: fetched once from a server on this machine, checked, and what is said where not."""

import functools
import http.server
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from tracklearn.learn import backbone as backbones
from tracklearn.store import published, weights
from tracklearn.store.files import hash_file
from tracklearn.store.published import Published


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that a web server on this machine shows, and its address."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


class TestImagenet:
    """A file whose sum is known."""

    @pytest.fixture
    def server(self, served, monkeypatch):
        folder, url = served
        arrays = {"features.18.0.weight": torch.ones(4, 2, 1, 1), "features.18.1.weight": torch.ones(4)}
        torch.save(arrays, folder / "w.pth")
        digest = hash_file(folder / "w.pth")
        name = f"mobilenet_v2-{digest[:8]}.pth"
        (folder / "w.pth").rename(folder / name)
        file = Published(f"{url}/{name}", digest[:8])
        monkeypatch.setattr(published, "IMAGENET", {"mobilenet_v2": file})
        return name, folder

    def test_downloads_once_then_reads_the_cache(self, server, tmp_path, monkeypatch):
        name, folder = server
        monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "cache"))
        seen = []
        arrays, info = weights.load("imagenet", backbone="mobilenet_v2", progress=lambda *a: seen.append(a))
        size = (folder / name).stat().st_size
        assert seen == [("weights", size, size)]
        assert (info.name, info.labels, info.notice) == ("imagenet", (), "")
        assert info.path == tmp_path / "cache" / name
        assert os.listdir(tmp_path / "cache") == [name]
        (folder / name).unlink()
        again = weights.load("imagenet", backbone="mobilenet_v2")[0]
        assert again.keys() == arrays.keys()

    def test_offline_names_the_three_ways_out(self, server, tmp_path):
        name, folder = server
        (folder / name).unlink()
        cache = tmp_path / "cache"
        refused(
            lambda: weights.load("imagenet", backbone="mobilenet_v2", cache=cache),
            "--weights PATH",
            "--weights none",
            f"put {name} into {cache}",
            "not found",
        )

    def test_no_such_host_is_the_same_line(self, tmp_path, monkeypatch):
        file = Published("http://127.0.0.1:9/resnet50-00000000.pth", "00000000")
        monkeypatch.setattr(published, "IMAGENET", {"resnet50": file})
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(ValueError, match="--weights none"):
            weights.load("imagenet", backbone="resnet50", cache=tmp_path)
        assert os.listdir(tmp_path) == []

    def test_wrong_bytes_never_reach_the_cache(self, server, tmp_path):
        name, folder = server
        (folder / name).write_bytes(b"an error page")
        with pytest.raises(ValueError, match="13 bytes came with SHA-256"):
            weights.load("imagenet", backbone="mobilenet_v2", cache=tmp_path / "cache")
        assert os.listdir(tmp_path / "cache") == []

    def test_a_damaged_cached_file_is_named(self, server, tmp_path):
        name, _ = server
        (tmp_path / name).write_bytes(b"half")
        with pytest.raises(ValueError, match=r"delete it$"):
            weights.load("imagenet", backbone="mobilenet_v2", cache=tmp_path)

    @pytest.mark.parametrize("backbone", ["tiny", None, "osnet_x0_5"])
    def test_backbones_without_published_weights(self, backbone):
        with pytest.raises(ValueError, match="no published ImageNet weights") as caught:
            weights.load("imagenet", backbone=backbone)
        assert "osnet_x0_25" not in str(caught.value)

    def test_osnet_has_others(self):
        with pytest.raises(
            ValueError, match=r"or --weights osnet_x0_25 \(trained with labels on MSMT17\), or"
        ):
            weights.load("imagenet", backbone="osnet_x0_25")

    def test_published_names_carry_their_checksum(self):
        for name, file in published.IMAGENET.items():
            assert file.name == f"{file.name.rsplit('-', 1)[0]}-{file.sha256}.pth", name
            assert len(file.sha256) == 8
            assert file.url.startswith("https://")


class TestNamed:
    """A file whose address has the same content for good, and whose sum nobody tells."""

    @pytest.fixture
    def server(self, served, monkeypatch):
        folder, url = served
        network = backbones.build(backbones.Config(backbone="osnet_x0_25"), seed=3)
        state = {f"module.{k}": v for k, v in network.state_dict().items() if not k.startswith("neck.")}
        state["module.classifier.weight"] = torch.zeros(4101, 512)
        file = replace(published.NAMED["osnet_x0_25"], url=f"{url}/osnet_of_the_author.pth")
        monkeypatch.setitem(published.NAMED, "osnet_x0_25", file)
        content = {"state_dict": state, "rank1": np.float64(0.6)}
        torch.save(content, folder / file.name, _use_new_zipfile_serialization=False)  # as in 2019
        return folder / file.name, network

    def test_is_fetched_once_and_fits_its_backbone(self, server, tmp_path):
        file, author = server
        arrays, info = weights.load("osnet_x0_25", backbone=None, cache=tmp_path / "c")
        assert (info.name, info.backbone, info.folded) == ("osnet_x0_25", "osnet_x0_25", False)
        assert info.labels == ("the starting weights were trained with labels on MSMT17",)
        assert "know the terms" in info.notice
        network = backbones.build(backbones.Config(backbone="osnet_x0_25"), seed=0)
        assert network.load_weights(arrays, info=info).ignored == ("classifier.weight",)
        assert torch.equal(network.fc[0].weight, author.fc[0].weight)
        note = tmp_path / "c" / f"{file.name}.sha256"
        assert note.read_text() == f"{info.sha256}  {file.name}\n"
        file.unlink()
        assert weights.load("osnet_x0_25", backbone=None, cache=tmp_path / "c")[1].sha256 == info.sha256

    def test_another_content_than_the_first_is_refused(self, server, tmp_path):
        file, _ = server
        weights.load("osnet_x0_25", backbone=None, cache=tmp_path / "c")
        kept = tmp_path / "c" / file.name
        kept.write_bytes(kept.read_bytes()[:-1] + b"x")
        refused(
            lambda: weights.load("osnet_x0_25", backbone=None, cache=tmp_path / "c"),
            f"{kept} is damaged",
            f"delete it and {file.name}.sha256",
        )
        kept.unlink()  # fetched anew, its sum is the new file's
        (tmp_path / "c" / f"{file.name}.sha256").write_text("0" * 64)
        assert weights.load("osnet_x0_25", backbone=None, cache=tmp_path / "c")[1].name == "osnet_x0_25"

    def test_a_file_put_there_by_hand_is_noted_too(self, server, tmp_path):
        file, _ = server
        cache = tmp_path / "c"
        cache.mkdir()
        file.rename(cache / file.name)
        _, info = weights.load("osnet_x0_25", backbone=None, cache=cache)
        assert (cache / f"{file.name}.sha256").read_text().split()[0] == info.sha256

    @pytest.mark.parametrize("content", [b"<!doctype html> log in first", b""])
    def test_what_is_no_torch_file_never_reaches_the_cache(self, server, tmp_path, content):
        server[0].write_bytes(content)
        refused(
            lambda: weights.load("osnet_x0_25", backbone=None, cache=tmp_path / "c"),
            f"{len(content)} bytes came that are no torch file",
            "--weights PATH",
            "--weights none",
            f"put {server[0].name} into",
        )
        assert os.listdir(tmp_path / "c") == []

    def test_a_connection_that_breaks_leaves_nothing(self, tmp_path, monkeypatch):
        class Answer:
            headers = {"Content-Length": "900"}  # noqa: RUF012
            blocks = [b"PK\x03\x04 begins well", b""]  # noqa: RUF012

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def read(self, n):
                return self.blocks.pop(0)

        monkeypatch.setattr(published.urllib.request, "urlopen", lambda *_, **__: Answer())
        refused(lambda: weights.load("osnet_x0_25", backbone=None, cache=tmp_path), "16 of 900 bytes came")
        assert os.listdir(tmp_path) == []

    def test_another_backbone_is_refused_before_anything_is_fetched(self, tmp_path):
        refused(
            lambda: weights.load("osnet_x0_25", backbone="resnet50", cache=tmp_path),
            "weights osnet_x0_25 are of osnet_x0_25, not resnet50",
        )

    def test_a_file_of_another_width_is_refused(self, server, tmp_path):
        network = backbones.build(backbones.Config(backbone="osnet_x0_5"), seed=0)
        torch.save(network.state_dict(), server[0])
        refused(
            lambda: weights.load("osnet_x0_25", backbone=None, cache=tmp_path / "c"),
            "are of osnet_x0_5, not osnet_x0_25",
        )

    def test_addresses_name_a_revision(self):
        for name, file in published.NAMED.items():
            assert name in backbones.NAMES
            assert file.url.startswith("https://huggingface.co/kaiyangzhou/osnet/resolve/a5c5cc037c24235c")
            assert file.name.startswith(f"{name}_msmt17_combineall_256x128_")
