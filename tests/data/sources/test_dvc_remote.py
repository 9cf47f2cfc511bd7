"""A version of the data from a DVC remote: exactly what was pushed, or nothing and an error that says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.data.dataset import DatasetCard
from cxr.data.dvc_hashes import folder_md5
from support.dvc_remotes import push
from support.servers import ObjectStore


def write_set(folder: Path, images: int) -> Path:
    for label in ("NORMAL", "PNEUMONIA"):
        (folder / label).mkdir(parents=True)
        for number in range(images):
            (folder / label / f"{number}.png").write_bytes(f"{label} {number}".encode() * 100)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two equal files, as fetch leaves it; read only."""
    data = write_set(tmp_path_factory.mktemp("original") / "data", 20)
    (data / "NORMAL" / "twin.png").write_bytes((data / "NORMAL" / "3.png").read_bytes())
    images = list(data.rglob("*.png"))
    size = sum(path.stat().st_size for path in images)
    DatasetCard("clinic", "patients", "clinic.tar", len(images), size, "CC0").write(data)
    return data


@pytest.fixture(scope="module")
def pushed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """md5 of the version, and its remote; copy before changing."""
    root = tmp_path_factory.mktemp("pushed")
    shutil.copytree(original, root / "data")
    return push(root)


@pytest.fixture
def remote(pushed: tuple[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(pushed[1], tmp_path / "remote")
    return tmp_path / "remote"


@pytest.fixture
def version(pushed: tuple[str, Path]) -> str:
    return pushed[0]


@pytest.fixture
def fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit status and messages of `cxr fetch`, in the test's own folder."""

    def fetch(source: object, version: str | None, **flags: str) -> tuple[int, str]:
        arguments = [
            "fetch",
            "--source",
            str(source),
            "--data",
            f"{tmp_path}/data",
            "--downloads",
            f"{tmp_path}/downloads",
        ]
        arguments += [] if version is None else ["--data_version", version]
        status = main([*arguments, *(part for name, value in flags.items() for part in (f"--{name}", value))])
        return status, capsys.readouterr().err

    return fetch


Fetch = Callable[..., tuple[int, str]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects(remote: Path) -> list[Path]:
    """Files of the remote, without the list of them."""
    return sorted(path for path in remote.rglob("*") if path.is_file() and path.suffix != ".dir")


def test_a_folder_remote_gives_the_version_file_by_file(
    fetch: Fetch, remote: Path, version: str, original: Path, tmp_path: Path
) -> None:
    status, _ = fetch(remote, version)
    assert status == 0
    assert contents(tmp_path / "data") == contents(original)
    assert folder_md5(tmp_path / "data") == version
    image = next((tmp_path / "data").rglob("*.png"))
    assert image.stat().st_nlink == 1 and image.stat().st_mode & 0o200, "no file is shared with DVC's cache"
    assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == ["fetch.json"]
    assert str(tmp_path) not in (tmp_path / "downloads" / "fetch.json").read_text()


def test_a_version_that_is_already_there_is_recognised_by_its_content(
    fetch: Fetch, remote: Path, version: str, tmp_path: Path
) -> None:
    fetch(remote, version)
    shutil.rmtree(remote)
    (tmp_path / "downloads" / "fetch.json").unlink()
    times_before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    assert fetch(remote, version)[0] == 0
    assert times_before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}


def test_a_changed_file_is_never_taken_for_the_version(
    fetch: Fetch, remote: Path, version: str, tmp_path: Path
) -> None:
    fetch(remote, version)
    image = next((tmp_path / "data").rglob("*.png"))
    original_bytes = image.read_bytes()
    image.write_bytes(original_bytes[:-3] + b"abc")
    assert fetch(remote, version)[0] == 0
    assert image.read_bytes() == original_bytes


def test_a_version_without_a_card_can_be_replaced_as_long_as_it_is_unchanged(fetch: Fetch, tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_set(own / "data", 1)
    version, remote = push(own)
    assert fetch(remote, version)[0] == 0
    (tmp_path / "data" / "NORMAL" / "mine.png").write_text("mine")
    status, stderr = fetch(own / "data", None)
    assert (status, "move it away" in stderr) == (1, True)
    (tmp_path / "data" / "NORMAL" / "mine.png").unlink()
    assert fetch(own / "data", None)[0] == 0
    assert (tmp_path / "data" / "dataset.json").exists()


def test_a_version_that_the_remote_lacks_is_named(fetch: Fetch, remote: Path, tmp_path: Path) -> None:
    status, stderr = fetch(remote, f"{'0' * 32}.dir")
    assert status == 1
    assert f"holds data_version={'0' * 32}.dir" in stderr and "dvc push" in stderr
    assert not (tmp_path / "data").exists()


def test_a_version_that_was_pushed_in_part_leaves_no_data(
    fetch: Fetch, remote: Path, version: str, tmp_path: Path
) -> None:
    lost_files = objects(remote)[:2]
    for path in lost_files:
        path.unlink()
    status, stderr = fetch(remote, version)
    assert (status, "without 2 of them" in stderr) == (1, True)
    assert lost_files[0].parent.name + lost_files[0].name in stderr
    assert not (tmp_path / "data").exists()


def test_files_that_came_whole_are_not_fetched_again(fetch: Fetch, remote: Path, version: str, tmp_path: Path) -> None:
    last = objects(remote)[-1]
    last_bytes = last.read_bytes()
    last.unlink()
    assert fetch(remote, version)[0] == 1
    for path in objects(remote):
        path.unlink()
    last.write_bytes(last_bytes)
    assert fetch(remote, version)[0] == 0
    assert folder_md5(tmp_path / "data") == version


@pytest.mark.parametrize("wrong", ["2b1b.dir", "2b1b1f2291e8f1b7ed88071b5752181d", "G" * 32 + ".dir"])
def test_a_wrong_md5_is_refused_before_anything_is_done(fetch: Fetch, wrong: str, tmp_path: Path) -> None:
    status, stderr = fetch(tmp_path, wrong)
    assert status == 2
    assert f"data_version='{wrong}'" in stderr


@pytest.mark.parametrize("source", ["phantom", "kaggle", "kaggle:owner/name"])
def test_only_a_remote_holds_versions(fetch: Fetch, source: str, version: str) -> None:
    status, stderr = fetch(source, version)
    assert (status, "expected source to be a DVC remote" in stderr) == (2, True)


def test_a_folder_that_is_not_there_is_named(fetch: Fetch, version: str) -> None:
    status, stderr = fetch("nowhere", version)
    assert (status, "source=nowhere (no such folder)" in stderr) == (1, True)


def test_a_store_that_does_not_answer_is_an_error_within_seconds(
    fetch: Fetch, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    status, stderr = fetch("s3://bucket/dvc", version, endpoint_url="http://127.0.0.1:9")
    assert (status, "could not reach the object store" in stderr) == (1, True)


@pytest.fixture
def store(bucket: str, object_store: ObjectStore, remote: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the remote inside the bucket; its address is ``s3://BUCKET/dvc``."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)  # the secret of a cluster holds keys and address alone
    return Path(shutil.copytree(remote, object_store.folder / bucket / "dvc"))


@pytest.mark.integration
def test_a_store_gives_the_version_file_by_file(
    fetch: Fetch, store: Path, bucket: str, version: str, original: Path, tmp_path: Path
) -> None:
    status, stderr = fetch(f"s3://{bucket}/dvc/", version)
    assert status == 0, stderr
    assert contents(tmp_path / "data") == contents(original)
    request = json.loads((tmp_path / "downloads" / "fetch.json").read_text())["request"]
    assert request == {"source": f"s3://{bucket}/dvc", "data_version": version}


@pytest.mark.integration
def test_a_damaged_object_leaves_no_data_and_is_fetched_again(
    fetch: Fetch, store: Path, bucket: str, version: str, tmp_path: Path
) -> None:
    damaged = objects(store)[0]
    damaged_bytes = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * len(damaged_bytes))
    status, stderr = fetch(f"s3://{bucket}/dvc", version)
    assert (status, "failed for 1 of them" in stderr) == (1, True), stderr
    assert not (tmp_path / "data").exists()
    damaged.write_bytes(damaged_bytes)
    assert fetch(f"s3://{bucket}/dvc", version)[0] == 0


@pytest.mark.integration
@pytest.mark.parametrize("key", ["wrong", None])
def test_wrong_and_missing_keys_are_reported(
    fetch: Fetch, store: Path, bucket: str, version: str, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    else:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    status, stderr = fetch(f"s3://{bucket}/dvc", version)
    assert (status, "expected credentials" in stderr) == (1, True), stderr
