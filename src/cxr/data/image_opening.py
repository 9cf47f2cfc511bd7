"""Opens the raw images of a data folder, which lie in it or at the addresses of its index."""

from __future__ import annotations

from pathlib import Path

from cxr.data.image_cache import NO_IMAGE_CACHE, ImageCache
from cxr.data.image_folder import ImageFolder
from cxr.data.image_index import ImageIndex, has_index
from cxr.images.raw_images import RawImages


def open_raw_images(data: Path, cache: ImageCache = NO_IMAGE_CACHE) -> RawImages:
    """Open the raw images of a data folder; no image is read yet.

    Args:
        data: the data folder, which need not exist.
        cache: keeps copies of images that are read by address.

    Returns:
        The images.

    Raises:
        DataError: if the folder has an index that is damaged or wrong.
    """
    return ImageIndex(data, cache) if has_index(data) else ImageFolder(data)
