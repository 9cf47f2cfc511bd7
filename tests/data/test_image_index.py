"""Images by address: each is the one that was indexed, or an error says which one is not, and what to do."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cxr.data.image_cache import ImageCache
from cxr.data.image_folder import ImageFolder
from cxr.data.image_index import ImageIndex, read_index
from cxr.data.image_opening import open_raw_images
from cxr.errors import DataError, ImageError, ParameterError, SourceError
from cxr.files import IMAGE_INDEX_FILE
from cxr.inference.scoring.sources import open_folder
from cxr.steps.fetch import Fetch
from cxr.tables import write_table
from support.bad_images import draw_image, jpeg, png
from support.dvc_remotes import push, upload
from support.s3_server import BROKEN, DAMAGED, S3Server

NAME = "NORMAL/0.jpeg"


@pytest.fixture
def store(s3_store: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_store.url)
    monkeypatch.chdir(tmp_path)
    return s3_store


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images, two of them equal, a file that is no image, and a table of patients; read only."""
    root = tmp_path_factory.mktemp("originals")
    for label in ("NORMAL", "PNEUMONIA"):
        (root / label).mkdir()
        for number in range(3):
            (root / label / f"{number}.jpeg").write_bytes(jpeg(draw_image(len(label) + number, 70, 80)))
    (root / "NORMAL" / "twin.jpeg").write_bytes((root / NAME).read_bytes())
    (root / "PNEUMONIA" / "scan").write_bytes(png(draw_image(30, 70, 80)))
    (root / "PNEUMONIA" / "notes").write_text("no image")
    (root / "patients.csv").write_text("path,patient\n")
    return root


def fetch(source: object, **values: object) -> Path:
    """Index a source; gives the data folder."""
    Fetch.build({"source": str(source), "index": True, **values}).execute()
    return Path("data")


def fetch_prefix(store: S3Server, originals: Path) -> Path:
    for path in originals.rglob("*"):
        if path.is_file():
            store.put(f"set/{path.relative_to(originals).as_posix()}", path.read_bytes())
    return fetch(f"s3://{store.bucket}/set")


def fetch_version(store: S3Server, originals: Path) -> Path:
    root = Path("pushed")
    shutil.copytree(originals, root / "data")
    version, remote = push(root)
    return fetch(upload(remote, store, "remote"), data_version=version)


def fetch_folder_version(store: S3Server, originals: Path) -> Path:
    root = Path("pushed")
    shutil.copytree(originals, root / "data")
    version, remote = push(root)
    return fetch(remote, data_version=version)


def fetch_archive(store: S3Server, originals: Path) -> Path:
    shutil.make_archive("set", "tar", originals)
    return fetch("set.tar", image_store=f"s3://{store.bucket}/store")


@pytest.mark.parametrize(
    "index", [fetch_prefix, fetch_version, fetch_folder_version, fetch_archive, lambda _, folder: fetch(folder)]
)
def test_names_and_contents_are_those_of_the_copied_folder(
    store: S3Server, originals: Path, index: Callable[[S3Server, Path], Path]
) -> None:
    Fetch.build({"source": str(originals), "data": "copied", "downloads": "other"}).execute()
    copied = ImageFolder(Path("copied"))
    images = open_raw_images(index(store, originals))
    names = [name for name in images.names() if not name.endswith("notes")]
    assert names == copied.names()
    for name in names:
        content = copied.read(name)
        assert images.read(name) == content
        assert images.size_and_sha256(name) == copied.size_and_sha256(name)
        assert images.known_sha256(name) == hashlib.sha256(content).hexdigest()
    assert (images.folder / "patients.csv").read_bytes() == (originals / "patients.csv").read_bytes()


def test_an_index_is_scored_like_the_images(store: S3Server, originals: Path) -> None:
    source = open_folder(fetch(originals))
    names = [name for name in ImageFolder(originals).names() if not name.endswith("notes")]
    assert [file.path for file in source.files] == names
    assert [source.read(file) for file in source.files] == [(originals / name).read_bytes() for name in names]
    assert source.files[0].identity == hashlib.sha256((originals / names[0]).read_bytes()).hexdigest()


