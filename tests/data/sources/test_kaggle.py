"""Kaggle through kagglehub: without a network, and with a server on this machine in its place."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest

from cxr.cli.main import main
from cxr.data.dataset import CLASSES
from cxr.data.fetching import kermany
from cxr.data.image_index import read_index
from cxr.data.sources import kaggle
from cxr.errors import SourceError
from cxr.steps.preprocess import Preprocess
from cxr.steps.validate import Validate
from support.fetch_requests import fetch_images
from support.s3_server import S3Server

TEST_PORT = 7777
"""Where kagglehub looks for Kaggle in its own test environment."""


class Kaggle(BaseHTTPRequestHandler):
    status = 200
    body = b""

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("GetDataset"):
            self._send(self.status, json.dumps({"currentVersionNumber": 2}).encode(), "application/json")
        else:
            self._send(200, self.body)

    def _send(self, status: int, body: bytes, kind: str = "application/zip") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def call_stack_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """kagglehub looks for names of other packages in the source of each frame, which takes it half a second."""
    monkeypatch.setattr("kagglehub.clients.search_lib_in_call_stack", lambda name: None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Kaggle]]:
    try:
        listening = ThreadingHTTPServer(("localhost", TEST_PORT), Kaggle)
    except OSError:
        pytest.skip(f"port {TEST_PORT} is taken")
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setattr(Kaggle, "status", 200)
    thread = Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield Kaggle
    listening.shutdown()
    listening.server_close()
    thread.join()


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return stream.getvalue()


def test_a_data_set_is_downloaded_into_the_given_cache(
    server: type[Kaggle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "body", zipped(a=b"image"))
    folder = kaggle.download("someone/xrays", tmp_path)
    assert (folder / "a").read_bytes() == b"image"
    assert folder.is_relative_to(tmp_path)


def test_a_version_in_the_cache_needs_no_network(
    server: type[Kaggle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "body", zipped(a=b"image"))
    folder = kaggle.download("someone/xrays", tmp_path)
    without_network(monkeypatch)
    assert kaggle.download("someone/xrays/versions/2", tmp_path) == folder


def test_the_published_set_from_kaggle_must_have_its_size_in_bytes(
    server: type[Kaggle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        f"chest_xray/{split}/{label}/{number}.jpeg"
        for (split, label), count in kermany.COUNTS.items()
        for number in range(count)
    ]
    monkeypatch.setattr(server, "body", zipped(**dict.fromkeys(names, b"x")))
    with pytest.raises(SourceError, match=r"bytes +1,236,482,806 +5,856") as caught:
        fetch_images("kaggle", tmp_path, downloads=tmp_path)
    assert f"delete {tmp_path / 'kaggle'} and fetch again" in str(caught.value)


def test_an_index_of_a_data_set_leads_to_what_its_folder_leads_to(
    server: type[Kaggle], s3_store: S3Server, phantom_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are uploaded, and every step reads them there: what was downloaded is not needed any more."""
    images = sorted(phantom_folder.rglob("*.jpeg"))[::4]
    files = {f"xrays/{path.relative_to(phantom_folder).as_posix()}": path.read_bytes() for path in images}
    monkeypatch.setattr(server, "body", zipped(**files))
    monkeypatch.chdir(tmp_path)
    store = ("--index", "true", "--image_store", f"s3://{s3_store.bucket}/images", "--endpoint_url", s3_store.url)
    for place, words in (("folder", ()), ("address", store)):
        fetched = ("--data", f"{place}/data", "--downloads", f"{place}/downloads")
        assert main(["fetch", "--source", "kaggle:someone/xrays", *fetched, *words]) == 0
    assert not list(Path("address/data").rglob("*.jpeg"))
    shutil.rmtree("address/downloads/kaggle")
    assert Path("address/data/dataset.json").read_bytes() == Path("folder/data/dataset.json").read_bytes()
    for place in ("folder", "address"):
        values = {"data": f"{place}/data", "manifest": f"{place}/manifest", "cache": f"{place}/cache"}
        working = {name: f"{place}/{name}" for name in ("report", "baseline", "rejected", "image_cache")}
        Validate.build({**values, **working, "tracking_uri": ""}).execute()
        Preprocess.build(
            {**values, "image_cache": f"{place}/image_cache", "recipe": "s2_resize", "prepared": f"{place}/prepared"}
        ).execute()
    assert {len(ranges) for ranges in s3_store.ranges.values()} == {1}
    for name in ("manifest/manifest.parquet", "prepared/images.npy", "prepared/index.parquet"):
        assert (Path("address") / name).read_bytes() == (Path("folder") / name).read_bytes()


def test_a_data_set_in_the_cache_is_indexed_without_a_network_and_uploaded_once(
    server: type[Kaggle], s3_store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {f"{label}/{number}.png": f"{label} {number}".encode() for label in CLASSES for number in range(3)}
    monkeypatch.setattr(server, "body", zipped(**images))
    monkeypatch.chdir(tmp_path)
    words = ["--index", "true", "--image_store", f"s3://{s3_store.bucket}/images", "--endpoint_url", s3_store.url]
    assert main(["fetch", "--source", "kaggle:someone/xrays", "--data", "first", *words]) == 0
    uploaded = s3_store.client.list_objects_v2(Bucket=s3_store.bucket)["Contents"]
    without_network(monkeypatch)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert main(["fetch", "--source", "kaggle:someone/xrays/versions/2", "--data", "second", *words]) == 0
    pd.testing.assert_frame_equal(read_index(Path("second")), read_index(Path("first")))
    assert len(uploaded) == len(images)
    assert s3_store.client.list_objects_v2(Bucket=s3_store.bucket)["Contents"] == uploaded


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_no_missing_network(
    server: type[Kaggle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(server, "status", status)
    with pytest.raises(SourceError, match="check the handle") as caught:
        kaggle.download("someone/xrays", tmp_path)
    assert "no network" not in str(caught.value)


def test_a_damaged_download_is_an_error(server: type[Kaggle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "body", zipped(a=b"image" * 1000)[:-40])
    with pytest.raises(SourceError, match="damaged file"):
        kaggle.download("someone/xrays", tmp_path)


@pytest.mark.parametrize("handle", ["someone/xrays", "someone/xrays/versions/1"])
def test_without_a_network_the_error_says_so_and_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handle: str
) -> None:
    without_network(monkeypatch)
    with pytest.raises(SourceError, match=r"no network: could not reach Kaggle .* or phantom"):
        kaggle.download(handle, tmp_path)


@pytest.mark.parametrize("handle", ["", "xrays", "a/b/c", "../..", "a/b?c"])
def test_wrong_handles_are_refused(tmp_path: Path, handle: str) -> None:
    with pytest.raises(SourceError, match="kaggle:owner/name"):
        kaggle.download(handle, tmp_path)


def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead every request to a port of this machine where nothing listens."""
    monkeypatch.delenv("KAGGLE_API_ENVIRONMENT", raising=False)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
