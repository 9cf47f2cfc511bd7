"""Indexes the images of a source: where each can be read, and its digests, after one pass over all bytes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tqdm import tqdm

from cxr.data.dataset import SIDE_FILES
from cxr.data.fetching.request import FetchRequest
from cxr.data.image_index import INDEX_DTYPES, S3, write_index
from cxr.data.manifest.listing import list_image_files
from cxr.errors import SourceError
from cxr.images.parallel import map_in_order
from cxr.storage.bucket import Bucket, split_address
from cxr.storage.connection import MAX_CONNECTIONS
from cxr.storage.contents import FolderContents, SourceContents, SourceFile, each_once
from cxr.tables import tables_of_rows

if TYPE_CHECKING:
    import pandas as pd


class ImageStore:
    """A prefix of an object store to which images are uploaded by their content: equal images are stored once."""

    def __init__(self, url: str, *, endpoint_url: str | None) -> None:
        """Create the client; nothing is requested yet.

        Args:
            url: ``s3://bucket`` or ``s3://bucket/prefix``.
            endpoint_url: address of the store; None for ``AWS_ENDPOINT_URL`` or Amazon's.

        Raises:
            SourceError: if the address is wrong.
        """
        name = url.rstrip("/")
        self._bucket_name, self._prefix = split_address(name)
        self._bucket = Bucket(self._bucket_name, name=name, endpoint_url=endpoint_url)

    def put(self, sha256: str, content: bytes) -> str:
        """Upload an image unless it is there.

        Args:
            sha256: digest of its content.
            content: its content.

        Returns:
            Its address.
        """
        key = "/".join(filter(None, (self._prefix, "sha256", sha256[:2], sha256[2:])))
        self._bucket.upload(key, content)
        return f"s3://{self._bucket_name}/{key}"


def index_images(
    contents: SourceContents,
    images: Mapping[PurePosixPath, PurePosixPath],
    folder: Path,
    request: FetchRequest,
) -> None:
    """Read each image once, upload it if the request names a store, and write the index.

    Args:
        contents: files of the source.
        images: path in the source to path in the data folder.
        folder: the data folder.
        request: what to fetch; without a store, the images are indexed where they are.

    Raises:
        SourceError: if an image cannot be read without the source and there is no store, if the source changes
            meanwhile, or if a place cannot be reached.
    """
    store = None
    if request.image_store is not None:
        store = ImageStore(request.image_store, endpoint_url=request.endpoint_url)
    if store is None and images and contents.address(next(iter(images))) is None:
        raise SourceError(
            f"expected images that can be read where they are, received source={contents.name}, an archive; name a "
            "place for the images as fetch.image_store (s3://bucket/prefix), or set fetch.index to false"
        )

    def row(file: SourceFile, content: bytes) -> dict[str, object]:
        sha256 = hashlib.sha256(content).hexdigest()
        address = str(contents.address(file.path)) if store is None else store.put(sha256, content)
        return {
            "path": str(images[file.path]),
            "sha256": sha256,
            "bytes": len(content),
            "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "address": address,
            "endpoint_url": request.endpoint_url if address.startswith(f"{S3}:") else None,
        }

    files = each_once(contents.read_whole(images), images, contents.name)
    rows = map_in_order(row, files, MAX_CONNECTIONS, max_pending=MAX_CONNECTIONS)
    bar = tqdm(rows, f"index {contents.name}", len(images), unit=" files", disable=None)
    write_index(folder, _as_table(bar))


def index_folder(source: Path, folder: Path, request: FetchRequest) -> None:
    """Upload the images of a folder and index them, and copy its side files.

    Args:
        source: a data folder with images.
        folder: the data folder to fill.
        request: what to fetch; it names the store for the images.

    Raises:
        SourceError: if the store cannot be reached, or refuses.
    """
    names = [PurePosixPath(name) for name in list_image_files(source)]
    index_images(FolderContents(source), {name: name for name in names}, folder, request)
    for name in SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _as_table(rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd

    empty = pd.DataFrame(columns=list(INDEX_DTYPES)).astype(INDEX_DTYPES)
    return pd.concat([empty, *tables_of_rows(rows, INDEX_DTYPES)], ignore_index=True)