def test_equal_images_are_uploaded_once_and_a_second_fetch_uploads_nothing(store: S3Server, originals: Path) -> None:
    fetch_archive(store, originals)
    keys = {item["Key"]: item["LastModified"] for item in store.client.list_objects_v2(Bucket=store.bucket)["Contents"]}
    assert len(keys) == len(read_index(Path("data"))) - 1
    fetch_archive(store, originals)
    fetch("set.tar", image_store=f"s3://{store.bucket}/store", refresh=True)
    again = {
        item["Key"]: item["LastModified"] for item in store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
    }
    assert again == keys


def test_the_same_request_indexes_nothing_again(store: S3Server, originals: Path) -> None:
    fetch_prefix(store, originals)
    store.ranges.clear()
    fetch(f"s3://{store.bucket}/set")
    assert not store.ranges
    Fetch.build({"source": f"s3://{store.bucket}/set"}).execute()
    assert not (Path("data") / IMAGE_INDEX_FILE).exists() and (Path("data") / NAME).is_file()


@pytest.mark.parametrize("source", ["phantom", "kaggle"])
def test_a_source_that_keeps_no_images_needs_a_store(source: str) -> None:
    with pytest.raises(ParameterError, match=r"or image_store, received source=.* with index=True"):
        Fetch.build({"source": source, "index": True})


def test_an_archive_needs_a_store(store: S3Server, originals: Path) -> None:
    shutil.make_archive("set", "tar", originals)
    with pytest.raises(SourceError, match=r"an archive; name a place for the images as fetch\.image_store"):
        fetch("set.tar")
    assert not Path("data").exists()


def test_a_changed_image_is_named_with_its_address(store: S3Server, originals: Path) -> None:
    images = ImageIndex(fetch_prefix(store, originals))
    store.put(f"set/{NAME}", b"x" * len((originals / NAME).read_bytes()))
    address = rf"s3://{store.bucket}/set/{NAME}"
    with pytest.raises(SourceError, match=rf"expected {NAME} at {address} .*received sha256=.*--refresh true"):
        images.read(NAME)
    store.put(f"set/{NAME}", b"shorter")
    with pytest.raises(SourceError, match=rf"expected {NAME} at {address} .*received"):
        images.read(NAME)


def test_a_missing_image_is_named_and_refresh_leaves_it_out(store: S3Server, originals: Path) -> None:
    images = ImageIndex(fetch_prefix(store, originals))
    store.client.delete_object(Bucket=store.bucket, Key=f"set/{NAME}")
    with pytest.raises(SourceError, match=rf"expected {NAME} at s3://.*received gone.*--refresh true"):
        images.read(NAME)
    assert NAME not in ImageIndex(fetch(f"s3://{store.bucket}/set", refresh=True))


def test_a_missing_file_on_a_disk_is_named(store: S3Server, originals: Path) -> None:
    shutil.copytree(originals, "own")
    images = ImageIndex(fetch("own"))
    (Path("own") / NAME).unlink()
    with pytest.raises(SourceError, match=rf"expected {NAME} at file:///.*No such file"):
        images.read(NAME)


def test_broken_and_damaged_transfers_are_tried_again(store: S3Server, originals: Path) -> None:
    images = ImageIndex(fetch_prefix(store, originals))
    store.disturbances[f"set/{NAME}"] = [BROKEN, DAMAGED]
    assert images.read(NAME) == (originals / NAME).read_bytes()


def test_credentials_that_are_missing_are_named(
    store: S3Server, originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageIndex(fetch_prefix(store, originals))
    store.public = False
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(SourceError, match="which is not public, received none; set AWS_ACCESS_KEY_ID"):
        images.read(NAME)


def test_an_image_larger_than_allowed_is_not_loaded(store: S3Server, originals: Path) -> None:
    images = ImageIndex(fetch_prefix(store, originals))
    store.ranges.clear()
    with pytest.raises(ImageError, match="expected at most 10 bytes"):
        images.read(NAME, max_bytes=10)
    with pytest.raises(ImageError, match="expected an image of images"):
        images.read("NORMAL/none.jpeg")
    assert not store.ranges


def test_a_store_that_refuses_uploads_leaves_no_index(store: S3Server, originals: Path) -> None:
    shutil.make_archive("set", "tar", originals)
    store.answers_left = 3
    with pytest.raises(SourceError, match=r"expected permission to write, .*s3:PutObject"):
        fetch("set.tar", image_store=f"s3://{store.bucket}/store")
    assert not Path("data").exists() and not list(Path().glob(".data*"))


def test_a_version_with_a_damaged_file_is_not_indexed(store: S3Server, originals: Path) -> None:
    root = Path("pushed")
    shutil.copytree(originals, root / "data")
    version, remote = push(root)
    md5 = hashlib.md5((originals / NAME).read_bytes()).hexdigest()
    stored = remote / "files" / "md5" / md5[:2] / md5[2:]
    stored.chmod(0o644)
    stored.write_bytes(b"damaged")
    with pytest.raises(SourceError, match=rf"expected the content of 'NORMAL/.*' as its md5={md5} says"):
        fetch(remote, data_version=version)
    stored.unlink()
    with pytest.raises(SourceError, match=f"without 2 of them .md5 '{md5}'"):
        fetch(remote, data_version=version)
    assert not Path("data").exists()


def wrong(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{column: [value, *table[column].tolist()[1:]]})

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (wrong("sha256", None), "1 with no sha256"),
        (wrong("sha256", "abc"), "1 with no sha256"),
        (wrong("path", "../x.jpeg"), "1 with a path outside of the data folder .'../x.jpeg'"),
        (wrong("path", "/x.jpeg"), "1 with a path outside of the data folder"),
        (wrong("bytes", -1), "1 with no size"),
        (wrong("address", "ftp://host/x"), "1 with an address other than s3://bucket/key and file:///path"),
        (lambda table: table.iloc[::-1], "paths that are repeated or not sorted"),
        (lambda table: table.drop(columns="md5"), "without the columns .'md5'.; move data away"),
    ],
)
def test_wrong_rows_of_an_index_are_listed(
    store: S3Server, originals: Path, change: Callable[[pd.DataFrame], pd.DataFrame], expected: str
) -> None:
    data = fetch(originals)
    write_table(data / IMAGE_INDEX_FILE, change(read_index(data)))
    with pytest.raises(DataError, match=expected):
        open_raw_images(data)


def test_copies_are_found_by_the_next_run_and_a_damaged_one_is_requested_again(
    store: S3Server, originals: Path
) -> None:
    data = fetch_prefix(store, originals)
    contents = {name: ImageFolder(originals).read(name) for name in ImageIndex(data).names()}
    requests = []
    for _ in range(3):
        store.ranges.clear()
        with ImageIndex(data, ImageCache(Path("copies"), 10**6)) as images:
            assert {name: images.read(name) for name in contents} == contents
        requests.append(sum(map(len, store.ranges.values())))
        (pack, *_) = sorted(Path("copies").rglob("*.pack"))
        if len(requests) == 2:
            pack.write_bytes(b"\0" + pack.read_bytes()[1:])
    assert requests == [len(contents) - 1, 0, 1]


def test_the_copies_of_a_run_keep_their_limit(store: S3Server, originals: Path) -> None:
    data = fetch_prefix(store, originals)
    limit = 3 * len((originals / NAME).read_bytes())
    with ImageIndex(data, ImageCache(Path("copies"), limit)) as images:
        for name in images.names():
            images.read(name)
    size = sum(path.stat().st_size for path in Path("copies").rglob("*.pack"))
    assert limit / 3 < size <= limit
